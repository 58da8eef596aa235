"""Server-sent events as bytes: cutting a stream into whole events, and reading the events.

Follows the WHATWG event-stream grammar (lines end with CRLF, LF or a lone CR; a blank line ends an event), but
works on bytes and keeps every byte, because what is read here is passed on unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from llm_router.wire.loose import load_json

MAX_EVENT_BYTES = 16 * 1024 * 1024
BOM = b"\xef\xbb\xbf"
DONE = b"[DONE]"
DONE_EVENT = b"data: [DONE]\n\n"

LF, CR = ord("\n"), ord("\r")  # a byte's number is found in bytes ten times as quickly as the byte
_LINE_END = re.compile(rb"\r\n|\n|\r")
# A blank line behind a line. Atomic groups: a CRLF must never be taken for a CR line and an LF line.
EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class EventTooLarge(ValueError):
    """An event passed the limit without its blank line."""


class SseEvent(NamedTuple):
    """One event: `name` of its `event:` field (empty if none) and the joined `data` (None without a data line)."""

    name: bytes
    data: bytes | None


def last_event_end(data: bytes) -> int:
    """Index after the last blank line in `data`, 0 if there is none."""
    # A CR at the very end of "\n\r" may be half of a CRLF that belongs to the event: only the next byte tells.
    end = max(data.rfind(b"\n\n"), data.rfind(b"\n\r", 0, -1), data.rfind(b"\r\r")) + 2
    if end == 1:
        return 0
    # A CR that ends a blank line takes the LF behind it along.
    return end + 1 if data[end - 1 : end + 1] == b"\r\n" else end


class EventSplitter:
    """Hands out whole events only; what follows the last blank line waits for its end.

    Only new bytes (and the two before them) are searched, so a drip of single bytes costs linear time.
    """

    __slots__ = ("_limit", "_size", "waiting")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self.waiting: list[bytes] = []  # the pieces of an event whose end has not come
        self._size = 0

    def __repr__(self) -> str:
        return f"<EventSplitter waiting={self._size}>"

    def feed(self, data: bytes) -> bytes:
        """All bytes up to the last blank line seen so far, or nothing. Raises EventTooLarge."""
        if not data:
            return b""
        parts = self.waiting
        if not parts:
            if data.endswith(b"\n\n"):
                return data
            end = last_event_end(data)
            if end < len(data):
                self._keep(data[end:])
            return data[:end]
        tail = parts[-1][-2:] if len(parts[-1]) > 1 or len(parts) == 1 else parts[-2][-1:] + parts[-1]
        end = last_event_end(tail + data) - len(tail)
        if end < 0:
            self._keep(data)
            return b""
        parts.append(data[:end])
        whole = b"".join(parts)
        parts.clear()
        self._size = 0
        if end < len(data):
            self._keep(data[end:])
        return whole

    def rest(self) -> bytes:
        """Takes out what waits for its end."""
        rest = b"".join(self.waiting)
        self.waiting.clear()
        self._size = 0
        return rest

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self.waiting.clear()  # whoever keeps the splitter need not keep what nobody will get
            raise EventTooLarge(f"an event is longer than {self._limit} bytes")
        self.waiting.append(data)


def lone_data(block: bytes) -> bytes | None:
    """The data of a block that is one event of one `data: ` line, as nearly all are; None for any other."""
    data = block.removesuffix(b"\n\n").removeprefix(b"data: ")
    return data if len(data) == len(block) - 8 and LF not in data and CR not in data else None


def iter_events(block: bytes) -> Iterator[SseEvent]:
    """The events in `block`; one without its blank line at the end is given too (lenient, as vendors' SDKs are).

    Comments and unknown fields are skipped; an event of comments alone is not given.
    """
    if block.startswith(BOM):
        block = block[3:]
    if CR in block:
        yield from _events_of(_LINE_END.split(block))
        return
    start = 0  # event by event: who looks for the first one need not pay for all
    while (blank := block.find(b"\n\n", start)) >= 0:
        if block.startswith(b"data: ", start) and block.find(b"\n", start) == blank:
            yield SseEvent(b"", block[start + 6 : blank])
        else:
            yield from _events_of(block[start:blank].split(b"\n"))
        start = blank + 2
    yield from _events_of(block[start:].split(b"\n"))


def _events_of(lines: list[bytes]) -> Iterator[SseEvent]:
    name, seen = b"", False
    data: list[bytes] = []
    for line in lines:
        if not line:
            if seen:
                yield SseEvent(name, b"\n".join(data) if data else None)
                name, data, seen = b"", [], False
            continue
        field, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            data.append(value)
            seen = True
        elif field == b"event":
            name = value
            seen = True
    if seen:
        yield SseEvent(name, b"\n".join(data) if data else None)


def raw_events(block: bytes) -> list[bytes]:
    """`block` cut behind each blank line; joined again the pieces are the block."""
    pieces, start = [], 0
    if CR not in block:  # plain searching is a hundred times faster than the pattern
        while (blank := block.find(b"\n\n", start)) >= 0:
            pieces.append(block[start : blank + 2])
            start = blank + 2
        return [*pieces, block[start:]] if start < len(block) else pieces
    for end in EVENT_END.finditer(block):
        pieces.append(block[start : end.end()])
        start = end.end()
    if start < len(block):
        pieces.append(block[start:])
    return pieces


def data_event(payload: bytes) -> bytes:
    """`payload` (one line, for example JSON from orjson) as one event."""
    return b"data: " + payload + b"\n\n"


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
    if data is None:
        return False
    if data.startswith(DONE):
        return True
    return isinstance(load_json(data), dict)
