"""How a body reaches its sink: replay, pauses, turns, ends, and silence after letting go."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable

import pytest

from llm_router.proxy.upstream.errors import ConnectionLost, ProtocolError, ResponseTooLarge
from llm_router.proxy.upstream.response import (
    MAX_BACKLOG_BYTES,
    MAX_DRAIN_BYTES,
    MAX_TURN_BYTES,
    UpstreamResponse,
    ignore,
)
from tests.proxy.upstream.peers import Sink


class Carrier:
    """Stands in for the connection."""

    def __init__(self) -> None:
        self.push: Callable[[bytes], None] = ignore
        self.heard = False
        self.reading = True
        self.draining = False
        self.aborted = 0

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    def drain(self) -> None:
        self.reading = True
        self.draining = True

    def abort(self) -> None:
        self.aborted += 1


def make(coding: str = "") -> tuple[UpstreamResponse, Carrier]:
    carrier = Carrier()
    headers = {"content-encoding": coding} if coding else {}
    return UpstreamResponse(200, headers, carrier, asyncio.get_running_loop()), carrier


async def test_what_came_before_the_sink_is_replayed() -> None:
    """Nothing is lost between head and attach, and the order holds; what was kept comes in one piece."""
    response, carrier = make()
    carrier.push(b"a")
    carrier.push(b"b")
    sink = Sink()
    response.attach(sink)
    carrier.push(b"c")
    response.message_over(None)
    assert sink.pieces == [b"ab", b"c"]
    assert sink.ends == [None]


async def test_end_before_the_sink() -> None:
    """A body that is over before anybody listens is delivered like any other."""
    response, carrier = make()
    carrier.push(b"a")
    response.message_over(ConnectionLost("cut"))
    sink = Sink()
    response.attach(sink)
    assert sink.pieces == [b"a"]
    assert isinstance(sink.ends[0], ConnectionLost)


async def test_steady_state_has_nothing_in_between() -> None:
    """Once all is replayed the connection calls the sink's own method."""
    response, carrier = make()
    carrier.push(b"a")
    sink = Sink()
    response.attach(sink)
    assert carrier.push == sink.body_received


async def test_backlog_without_a_sink_is_bounded() -> None:
    """An answer that nobody takes stops being read."""
    response, carrier = make()
    for _ in range(3):
        carrier.push(bytes(MAX_BACKLOG_BYTES // 3))
    assert carrier.reading
    carrier.push(b"x")
    assert not carrier.reading
    sink = Sink()
    response.attach(sink)
    assert carrier.reading
    assert len(sink.data) == MAX_BACKLOG_BYTES // 3 * 3 + 1


async def test_a_pause_keeps_what_comes_and_then_stops_reading() -> None:
    """A short pause costs nothing; in a longer one the first read is kept, and there is no second."""
    response, carrier = make()
    sink = Sink(lambda data: response.pause())
    response.attach(sink)
    carrier.push(b"a")
    assert carrier.reading
    carrier.push(b"b")
    assert not carrier.reading
    assert sink.pieces == [b"a"]
    response.resume()
    assert sink.pieces == [b"a", b"b"]
    assert not carrier.reading
    response.resume()
    assert carrier.reading
    assert carrier.push == sink.body_received


async def test_sink_may_pause_in_the_replay() -> None:
    """A pause while what was kept is delivered holds the rest and the end back until resume."""
    response, carrier = make()
    sink = Sink(lambda data: response.pause())
    carrier.push(b"a")
    carrier.push(b"b")
    response.attach(sink)
    assert sink.pieces == [b"ab"]
    carrier.push(b"c")
    assert not carrier.reading
    response.message_over(None)
    response.resume()
    assert sink.pieces == [b"ab", b"c"]
    assert sink.ends == []
    response.resume()
    assert sink.ends == [None]


async def test_sink_may_resume_inside_its_own_call() -> None:
    """pause and resume from within a delivery keep the order."""
    response, carrier = make()

    def twist(data: bytes) -> None:
        response.pause()
        response.resume()

    sink = Sink(twist)
    carrier.push(b"a")
    response.attach(sink)
    for piece in (b"b", b"c"):
        carrier.push(piece)
    assert sink.pieces == [b"a", b"b", b"c"]
    assert carrier.reading


async def test_the_end_waits_for_resume() -> None:
    """A paused sink is told of the end when it resumes, so that it need not expect calls meanwhile."""
    response, carrier = make()
    sink = Sink()
    response.attach(sink)
    carrier.push(b"a")
    response.pause()
    response.message_over(None)
    assert sink.ends == []
    response.resume()
    assert sink.ends == [None]


@pytest.mark.parametrize("when", ["before", "between", "after"])
async def test_no_calls_after_close(when: str) -> None:
    """close means silence, whatever was kept or comes, and twice is once."""
    response, carrier = make()
    sink = Sink()
    if when == "before":
        carrier.push(b"a")
        response.pause()
    response.attach(sink)
    if when == "between":
        carrier.push(b"a")
    seen = list(sink.pieces)
    if when == "after":
        response.message_over(None)
        assert sink.ends == [None]
    response.close()
    response.close()
    response.resume()
    if when != "after":  # the connection pushes nothing behind the end
        carrier.push(b"late")
    assert sink.pieces == seen
    assert len(sink.ends) == (when == "after")
    assert carrier.aborted == (when != "after")


async def test_close_inside_a_delivery() -> None:
    """A sink that closes in the middle of the replay gets nothing more."""
    response, carrier = make()
    sink = Sink(lambda data: response.close())
    carrier.push(b"a")
    carrier.push(b"b")
    response.attach(sink)
    carrier.push(b"c")
    assert sink.pieces == [b"ab"]
    assert sink.ends == []
    assert carrier.aborted == 1


async def test_release_drains_silently_up_to_a_bound() -> None:
    """After release the rest of the message is thrown away, a little of it only."""
    response, carrier = make()
    sink = Sink()
    response.attach(sink)
    response.pause()
    response.release()
    assert carrier.draining
    assert carrier.reading
    carrier.push(bytes(MAX_DRAIN_BYTES))
    assert carrier.aborted == 0
    carrier.push(b"x")
    assert carrier.aborted == 1
    assert sink.pieces == []


async def test_release_of_a_complete_answer_is_nothing() -> None:
    """A connection that is free already is left alone."""
    response, carrier = make()
    response.message_over(None)
    response.release()
    response.close()
    assert (carrier.draining, carrier.aborted) == (False, 0)


async def test_compressed_body_reaches_the_sink_inflated() -> None:
    """A sink never sees a coding, however the compressed bytes were cut."""
    response, carrier = make("gzip")
    data = gzip.compress(b"hello world")
    sink = Sink()
    carrier.push(data[:7])
    response.attach(sink)
    for byte in data[7:]:
        carrier.push(bytes([byte]))
    response.message_over(None)
    assert sink.data == b"hello world"
    assert sink.ends == [None]


@pytest.mark.parametrize("damage", ["cut", "corrupt", "unknown"])
async def test_damaged_compression_is_a_body_error(damage: str) -> None:
    """The sink is told once, and the connection is closed if it is still in use."""
    response, carrier = make("br" if damage == "unknown" else "gzip")
    data = gzip.compress(b"hello world" * 100)
    sink = Sink()
    response.attach(sink)
    carrier.push(data[:-10] if damage == "cut" else data[:20] + bytes(20))
    response.message_over(None)
    assert len(sink.ends) == 1
    assert isinstance(sink.ends[0], ProtocolError)
    assert carrier.aborted == (damage != "cut")


async def test_cut_is_told_before_the_inflater_complains() -> None:
    """A lost connection is called that, not corrupt compression."""
    response, carrier = make("gzip")
    sink = Sink()
    response.attach(sink)
    carrier.push(gzip.compress(b"hello world")[:-3])
    response.message_over(ConnectionLost("cut"))
    assert isinstance(sink.ends[0], ConnectionLost)


async def test_bomb_gives_others_their_turn() -> None:
    """However much a read inflates to, the loop is free again after a bounded share of it."""
    response, carrier = make("gzip")
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(8)) + squeeze.flush()
    sink = Sink()
    response.attach(sink)
    carrier.push(bomb)
    response.message_over(None)
    assert len(sink.data) == MAX_TURN_BYTES
    assert not carrier.reading
    assert await sink.end() is None
    assert len(sink.data) == 8 << 20


async def test_bomb_stops_at_a_pause() -> None:
    """A sink that pauses holds the decompressor, and close ends it."""
    response, carrier = make("gzip")
    sink = Sink(lambda data: response.pause())
    response.attach(sink)
    carrier.push(gzip.compress(bytes(4 << 20)))
    await asyncio.sleep(0.01)
    assert len(sink.pieces) == 1
    response.resume()
    await asyncio.sleep(0.01)
    assert len(sink.pieces) == 2
    response.close()
    response.resume()
    await asyncio.sleep(0.01)
    assert len(sink.pieces) == 2


async def test_close_between_turns() -> None:
    """close while the next turn is already scheduled cancels it."""
    response, carrier = make("gzip")
    sink = Sink()
    response.attach(sink)
    carrier.push(gzip.compress(bytes(4 << 20)))
    response.close()
    await asyncio.sleep(0.01)
    assert len(sink.data) == MAX_TURN_BYTES


async def test_read_gives_the_whole_body() -> None:
    """One-shot answers are read in one go."""
    response, carrier = make()
    carrier.push(b"a")
    asyncio.get_running_loop().call_soon(carrier.push, b"b")
    asyncio.get_running_loop().call_soon(response.message_over, None)
    assert await response.read(2) == b"ab"


@pytest.mark.parametrize("coding", ["", "gzip"])
async def test_read_is_bounded(coding: str) -> None:
    """More than the limit is refused, counted after decompression, and the connection closed."""
    response, carrier = make(coding)
    carrier.push(gzip.compress(bytes(10**6)) if coding else bytes(1001))
    with pytest.raises(ResponseTooLarge):
        await response.read(1000)
    assert carrier.aborted == 1


@pytest.mark.parametrize("error", [ConnectionLost("cut"), ProtocolError("odd")])
async def test_read_raises_what_the_body_ended_with(error: Exception) -> None:
    """A cut body is not a short one."""
    response, carrier = make()
    carrier.push(b"a")
    response.message_over(error)  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        await response.read(100)


async def test_cancelled_read_closes() -> None:
    """Giving up a read gives up the connection."""
    response, carrier = make()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await response.read(100)
    assert carrier.aborted == 1


async def test_repr_tells_the_state() -> None:
    """A response in a debugger says how far it is."""
    response, _ = make()
    assert repr(response) == "<UpstreamResponse 200 open backlog=0>"
    response.pause()
    assert "paused" in repr(response)
    response.close()
    assert "gone" in repr(response)
    response, _ = make()
    response.message_over(None)
    assert "over" in repr(response)


async def test_an_answer_that_is_over_is_never_silent() -> None:
    """What is left of it may wait for a slow client as long as that takes: nothing more is to come."""
    response, carrier = make()
    carrier.push(b"a")
    before = response.last_read
    response.message_over(None)
    assert before <= asyncio.get_running_loop().time() < response.last_read
