"""The keeper and a worker's books, talking over their socket: what closes is booked once, whoever is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from llm_router.accounting import keeper as keeper_room
from llm_router.accounting.booking import Booking
from llm_router.accounting.keeper import Keeper
from llm_router.accounting.ranks import Encodings
from llm_router.accounting.remote import RemoteBooks
from llm_router.accounting.settle import CountMode
from tests.accounting.books import rows
from tests.accounting.conftest import booking
from tests.support.waiting import until

NAME = "keeper.sock"


def listening(folder: Path) -> socket.socket:
    """Where workers find their keeper; the supervisor has it while there is none."""
    (folder / NAME).unlink(missing_ok=True)
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ear.bind(str(folder / NAME))
    ear.listen()
    ear.setblocking(False)
    return ear


@contextlib.asynccontextmanager
async def keeping(folder: Path, ear: socket.socket | None = None, pause: float = 0.0) -> AsyncIterator[Keeper]:
    """A keeper that serves workers, after a pause in which it builds its encoding, and ends without them."""
    ear = ear or listening(folder)
    keeper, stop = Keeper(folder, version="1", encodings=Encodings()), asyncio.Event()
    keeper.bookkeeper.start()
    await asyncio.sleep(pause)
    serving = asyncio.ensure_future(keeper.serve(ear, stop, 0.0))
    try:
        yield keeper
    finally:
        stop.set()
        await serving
        hang_up(keeper)


def hang_up(keeper: Keeper) -> None:
    """The connections of all workers are lost."""
    for worker in tuple(keeper.workers.values()):
        assert worker._transport is not None
        worker._transport.abort()


@contextlib.asynccontextmanager
async def working(folder: Path, count: CountMode = "always") -> AsyncIterator[RemoteBooks]:
    """A worker's books."""
    books = RemoteBooks(folder, str(folder / NAME), count)
    try:
        yield books
    finally:
        await asyncio.to_thread(books.close, 20.0)


def close(books: RemoteBooks, name: str) -> None:
    """One request from its admission to its end."""
    books.submit(booking(name, ticket=books.enter(name, 5.0), started=5.0))


def die(books: RemoteBooks) -> None:
    """What is left of a worker that is killed: what it had said, and its board, which nobody holds any more."""
    books._ended = True
    assert books._transport is not None
    books._transport.close()
    assert books._board is not None
    os.close(books._board._descriptor)
    books._board = None


async def booked(folder: Path) -> list[str]:
    """The names of the requests in the ledger."""
    return [name for (name,) in await asyncio.to_thread(rows, folder, columns="request_id")]


async def test_what_closed_before_the_keeper_was_there_is_booked_once(tmp_path):
    """It waits for the connection, and is not handed over a second time as what another keeper did not confirm."""
    async with keeping(tmp_path), working(tmp_path) as books:
        for number in range(20):
            close(books, f"r-{number}")
        await until(lambda: not books._unconfirmed)
        close(books, "later")
        await until(lambda: not books._unconfirmed)
        assert sorted(await booked(tmp_path)) == sorted([*(f"r-{number}" for number in range(20)), "later"])
        assert books._bytes == 0
    assert not list(tmp_path.glob("inflight-*.board"))


async def test_what_a_keeper_booked_and_did_not_confirm_is_not_booked_again(tmp_path, monkeypatch):
    """The next keeper looks into the ledger before it books what is handed over again; what is missing it books."""
    async with working(tmp_path) as books:
        with monkeypatch.context() as patch:
            patch.setattr(keeper_room.Worker, "send", lambda self, kind, *values: None)
            async with keeping(tmp_path) as first:
                close(books, "booked")
                await until(lambda: first.bookkeeper._settled == 1)
        assert len(books._unconfirmed) == 1
        close(books, "not yet")
        async with keeping(tmp_path):
            await until(lambda: not books._unconfirmed)
            assert await booked(tmp_path) == ["booked", "not yet"]


async def test_what_the_dead_said_while_there_was_no_keeper_is_booked_once(tmp_path):
    """A worker that is killed before the next keeper listens was heard: what it had handed over was not interrupted."""
    ear = listening(tmp_path)
    books = RemoteBooks(tmp_path, str(tmp_path / NAME), "always")
    await until(lambda: books._transport is not None)
    close(books, "handed over")
    await until(lambda: not books._fresh)
    books.enter("running", 5.0)
    die(books)
    async with keeping(tmp_path, ear, 0.3):
        await until(lambda: not list(tmp_path.glob("inflight-*.board")))
        outcomes = await asyncio.to_thread(rows, tmp_path, columns="request_id, outcome")
        assert sorted(outcomes) == [("handed over", "completed"), ("running", "interrupted")]


async def test_the_dead_are_heard_to_the_end_before_their_board_is_looked_at(tmp_path, monkeypatch):
    """While the ledger is asked for what a worker handed over again, its death does not make that interrupted."""
    monkeypatch.setattr(keeper_room, "_INHERIT_AFTER", (0.01,))
    asked, answer = threading.Event(), threading.Event()

    def is_booked(keeper: Keeper, one: Booking) -> bool:
        asked.set()
        answer.wait(20)
        return False

    monkeypatch.setattr(Keeper, "_is_booked", is_booked)
    books = RemoteBooks(tmp_path, str(tmp_path / NAME), "always")
    close(books, "r-1")
    books._fresh.clear()  # as if another keeper had been told
    async with keeping(tmp_path) as keeper:
        await until(asked.is_set)
        die(books)
        await until(lambda: not keeper.workers)
        await asyncio.sleep(0.1)
        answer.set()
        await until(lambda: not list(tmp_path.glob("inflight-*.board")))
        outcomes = await asyncio.to_thread(rows, tmp_path, columns="request_id, outcome")
        assert outcomes == [("r-1", "completed")]


async def test_a_keeper_whose_name_is_gone_is_found_again(tmp_path):
    """Where the socket was removed the keeper makes it anew, for nobody else, and the next worker comes by it."""
    async with keeping(tmp_path) as keeper, working(tmp_path) as books:
        await until(lambda: keeper.workers)
        (tmp_path / NAME).unlink()
        before = set(keeper.workers)
        hang_up(keeper)
        await until(lambda: set(keeper.workers) - before)
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
        close(books, "r-1")
        await until(lambda: not books._unconfirmed)
        assert await booked(tmp_path) == ["r-1"]


async def test_a_keeper_that_ends_does_not_come_back(tmp_path):
    """Once it was told to end it makes no new socket: the next keeper's stands there."""
    async with keeping(tmp_path) as keeper:
        keeper._stop.set()
        (tmp_path / NAME).unlink()
        await keeper._be_found()
        assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("mode", ["always", "when_missing"])
async def test_the_keeper_counts_as_its_workers_are_told(tmp_path, mode):
    """Whether reported answers are counted holds from the connection on, and after a reload."""
    other: CountMode = "always" if mode == "when_missing" else "when_missing"
    async with keeping(tmp_path) as keeper:
        keeper.bookkeeper.count = other
        async with working(tmp_path, mode) as books:
            await until(lambda: keeper.bookkeeper.count == mode)
            books.count = other
            await until(lambda: keeper.bookkeeper.count == other)


async def test_the_figures_are_those_of_now(tmp_path):
    """What runs is told soon after it began, what has closed before anybody asks, and again to whoever is new."""
    async with keeping(tmp_path) as keeper, working(tmp_path) as books:
        await until(lambda: books._transport is not None)
        ticket = books.enter("running", 5.0)
        await until(lambda: keeper.in_flight == 1)
        before = set(keeper.workers)
        hang_up(keeper)
        await until(lambda: set(keeper.workers) - before and keeper.in_flight == 1)
        books.submit(booking("running", ticket=ticket, started=5.0))
        body, content_type = await books.figures({"open_circuits": [], "circuits": {}})
        figures = orjson.loads(body)
        assert content_type == "application/json"
        assert figures["requests"]["total"] + figures["unsettled"] == 1
        assert figures["in_flight"] == 0
