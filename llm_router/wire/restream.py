"""One stream from a whole completion, for providers that answer `stream: true` with JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llm_router.wire.sse import DONE_EVENT, data_event


def as_stream(completion: Mapping[str, Any], *, with_usage: bool) -> bytes:
    """The events of a stream that says the same as `completion` (a checked OpenAI-shaped object)."""
    shared = {
        "id": completion.get("id") or "chatcmpl-router",
        "object": "chat.completion.chunk",
        "created": completion.get("created") or 0,
        "model": completion.get("model") or "",
    }
    events = []
    for position, choice in enumerate(completion["choices"]):
        if not isinstance(choice, dict):
            continue
        index = choice.get("index", position)
        events.append(_chunk(shared, [_choice(index, _delta(choice))]))
        finish = choice.get("finish_reason") or "stop"
        events.append(_chunk(shared, [_choice(index, {}, finish)]))
    usage = completion.get("usage")
    if with_usage and isinstance(usage, dict):
        events.append(data_event(orjson.dumps({**shared, "choices": [], "usage": usage})))
    return b"".join(events) + DONE_EVENT


def _delta(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    delta = dict(message) if isinstance(message, dict) else {"content": choice.get("text", "")}
    delta.setdefault("role", "assistant")
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls) if isinstance(call, dict)]
    return delta


def _choice(index: Any, delta: dict[str, Any], finish: Any = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish}


def _chunk(shared: Mapping[str, Any], choices: list[dict[str, Any]]) -> bytes:
    return data_event(orjson.dumps({**shared, "choices": choices}))
