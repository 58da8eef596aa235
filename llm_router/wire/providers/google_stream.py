"""Gemini's stream turned into OpenAI-shaped chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_router.wire.error_objects import error_in
from llm_router.wire.loose import load_json
from llm_router.wire.providers.chunks import ChunkWriter, error_event
from llm_router.wire.providers.google_answer import (
    BROKEN,
    answer_id,
    block_reason,
    broken_message,
    choice_extra,
    finish_reason,
    first_candidate,
    from_gemini,
    pieces,
    read_call,
)
from llm_router.wire.sse import DONE_EVENT, EventSplitter, iter_events, raw_events
from llm_router.wire.usage import Usage

_OPENERS = (b"{", b"[")
_CLOSERS = (b"}", b"]")
_BARE_ERROR_BYTES = 16 * 1024


class GeminiTranslator:
    """State of one streamed answer.

    Gemini has no end marker: the end of the stream behind a finish reason is the end. So the finish, the usage and
    `[DONE]` are written when the upstream has closed.
    """

    __slots__ = (
        "_calls", "_created", "_details", "_ended", "_images", "_model", "_reason", "_refusal", "_reported", "_said",
        "_splitter", "_wants_usage", "_writer",
    )  # fmt: skip

    def __init__(self, model: str, created: int, *, wants_usage: bool) -> None:
        self._reported: dict[str, Any] | None = None
        self._model = model
        self._created = created
        self._wants_usage = wants_usage
        self._splitter = EventSplitter()
        self._writer: ChunkWriter | None = None
        self._calls = 0
        self._images = 0
        self._details: list[dict[str, Any]] = []
        self._said = False
        self._reason = ""  # Google's finish reason, once there is one
        self._refusal: str | None = None
        self._ended = False

    def __repr__(self) -> str:
        return f"<GeminiTranslator calls={self._calls} ended={self._ended}>"

    @property
    def usage(self) -> Usage | None:
        """The last usage that was reported; Gemini repeats it on every chunk, so it is read only when asked for."""
        return from_gemini(self._reported) if self._reported is not None else None

    def feed(self, data: bytes) -> bytes:
        """Takes bytes as they were read, gives the chunks that are complete."""
        out = self._translate(self._splitter.feed(data))
        return out + self._bare_error() if self._splitter.waiting else out

    def _bare_error(self) -> bytes:
        """An error in mid-stream has no blank line behind it: nothing else tells that it is whole but its braces."""
        waiting = self._splitter.waiting
        if waiting[0].lstrip()[:1] not in _OPENERS or waiting[-1].rstrip()[-1:] not in _CLOSERS:
            return b""
        if sum(map(len, waiting)) > _BARE_ERROR_BYTES or error_in(_parse(b"".join(waiting))) is None:
            return b""
        return self._translate(self._splitter.rest())

    def close(self) -> bytes:
        """The upstream ended: gives finish, usage and `[DONE]` if the answer had come to its end."""
        out = self._translate(self._splitter.rest())
        writer = self._writer
        if self._ended or not self._reason or writer is None:
            return out
        self._ended = True
        if self._details:
            out += writer.details(self._details)
        finish = finish_reason(self._reason, called=self._calls > 0)
        if self._refusal is not None:
            finish, out = "content_filter", out + writer.refusal(self._refusal)
        out += writer.finish(finish, choice_extra(self._reason))
        usage = self.usage if self._wants_usage else None
        if usage is not None:
            out += writer.usage(usage)
        return out + DONE_EVENT

    def _translate(self, whole: bytes) -> bytes:
        if not whole:
            return b""
        return b"".join([self._payload(payload) for payload in _payloads(whole)])

    def _payload(self, answer: Any) -> bytes:
        if self._ended:
            return b""
        error = error_in(answer)
        if error is not None:
            self._ended = True
            status = error.error.get("status")
            kind = status if isinstance(status, str) and status else "api_error"
            return error_event(error.message, kind, str(error.error.get("code") or kind))
        return self._answer(answer) if isinstance(answer, dict) else b""

    def _answer(self, answer: Mapping[str, Any]) -> bytes:
        out = b""
        writer = self._writer
        if writer is None:
            id = answer_id(answer, self._model, self._created)
            writer = self._writer = ChunkWriter(id, self._created, str(answer.get("modelVersion") or self._model))
            out = writer.role()
        reported = answer.get("usageMetadata")
        if isinstance(reported, dict):
            self._reported = reported
        candidate = first_candidate(answer)
        # Joined, not added up one by one: a part takes few bytes, and an event may have a million of them.
        out += b"".join([self._piece(writer, kind, value) for kind, value in pieces(candidate)])
        blocked = block_reason(answer)
        if blocked is not None:
            self._reason, self._refusal = blocked
            return out
        reason = candidate.get("finishReason")
        if isinstance(reason, str) and reason:
            self._reason = reason
            if reason in BROKEN and not self._said:
                self._ended = True
                out += error_event(broken_message(reason, candidate), "upstream_error", reason.lower())
        return out

    def _piece(self, writer: ChunkWriter, kind: str, value: Any) -> bytes:
        self._said = True
        if kind == "text":
            return writer.content(value)
        if kind == "reasoning":
            return writer.reasoning(value)
        return self._image(writer, value) if kind == "image" else self._call(writer, value)

    def _image(self, writer: ChunkWriter, image: Mapping[str, Any]) -> bytes:
        self._images += 1
        # Numbered like tool calls: OpenAI's clients refuse a list that comes in pieces without an index.
        return writer.images([{"index": self._images - 1, **image}])

    def _call(self, writer: ChunkWriter, part: Mapping[str, Any]) -> bytes:
        call, signed = read_call(part, writer.id, self._calls)
        if signed is not None:
            self._details.append(signed)
        self._calls += 1
        return writer.call(self._calls - 1, call)


def _payloads(whole: bytes) -> Iterator[Any]:
    """The JSON of the events. Errors in mid-stream come without a field name, over several lines."""
    if whole[:1] in _OPENERS or b"\n{" in whole or b"\n[" in whole:
        for raw in raw_events(whole):
            bare = raw.lstrip()
            payload = _parse(bare) if bare[:1] in _OPENERS else None
            yield from _payloads_of_fields(raw) if payload is None else (payload,)
    else:
        yield from _payloads_of_fields(whole)


def _payloads_of_fields(whole: bytes) -> Iterator[Any]:
    return (_parse(event.data) for event in iter_events(whole) if event.data)


def _parse(payload: bytes) -> Any:
    return load_json(payload, exactly=b"functionCall" in payload)
