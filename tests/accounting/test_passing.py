"""Bookings on their way from a worker to the keeper."""

from __future__ import annotations

import dataclasses

import pytest

from llm_router.accounting.booking import Attempt, Booking, SideCost
from llm_router.accounting.frames import FrameBuffer, frame
from llm_router.accounting.passing import Packer, Unpacker
from llm_router.accounting.pricing import ModelInfo, Prices
from llm_router.wire.usage import Usage

INFO = ModelInfo(
    Prices(1, 2, 0.5), above_threshold=9, above=Prices(3, 4), context=5, tools=True, encoding="cl100k_base"
)
USAGE = Usage(1, 2, 3, 4, 5, 6, 0.25)


def full(ticket: int = 7, size: int = 100) -> Booking:
    """A booking in which no field has its default."""
    side = SideCost("hedge", "a/m2", b"q" * size, [b"z", b"y" * size], True, USAGE, INFO, size + 2)
    return Booking(
        request_id="r-ü\ud800",
        started=1.5,
        category="code",
        mode="local",
        model="a/m1",
        provider="a",
        stream=True,
        client="c1",
        attempts=(Attempt("a/m0", "server_error", 500, 3), Attempt("a/m1", "ok", 200, 4)),
        outcome="cut",
        status=201,
        failure="truncated",
        first_byte_ms=1.25,
        total_ms=2.5,
        request=b"x" * size,
        answer=[b"a", b"b" * size, b""],
        answer_bytes=999,
        answer_is_stream=True,
        reported=USAGE,
        price_info=INFO,
        side_costs=(side,),
        ticket=ticket,
        request_bytes=size + 1,
    )


def carried(parts: list[bytes], step: int, buffer: FrameBuffer | None = None) -> list:
    """The frames that come out when `step` bytes come in at a time."""
    buffer = buffer or FrameBuffer()
    data, found = b"".join(parts), []
    while data:
        room = buffer.room()
        size = min(step, len(room), len(data))
        room[:size], data = data[:size], data[size:]
        found += buffer.filled(size)
    return found


def test_the_example_is_full() -> None:
    """Each field of a booking differs from its default, so that a field that is left behind is noticed."""
    empty = Booking("", 0.0)
    example = full()
    assert [f.name for f in dataclasses.fields(Booking) if getattr(empty, f.name) == getattr(example, f.name)] == []


@pytest.mark.parametrize("size", [0, 100, 40_000, 700_000])
def test_a_booking_arrives_as_it_was(size: int) -> None:
    """Every field, whether it travels in the head or after it."""
    packer, unpacker = Packer(), Unpacker()
    sent = [full(1, size), full(2, size), Booking("plain", 2.0)]
    for _ in range(2):
        ((kind, (packed, new, in_flight, again), blobs),) = carried(packer.pack(sent, 3, False), 65_536)
        assert (kind, in_flight, again) == ("book", 3, False)
        got = unpacker.unpack(packed, new, blobs)
        for booking in (*got, *sent):
            booking.answer = list(booking.answer)
        assert got == sent


def test_what_is_known_of_a_model_travels_once() -> None:
    """The second frame names by a number what the first one described; many models do not confuse the numbers."""
    packer, unpacker = Packer(), Unpacker()
    infos = [ModelInfo(context=number) for number in range(3000)]
    for number, info in enumerate([*infos, *infos[-3:]]):
        ((_, (packed, new), blobs),) = carried(packer.pack([Booking("r", 1.0, price_info=info)]), 1 << 20)
        assert len(new) == (number < 3000)
        assert unpacker.unpack(packed, new, blobs)[0].price_info == info


def test_what_bookings_share_travels_once() -> None:
    """A kind is described where it first comes up, and each booking still has all that is its own."""
    packer, unpacker = Packer(), Unpacker()
    ended = (Attempt("a/m1", "ok", 200, 5),)
    sent = [Booking(f"r{n}", n, "code", model="a/m1", attempts=ended, answer=[b"z"], ticket=n) for n in range(3)]
    sent.append(Booking("r3", 3, "code", model="a/m1", attempts=(), status=503, answer=[]))
    for expected in (2, 0):
        ((_, (packed, new), blobs),) = carried(packer.pack(sent), 1 << 20)
        assert len(new) == expected
        assert unpacker.unpack(packed, new, blobs) == [*sent]


def test_a_model_that_is_known_no_more_lends_its_number_to_nobody() -> None:
    """After each reload there are other objects, perhaps where the former ones were; few of them are remembered."""
    packer, unpacker = Packer(), Unpacker()
    for number in range(6000):
        one = Booking("r", 1.0, price_info=ModelInfo(context=number))
        ((_, (packed, new), blobs),) = carried(packer.pack([one]), 1 << 20)
        assert unpacker.unpack(packed, new, blobs)[0] == one
        del one
    assert len(packer._numbers) <= 1024


@pytest.mark.parametrize("attempt", [Attempt("a/m0", "ok", 200, 5), Attempt("a/m1", "ok", 201, 5)])
def test_one_attempt_that_is_not_the_usual_one_arrives_as_it_was(attempt: Attempt) -> None:
    """What an attempt shares with its request is left out only where it does."""
    packer, unpacker = Packer(), Unpacker()
    one = Booking("r", 1.0, model="a/m1", attempts=(attempt,), answer=[])
    ((_, (packed, new), blobs),) = carried(packer.pack([one]), 1 << 20)
    assert unpacker.unpack(packed, new, blobs) == [one]


@pytest.mark.parametrize("step", [1, 3, 7, 1000, 1 << 20])
def test_frames_may_come_in_any_pieces(step: int) -> None:
    """Several frames, with and without blobs, split anywhere."""
    parts = [*frame("a", 1), *frame("b", None, blobs=[b"x" * 300, b"", b"y"]), *frame("c"), *frame("d", "e")]
    expected = [("a", (1,), []), ("b", (None,), [b"x" * 300, b"", b"y"]), ("c", (), []), ("d", ("e",), [])]
    assert carried(parts, step) == expected


def test_room_for_a_large_frame_does_not_stay() -> None:
    """A buffer that had to grow for megabytes shrinks again, and goes on."""
    buffer = FrameBuffer()
    big = [bytes([number]) * 3_000_000 for number in range(3)]
    assert carried(frame("big", blobs=big), 100_000, buffer)[0][2] == big
    assert len(buffer.room()) < 1_000_000
    assert carried(frame("small", 1), 5, buffer) == [("small", (1,), [])]


def test_what_cannot_travel_is_refused() -> None:
    """An object that is no plain value is an error where it is sent, not where it is read."""
    with pytest.raises(ValueError, match="unmarshallable"):
        frame("x", object())
