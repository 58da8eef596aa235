"""Gemini's compatibility endpoint: what is mended in its requests and its answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.accounting.pricing import ModelInfo
from llm_router.wire.providers.google_compat import GoogleCompatTranslator, compat_body, compat_messages
from llm_router.wire.providers.google_models import DUMMY_SIGNATURE
from tests.wire.providers.dialects import (
    ADAPTERS,
    TOOL,
    make_chat,
    make_target,
    sent,
    tool_turns,
)

FLASH_25, PRO_25, FLASH_3 = "gemini-2.5-flash", "gemini-2.5-pro", "gemini-3-flash-preview"


def test_compat_requests_lose_only_what_google_refuses() -> None:
    """Unknown fields are a 400 there; everything that it knows is kept."""
    chat = make_chat(
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": "Hello", "reasoning_content": "Hm", "refusal": None},
        "And?",
        tools=[{**TOOL, "cache_control": {"type": "ephemeral"}}],
        store=True, metadata={}, verbosity="low", safety_identifier="u", chat_template_kwargs={},
        max_completion_tokens=9, temperature=1, reasoning={"effort": "xhigh"}, seed=1,
    )  # fmt: skip
    made = compat_body(chat, FLASH_3)
    assert made["model"] == FLASH_3
    assert made["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]
    assert made["tools"] == [TOOL]
    assert made["max_tokens"] == 9
    assert made["reasoning_effort"] == "high"
    kept = {"model", "messages", "stream", "stream_options", "tools", "max_tokens", "reasoning_effort"}
    assert made.keys() == kept | {"temperature", "seed"}
    assert (made["temperature"], made["seed"]) == (1, 1)
    assert "temperature" not in compat_body(chat, FLASH_3, ModelInfo(sampling=False))


@pytest.mark.parametrize(
    ("model", "level"), [(FLASH_25, "none"), (PRO_25, "low"), (FLASH_3, "minimal"), ("gemini-2.0-flash", None)]
)
def test_compat_thinking_is_switched_off_where_it_can_be(model: str, level: str | None) -> None:
    """`none` is a 400 for models that always think."""
    assert compat_body(make_chat(reasoning_effort="none"), model).get("reasoning_effort") == level


def test_compat_requests_name_one_output_limit() -> None:
    """The newer word goes before the older one, unless it says nothing."""
    for newer, limit in ((9, 9), (None, 7)):
        made = sent("google_compat", make_chat(max_completion_tokens=newer, max_tokens=7))
        assert (made["max_tokens"], "max_completion_tokens" in made) == (limit, False)


def test_compat_requests_offer_functions_or_no_tools_at_all() -> None:
    """Tools that Google's endpoint does not know leave, and nothing that only means something beside tools stays."""
    choice = {"tool_choice": "auto", "parallel_tool_calls": False}
    assert sent("google_compat", make_chat(tools=[TOOL, {"type": "web_search"}], **choice)).keys() >= {"tools", *choice}
    bare = sent("google_compat", make_chat(tools=[{"type": "web_search"}], **choice))
    assert bare.keys().isdisjoint({"tools", *choice})


def test_compat_messages_get_signatures() -> None:
    """What the client carried, else the dummy on the first call of each step."""
    signed = compat_messages(tool_turns(), FLASH_3)[2]["tool_calls"]
    assert signed[0]["extra_content"] == {"google": {"thought_signature": DUMMY_SIGNATURE}}
    assert "extra_content" not in signed[1]
    assert "extra_content" not in compat_messages(tool_turns(), FLASH_25)[2]["tool_calls"][0]
    turns = tool_turns()
    turns[2]["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "c2ln"}}
    carried = compat_messages(turns, FLASH_25)[2]["tool_calls"]
    assert carried[0]["extra_content"]["google"]["thought_signature"] == "c2ln"


def _event(*calls: dict[str, Any]) -> bytes:
    chunk = {"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": list(calls)}}]}
    return b"data: " + orjson.dumps(chunk) + b"\r\n\r\n"


def _calls(data: bytes) -> list[tuple[Any, Any]]:
    found = []
    for line in data.splitlines():
        if line.startswith(b"data: {"):
            for call in orjson.loads(line[6:])["choices"][0]["delta"]["tool_calls"]:
                found.append((call.get("index"), call.get("id")))
    return found


def test_right_numbers_pass_byte_for_byte() -> None:
    """Only a chunk whose calls need another number is written anew; comments and spacing around it stay."""
    right = b": hi\r\n" + _event({"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}})
    more = _event({"index": 0, "function": {"arguments": "{}"}}) + b"data:  [DONE]\n\n"
    translator = GoogleCompatTranslator()
    assert translator.feed(right + more) == right + more
    wrong = _event({"index": 0, "id": "b", "function": {"name": "f", "arguments": "{}"}})
    assert _calls(translator.feed(wrong)) == [(1, "b")]


def test_fragments_without_index_belong_to_the_newest_call() -> None:
    """Google may split the arguments of a call over deltas without any index, or leave its id out."""
    translator = GoogleCompatTranslator()
    out = translator.feed(
        _event({"id": "a", "function": {"name": "f", "arguments": '{"x"'}})
        + _event({"function": {"arguments": ":1}"}})
        + _event({"id": "", "index": 0, "function": {"name": "g", "arguments": "{}"}})
        + _event({"index": 0, "function": {"arguments": ""}})
    )
    calls = _calls(out)
    assert [index for index, _ in calls] == [0, 0, 1, 1]
    assert calls[0][1] == "a"
    assert calls[2][1]


def test_right_fragments_of_calls_side_by_side_pass_byte_for_byte() -> None:
    """A fragment without an id belongs to the call that came with its number."""
    calls = [_event({"index": index, "id": id, "function": {"name": "f"}}) for index, id in enumerate("ab")]
    fragments = [_event({"index": index, "function": {"arguments": "{}"}}) for index in (0, 1, 0)]
    assert GoogleCompatTranslator().feed(b"".join(calls + fragments)) == b"".join(calls + fragments)


def test_an_answer_with_tool_calls_finishes_with_them() -> None:
    """Google may end a stream of tool calls with `stop`, which clients take for the end of the work."""

    def end(reason: str) -> bytes:
        return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}) + b"\n\n"

    translator = GoogleCompatTranslator()
    assert translator.feed(end("stop")) == end("stop")
    translator.feed(_event({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}))
    assert translator.feed(end("stop")) == end("tool_calls")
    assert translator.feed(end("length")) == end("length")


def test_tool_calls_of_a_whole_compatible_answer_are_mended_too() -> None:
    """Each call has an id, and an answer with calls does not finish with `stop`; any other passes as it came."""
    adapter, chat, target = ADAPTERS["google_compat"], make_chat(stream=False), make_target("google_compat")

    def answer(finish: str, **message: Any) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
        return orjson.dumps({"id": "x", "choices": [choice]}, option=orjson.OPT_INDENT_2)

    calls = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ("a", "", "")]
    (choice,) = orjson.loads(adapter.completion(chat, target, answer("stop", tool_calls=calls)).body)["choices"]
    assert len({call["id"] for call in choice["message"]["tool_calls"]} - {""}) == 3
    assert choice["finish_reason"] == "tool_calls"
    for whole in (answer("stop", content="Hi"), answer("length", tool_calls=calls[:1])):
        assert adapter.completion(chat, target, whole).body == whole


def test_half_an_event_at_the_end_is_dropped() -> None:
    """A client's parser would die of it; a whole one that lacks its blank line alone is passed on."""
    whole = GoogleCompatTranslator()
    assert whole.feed(b'data: {"id":"x"}\n') == b""
    assert whole.close() == b'data: {"id":"x"}\n\n'
    half = GoogleCompatTranslator()
    half.feed(b'data: {"id":')
    assert half.close() == b""


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=3), max_size=6))
def test_numbers_are_always_dense_and_one_to_an_id(steps: list[list[str]]) -> None:
    """Whatever ids and wrong numbers come, equal ids get equal numbers and different ones different numbers."""
    translator = GoogleCompatTranslator()
    stream = [_event(*({"index": 0, "id": id, "function": {"name": "f"}} for id in ids)) for ids in steps]
    calls = _calls(translator.feed(b"".join(stream)) + translator.close())
    by_id: dict[str, int] = {}
    for index, id in calls:
        assert by_id.setdefault(id, index) == index
    assert sorted(by_id.values()) == list(range(len(by_id)))
