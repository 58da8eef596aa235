"""The keeper: the process that keeps the books for all workers.

It has the one `Bookkeeper` (tokenizer, ledger, access log) and the one `Metrics`. Workers hand over what has closed on
a Unix socket, in batches (see `frames` and `passing`), and are told of each request that is in the ledger; until then
it stands on their own board. So a worker that is killed loses nothing: what it had handed over is booked, what still
stands on its board is found there. A keeper that is killed loses the live figures; workers hand over again what was not
confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import orjson

from llm_router.accounting.booking import Booking
from llm_router.accounting.frames import FrameBuffer, frame
from llm_router.accounting.ledger import Bookkeeper, Sink
from llm_router.accounting.metrics import Metrics
from llm_router.accounting.passing import Unpacker
from llm_router.accounting.ranks import Encodings
from llm_router.accounting.report import LedgerReader, NoLedger
from llm_router.accounting.settle import CountMode
from llm_router.private_files import make_folder

log = logging.getLogger(__name__)

# Workers have waited for more already; this is for those of another one.
_LINGER = 0.005
# A dead process lets go of its board a moment after its connection has ended, and what it said last is still to be read
# when a keeper begins.
_INHERIT_AFTER = (0.1, 0.5, 3.0)
LAST_WORDS: Final = 10.0
# Enough for more tickets than any worker lives to hand out.
TICKET_BITS: Final = 48
_TICKET: Final = (1 << TICKET_BITS) - 1


class Confirmations:
    """The `Slots` of the keeper's bookkeeper: to clear one is to tell its worker.

    A slot is the worker's number and the worker's ticket in one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, workers: Mapping[int, Worker]) -> None:
        self._loop = loop
        self._workers = workers
        self._cleared: deque[int] = deque()
        self._will_tell = False

    def enter(self, entry: tuple[str, float, str, str]) -> int:
        """Nobody enters requests here."""
        return -1

    def clear(self, slots: Sequence[int]) -> None:
        """Comes from the bookkeeper's thread, for a whole batch."""
        self._cleared.extend(slots)
        if not self._will_tell:
            self._will_tell = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: so have all workers
                self._loop.call_soon_threadsafe(self._tell)

    def close(self) -> None:
        """Nothing is held."""

    def _tell(self) -> None:
        # First, so that what is cleared from here on is told of, now or in a turn of its own.
        self._will_tell = False
        cleared = self._cleared
        tickets: defaultdict[int, list[int]] = defaultdict(list)
        for _ in range(len(cleared)):
            slot = cleared.popleft()
            tickets[slot >> TICKET_BITS].append(slot & _TICKET)
        for number, done in tickets.items():
            worker = self._workers.get(number)
            if worker is not None:
                worker.send("done", done)


class Worker(asyncio.BufferedProtocol):
    """One worker's connection."""

    def __init__(self, keeper: Keeper, number: int) -> None:
        self.number = number
        self._keeper = keeper
        self._received = FrameBuffer()
        self._transport: asyncio.WriteTransport | None = None
        self.unpacker = Unpacker()
        self.pid = 0
        self.in_flight = 0

    def send(self, kind: str, *values: Any) -> None:
        """Never waits: what is said to a worker is small."""
        if self._transport is not None:
            self._transport.writelines(frame(kind, *values))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A worker is there."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are of no such class
        self._keeper.workers[self.number] = self

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, or was ended."""
        self._transport = None
        self._keeper.lost_sight_of(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._received.room()

    def buffer_updated(self, nbytes: int) -> None:
        """It has said something."""
        for kind, values, blobs in self._received.filled(nbytes):
            self._keeper.hear(self, kind, values, blobs)


class Keeper:
    """Serves workers on `listener` until `stop` is set and they have gone.

    `pids` gives the processes whose CPU and memory are ours besides the workers'. `sinks` get what was settled.
    """

    def __init__(
        self,
        folder: Path,
        *,
        version: str,
        encodings: Encodings,
        sinks: Sequence[Sink] = (),
        count: CountMode = "always",
        pids: Callable[[], list[int]] = list,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.workers: dict[int, Worker] = {}
        self._numbers = itertools.count()
        self.metrics = Metrics(version)
        self.bookkeeper = Bookkeeper(
            folder,
            find_encoding=encodings.get,
            sinks=[self.metrics.observe, *sinks],
            count=count,
            when_quiet=encodings.build_wanted,
            linger=_LINGER,
            board=Confirmations(self._loop, self.workers),
            alone=True,
        )
        self.metrics.watched = self
        self.metrics.pids = lambda: [*pids(), *(worker.pid for worker in tuple(self.workers.values()))]
        self._reader = LedgerReader(folder)
        self._work: set[asyncio.Task[None]] = set()
        self._looking_up = 0
        self._alone = asyncio.Event()
        self._servers: list[asyncio.AbstractServer] = []
        self._address = ""
        self._stop = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Keeper workers={len(self.workers)} {self.bookkeeper!r}>"

    # --- what `/metrics` shows of the moment ------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests that run in any worker, as last heard."""
        return sum(worker.in_flight for worker in tuple(self.workers.values()))

    @property
    def queued(self) -> int:
        """Requests that were handed over and are not settled."""
        return self.bookkeeper.queued

    @property
    def unwritten(self) -> int:
        """Records that wait for the ledger."""
        return self.bookkeeper.unwritten

    @property
    def lost(self) -> int:
        """Records that the ledger never got."""
        return self.bookkeeper.lost

    @property
    def degraded(self) -> int:
        """Answers that were estimated because counting had fallen behind."""
        return self.bookkeeper.degraded

    def drift_ratios(self) -> dict[str, tuple[float | None, float | None]]:
        """Reported over counted tokens by model."""
        return self.bookkeeper.drift_ratios()

    # --- serving ----------------------------------------------------------------------------------------------------

    async def serve(self, listener: socket.socket, stop: asyncio.Event, patience: float = LAST_WORDS) -> None:
        """From the first worker to the last, who has `patience` seconds to go. The bookkeeper has been started."""
        self._address, self._stop = listener.getsockname(), stop
        self._servers.append(await self._loop.create_unix_server(self._meet, sock=listener))
        await self._be_found()
        self._inherit_soon()
        try:
            await stop.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while self.workers:
                        self._alone.clear()
                        await self._alone.wait()
        finally:
            for server in self._servers:
                server.close()
            await asyncio.to_thread(self.bookkeeper.close, 5.0)

    def hear(self, worker: Worker, kind: str, values: tuple[Any, ...], blobs: list[bytes]) -> None:
        """Does what a worker wants."""
        if kind == "book":
            packed, new, worker.in_flight, again = values
            bookings = worker.unpacker.unpack(packed, new, blobs)
            if again:
                self._start(self._adopt_if_new(worker, bookings))
            else:
                self._adopt(worker, bookings)
        elif kind == "ask":
            self._start(self._answer(worker, *values))
        elif kind == "hello":
            (worker.pid,) = values
        elif kind == "count":
            (self.bookkeeper.count,) = values

    def lost_sight_of(self, worker: Worker) -> None:
        """A worker has gone; if it died, its board tells what it was doing."""
        self.workers.pop(worker.number, None)
        self._alone.set()
        self._start(self._be_found())
        self._inherit_soon()

    def _inherit_soon(self) -> None:
        for seconds in _INHERIT_AFTER:
            self._loop.call_later(seconds, self._inherit)

    def _inherit(self) -> None:
        """Has boards of the dead looked at, once all that they handed over is with the bookkeeper."""
        if self._looking_up:
            self._loop.call_later(_INHERIT_AFTER[0], self._inherit)
        else:
            self.bookkeeper.inherit()

    def _meet(self) -> Worker:
        return Worker(self, next(self._numbers))

    def _has_name(self) -> bool:
        return os.path.exists(self._address)

    async def _be_found(self) -> None:
        """Listens anew where the socket's name is gone, with the state folder perhaps: the next worker looks for it."""
        if self._stop.is_set() or self._has_name():
            return
        try:
            make_folder(Path(self._address).parent)
            self._servers.append(await self._loop.create_unix_server(self._meet, path=self._address))
            os.chmod(self._address, 0o600)
        except OSError as error:
            log.error("The keeper cannot be found by new workers (%s): their records wait", error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    def _adopt(self, worker: Worker, bookings: Sequence[Booking]) -> None:
        self.bookkeeper.adopt(bookings, worker.number << TICKET_BITS)

    async def _adopt_if_new(self, worker: Worker, bookings: list[Booking]) -> None:
        self._looking_up += 1
        try:
            known = await asyncio.to_thread(lambda: [self._is_booked(booking) for booking in bookings])
        finally:
            self._looking_up -= 1
        worker.send("done", [booking.ticket for booking, is_known in zip(bookings, known, strict=True) if is_known])
        self._adopt(worker, [booking for booking, is_known in zip(bookings, known, strict=True) if not is_known])

    async def _answer(self, worker: Worker, number: int, accept: str | None, circuits: bytes) -> None:
        worker.send("answer", number, *await self.metrics.figures(orjson.loads(circuits), accept))

    def _is_booked(self, booking: Booking) -> bool:
        """Whether a keeper before this one had it written and could not say so any more."""
        try:
            return self._reader.has(booking.request_id, booking.started)
        except NoLedger:
            return False
