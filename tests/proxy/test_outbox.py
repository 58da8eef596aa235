"""What leaves at the end of a turn: all of it, in order, and to nobody who is gone."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from llm_router.proxy.outbox import MOST_BYTES, Outbox


class Wire:
    """A transport that notes in a common list what is written to it."""

    def __init__(self, name: str, sent: list[tuple[str, bytes]], broken: bool = False) -> None:
        self.name, self.sent, self.broken = name, sent, broken
        self.closing = self.aborted = False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        if self.broken:
            raise RuntimeError("the handle is closed")
        self.sent.append((self.name, data))

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
async def outbox() -> Outbox:
    """An outbox of a busy router."""
    busy = Outbox()
    busy.awaited = 2
    return busy


def wires(*names: str) -> tuple[list[tuple[str, bytes]], Any]:
    """The list of what was sent, and the transports."""
    sent: list[tuple[str, bytes]] = []
    return sent, [cast(asyncio.WriteTransport, Wire(name, sent)) for name in names]


async def test_it_leaves_when_all_that_is_ready_has_run(outbox: Outbox) -> None:
    """Nothing is sent while others have their turn; then all of it is, in the order in which it was put in."""
    sent, (a, b) = wires("a", "b")
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    for number in range(3):
        loop.call_soon(lambda: seen.append(len(sent)))
        loop.call_soon(outbox.put, (a, b)[number % 2], b"%d" % number)
    await asyncio.sleep(0)
    assert seen == [0, 0, 0]
    await asyncio.sleep(0)
    assert sent == [("a", b"0"), ("b", b"1"), ("a", b"2")]


async def test_each_turn_has_its_own(outbox: Outbox) -> None:
    """What is put in after a flush, also by one who is being sent to, leaves with the next."""
    sent, (a, b) = wires("a", "b")
    outbox.put(a, b"1")
    outbox.flush()
    assert sent == [("a", b"1")]
    outbox.put(b, b"2")
    assert len(sent) == 1
    await asyncio.sleep(0)
    assert sent == [("a", b"1"), ("b", b"2")]
    outbox.flush()
    await asyncio.sleep(0)
    assert len(sent) == 2


async def test_what_is_large_does_not_wait(outbox: Outbox) -> None:
    """Its sender learns at once whether that was too much; what waited before leaves before."""
    sent, (a, b) = wires("a", "b")
    outbox.put(a, b"1")
    outbox.put(a, bytes(MOST_BYTES + 1))
    assert [len(data) for _, data in sent] == [1, MOST_BYTES + 1]
    outbox.put(b, bytes(MOST_BYTES))
    assert len(sent) == 2


async def test_who_is_gone_gets_nothing_and_others_all(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    """A transport that was closed meanwhile is passed over, one that fails is closed; the rest is sent all the same."""
    sent, (a, b, c) = wires("a", "b", "c")
    a.closing, b.broken = True, True
    for wire in (a, b, c):
        outbox.put(wire, b"x")
    await asyncio.sleep(0)
    assert sent == [("c", b"x")]
    assert b.aborted
    assert not a.aborted
    assert "unexpected error while sending" in caplog.text


async def test_alone_it_leaves_at_once(outbox: Outbox) -> None:
    """Where nothing else is likely to come nobody waits for it; behind what waits already it keeps its place."""
    sent, (a, b) = wires("a", "b")
    outbox.put(a, b"1")
    outbox.awaited = 1
    outbox.put(b, b"2")
    assert sent == []
    outbox.flush()
    outbox.put(a, b"3")
    assert sent == [("a", b"1"), ("b", b"2"), ("a", b"3")]
    b.closing = True
    outbox.put(b, b"4")
    assert len(sent) == 3
