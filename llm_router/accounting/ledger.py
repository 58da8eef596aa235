"""The bookkeeper: one thread that settles what the event loop hands over, and keeps the ledger.

Nothing here ever makes the event loop wait. Bookings that come faster than they can be counted are estimated
instead (and say so); none is dropped. A ledger that cannot be written is told of once, its records wait in memory
and are tried again; chat goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_router.accounting.board import Board, DeadBoard, Slots, dead_boards
from llm_router.accounting.booking import Booking, LedgerRecord, lighten
from llm_router.accounting.drift import DriftBook
from llm_router.accounting.report import By, LedgerReader, NoLedger, shown
from llm_router.accounting.settle import CountMode, FindEncoding, Settler, interrupted_record, no_encoding
from llm_router.accounting.store import LedgerUnusable, Store
from llm_router.accounting.writer import BATCH, Writer

log = logging.getLogger(__name__)

Sink = Callable[[Sequence[LedgerRecord]], None]

_LINGER = 0.05
# Alone a booking costs twice what it does among others. While requests run the first one waits so many times as long,
# until there are so many; unless it is large, since these may be, too.
LINGERS = 5
_COMPANY, _COMPANY_BYTES = 64, 128 * 1024
_NEVER = 10**9
_BATCH_SECONDS = 0.2
# The clock is looked at after so many bookings, or so many bytes of them.
_SLICE, _SLICE_BYTES = 16, 16 * 1024
# While the loop works, too, the bookkeeper pauses after so much work, unless it has fallen behind by so many.
_WORK_SECONDS, _PAUSE_SECONDS = 0.0005, 0.001
_HURRIED_BOOKINGS = 1_000
# A booking of this size may take long to count: what is settled already is written first.
_HEAVY_BYTES = 1024 * 1024
# Past these the counting is too slow for what comes in.
_LAGGING_BOOKINGS = 2_000
_LATE_BOOKINGS, _LATE_SECONDS = 200, 5.0
QUEUED_BYTES = 64 * 1024 * 1024
_ROLL_UP_ROWS = 1_000
_IDLE_SECONDS = 30.0
NO_TICKET = ("", "", -1)


def awaits_company(running: int, closed: int, size: int) -> bool:
    """Whether so many closed requests (the first one's bytes are `size`) had better wait for those that run."""
    return running > 0 and closed < _COMPANY and size < _COMPANY_BYTES


def is_open(requests: Mapping[int, tuple[str, str, int]], request_id: str, client: str | None) -> bool:
    """Whether one of that id (and client, if given) is among these open requests; from any thread."""
    found = [owner for known, owner, _ in list(requests.values()) if known == request_id]
    return client in found if client is not None else bool(found)


class Bookkeeper:
    """Settles bookings in a thread of its own. `folder` is the state folder; None keeps no ledger.

    `find_encoding` gives a tokenizer by name or None; `sinks` are called with each batch once it is in the ledger;
    `when_quiet` is called after a batch while no request is running (work that would be felt, as building encodings);
    `board` stands in for a board of its own, and whoever gives it says when to `inherit`; `alone` says that no requests
    are carried in this process.
    `enter` and `submit` belong to the event loop's thread; everything else may be called from any thread.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        find_encoding: FindEncoding = no_encoding,
        sinks: Sequence[Sink] = (),
        count: CountMode = "always",
        when_quiet: Callable[[], object] | None = None,
        linger: float = _LINGER,
        board: Slots | None = None,
        alone: bool = False,
    ) -> None:
        self._folder = folder
        self._alone = alone
        self._when_quiet = when_quiet
        self._sinks = tuple(sinks)
        self._linger = linger
        self._store = Store(folder) if folder is not None else None
        self._writer = Writer(self._store, self._clear)
        self._reader = LedgerReader(folder) if folder is not None else None
        self._board = board
        self.drift = DriftBook()
        self._settler = Settler(find_encoding, self.drift)
        self._settler.mode = count
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        # The thread is to be woken by so many bookings.
        self._wake_at = _NEVER
        self._queue: deque[tuple[Booking, int]] = deque()
        # Each of these has one writer, since neither side may wait for the other's lock.
        self._bytes_in = self._bytes_out = 0
        self._entered = self._submitted = self._settled = 0
        self._open: dict[int, tuple[str, str, int]] = {}
        self._rested = 0.0
        # What had been submitted at that time, see `_is_late`.
        self._mark = (0.0, 0)
        self._inherit = folder is not None and board is None
        self.shed = 0

    def __repr__(self) -> str:
        return f"<Bookkeeper queued={self.queued} in_flight={self.in_flight} unwritten={self.unwritten}>"

    def start(self) -> None:
        """Opens the board of requests in flight and starts the thread. Takes a few milliseconds; before serving."""
        if self._folder is not None and self._board is None:
            self._board = Board.create(self._folder)
        self._thread = threading.Thread(target=self._run, name="bookkeeper", daemon=True)
        self._thread.start()

    def enter(self, request_id: str, started: float, *, client: str = "", model: str = "") -> int:
        """Notes an admitted request, so that not even a killed process forgets it; gives the ticket for its booking."""
        self._entered = ticket = self._entered + 1
        board = self._board
        slot = -1 if board is None else board.enter((request_id, started, client, model))
        self._open[ticket] = (request_id, client, slot)
        return ticket

    def adopt(self, bookings: Sequence[Booking], first_slot: int) -> None:
        """Hands over requests that another process entered and closed, by the tickets that they have there.

        On the given board the slot of each is `first_slot` and that ticket.
        """
        for booking in bookings:
            self._entered = ticket = self._entered + 1
            self._open[ticket] = (booking.request_id, booking.client, first_slot + booking.ticket)
            booking.ticket = ticket
            self.submit(booking)

    def inherit(self) -> None:
        """Books what processes that have died left on their boards, once all that they handed over is in the ledger."""
        self._inherit = True
        self._wake.set()

    def submit(self, booking: Booking) -> None:
        """Hands over a request that has closed; one that was never entered is entered now. Never waits."""
        if booking.ticket < 0:
            booking.ticket = self.enter(booking.request_id, booking.started, client=booking.client)
        size = booking.request_bytes + booking.answer_bytes
        if self._bytes_in - self._bytes_out + size > QUEUED_BYTES:
            size = lighten(booking)
            self.shed += 1
        self._bytes_in += size
        self._submitted += 1
        self._queue.append((booking, size))
        if len(self._queue) >= self._wake_at:
            self._wake_at = _NEVER
            self._wake.set()

    @property
    def count(self) -> CountMode:
        """Whether answers whose usage was reported are counted too; may be set at any time."""
        return self._settler.mode

    @count.setter
    def count(self, mode: CountMode) -> None:
        self._settler.mode = mode

    @property
    def in_flight(self) -> int:
        """Requests that were entered and have not closed."""
        return self._entered - self._submitted

    @property
    def queued(self) -> int:
        """Requests that have closed and are not settled."""
        return self._submitted - self._settled

    @property
    def unwritten(self) -> int:
        """Settled records that the ledger could not take yet."""
        return len(self._writer)

    @property
    def degraded(self) -> int:
        """Answers that were estimated because counting had fallen behind."""
        return self._settler.degraded

    def drift_ratios(self) -> dict[str, tuple[float | None, float | None]]:
        """Reported over counted tokens by model, for input and output."""
        return self.drift.ratios()

    @property
    def trouble(self) -> str:
        """Why the ledger cannot be written at the moment; empty if it can."""
        return self._writer.trouble

    @property
    def lost(self) -> int:
        """Records that were given up, since neither ledger nor memory could take them."""
        return self._writer.lost

    def pending(self, request_id: str, client: str | None = None) -> bool:
        """Whether a request of that id (and client, if given) is running or not yet settled."""
        return is_open(self._open, request_id, client)

    def pending_elsewhere(self, request_id: str, client: str | None = None) -> bool:
        """There is no other worker."""
        return False

    def request(self, request_id: str, client: str | None = None) -> dict[str, Any] | None:
        """The newest record of a request id (of that client, if one is given), or None. Reads the disk."""
        for record in self._writer.newest_first():
            if record.request_id == request_id and (client is None or record.kind.client == client):
                return shown(record.flat())
        try:
            return self._reader.request(request_id, client) if self._reader else None
        except NoLedger:
            return None

    def usage(self, by: By = "model", since: float | None = None, client: str | None = None) -> list[dict[str, Any]]:
        """Sums from the ledger, see `LedgerReader.usage`. Reads the disk."""
        try:
            return self._reader.usage(by, since, client) if self._reader else []
        except NoLedger:
            return []

    def flush(self, timeout: float = 5.0) -> bool:
        """Waits until all that was submitted is settled; False if it took too long."""
        end = time.monotonic() + timeout
        while self.queued:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def close(self, timeout: float = 5.0) -> bool:
        """Settles what is left and ends the thread; False if that took longer than `timeout` seconds."""
        thread = self._thread
        if thread is None:
            return True
        self._closing.set()
        self._wake.set()
        thread.join(timeout)
        return not thread.is_alive()

    # What follows runs in the bookkeeper's thread.

    def _run(self) -> None:
        try:
            if self._store is not None:
                self.drift.load(self._store.load_drift())
            while self._turn():
                self._sleep()
        finally:
            self._end()

    def _turn(self) -> bool:
        """Settles what has come; False once the bookkeeper is closing and nothing is left."""
        closing = self._closing.is_set()
        if closing:
            self._writer.hurry()
        try:
            self._settle_queue()
            self._care(idle=closing)
            if self._inherit and not (self._queue or self._writer or self._writer.rests):
                self._take_over()
            if self._when_quiet is not None and not (self._queue or self.in_flight or closing):
                self._when_quiet()
        except Exception:
            # Whatever it was, the next request's record must not suffer for it.
            log.exception("The bookkeeper stumbled and goes on")
        return not (closing and not self._queue)

    def _sleep(self) -> None:
        writer = self._writer
        timeout = writer.patience if writer or self._inherit else _IDLE_SECONDS if writer.unsummed else None
        if not self._wait(1, timeout):
            self._care(idle=True)
        if self._queue:
            self._await_company()

    def _wait(self, bookings: int, timeout: float | None) -> bool:
        """Waits until so many are there, or something else is to be done; False if it took longer than `timeout`."""
        self._wake_at = bookings
        in_time = len(self._queue) >= bookings or self._closing.is_set() or self._wake.wait(timeout)
        self._wake_at = _NEVER
        self._wake.clear()
        return in_time

    def _await_company(self) -> None:
        """What closes within the next moment goes into the same transaction."""
        self._closing.wait(self._linger)
        if awaits_company(self.in_flight, len(self._queue), self._queue[0][1]):
            self._wait(_COMPANY, (LINGERS - 1) * self._linger)

    def _take_over(self) -> None:
        assert self._store is not None
        assert self._folder is not None
        self._inherit = False
        dead: list[DeadBoard] = []
        try:
            dead.extend(dead_boards(self._folder))
            records = [interrupted_record(*entry) for board in dead for entry in board.entries]
            interrupted = self._store.write((), once=records)
        except (LedgerUnusable, OSError) as error:
            self._writer.tell(str(error))
            self._inherit = True
            for board in dead:
                board.keep()
            return
        self._writer.tell("")
        for board in dead:
            board.discard()
        if interrupted:
            log.warning("%d requests were interrupted when their process died; they are in the ledger", interrupted)

    def _settle_queue(self) -> None:
        queue = self._queue
        batch: list[LedgerRecord] = []
        tickets: list[int] = []
        now = began = self._rested = time.monotonic()
        try:
            while queue:
                if batch and (len(batch) >= BATCH or now - began > _BATCH_SECONDS or queue[0][1] > _HEAVY_BYTES):
                    done, batch, tickets, began = (batch, tickets), [], [], now
                    self._commit(*done)
                self._settle_slice(batch, tickets, self._is_lagging(now))
                now = self._rest()
        finally:
            if batch:
                self._commit(batch, tickets)

    def _rest(self) -> float:
        """Pauses if it is time to; gives the time before.

        The event loop may be waiting for the interpreter lock. Asked back at once, it would be ours again after a
        single callback of the loop's, and so on.
        """
        now = time.monotonic()
        if now - self._rested > _WORK_SECONDS:
            time.sleep(0 if self._must_hurry() else _PAUSE_SECONDS)
            self._rested = time.monotonic()
        return now

    def _settle_slice(self, batch: list[LedgerRecord], tickets: list[int], lagging: bool) -> None:
        take, size = self._queue.popleft, 0
        for _ in range(min(len(self._queue), _SLICE)):
            if size > _SLICE_BYTES or (batch and self._queue[0][1] > _HEAVY_BYTES):
                break
            booking, booking_size = take()
            size += booking_size
            self._bytes_out += booking_size
            batch.append(self._settle(booking, lagging))
            tickets.append(booking.ticket)

    def _is_lagging(self, now: float) -> bool:
        waiting = len(self._queue)
        return waiting > _LAGGING_BOOKINGS or (waiting > _LATE_BOOKINGS and self._is_late(now))

    def _is_late(self, now: float) -> bool:
        """Whether the next booking has waited for long: it was there already when the mark was set."""
        marked, submitted = self._mark
        if self._submitted - len(self._queue) >= submitted:
            self._mark = (now, self._submitted)
            return False
        return now - marked > _LATE_SECONDS

    def _must_hurry(self) -> bool:
        return (
            self._alone
            or len(self._queue) > _HURRIED_BOOKINGS
            or self._bytes_in - self._bytes_out > QUEUED_BYTES // 4
            or self._closing.is_set()
        )

    def _settle(self, booking: Booking, lagging: bool) -> LedgerRecord:
        try:
            return self._settler.settle(booking, estimate=lagging or len(booking.request) != booking.request_bytes)
        except Exception:
            log.exception("Request %s could not be read and is booked without tokens", booking.request_id)
            return self._settler.bare(booking)

    def _commit(self, batch: list[LedgerRecord], tickets: list[int]) -> None:
        """To the ledger, then to the sinks, then nobody waits for these any more."""
        known, forget = self._open.get, self._open.pop
        slots = [known(ticket, NO_TICKET)[2] for ticket in tickets]
        written = self._writer.write(batch, slots)
        for sink in self._sinks:
            self._rest()
            try:
                sink(batch)
            except Exception:
                log.exception("A sink of the ledger failed")
        for ticket in tickets:
            forget(ticket, None)
        if written:
            self._clear(slots)
        self._settled += len(batch)

    def _clear(self, slots: list[int]) -> None:
        if self._board is not None:
            self._board.clear([slot for slot in slots if slot >= 0])

    def _care(self, idle: bool) -> None:
        """What can wait: another try at what could not be written, hourly sums, what was learned about counts."""
        writer, store = self._writer, self._store
        writer.write_waiting()
        if store is None or writer.trouble:
            return
        if writer.unsummed >= _ROLL_UP_ROWS or (idle and writer.unsummed):
            try:
                while store.roll_up(_ROLL_UP_ROWS * 10) and idle:
                    pass
                store.save_drift(self.drift.rows())
            except LedgerUnusable as error:
                writer.tell(str(error))
            writer.unsummed = 0

    def _end(self) -> None:
        self._writer.give_up()
        if self._store is not None:
            self._store.close()
        if self._board is not None:
            self._board.close()
            self._board = None
