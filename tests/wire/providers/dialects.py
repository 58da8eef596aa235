"""What the tests of all dialects share: adapters, targets, transcripts, and a client that reads what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llm_router.accounting.pricing import ModelInfo
from llm_router.config.values import Provider
from llm_router.wire.chat import ChatRequest, parse_chat
from llm_router.wire.providers.anthropic import AnthropicAdapter
from llm_router.wire.providers.base import Adapter, Target
from llm_router.wire.providers.google import GeminiAdapter
from llm_router.wire.providers.ollama import OllamaAdapter
from llm_router.wire.providers.openai import OpenAIShaped
from llm_router.wire.sse import DONE, EventSplitter, iter_events
from llm_router.wire.usage import Usage, from_openai

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
EXPECTED: dict[str, dict[str, Any]] = orjson.loads((TRANSCRIPTS / "expected.json").read_bytes())
NOW = 1_795_398_787.5
KEY = "sk-test-0123456789"


def clock() -> float:
    """A clock that stands still."""
    return NOW


def make_target(dialect: str, model: str | None = None, *, info: ModelInfo | None = None, **options: Any) -> Target:
    """A target of the given dialect, with its usual address."""
    api, base, usual = {
        "anthropic": ("anthropic-messages", "https://api.anthropic.com/v1", "claude-sonnet-4-5"),
        "google": ("google-generative-ai", "https://generativelanguage.googleapis.com/v1beta", "gemini-3-flash"),
        "ollama": ("ollama", "http://localhost:11434", "qwen3:8b"),
        "openai": ("openai-completions", "https://api.openai.com/v1", "gpt-4o"),
        "openrouter": ("openai-completions", "https://openrouter.ai/api/v1", "z-ai/glm-5"),
        "google_compat": ("openai-completions", "https://generativelanguage.googleapis.com/v1beta", "gemini-3-flash"),
    }[dialect]
    name = dialect.removesuffix("_compat")
    provider = Provider(name, base, api=api, options=options)  # type: ignore[arg-type]
    return Target(provider, model or usual, KEY, info)


ADAPTERS: dict[str, Adapter] = {
    "anthropic": AnthropicAdapter(clock),
    "google": GeminiAdapter(clock),
    "ollama": OllamaAdapter(clock),
    "openai": OpenAIShaped("openai"),
    "openrouter": OpenAIShaped("openrouter"),
    "google_compat": OpenAIShaped("google"),
}
TRANSLATED = ("anthropic", "google", "ollama")


def make_chat(*messages: Any, stream: bool = True, usage: bool = True, **fields: Any) -> ChatRequest:
    """A chat request; a message may be a string, which a person said."""
    body: dict[str, Any] = {
        "model": "router",
        "messages": [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages or ("Hi",)],
        "stream": stream,
        **fields,
    }
    if stream and usage:
        body["stream_options"] = {"include_usage": True}
    return parse_chat(orjson.dumps(body))


def sent(dialect: str, chat: ChatRequest, target: Target | None = None) -> dict[str, Any]:
    """The body that an adapter sends."""
    call = ADAPTERS[dialect].call(chat, target or make_target(dialect))
    body: dict[str, Any] = orjson.loads(call.body)
    return body


def stream_path(name: str) -> Path:
    """The file of a streamed transcript."""
    found = [path for ending in ("sse", "ndjson") if (path := TRANSCRIPTS / f"{name}.{ending}").exists()]
    return found[0]


def whole_path(name: str) -> Path:
    """The file of the same answer unstreamed; it may be missing."""
    return TRANSCRIPTS / f"{name}.json"


TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


def tool_turns() -> list[dict[str, Any]]:
    """A conversation with two calls at once, answered in the other order."""
    call = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
    return [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Looking", "tool_calls": [{"id": "a", **call}, {"id": "b", **call}]},
        {"role": "tool", "tool_call_id": "b", "content": "rain"},
        {"role": "tool", "tool_call_id": "a", "content": '{"sun": true}'},
        {"role": "user", "content": "So?"},
    ]


def usual_chat(dialect: str, **fields: Any) -> ChatRequest:
    """A chat request that a dialect's transcripts answer; Google's calls are numbered only where tools were sent."""
    return make_chat(**({"tools": [TOOL]} if dialect == "google_compat" else {}), **fields)


def translate(dialect: str, data: bytes, size: int | None = None, chat: ChatRequest | None = None) -> bytes:
    """The client's bytes for a provider's stream that arrives in reads of `size` bytes (all at once if None)."""
    translator = ADAPTERS[dialect].translator(chat or usual_chat(dialect), make_target(dialect))
    reads = [data] if size is None else [data[start : start + size] for start in range(0, len(data), size)]
    if translator is None:
        splitter = EventSplitter()
        out = b"".join(splitter.feed(read) for read in reads)
        return out + splitter.rest()
    out = b"".join(translator.feed(read) for read in reads)
    return out + translator.close()


@dataclass
class Read:
    """What a client learns from an answer."""

    text: str = ""
    reasoning: str = ""
    refusal: str | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    usage: Usage | None = None
    error: dict[str, Any] | None = None
    done: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def same_call_ids_aside(self) -> list[tuple[str, Any]]:
        """Names and parsed arguments of the calls."""
        return [(call["name"], orjson.loads(call["arguments"] or "{}")) for call in self.calls]


def read_stream(data: bytes) -> Read:
    """Reads a stream as a strict client: every event must be valid for the vendor's own client package, all must
    carry the same id, nothing may follow the end."""
    read, ids = Read(), set()
    for event in iter_events(data):
        assert not read.done, "something follows [DONE]"
        assert read.error is None, "something follows an error"
        assert event.data, "an event without data kills the clients' parsers"
        if event.data == DONE:
            read.done = True
            continue
        chunk = orjson.loads(event.data)
        if chunk.get("error"):
            read.error = chunk["error"]
            continue
        ChatCompletionChunk.model_validate(chunk)
        ids.add((chunk["id"], chunk["created"], chunk["model"]))
        if chunk.get("usage"):
            read.usage = from_openai(chunk["usage"])
        for choice in chunk["choices"]:
            _read_choice(read, choice)
    assert len(ids) <= 1, "id, created and model are the same on all chunks"
    return read


def _read_choice(read: Read, choice: dict[str, Any]) -> None:
    delta = choice["delta"]
    assert read.finish is None or not any(delta.get(name) for name in ("content", "tool_calls")), "text after finish"
    read.text += delta.get("content") or ""
    read.reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
    if delta.get("refusal"):
        read.refusal = delta["refusal"]
    read.details += delta.get("reasoning_details") or []
    read.images += [image["image_url"]["url"] for image in delta.get("images") or ()]
    for call in delta.get("tool_calls") or ():
        if call["index"] == len(read.calls):
            read.calls.append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
        read.calls[call["index"]]["arguments"] += call["function"].get("arguments") or ""
        if "extra_content" in call:
            read.calls[call["index"]]["extra_content"] = call["extra_content"]
    if choice["finish_reason"] is not None:
        assert read.finish is None, "a second finish"
        read.finish = choice["finish_reason"]
        read.extra = {
            name: value for name, value in choice.items() if name not in ("index", "delta", "finish_reason", "logprobs")
        }


def read_whole(data: bytes) -> Read:
    """Reads a completion; it must be valid for the vendor's own client package."""
    body = orjson.loads(data)
    ChatCompletion.model_validate(body)
    choice = body["choices"][0]
    said = choice["message"]
    calls = [{"id": call["id"], **call["function"], **_extra_content(call)} for call in said.get("tool_calls") or ()]
    return Read(
        text=said.get("content") or "",
        reasoning=said.get("reasoning_content") or said.get("reasoning") or "",
        refusal=said.get("refusal"),
        calls=calls,
        images=[image["image_url"]["url"] for image in said.get("images") or ()],
        details=said.get("reasoning_details") or [],
        finish=choice["finish_reason"],
        usage=from_openai(body["usage"]) if body.get("usage") else None,
        done=True,
        extra={k: v for k, v in choice.items() if k not in ("index", "message", "finish_reason", "logprobs")},
    )


def _extra_content(call: dict[str, Any]) -> dict[str, Any]:
    return {"extra_content": call["extra_content"]} if "extra_content" in call else {}
