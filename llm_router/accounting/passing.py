"""Bookings on their way from a worker to the keeper: many in one frame, and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from llm_router.accounting.booking import Attempt, Booking, SideCost
from llm_router.accounting.frames import Message, frame
from llm_router.accounting.pricing import ModelInfo, Prices
from llm_router.wire.usage import Usage

# Blobs from here on travel behind the head.
_APART: Final = 32 * 1024
_KINDS_MOST: Final = 1024

_ATTEMPT_FIELDS: Final = len(Attempt._fields)
_empty: Final = object.__new__
_tuple: Final = tuple.__new__


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
        if booking.request_bytes + booking.answer_bytes >= _APART:
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
            None if booking.reported is None else tuple(booking.reported),
            [self._side(side) for side in booking.side_costs] if booking.side_costs else None,
        )

    def _side(self, side: SideCost) -> Message:
        return (
            side.kind,
            side.model,
            self._stow(side.request),
            [self._stow(block) for block in side.answer],
            side.answer_is_stream,
            tuple(side.reported) if side.reported is not None else None,
            _plain_info(side.price_info),
            side.request_bytes,
        )

    def _stow(self, blob: bytes) -> bytes | int:
        if len(blob) < _APART:
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
        if booking.request_bytes + booking.answer_bytes >= _APART:
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
