"""Requests to OpenAI-shaped providers: the client's own, but for the documented changes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm_router.accounting.pricing import ModelInfo
from llm_router.config.values import Provider
from llm_router.wire.chat import parse_chat
from llm_router.wire.providers.base import Target
from llm_router.wire.providers.openai import OpenAIShaped

MESSAGES = [{"role": "user", "content": "hi"}]


def sent(kind: str, info: ModelInfo | None = None, model: str = "m", **fields: Any) -> dict[str, Any]:
    """The JSON that goes to a provider of `kind`."""
    chat = parse_chat(orjson.dumps({"model": "router", "messages": MESSAGES, **fields}))
    target = Target(Provider(kind, "http://h/v1"), model, "sk-key", info)
    body: dict[str, Any] = orjson.loads(OpenAIShaped(kind).call(chat, target).body)
    return body


@pytest.mark.parametrize("kind", ["openai", "openrouter", "custom", "anthropic", "ollama"])
def test_unknown_fields_travel_unchanged(kind: str) -> None:
    """What we do not know is not ours to drop."""
    assert sent(kind, x_new={"a": [1]}, temperature=0.3) == {
        "model": "m",
        "messages": MESSAGES,
        "x_new": {"a": [1]},
        "temperature": 0.3,
    }


def test_openrouter_fields_are_removed_for_openai_alone() -> None:
    """OpenAI answers 400 to fields of OpenRouter; OpenRouter gets them."""
    fields = {"provider": {"order": ["x"]}, "transforms": [], "top_k": 5}
    assert sent("openai", **fields).keys() == {"model", "messages"}
    assert sent("openrouter", **fields).keys() == {"model", "messages", *fields}


def test_max_tokens_is_renamed_where_openai_insists() -> None:
    """Reasoning models of OpenAI know only max_completion_tokens; other models keep what came."""
    reasoning = ModelInfo(reasoning=True)
    assert sent("openai", reasoning, max_tokens=5)["max_completion_tokens"] == 5
    assert "max_tokens" not in sent("openai", reasoning, max_tokens=5)
    assert sent("openai", reasoning, max_tokens=5, max_completion_tokens=7)["max_completion_tokens"] == 7
    assert sent("openai", ModelInfo(reasoning=False), max_tokens=5)["max_tokens"] == 5
    assert sent("openai", None, model="gpt-9-new", max_tokens=5)["max_completion_tokens"] == 5


@pytest.mark.parametrize("kind", ["google", "ollama", "anthropic", "custom"])
def test_others_get_the_older_words(kind: str) -> None:
    """developer becomes system and max_completion_tokens max_tokens for everybody but OpenAI and OpenRouter."""
    body = sent(kind, messages=[{"role": "developer", "content": "d"}, *MESSAGES], max_completion_tokens=9)
    assert body["messages"][0]["role"] == "system"
    assert body["max_tokens"] == 9
    assert "max_completion_tokens" not in body


@pytest.mark.parametrize("kind", ["openai", "openrouter"])
def test_openai_and_openrouter_keep_the_newer_words(kind: str) -> None:
    """Their own words stay."""
    body = sent(kind, messages=[{"role": "developer", "content": "d"}], max_completion_tokens=9)
    assert (body["messages"][0]["role"], body["max_completion_tokens"]) == ("developer", 9)


def test_a_chain_in_our_ids_does_not_travel() -> None:
    """`models` beside `router` was for us; beside an explicit OpenRouter model it is OpenRouter's."""
    assert "models" not in sent("openrouter", models=["openai/a", "ollama/b"])
    chat = parse_chat(orjson.dumps({"model": "openrouter/x/y", "messages": MESSAGES, "models": ["x/z"]}))
    target = Target(Provider("openrouter", "http://h/v1"), "x/y", "k", None)
    assert orjson.loads(OpenAIShaped("openrouter").call(chat, target).body)["models"] == ["x/z"]


def test_thinking_of_others_leaves_the_body_as_it_came() -> None:
    """A provider's own `reasoning_details` go back with the client's bytes, in which nothing but the model changes."""
    raw = (
        b'{ "model": "router", "temperature": 1.0, "messages": [{"role": "assistant", "content": "a", '
        b'"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, {"role": "user", "content": "hi"}] }'
    )
    call = OpenAIShaped("openrouter").call(parse_chat(raw), Target(Provider("openrouter", "http://h/v1"), "x/y", "k"))
    assert call.body == raw.replace(b'"router"', b'"x/y"')


@pytest.mark.parametrize(
    ("kind", "base", "url"),
    [
        ("openai", "https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("openai", "http://h/v1/", "http://h/v1/chat/completions"),
        ("custom", "http://h/api/v1/chat/completions", "http://h/api/v1/chat/completions"),
        ("ollama", "http://localhost:11434", "http://localhost:11434/v1/chat/completions"),
        ("ollama", "http://localhost:11434/v1", "http://localhost:11434/v1/chat/completions"),
        ("google", "https://g/v1beta", "https://g/v1beta/openai/chat/completions"),
        ("google", "https://g/v1beta/openai/", "https://g/v1beta/openai/chat/completions"),
    ],
)
def test_the_address_tolerates_how_bases_are_written(kind: str, base: str, url: str) -> None:
    """Bases come with or without version, slash or full path."""
    chat = parse_chat(orjson.dumps({"model": "router", "messages": MESSAGES}))
    assert OpenAIShaped(kind).call(chat, Target(Provider(kind, base), "m")).url == url


def test_the_key_is_the_providers_and_stays_out_of_reprs() -> None:
    """The provider's key goes as Bearer; reprs of target and call do not show it."""
    chat = parse_chat(orjson.dumps({"model": "router", "messages": MESSAGES}))
    target = Target(Provider("openai", "http://h"), "m", "sk-very-secret")
    call = OpenAIShaped("openai").call(chat, target)
    assert call.headers["authorization"] == "Bearer sk-very-secret"
    assert "secret" not in repr(call) + repr(target)
