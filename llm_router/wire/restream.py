"""One stream from a whole completion, for providers that answer `stream: true` with JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_router.wire.chat import dump
from llm_router.wire.sse import DONE_EVENT, data_event

# What has a place of its own in a stream, or none.
_PLACED = frozenset({"id", "object", "created", "model", "choices", "usage", "error"})
_PLACED_OF_CHOICE = frozenset({"index", "message", "text", "finish_reason", "logprobs", "delta"})
# What all chunks have in common may take so much of a stream, but for the first two: a provider may add megabytes to a
# thousand choices.
_MOST_REPEATED = 1024 * 1024


def as_stream(completion: Mapping[str, Any], *, with_usage: bool) -> bytes:
    """The events of a stream that says the same as `completion` (a checked OpenAI-shaped object). Raises TooDeep."""
    shared = {
        "id": completion.get("id") or "chatcmpl-router",
        "object": "chat.completion.chunk",
        "created": completion.get("created") or 0,
        "model": completion.get("model") or "",
        **_others(completion, _PLACED),
    }
    choices = [(place, choice) for place, choice in enumerate(completion["choices"]) if isinstance(choice, dict)]
    # One at a time, as clients know it, though a chunk may hold any number.
    at_once = 1 if len(choices) * len(dump(shared)) <= _MOST_REPEATED else len(choices)
    events = []
    for first in range(0, len(choices), at_once):
        group = choices[first : first + at_once]
        events.append(_chunk(shared, [_begun(place, choice) for place, choice in group]))
        events.append(_chunk(shared, [_ended(place, choice) for place, choice in group]))
    usage = completion.get("usage")
    if with_usage and isinstance(usage, dict):
        events.append(data_event(dump({**shared, "choices": [], "usage": usage})))
    return b"".join(events) + DONE_EVENT


def _others(given: Mapping[str, Any], placed: frozenset[str]) -> dict[str, Any]:
    """Fields that travel as they are, such as `system_fingerprint` or a provider's own."""
    return {name: value for name, value in given.items() if name not in placed}


def _delta(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    delta = dict(message) if isinstance(message, dict) else {"content": choice.get("text", "")}
    delta.setdefault("role", "assistant")
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        sound = [call for call in calls if isinstance(call, dict)]
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(sound)]
    return delta


def _begun(place: int, choice: Mapping[str, Any]) -> dict[str, Any]:
    begun = _choice(choice.get("index", place), _delta(choice))
    if (logprobs := choice.get("logprobs")) is not None:
        begun["logprobs"] = logprobs
    return begun


def _ended(place: int, choice: Mapping[str, Any]) -> dict[str, Any]:
    # A provider that gave no finish_reason is not given one: `[DONE]` says that the answer is whole.
    ended = _choice(choice.get("index", place), {}, choice.get("finish_reason"))
    return ended | _others(choice, _PLACED_OF_CHOICE)


def _choice(index: Any, delta: dict[str, Any], finish: Any = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish}


def _chunk(shared: Mapping[str, Any], choices: list[dict[str, Any]]) -> bytes:
    return data_event(dump({**shared, "choices": choices}))
