"""OpenAI-shaped answers as bytes: the events of a stream, whole streams, whole JSON completions, errors."""

from __future__ import annotations

import json
from typing import Any

DONE = b"data: [DONE]\n\n"


def event(payload: Any, ending: bytes = b"\n") -> bytes:
    """`payload` as one `data:` event whose lines end with `ending`."""
    return b"data: " + json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode() + ending * 2


def chunk(
    delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, model: str = "m", **more: Any
) -> dict[str, Any]:
    """One chunk object of a stream; `more` adds or replaces top-level fields."""
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": model,
        "choices": [{"index": index, "delta": delta if delta is not None else {}, "finish_reason": finish}],
    }
    return body | more


def role(content: str | None = "") -> bytes:
    """The preamble: a role without content. It carries no meaning."""
    return event(chunk({"role": "assistant", "content": content}))


def text(content: str, **more: Any) -> bytes:
    """A content delta."""
    return event(chunk({"content": content}, **more))


def finish(reason: str = "stop") -> bytes:
    """The chunk that ends a choice."""
    return event(chunk({}, reason))


def usage(prompt: int = 7, completion: int = 3, **more: Any) -> bytes:
    """The usage chunk without choices."""
    figures = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion} | more
    return event(chunk(choices=[], usage=figures))


def error_event(message: str = "provider exploded", code: Any = 502, **more: Any) -> bytes:
    """An error event as OpenAI and OpenRouter send it."""
    return event({"error": {"message": message, "type": "server_error", "code": code} | more})


def tool_call(name: str = "get_weather", arguments: str = '{"city":"Oslo"}', call_id: str = "call_1") -> list[bytes]:
    """The deltas of one tool call: its head, then its arguments in pieces of five characters."""
    head = {"index": 0, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
    pieces = [arguments[at : at + 5] for at in range(0, len(arguments), 5)]
    deltas = [head, *({"index": 0, "function": {"arguments": piece}} for piece in pieces)]
    return [event(chunk({"tool_calls": [delta]})) for delta in deltas]


def answer(*words: str, reason: str = "stop", done: bool = True, preamble: bool = True) -> list[bytes]:
    """The events of a whole streamed answer."""
    events = [role()] if preamble else []
    events += [text(word) for word in words or ("Hello", " from", " upstream")]
    events.append(finish(reason))
    return [*events, DONE] if done else events


def completion(content: str | None = "Hello", reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A whole JSON completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": reason}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def error(message: str, code: Any = None, kind: str = "invalid_request_error", **more: Any) -> bytes:
    """The body of an error answer in OpenAI's shape."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code} | more}).encode()
