"""The commit gate: meaning commits, not bytes.

Until an event carries meaning nothing has been sent to the client, so another candidate can still answer. The gate
reads whole events of an OpenAI-shaped stream and says HOLD, COMMIT or REJECT; it also judges whole completions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from llm_router.errors import Failure, FailureKind
from llm_router.wire.sse import CR, DONE, DONE_EVENT, EVENT_END, LF, iter_events, lone_data, raw_events

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


@dataclass(frozen=True, slots=True)
class ErrorSeen:
    """A provider's error inside a 200 answer: its object, as it came."""

    error: Mapping[str, Any]

    @property
    def message(self) -> str:
        """The provider's words, not masked yet."""
        message = self.error.get("message")
        return message if isinstance(message, str) and message else "the provider reported an error"


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
        for event in iter_events(block):
            if event.data is not None:
                verdict = self._judge(event.name, event.data)
                if verdict is not HOLD:
                    return verdict
        return HOLD

    def _judge(self, name: bytes, data: bytes) -> Verdict:
        if _is_overfull(data):
            self._broken += 1
            return HOLD
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            if data.startswith(DONE):
                self.ended = True
                return REJECT
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
        return Failure(FailureKind.EMPTY_COMPLETION, "the provider answered 200 with nothing in it", 200)


def _is_overfull(data: bytes) -> bool:
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


def error_in(chunk: Any, name: bytes = b"") -> ErrorSeen | None:
    """The error that a chunk or body reports, in any of the forms seen in the wild."""
    if isinstance(chunk, list) and len(chunk) == 1:
        chunk = chunk[0]
    if not isinstance(chunk, dict):
        return None
    error = chunk.get("error")
    if isinstance(error, dict) and error:
        return ErrorSeen(error)
    if isinstance(error, str) and error:
        return ErrorSeen({"message": error})
    if error:
        return ErrorSeen({})
    if chunk.get("object") == "error" or chunk.get("type") == "error" or name == b"error":
        return ErrorSeen(chunk)
    choices = chunk.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and choice.get("finish_reason") == "error":
                told = choice.get("error")
                return ErrorSeen(told if isinstance(told, dict) else {})
    return None


def error_type(error: Mapping[str, Any]) -> Any:
    """The provider's word for the kind of an error: what OpenRouter's metadata say, `type`, or Google's `status`."""
    metadata = error.get("metadata")
    told = metadata.get("error_type") if isinstance(metadata, dict) else None
    return told or error.get("type") or error.get("status")


def upstream_error(seen: ErrorSeen) -> Failure:
    """The failure for an error that came inside a 200 answer."""
    code, kind = seen.error.get("code"), error_type(seen.error)
    return Failure(
        FailureKind.UPSTREAM_ERROR,
        seen.message,
        status=200,
        code=str(code) if isinstance(code, str | int) and not isinstance(code, bool) else None,
        type=kind if isinstance(kind, str) else None,
    )


@dataclass(frozen=True, slots=True)
class CompletionVerdict:
    """What a whole completion turned out to be: `failure` is None for an answer."""

    failure: Failure | None = None
    error: ErrorSeen | None = None
    well_formed_empty: bool = False


_ANSWER = CompletionVerdict()


def judge_completion(body: Any) -> CompletionVerdict:
    """The same judgement for a non-streamed 200 answer, parsed."""
    choice = _lone_choice(body)
    if choice is not None and has_substance(choice):
        return _ANSWER
    error = error_in(body)
    if error is not None:
        return CompletionVerdict(upstream_error(error), error)
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list):
        return CompletionVerdict(
            Failure(FailureKind.INVALID_RESPONSE, "the provider answered 200 without a completion in it", 200)
        )
    for choice in choices:
        if isinstance(choice, dict) and has_substance(choice):
            return _ANSWER
    finished = any(isinstance(choice, dict) and choice.get("finish_reason") is not None for choice in choices)
    return CompletionVerdict(
        Failure(FailureKind.EMPTY_COMPLETION, "the provider answered 200 with nothing in it", 200),
        well_formed_empty=finished,
    )


_DONE_HEADS = (b"data: ", b"data:")
_BRACE = ord("{")
_SHORT = 4096  # up to here a copy of a block costs less than two searches in it


def is_plain(block: bytes) -> bool:
    """Whether a block is whole events that neither end an answer nor need a closer look: nearly all of them.

    Costs searches alone: `partition` is quicker than `find`, that is twice as quick as `in`, and a single byte's number
    is found ten times as quickly. A line whose data begin with a brace has no room for the other two ends.
    """
    if block.partition(b'"error"')[1]:
        return False
    if len(block) < _SHORT:
        line = block.removesuffix(b"\n\n")
        if LF not in line and CR not in line and len(block) > len(line) > 6 and line[6] == _BRACE:
            return True
    return block.endswith(b"\n\n") and not (block.partition(b"[DONE]")[1] or block.partition(b"event:")[1])


@dataclass(slots=True)
class Screened:
    """A block after the commit point: what may be sent of it, and what ended the answer, if anything did.

    Nobody changes it; not frozen, since one is made per stream.
    """

    passed: bytes
    done: bool = False
    error: ErrorSeen | None = None


_DONE = Screened(DONE_EVENT, done=True)
_PLAIN_END = b"\n\n" + DONE_EVENT


def screen(block: bytes) -> Screened:
    """Looks for `[DONE]` and error events in whole events that follow the commit point."""
    if block == DONE_EVENT:
        return _DONE
    if not (block.partition(b'"error"')[1] or block.partition(b"event:")[1]):
        at = block.find(DONE)
        if at < 0:
            return Screened(block)  # of other line ends, most often
        if at == len(block) - 8 and block.endswith(_PLAIN_END):
            return Screened(block, True)  # as nearly all streams end
        if done := _plain_done(block):
            end = EVENT_END.search(block, done)
            return Screened(block if end is None else block[: end.end()], True)
    start = 0
    for raw in raw_events(block):
        # What no error and no end can do without; most events need not be parsed.
        if b'"error"' not in raw and b"[DONE]" not in raw and b"event:" not in raw:
            start += len(raw)
            continue
        for event in iter_events(raw):
            if event.data is None:
                continue
            if event.data.startswith(DONE):
                return Screened(block[: start + len(raw)], done=True)
            if _is_overfull(event.data):
                continue
            try:
                error = error_in(orjson.loads(event.data), event.name)
            except orjson.JSONDecodeError:
                continue
            if error is not None:
                return Screened(block[:start], error=error)
        start += len(raw)
    return Screened(block)


def _plain_done(block: bytes) -> int:
    """Index behind a [DONE] that begins an event, after a blank line of plain line feeds or at the block's start; or 0.

    Searched for by its own bytes: a pattern that tries every line would hold the loop up over an event of megabytes.
    """
    at = block.find(DONE)
    while at >= 0:
        for head in _DONE_HEADS:
            begin = at - len(head)
            if begin >= 0 and block.startswith(head, begin) and (begin == 0 or block[begin - 2 : begin] == b"\n\n"):
                return at + len(DONE)
        at = block.find(DONE, at + 1)
    return 0


def unfinished_event(rest: bytes) -> bytes:
    """The last event of a stream where only its blank line is missing, with one; half an event is dropped.

    Providers exist that leave the blank line out, and clients would silently lose such an event.
    """
    if not any(_is_whole(event.data) for event in iter_events(rest)):
        return b""
    if rest.endswith(b"\n\r"):
        return rest
    ending = rest[-1:] if rest.endswith((b"\n", b"\r")) else b"\n\n"
    return rest + ending


def _is_whole(data: bytes | None) -> bool:
    if data == DONE:
        return True
    try:
        return isinstance(orjson.loads(data or b""), dict)
    except orjson.JSONDecodeError:
        return False


# Most chunks have one that is plainly null; of a long answer that was cut, all of them.
_FINISH = re.compile(rb'"finish_reason"(?!\s*:\s*null)')


def finished_choices(blocks: list[bytes], wanted: int) -> bool:
    """Whether `wanted` choices have a finish_reason, looking at the newest of `blocks` first."""
    seen: set[Any] = set()
    for block in blocks:
        if _FINISH.search(block) is None:
            continue
        for event in iter_events(block):
            if event.data is None or _FINISH.search(event.data) is None:
                continue
            try:
                chunk = orjson.loads(event.data)
            except orjson.JSONDecodeError:
                continue
            choices = chunk.get("choices") if isinstance(chunk, dict) else None
            for choice in choices if isinstance(choices, list) else ():
                if isinstance(choice, dict) and choice.get("finish_reason") is not None:
                    seen.add(choice.get("index", 0))
        if len(seen) >= wanted:
            return True
    return False
