"""Conversations and where they stay."""

from __future__ import annotations

import tracemalloc
from typing import Any

import orjson
import pytest

from llm_router.accounting.pricing import ModelInfo, Prices
from llm_router.config.values import Category, Provider
from llm_router.routing.decision import Decision
from llm_router.routing.plan import Candidate, Plan
from llm_router.routing.sticky import (
    CLEARLY,
    CONVERSATIONS_MOST,
    IDLE_SECONDS,
    Conversations,
    Stay,
    begins,
    key_of,
    stay_in_category,
    stay_on_model,
)
from llm_router.wire.chat import ChatRequest, parse_chat


def chat(*messages: tuple[str, Any], **fields: Any) -> ChatRequest:
    """A request with (role, content) messages."""
    listed = [{"role": role, "content": content} for role, content in messages]
    return parse_chat(orjson.dumps({"model": "router", "messages": listed, **fields}))


FIRST = chat(("system", "It is 10:01"), ("user", "hello"))
LATER = chat(("system", "It is 10:05"), ("user", "hello"), ("assistant", "hi"), ("user", "more"))


def test_later_turns_have_the_key_of_the_first() -> None:
    """The first words name a conversation, though system prompts change and turns are added."""
    assert key_of(FIRST, "me", "") == key_of(LATER, "me", "")
    assert begins(FIRST)
    assert not begins(LATER)


def parts(text: str, image: str) -> list[Any]:
    return [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a" * 9000, "b" + "a" * 8999),
        ("a" * 3000, "a" * 2999 + "b"),
        ("a" * 3000, "a" * 3001),
        (parts("a", "A"), parts("b", "A")),
        (parts("a", "A" * 9000), parts("a", "A" * 7000 + "B" * 2000)),
        (parts("a", "A"), [*parts("a", "A"), {"type": "text", "text": "more"}]),
    ],
)
def test_other_beginnings_are_other_conversations(one: Any, other: Any) -> None:
    """Long texts and images are told apart by their ends."""
    assert key_of(chat(("user", one)), "me", "") == key_of(chat(("user", one), ("assistant", "x")), "me", "")
    assert key_of(chat(("user", one)), "me", "") != key_of(chat(("user", other)), "me", "")


def test_deep_beginnings_are_no_trouble() -> None:
    """Any JSON may stand in a message."""
    deep = orjson.loads(b"[" * 200 + b"]" * 200)
    assert key_of(chat(("user", deep)), "me", "") is not None


@pytest.mark.parametrize("place", ["name", "beginning"])
def test_what_is_long_is_not_remembered(place: str) -> None:
    """A client can make what its conversation goes by as long as a body, and another one each time."""
    tracemalloc.start()
    try:
        for number in range(50):
            long = f"{number}" + "x" * 200_000
            content = "hi" if place == "name" else [{f"{number} {key}": "x" * 2000} for key in range(100)]
            assert key_of(chat(("user", content), prompt_cache_key=long if place == "name" else ""), "me", "")
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_clients_are_kept_apart() -> None:
    """Another client's equal words are another conversation."""
    assert key_of(FIRST, "me", "") != key_of(FIRST, "you", "")


@pytest.mark.parametrize(
    "fields",
    [{"prompt_cache_key": "k"}, {"metadata": {"session_id": "k"}}, {"metadata": {"thread_id": "k"}}],
)
def test_names_come_before_beginnings(fields: dict[str, Any]) -> None:
    """A named conversation is the same whatever its words."""
    assert key_of(chat(("user", "a"), **fields), "me", "") == key_of(chat(("user", "b"), **fields), "me", "")


def test_the_header_comes_first_and_user_never() -> None:
    """`x-session-id` wins; a person's name is no conversation's."""
    assert key_of(chat(("user", "a"), prompt_cache_key="k"), "me", "s") == key_of(chat(("user", "b")), "me", "s")
    assert key_of(chat(("user", "a"), user="ann"), "me", "") != key_of(chat(("user", "b"), user="ann"), "me", "")


def test_odd_names_are_no_names() -> None:
    """Fields of other types are passed over; surrogates do not break the key."""
    odd = chat(("user", "a"), metadata=[1], prompt_cache_key=5)
    assert key_of(odd, "me", "") == key_of(chat(("user", "a")), "me", "")
    assert key_of(chat(("system", "only")), "me", "") is None
    raw = b'{"model":"router","messages":[{"role":"user","content":"\\ud83d"}]}'
    assert key_of(parse_chat(raw), "me", "") is not None


def test_a_stay_ends_after_five_idle_minutes() -> None:
    """Idle time counts from the last use."""
    conversations = Conversations()
    conversations.served(b"k", "p/m", "code", 0.0)
    assert conversations.find(b"k", IDLE_SECONDS) is not None
    assert conversations.find(b"k", IDLE_SECONDS + 1) is None
    assert conversations.find(None, 0.0) is None


def test_memory_is_bounded() -> None:
    """The oldest conversations go first."""
    conversations = Conversations()
    for number in range(CONVERSATIONS_MOST + 10):
        conversations.served(b"%d" % number, "p/m", "code", 0.0)
    assert conversations.find(b"5", 0.0) is None
    assert conversations.find(b"%d" % (CONVERSATIONS_MOST + 9), 0.0) is not None
    conversations.left(b"unknown")


def test_the_conversation_that_goes_on_is_kept() -> None:
    """What counts is when a conversation was served last, not when it began."""
    conversations = Conversations()
    conversations.served(b"old", "p/m", "code", 0.0)
    for number in range(CONVERSATIONS_MOST - 1):
        conversations.served(b"%d" % number, "p/m", "code", 0.0)
    conversations.served(b"old", "p/m", "code", 0.0)
    conversations.served(b"new", "p/m", "code", 0.0)
    assert conversations.find(b"old", 0.0) is not None
    assert conversations.find(b"0", 0.0) is None


CATEGORIES = {name: Category(name, (f"p/{name}",)) for name in ("code", "conversation")}
IN_CODE = Stay("p/code", "code", 0.0)


@pytest.mark.parametrize(
    ("confidence", "decided", "stay", "category"),
    [
        (CLEARLY - 0.01, False, IN_CODE, "code"),
        (CLEARLY, False, IN_CODE, "conversation"),
        (0.0, True, IN_CODE, "conversation"),
        (0.0, False, Stay("p/gone", "gone", 0.0), "conversation"),
    ],
    ids=["vague", "clear", "decided", "deleted"],
)
def test_a_conversation_keeps_its_category(confidence: float, decided: bool, stay: Stay, category: str) -> None:
    """It does unless the new one is clear, or no guess, or its own was deleted; the chain goes with it."""
    new = Decision("conversation", "local", ("p/conversation",), decided=decided, confidence=confidence)
    found = stay_in_category(new, stay, CATEGORIES)
    assert (found.category, found.chain) == (category, (f"p/{category}",))
    assert found.mode == ("sticky" if category == "code" else "local")


def test_the_same_category_is_no_change() -> None:
    """What was found without looking at the past is shown as it was found."""
    again = Decision("code", "local", ("p/code",), decided=False, confidence=0.1)
    assert stay_in_category(again, IN_CODE, CATEGORIES) is again


def priced(*models: tuple[str, float | None]) -> Plan:
    """A plan of candidates, each at the price for any request."""
    provider = Provider("p", "http://p")
    infos = [ModelInfo(prices=Prices(input=price)) for _, price in models]
    made = [Candidate(f"p/{name}", provider, name, info, ()) for (name, _), info in zip(models, infos, strict=True)]
    return Plan(tuple(made), (), lambda info, tokens, output: info.prices.input if info is not None else None)


@pytest.mark.parametrize(
    ("models", "chain", "order"),
    [
        ([("a", 3), ("b", 2)], ["p/a", "p/b"], ["p/b", "p/a"]),
        ([("a", 2), ("b", 2)], ["p/a", "p/b"], ["p/b", "p/a"]),
        ([("a", 1), ("b", 2)], ["p/a", "p/b"], None),
        ([("a", 1), ("b", 2)], ["p/ill", "p/a", "p/b"], ["p/b", "p/a"]),
        ([("a", 1), ("b", None)], ["p/a", "p/b"], ["p/b", "p/a"]),
        ([("a", 1), ("c", 2)], ["p/a", "p/b", "p/c"], None),
        ([("b", 5), ("a", 1)], ["p/b", "p/a"], ["p/b", "p/a"]),
    ],
    ids=["dearer head", "equal head", "cheaper head", "cheaper second", "unknown price", "gone", "is the head"],
)
def test_a_conversation_leaves_its_model_for_a_cheaper_head_alone(
    models: list[tuple[str, float | None]], chain: list[str], order: list[str] | None
) -> None:
    """It stays on `p/b` unless that cannot be asked, or the chain's first model is known to cost less."""
    stayed = stay_on_model(priced(*models), Stay("p/b", "code", 0.0), tuple(chain), FIRST)
    assert (None if stayed is None else [candidate.model for candidate in stayed.candidates]) == order


@pytest.mark.parametrize("odd", [5, True, "", None, ["s"], {"id": "s"}])
def test_a_session_that_is_no_text_is_none(odd: Any) -> None:
    """Metadata is the client's own: whatever stands in it, the conversation goes by how it began."""
    for field in ("session_id", "conversation_id"):
        assert key_of(chat(("user", "hello"), metadata={field: odd}), "me", "") == key_of(FIRST, "me", "")
    assert key_of(chat(("user", "hello"), prompt_cache_key=odd), "me", "") == key_of(FIRST, "me", "")
    named = key_of(chat(("user", "hello"), metadata={"session_id": odd, "thread_id": "t"}), "me", "")
    assert named == key_of(chat(("user", "other"), metadata={"thread_id": "t"}), "me", "")


def test_a_conversation_that_left_is_planned_afresh() -> None:
    """After a failed or cut attempt nothing holds it; one that was never served leaves nothing behind."""
    conversations = Conversations()
    conversations.served(b"one", "p/m", "code", 0.0)
    conversations.served(b"other", "p/m", "code", 0.0)
    for key in (b"one", b"unknown"):
        conversations.left(key)
    assert conversations.find(b"one", 1.0) is None
    assert conversations.find(b"other", 1.0) == Stay("p/m", "code", 0.0)
