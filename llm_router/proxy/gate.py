"""The commit gate: meaning commits, not bytes.

Until an event carries meaning nothing has been sent to the client, so another candidate can still answer. The gate
reads whole events of an OpenAI-shaped stream and says HOLD, COMMIT or REJECT; it also judges whole completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from llm_router.errors import Failure, FailureKind
from llm_router.wire.error_objects import (
    ErrorSeen,
    bare_error,
    error_in,
    event_value,
    no_completion,
    nothing_said,
    upstream_error,
)
from llm_router.wire.sse import DONE, iter_events, lone_data, raw_events

HELD_BYTES = 1024 * 1024
# An event of so many values says nothing that would be worth the memory and the time of parsing it; large ones hold
# images and the like, which are one value.
_BIG_BYTES, _MOST_VALUES = 1024 * 1024, 1_000_000
# Of a delta or a message: any of these, when not empty, is something that the client wants to see.
_SUBSTANCE = frozenset(
    (
        "content",
        "tool_calls",
        "refusal",
        "reasoning_content",
        "reasoning",
        "reasoning_text",
        "reasoning_details",
        "function_call",
        "audio",
        "images",
    )
)
# A finish that is an answer even when nothing came before it.
_ANSWERING_FINISHES = frozenset({"length", "content_filter"})


class Verdict(Enum):
    """What to do with a stream that has been read so far."""

    HOLD = "hold"
    COMMIT = "commit"
    REJECT = "reject"


# A member of an enumeration that is asked for by its name costs as much as three calls.
HOLD, COMMIT, REJECT = Verdict


class Gate:
    """State of one stream before its commit point. `held` are the bytes to replay, unchanged, at the commit."""

    __slots__ = ("_broken", "_size", "chunks", "ended", "error", "finished", "held", "read_all")

    def __init__(self) -> None:
        self.held: list[bytes] = []
        self.error: ErrorSeen | None = None
        self.finished = False  # a finish_reason came, without substance
        self.ended = False  # [DONE] came, without substance
        self.chunks = 0
        self.read_all = True  # nothing came with the meaning that was not read
        self._size = 0
        self._broken = 0

    def __repr__(self) -> str:
        return f"<Gate held={self._size} finished={self.finished}>"

    def feed(self, block: bytes) -> Verdict:
        """Takes whole events. On COMMIT, `block` is not in `held`: its rest may hold more than meaning."""
        data = lone_data(block)
        if data is not None:
            verdict = self._judge(b"", data)
        else:
            verdict = self._judge_all(block)
            self.read_all = verdict is HOLD
        if verdict is not HOLD:
            return verdict
        self.held.append(block)
        self._size += len(block)
        return REJECT if self._size > HELD_BYTES else HOLD

    def _judge_all(self, block: bytes) -> Verdict:
        if b'"error"' not in block:
            return self._judge_events(block)
        for raw in raw_events(block):
            self.error = bare_error(raw)
            verdict = self._judge_events(raw) if self.error is None else REJECT
            if verdict is not HOLD:
                return verdict
        return HOLD

    def _judge_events(self, block: bytes) -> Verdict:
        for event in iter_events(block):
            if event.data is not None:
                verdict = self._judge(event.name, event.data)
                if verdict is not HOLD:
                    return verdict
        return HOLD

    def _judge(self, name: bytes, data: bytes) -> Verdict:
        if is_overfull(data):
            self._broken += 1
            return HOLD
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            if data.startswith(DONE):
                self.ended = True
                return REJECT
            chunk = event_value(name, data)
            if chunk is None:
                self._broken += bool(data)
                return HOLD
        choice = _lone_choice(chunk) if not name else None
        if choice is not None:
            self.chunks += 1
            return self._judge_choice(choice)
        return self._judge_closely(name, chunk)

    def _judge_closely(self, name: bytes, chunk: Any) -> Verdict:
        error = error_in(chunk, name)
        if error is not None:
            self.error = error
            return REJECT
        if not isinstance(chunk, dict):
            self._broken += 1
            return HOLD
        self.chunks += 1
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return HOLD
        for choice in choices:
            if isinstance(choice, dict) and self._judge_choice(choice) is COMMIT:
                return COMMIT
        return HOLD

    def _judge_choice(self, choice: Mapping[str, Any]) -> Verdict:
        if has_substance(choice):
            return COMMIT
        self.finished = self.finished or choice.get("finish_reason") is not None
        return HOLD

    @property
    def well_formed_empty(self) -> bool:
        """A whole answer that simply holds nothing; it may be passed on as it came when nothing better is left."""
        return self.finished and self.error is None

    def failure(self) -> Failure:
        """Why the stream was rejected, or ended without a commit. The message is not masked yet."""
        if self.error is not None:
            return upstream_error(self.error)
        if self._size > HELD_BYTES:
            return Failure(FailureKind.INVALID_RESPONSE, f"no content within the first {HELD_BYTES} bytes", 200)
        if self._broken and not self.chunks:
            return Failure(FailureKind.INVALID_RESPONSE, "the stream holds no valid JSON event", 200)
        return nothing_said()


def is_overfull(data: bytes) -> bool:
    """Whether an event has more values in it than any answer needs."""
    return len(data) > _BIG_BYTES and data.count(b",") > _MOST_VALUES


def has_substance(choice: Mapping[str, Any]) -> bool:
    """Whether a choice of a chunk (or of a completion) carries meaning."""
    for field in ("delta", "message"):
        if field in choice and isinstance(part := choice[field], dict):
            if part.get("content"):
                return True  # as nearly always
            for name in part:
                if name in _SUBSTANCE and part[name]:
                    return True
    if choice.get("text"):
        return True
    finish = choice.get("finish_reason")
    return isinstance(finish, str) and finish in _ANSWERING_FINISHES


def _lone_choice(body: Any) -> dict[str, Any] | None:
    """The one choice of a chunk or completion as nearly all are; None where there may be an error, or something odd."""
    if type(body) is not dict or "error" in body or "type" in body or body.get("object") == "error":
        return None
    choices = body.get("choices")
    if type(choices) is not list or len(choices) != 1:
        return None
    choice = choices[0]
    return choice if type(choice) is dict and choice.get("finish_reason") != "error" else None


@dataclass(frozen=True, slots=True)
class CompletionVerdict:
    """What a whole completion turned out to be: `failure` is None for an answer."""

    failure: Failure | None = None
    well_formed_empty: bool = False


_ANSWER = CompletionVerdict()


def judge_completion(body: Any) -> CompletionVerdict:
    """The same judgement for a non-streamed 200 answer, parsed."""
    choice = _lone_choice(body)
    if choice is not None and has_substance(choice):
        return _ANSWER
    error = error_in(body)
    if error is not None:
        return CompletionVerdict(upstream_error(error))
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list):
        return CompletionVerdict(no_completion())
    for choice in choices:
        if isinstance(choice, dict) and has_substance(choice):
            return _ANSWER
    finished = any(isinstance(choice, dict) and choice.get("finish_reason") is not None for choice in choices)
    return CompletionVerdict(nothing_said(), well_formed_empty=finished)
