"""A worker's side of the books: requests are noted on a board of its own and handed to the keeper when they close.

Nothing waits for the keeper. What has not been confirmed is kept, and handed over again when the keeper was replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final, cast

import orjson

from llm_router.accounting.board import Board, all_entries
from llm_router.accounting.booking import Booking, lighten
from llm_router.accounting.frames import FrameBuffer, frame
from llm_router.accounting.ledger import LINGERS, NO_TICKET, QUEUED_BYTES, awaits_company, is_open
from llm_router.accounting.passing import Packer
from llm_router.accounting.report import By, LedgerReader, NoLedger
from llm_router.accounting.settle import CountMode
from llm_router.errors import ApiError

log = logging.getLogger(__name__)

_LINGER: Final = 0.05
# Little enough for its copies to be made within a core's own cache.
_MOST_AT_ONCE, _BYTES_AT_ONCE = 256, 96 * 1024
_SOCKET_BYTES: Final = 1024 * 1024
_TELL_EVERY: Final = 0.25
_AGAIN_AFTER: Final = 0.1
_PATIENCE: Final = 5.0


class RemoteBooks(asyncio.BufferedProtocol):
    """Stands in for `Bookkeeper` in a worker. `address` is the keeper's socket; make it inside the running loop.

    `enter` and `submit` belong to the event loop; `request`, `usage`, `pending_elsewhere` and `close` to other threads.
    """

    def __init__(self, folder: Path, address: str, count: CountMode) -> None:
        self._loop = asyncio.get_running_loop()
        self._folder = folder
        self._address = address
        self._reader = LedgerReader(folder)
        self._board = Board.create(folder)
        self._open: dict[int, tuple[str, str, int]] = {}
        self._entered = self._submitted = 0
        self._unconfirmed: dict[int, tuple[Booking, int]] = {}
        self._bytes = 0
        self._fresh: list[Booking] = []
        self._flush_at: asyncio.TimerHandle | None = None
        self._lingered = 0
        self._transport: asyncio.WriteTransport | None = None
        self._packer = Packer()
        self._received = FrameBuffer()
        self._numbers = itertools.count()
        self._asked: dict[int, tuple[asyncio.Future[tuple[bytes, str]], list[bytes]]] = {}
        self._told = 0
        self._told_gone = False  # that no keeper is there; until one is heard
        self._teller: asyncio.TimerHandle | None = None
        self._count = count
        self._closing = self._ended = False
        self._all_confirmed = threading.Event()
        self._work: asyncio.Task[object] | None = None
        self._connect()

    def __repr__(self) -> str:
        return f"<RemoteBooks in_flight={self.in_flight} unconfirmed={len(self._unconfirmed)}>"

    # --- for the router ---------------------------------------------------------------------------------------------

    def enter(self, request_id: str, started: float, *, client: str = "", model: str = "") -> int:
        """Notes an admitted request; gives the ticket for its booking."""
        self._entered = ticket = self._entered + 1
        board = self._board
        slot = -1 if board is None else board.enter((request_id, started, client, model))
        self._open[ticket] = (request_id, client, slot)
        if self._teller is None:
            self._teller = self._loop.call_later(_TELL_EVERY, self._tell)
        return ticket

    def submit(self, booking: Booking) -> None:
        """Hands over a request that has closed. Never waits."""
        size = booking.request_bytes + booking.answer_bytes
        if self._bytes + size > QUEUED_BYTES:
            size = lighten(booking)
        self._bytes += size
        self._submitted += 1
        self._unconfirmed[booking.ticket] = (booking, size)
        self._fresh.append(booking)
        if self._flush_at is None:
            self._flush_at = self._loop.call_later(_LINGER, self._flush_in_company)

    @property
    def in_flight(self) -> int:
        """Requests that were entered and have not closed."""
        return self._entered - self._submitted

    @property
    def count(self) -> CountMode:
        """Whether answers whose usage was reported are counted too."""
        return self._count

    @count.setter
    def count(self, mode: CountMode) -> None:
        self._count = mode
        self._send(frame("count", mode))

    def pending(self, request_id: str, client: str | None = None) -> bool:
        """Whether a request of that id (and client, if given) is running here or not yet settled."""
        return is_open(self._open, request_id, client)

    def pending_elsewhere(self, request_id: str, client: str | None = None) -> bool:
        """The same of any other worker. Reads the disk."""
        return any(
            entry.request_id == request_id and (client is None or entry.client == client)
            for entry in all_entries(self._folder)
        )

    def request(self, request_id: str, client: str | None = None) -> dict[str, Any] | None:
        """The newest record of a request id (of that client, if one is given), or None. Reads the disk."""
        try:
            return self._reader.request(request_id, client)
        except NoLedger:
            return None

    def usage(self, by: By = "model", since: float | None = None, client: str | None = None) -> list[dict[str, Any]]:
        """Sums from the ledger, see `LedgerReader.usage`. Reads the disk."""
        try:
            return self._reader.usage(by, since, client)
        except NoLedger:
            return []

    def close(self, timeout: float = 5.0) -> bool:
        """Waits until all is confirmed, then lets go of keeper and board; False if that took too long."""
        end = time.monotonic() + timeout
        self._loop.call_soon_threadsafe(self._begin_to_close)
        confirmed = self._all_confirmed.wait(max(0.0, end - time.monotonic()))
        self._loop.call_soon_threadsafe(self._end)
        return confirmed

    async def figures(self, circuits: dict[str, Any], accept: str | None = None) -> tuple[bytes, str]:
        """The figures of all workers: JSON, or what `accept` asks for, with its type. Raises ApiError."""
        number = next(self._numbers)
        answer: asyncio.Future[tuple[bytes, str]] = self._loop.create_future()
        question = frame("ask", number, accept, orjson.dumps(circuits))
        self._asked[number] = answer, question
        try:
            self._flush()
            self._send(question)
            return await asyncio.wait_for(answer, _PATIENCE)
        except TimeoutError:
            message = "The process that keeps the figures does not answer; try again"
            raise ApiError(503, message, "server_error", "no_figures", headers={"Retry-After": "1"}) from None
        finally:
            del self._asked[number]

    # --- the connection ---------------------------------------------------------------------------------------------

    def _connect(self, after: float = 0.0) -> None:
        self._work = self._loop.create_task(self._try_to_connect(after))

    async def _try_to_connect(self, after: float) -> None:
        await asyncio.sleep(after)
        while not self._closing or self._unconfirmed:
            try:
                await self._loop.create_unix_connection(lambda: self, self._address)
                return
            except OSError as error:
                log.debug("the keeper cannot be reached: %s", error)
            await asyncio.sleep(_AGAIN_AFTER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduces itself, and hands over and asks again what another keeper did not confirm or answer."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are of no such class
        with contextlib.suppress(OSError):
            # As large as the system allows: prompts are, and each time that it is full costs a turn of the loop.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        self._packer = Packer()
        self._received = FrameBuffer()
        self._send(frame("hello", os.getpid()))
        self._send(frame("count", self._count))
        self._say_how_many()
        fresh = {booking.ticket for booking in self._fresh}
        again = [booking for ticket, (booking, _) in self._unconfirmed.items() if ticket not in fresh]
        self._hand_over(again, again=True)
        self._flush()
        for _, question in self._asked.values():
            self._send(question)

    def connection_lost(self, exc: Exception | None) -> None:
        """The keeper died; there will be another. Unless it is this side that could wait no longer: it has them."""
        self._transport = None
        if not self._ended and (not self._closing or self._unconfirmed):
            if not self._told_gone:
                log.warning("the keeper of the books has gone; %d requests are not confirmed", len(self._unconfirmed))
            self._told_gone = True
            self._connect(_AGAIN_AFTER)  # it may be there, and short of descriptors or memory

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._received.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Confirmations and answers."""
        for kind, values, _ in self._received.filled(nbytes):
            self._hear(kind, values)

    def _hear(self, kind: str, values: tuple[Any, ...]) -> None:
        self._told_gone = False
        if kind == "done":
            self._confirmed(values[0])
            if self._closing and not self._unconfirmed:
                self._all_confirmed.set()
        elif kind == "answer":
            number, body, content_type = values
            answer, _ = self._asked.get(number, (None, None))
            if answer is not None and not answer.done():
                answer.set_result((body, content_type))

    def _confirmed(self, tickets: list[int]) -> None:
        slots = []
        for ticket in tickets:
            _, size = self._unconfirmed.pop(ticket, (None, 0))
            self._bytes -= size
            _, _, slot = self._open.pop(ticket, NO_TICKET)
            if slot >= 0:
                slots.append(slot)
        if self._board is not None:
            self._board.clear(slots)

    def _flush_in_company(self) -> None:
        """Hands over what has closed, unless it had better wait for more."""
        self._lingered += 1
        if self._lingered < LINGERS and self._fresh:
            _, size = self._unconfirmed[self._fresh[0].ticket]
            if awaits_company(self.in_flight, len(self._fresh), size):
                self._flush_at = self._loop.call_later(_LINGER, self._flush_in_company)
                return
        self._flush()

    def _flush(self) -> None:
        self._lingered = 0
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush_at = None
        if self._transport is not None and self._fresh:
            fresh, self._fresh = self._fresh, []
            self._hand_over(fresh, again=False)

    def _hand_over(self, bookings: list[Booking], *, again: bool) -> None:
        part: list[Booking] = []
        size = 0
        for booking in bookings:
            part.append(booking)
            size += booking.request_bytes + booking.answer_bytes
            if size > _BYTES_AT_ONCE or len(part) == _MOST_AT_ONCE:
                self._send_bookings(part, again)
                part, size = [], 0
        if part:
            self._send_bookings(part, again)

    def _send_bookings(self, bookings: list[Booking], again: bool) -> None:
        self._told = self.in_flight
        try:
            self._send(self._packer.pack(bookings, self._told, again))
        except ValueError:
            log.exception("%d requests cannot be handed over; they stay on the board", len(bookings))

    def _send(self, parts: list[bytes]) -> None:
        if self._transport is not None:
            self._transport.writelines(parts)

    def _tell(self) -> None:
        """Streams last: how many run is told some time after one began, also while none closes."""
        self._teller = None
        if self._told != self.in_flight:
            self._say_how_many()

    def _say_how_many(self) -> None:
        self._send_bookings([], False)

    def _begin_to_close(self) -> None:
        self._closing = True
        self._flush()
        if not self._unconfirmed:
            self._all_confirmed.set()

    def _end(self) -> None:
        self._ended = True
        if self._teller is not None:
            self._teller.cancel()
        if self._work is not None:
            self._work.cancel()
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.close()
        if self._board is not None:
            self._board.close()
            self._board = None
