"""A worker's side of the books, without a keeper."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llm_router.accounting import remote
from llm_router.accounting.remote import RemoteBooks
from tests.accounting.conftest import booking
from tests.support.waiting import until


class _Line:
    """Stands in for the connection to the keeper."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writelines(self, parts: list[bytes]) -> None:
        self.parts += parts

    def close(self) -> None:
        pass


@asynccontextmanager
async def _books(folder: Path, line: _Line) -> AsyncIterator[RemoteBooks]:
    books = RemoteBooks(folder, str(folder / "nobody.sock"), "always")
    books._transport = line
    try:
        yield books
    finally:
        await asyncio.to_thread(books.close, 0.0)


@pytest.mark.parametrize(
    ("running", "closed", "size", "turns"),
    [(False, 1, 100, 1), (True, 1, 100, 5), (True, 64, 100, 1), (True, 1, 1_000_000, 1)],
)
async def test_a_worker_hands_over_in_company(tmp_path, running, closed, size, turns):
    """While other requests run a worker waits for them some turns of its timer, unless there are many or large ones."""
    line = _Line()
    async with _books(tmp_path, line) as books:
        if running:
            books.enter("running", 0.0)
        for number in range(closed):
            name = f"r-{number}"
            books.submit(booking(name, ticket=books.enter(name, 0.0), request=b"x" * size))
        seen = 0
        while not line.parts:
            books._flush_in_company()
            seen += 1
    assert seen == turns


async def test_a_worker_that_waits_no_longer_does_not_come_back(tmp_path, caplog):
    """The keeper has what it did not confirm in time: handed over once more it might be booked twice."""
    line = _Line()
    async with _books(tmp_path, line) as books:
        books.submit(booking("r-1", ticket=books.enter("r-1", 0.0)))
        assert not await asyncio.to_thread(books.close, 0.0)
        await until(lambda: books._ended)
        books._work = None
        books.connection_lost(None)
        assert books._work is None
    assert "has gone" not in caplog.text


async def test_what_waits_for_a_keeper_is_bounded(tmp_path, monkeypatch):
    """While no keeper is there, past a bound only what a report of usage fits into is kept of a request."""
    monkeypatch.setattr(remote, "QUEUED_BYTES", 100_000)
    async with _books(tmp_path, _Line()) as books:
        kept = [booking(f"r-{number}", ticket=books.enter("r", 0.0), request=b"x" * 60_000) for number in range(3)]
        for one in kept:
            books.submit(one)
        assert [len(one.request) for one in kept] == [60_000, 0, 0]
        assert books._bytes < 100_000
        books._confirmed([one.ticket for one in kept])
        assert books._bytes == 0


async def test_a_keeper_that_hangs_up_is_not_called_without_end(tmp_path, caplog):
    """One that is short of descriptors takes each call and ends it: neither side spins, and one line tells of it."""
    calls: list[float] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(asyncio.get_running_loop().time())
        writer.close()

    server = await asyncio.start_unix_server(hang_up, tmp_path / "keeper.sock")
    books = RemoteBooks(tmp_path, str(tmp_path / "keeper.sock"), "always")
    await until(lambda: len(calls) >= 4)
    server.close()
    await asyncio.to_thread(books.close, 0.0)
    assert calls[3] - calls[0] > 2.5 * remote._AGAIN_AFTER
    assert caplog.text.count("has gone") == 1
