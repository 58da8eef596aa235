"""Bookings on their way from a worker to the keeper: one frame of bytes for many, and back.

A frame is its head's length, the head, and after it the large blobs as they are, so that a prompt of megabytes is
never copied on a worker's event loop. Both ends are forks of one process: the head is `marshal`, the quickest form
there is, which must never be read from anybody else.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from llm_router.accounting.booking import Attempt, Booking, SideCost
from llm_router.accounting.pricing import ModelInfo, Prices
from llm_router.wire.usage import Usage

LENGTH: Final = struct.Struct("<I")
_ALOUD: Final = 32 * 1024
_KINDS_MOST: Final = 1024
# Later versions of `marshal` look for objects that come twice, which costs half as much again; here hardly one does.
_WITHOUT_REFERENCES: Final = 2

_ROOM: Final = 256 * 1024
# Room that was needed once is kept up to this: fresh memory would have to be cleared each time.
_MOST_ROOM: Final = 4 * 1024 * 1024

_ATTEMPT_FIELDS: Final = len(Attempt._fields)
_empty: Final = object.__new__
_tuple: Final = tuple.__new__

Message = tuple[Any, ...]
Frame = tuple[str, Message, list[bytes]]


def frame(kind: str, *values: Any, blobs: Sequence[bytes] = ()) -> list[bytes]:
    """The parts of one frame, to be written one after the other. Raises ValueError for what is no plain value."""
    head = marshal.dumps((kind, values, [len(blob) for blob in blobs]), _WITHOUT_REFERENCES)
    return [LENGTH.pack(len(head)), head, *blobs]


class FrameBuffer:
    """Bytes as they come in, and the frames that become whole with them; for `asyncio.BufferedProtocol`."""

    def __init__(self) -> None:
        self._data = bytearray(_ROOM)
        self._filled = 0
        self._head: tuple[str, Message, list[int]] | None = None

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return memoryview(self._data)[self._filled :]

    def filled(self, size: int) -> list[Frame]:
        """So many bytes have come: the frames that are whole now."""
        self._filled += size
        found: list[Frame] = []
        view = memoryview(self._data)
        start, needed = self._split(view, found)
        rest = self._filled - start
        if needed > len(self._data) or (len(self._data) > _MOST_ROOM and not rest):
            # The last reader of the old one may still look at it: it is left as it is.
            self._data = bytearray(max(_ROOM, needed))
        if start or self._data is not view.obj:
            self._data[:rest] = bytes(view[start : self._filled])
            self._filled = rest
        return found

    def _split(self, view: memoryview, found: list[Frame]) -> tuple[int, int]:
        """How far whole frames go, and how many bytes there must be after that for more to be understood."""
        start = 0
        while True:
            if self._head is None:
                left = self._filled - start
                if left < LENGTH.size:
                    return start, LENGTH.size
                end = start + LENGTH.size + int(LENGTH.unpack_from(view, start)[0])
                if self._filled < end:
                    return start, end - start
                # Written by `frame` in a process of ours.
                self._head = marshal.loads(view[start + LENGTH.size : end])  # noqa: S302
                start = end
            kind, values, lengths = self._head
            needed = sum(lengths)
            if self._filled - start < needed:
                return start, needed
            blobs = []
            for length in lengths:
                blobs.append(bytes(view[start : start + length]))
                start += length
            found.append((kind, values, blobs))
            self._head = None


class Packer:
    """The sending side of one connection: what bookings share travels once and is named by a number after that."""

    def __init__(self) -> None:
        self._numbers: dict[Message, tuple[int, ModelInfo | None]] = {}
        self._next = 0
        self._new: list[tuple[int, Message]] = []
        self._blobs: list[bytes] = []

    def pack(self, bookings: Sequence[Booking], *about: Any) -> list[bytes]:
        """One frame `book` of bookings; `about` are further plain values. Raises ValueError for what cannot travel."""
        packed = [self._pack(booking) for booking in bookings]
        blobs, self._blobs = self._blobs, []
        new, self._new = self._new, []
        return frame("book", packed, new, *about, blobs=blobs)

    def _pack(self, booking: Booking) -> Message:
        """The number of its kind, and its own fields as plain values."""
        kind = (
            booking.category,
            booking.mode,
            booking.model,
            booking.provider,
            booking.stream,
            booking.client,
            booking.outcome,
            booking.status,
            booking.failure,
            booking.answer_is_stream,
            # To hash what is known of a model would take longer than all else.
            id(booking.price_info),
        )
        known = self._numbers.get(kind)
        request: bytes | int = booking.request
        answer: Sequence[bytes | int] = booking.answer
        if booking.request_bytes + booking.answer_bytes >= _ALOUD:
            request, answer = self._stow(booking.request), [self._stow(block) for block in booking.answer]
        return (
            self._number(kind, booking.price_info) if known is None else known[0],
            booking.request_id,
            booking.started,
            _tries(booking),
            booking.first_byte_ms,
            booking.total_ms,
            request,
            answer,
            booking.answer_bytes,
            booking.ticket,
            booking.request_bytes,
            None if booking.reported is None else _usage(booking.reported),
            [self._side(side) for side in booking.side_costs] if booking.side_costs else None,
        )

    def _side(self, side: SideCost) -> Message:
        return (
            side.kind,
            side.model,
            self._stow(side.request),
            [self._stow(block) for block in side.answer],
            side.answer_is_stream,
            _usage(side.reported) if side.reported is not None else None,
            _plain_info(side.price_info),
            side.request_bytes,
        )

    def _stow(self, blob: bytes) -> bytes | int:
        if len(blob) < _ALOUD:
            return blob
        self._blobs.append(blob)
        return len(self._blobs) - 1

    def _number(self, kind: Message, info: ModelInfo | None) -> int:
        if len(self._numbers) >= _KINDS_MOST:
            self._numbers.clear()
        number = self._next
        # The object is kept with its number: another one must not get its address.
        self._numbers[kind] = (number, info)
        # Numbers come round again long after they were last meant.
        self._next = (number + 1) % (4 * _KINDS_MOST)
        self._new.append((number, (*kind[:-1], _plain_info(info))))
        return number


class Unpacker:
    """The receiving side of one connection."""

    def __init__(self) -> None:
        self._kinds: dict[int, Message] = {}

    def unpack(
        self, packed: Sequence[Message], new: Sequence[tuple[int, Message]], blobs: Sequence[bytes]
    ) -> list[Booking]:
        """The bookings of one frame."""
        for number, (*kind, info) in new:
            self._kinds[number] = (*kind, _info(info))
        return [self._booking(values, blobs) for values in packed]

    def _booking(self, values: Message, blobs: Sequence[bytes]) -> Booking:
        # Field by field, which takes half as long as to hand over twenty-three arguments.
        booking = _empty(Booking)
        (
            kind,
            booking.request_id,
            booking.started,
            tries,
            booking.first_byte_ms,
            booking.total_ms,
            booking.request,
            booking.answer,
            booking.answer_bytes,
            booking.ticket,
            booking.request_bytes,
            reported,
            sides,
        ) = values
        (
            booking.category,
            booking.mode,
            booking.model,
            booking.provider,
            booking.stream,
            booking.client,
            booking.outcome,
            booking.status,
            booking.failure,
            booking.answer_is_stream,
            booking.price_info,
        ) = self._kinds[kind]
        booking.attempts = (
            (_tuple(Attempt, (booking.model, "ok", booking.status, tries)),) if type(tries) is int else _attempts(tries)
        )
        if booking.request_bytes + booking.answer_bytes >= _ALOUD:
            booking.request = _fetch(booking.request, blobs)
            booking.answer = [_fetch(block, blobs) for block in booking.answer]
        booking.reported = None if reported is None else Usage(*reported)
        booking.side_costs = () if sides is None else tuple(_side(side, blobs) for side in sides)
        return booking


def _tries(booking: Booking) -> int | Message:
    """How long the one attempt took that nearly all need, or the fields of all attempts one after the other."""
    if len(booking.attempts) == 1:
        model, end, status, ms = booking.attempts[0]
        if end == "ok" and model == booking.model and status == booking.status:
            return ms
    return sum(booking.attempts, ())


def _attempts(flat: Message) -> tuple[Attempt, ...]:
    return tuple(Attempt(*flat[at : at + _ATTEMPT_FIELDS]) for at in range(0, len(flat), _ATTEMPT_FIELDS))


def _side(values: Message, blobs: Sequence[bytes]) -> SideCost:
    kind, model, request, answer, is_stream, usage, info, size = values
    blocks = [_fetch(block, blobs) for block in answer]
    reported = None if usage is None else Usage(*usage)
    return SideCost(kind, model, _fetch(request, blobs), blocks, is_stream, reported, _info(info), size)


def _fetch(blob: bytes | int, blobs: Sequence[bytes]) -> bytes:
    return blobs[blob] if isinstance(blob, int) else blob


def _usage(usage: Usage) -> Message:
    return (
        usage.fresh_input,
        usage.cache_read,
        usage.cache_write,
        usage.output,
        usage.reasoning,
        usage.cache_write_1h,
        usage.provider_cost,
    )


def _plain_info(info: ModelInfo | None) -> Message | None:
    if info is None:
        return None
    return tuple(
        tuple(getattr(value, name) for name in Prices.__slots__) if isinstance(value, Prices) else value
        for value in (getattr(info, name) for name in ModelInfo.__slots__)
    )


@lru_cache(maxsize=1024)
def _info(plain: Message | None) -> ModelInfo | None:
    if plain is None:
        return None
    values: list[Any] = [Prices(*value) if isinstance(value, tuple) else value for value in plain]
    return ModelInfo(*values)
