"""One worker's part in what all workers share: its memory of it, and the thread that keeps up with the others.

Changes go to the common file (`shared_rows`), and news from it come back, several times a second. Only what must be
exact is asked for on the event loop, in a transaction: the probe of a half-open circuit, a hedge, a provider's slot.
Where the file cannot be used, that is told once and each worker goes on alone: its event loop leaves the file alone,
and the thread tries, again and again, makes it anew where it is gone or ruined, and passes on then what has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from llm_router.config.values import BreakerSettings
from llm_router.proxy import shared_rows
from llm_router.proxy.parts import HedgeBudget
from llm_router.proxy.shared_rows import StateRows
from llm_router.routing.breaker import Circuits, Permit
from llm_router.routing.shared import Change, Key, Row, SharedCircuits, SharedConversations, StayRow

log = logging.getLogger("llm_router")

RELOAD: Final = "reload"
_LOOK_EVERY: Final = 0.2
_LINGER: Final = 0.01
_TIDY_EVERY: Final = 30.0
_SLOT_AGAIN_AFTER: Final = 0.03
_MEND_EVERY: Final = 0.5
# What is kept for the others while the file cannot be used.
_WAITING_MOST: Final = 2000

Trouble = sqlite3.Error | OSError


class SharedState:
    """Makes the shared stand-ins for what a router has in memory. Make it inside the running loop, then `start`.

    `worker` counts from 1; `when_heard` is called on the loop when circuits may have changed, `when_told` when another
    worker announced that the configuration is to be read again.
    """

    def __init__(self, folder: Path, worker: int, settings: BreakerSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._folder = folder
        self._worker = worker
        self._parent = os.getppid()
        self._changes: deque[Change] = deque()
        self._stays: deque[StayRow] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._in_trouble = False
        self._begun = False
        # Whether another file has taken the place of the one that was told what is known here, and is to be told yet.
        self._is_new = False
        self._mend_at = 0.0
        self.circuits = SharedCircuits(settings, self._note_change, self._claim)
        self.conversations = SharedConversations(self._note_stay)
        # One connection for each thread: SQLite lets them wait for each other as it does other processes.
        self.rows = StateRows(folder, worker, lambda: self.circuits.settings)
        self._thread_rows = StateRows(folder, worker, lambda: self.circuits.settings)
        self.hedges = SharedHedges(self)
        # How many of each provider's slots are taken here: the file may miss one while it cannot be used.
        self._slots: Counter[str] = Counter()
        self.when_heard: Callable[[], object] = bool
        self.when_told: Callable[[], object] = bool
        self._seen = -1
        self._elsewhere = -1
        self._announced = 0
        self._thread = threading.Thread(target=self._run, name="shared state", daemon=True)

    def __repr__(self) -> str:
        return f"<SharedState worker={self._worker} waiting={len(self._changes) + len(self._stays)}>"

    def start(self, known: Iterable[Row] = ()) -> None:
        """Takes over what the others know, frees what a predecessor held, and begins to keep up. A few milliseconds.

        `known` is what there is to know of circuits where there is no file to tell.
        """
        for row in known:
            self.circuits.take(row)
        with self.bearing():
            self._begin()
        self._thread.start()

    def _begin(self) -> None:
        self.rows.release_probes()
        self._announced = self.rows.announced(RELOAD)
        self._seen, rows, stays = self.rows.news(-1)
        self._hear(rows, [], stays)
        self.hedges.load()
        self._begun = True

    def close(self) -> None:
        """Passes on what is left and ends the thread. May take a moment."""
        self._closing = True
        self._wake.set()
        self._thread.join(2.0)
        self.rows.close()

    def slot(self, provider: str, limit: int) -> SharedSlot:
        """What bounds the concurrent requests of a provider over all workers."""
        return SharedSlot(self, provider, limit)

    def announce_reload(self) -> None:
        """Lets the other workers read the configuration again within a second."""
        if self.is_usable:
            with self.bearing():
                self._announced = self.rows.announce(RELOAD)

    def take_slot(self, provider: str, limit: int) -> bool:
        """One more of a provider's slots, if all workers together have less than `limit`; alone, if this one has."""
        taken = self._slots[provider]
        if self.is_usable:
            with self.bearing():
                if not self.rows.take_share("slot", provider, limit, taken):
                    return False
                self._slots[provider] = taken + 1
                return True
        if taken >= limit:
            return False
        self._slots[provider] = taken + 1
        return True

    def give_slot_back(self, provider: str) -> None:
        """One of a provider's slots is free again."""
        self._slots[provider] -= 1
        if self.is_usable:
            with self.bearing():
                self.rows.put_share("slot", provider, self._slots[provider])

    @property
    def is_usable(self) -> bool:
        """Whether the file is there to be asked: waiting for one that others hold locked would stop the event loop."""
        return not self._in_trouble

    def bearing(self, *, proof: bool = True) -> _Bearing:
        """Whatever happens to the file inside: it is told once, and the router goes on.

        That nothing happens is no `proof` that the file can be used where hardly anything was asked of it.
        """
        return _Bearing(self._judge if proof else self._judge_failure)

    def _judge_failure(self, error: Trouble | None) -> None:
        if error is not None:
            self._judge(error)

    def _judge(self, error: Trouble | None) -> None:
        if error is not None and not self._in_trouble:
            log.error("the workers' common state cannot be used (%s): worker %d goes on alone", error, self._worker)
        elif error is None and self._in_trouble:
            log.warning("the workers' common state can be used again by worker %d", self._worker)
        self._in_trouble = error is not None

    # --- on the event loop --------------------------------------------------------------------------------------------

    def _note_change(self, change: Change) -> None:
        self._changes.append(change._replace(at=time.monotonic()))
        if len(self._changes) > _WAITING_MOST:
            self.circuits.hear([], [self._changes.popleft()])
        self._wake.set()

    def _note_stay(self, stay: StayRow) -> None:
        self._stays.append(stay)
        if len(self._stays) > _WAITING_MOST:
            self._stays.popleft()
        self._wake.set()

    def _claim(
        self, keys: tuple[Key, ...], ask: Callable[[Circuits], Permit | None]
    ) -> tuple[Permit | None, list[Row]] | None:
        if self.is_usable:
            with self.bearing():
                return self.rows.claim(keys, ask)
        return None

    def _come_back(self) -> None:
        """The file can be used again, or another one is there: it is told what is known here, and asked from now on."""
        if self._closing:  # the thread has said so with its last breath, and nobody would close what is opened now
            return
        self._is_new |= self.rows.has_moved()
        self.rows.close()
        with self.bearing():
            if self._is_new or not self._begun:
                self.rows.contribute(self.circuits.rows())
            if not self._begun:
                self._begin()
            self.hedges.tell_again()
            for provider, taken in self._slots.items():
                self.rows.put_share("slot", provider, taken)
            self._is_new = False

    def _hear(self, rows: list[Row], saved: list[Change], stays: list[StayRow]) -> None:
        self.conversations.hear(stays)
        if rows or saved:
            self.circuits.hear(rows, saved)
            self.when_heard()

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        tidy_at = time.monotonic() + _TIDY_EVERY
        while not self._closing:
            if self._wake.wait(_LOOK_EVERY):
                # What happens within the next moment goes into the same transaction.
                time.sleep(_LINGER)
                self._wake.clear()
            self._round()
            if self._worker == 1 and time.monotonic() > tidy_at:
                tidy_at = time.monotonic() + _TIDY_EVERY
                with self.bearing():
                    self._thread_rows.tidy(time.time())
        self._round()
        self._thread_rows.close()

    def _round(self) -> None:
        # A new router makes the file anew, while those whose supervisor was killed drain: it is none of theirs.
        is_orphan = os.getppid() != self._parent
        if self._thread_rows.has_moved() and not is_orphan:
            self._judge(FileNotFoundError("it was removed"))
        if self._in_trouble:
            if not is_orphan:
                self._mend()
            return
        changes = [self._changes.popleft() for _ in range(len(self._changes))]
        stays = [self._stays.popleft() for _ in range(len(self._stays))]
        waiting = bool(changes or stays)
        touched: list[Row] = []
        rows: list[Row] = []
        heard: list[StayRow] = []
        with self.bearing(proof=waiting):
            if waiting:
                with self._thread_rows.transaction():
                    touched = self._thread_rows.apply(changes) if changes else []
                    if stays:
                        self._thread_rows.put_stays(stays)
                waiting = False
            self.hedges.share(self._thread_rows)
            elsewhere = self._thread_rows.changes_elsewhere()
            if elsewhere != self._elsewhere:
                self._seen, rows, heard = self._thread_rows.news(self._seen)
                self.hedges.learn(self._thread_rows)
                self._look_for_notices()
                self._elsewhere = elsewhere
        if waiting:
            self._changes.extendleft(reversed(changes))
            self._stays.extendleft(reversed(stays))
        elif changes or rows or heard:
            self._on_loop(self._hear, [*touched, *rows], changes, heard)

    def _mend(self) -> None:
        """Tries whether the file can be used, makes it anew if need be, and lets the event loop come back to it."""
        now = time.monotonic()
        if now < self._mend_at:
            return
        self._mend_at = now + _MEND_EVERY
        with self.bearing(proof=False):
            self._thread_rows.close()
            shared_rows.restore(self._folder)
            self._thread_rows.prove()
            self._seen = self._elsewhere = -1
            self._on_loop(self._come_back)

    def _look_for_notices(self) -> None:
        announced = self._thread_rows.announced(RELOAD)
        if announced > self._announced:
            self._announced = announced
            self._on_loop(self.when_told)

    def _on_loop(self, call: Callable[..., object], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, *values)


class _Bearing:
    """Bears errors of SQLite and of the disk: what follows them inside the block is left out."""

    def __init__(self, judge: Callable[[Trouble | None], None]) -> None:
        self._judge = judge

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None or isinstance(error, Trouble):
            self._judge(error)
            return True
        return False


class SharedHedges(HedgeBudget):
    """Hedges as a share of the requests of all workers. Requests are added up within a second, hedges exactly."""

    def __init__(self, state: SharedState) -> None:
        super().__init__()
        self._state = state
        self._elsewhere: dict[str, int] = {}
        self._shared: dict[str, int] = {}

    def load(self) -> None:
        """Adds what this worker's predecessor counted to what was counted here before the file could be asked."""
        for kind, counted in (("request", self._requests), ("hedge", self._hedges)):
            for name, (own, _) in self._state.rows.shares(kind).items():
                counted[name] = counted.get(name, 0) + own
        self.learn(self._state.rows)

    def take(self, category: str, share: float) -> bool:
        """Whether one more hedge keeps within `share`; it is counted then."""
        requests = self._requests.get(category, 0) + self._elsewhere.get(category, 0)
        most = int(max(1.0, share * requests))
        taken = self._hedges.get(category, 0)
        if self._state.is_usable:
            with self._state.bearing():
                if not self._state.rows.take_share("hedge", category, most, taken):
                    return False
                self._hedges[category] = taken + 1
                return True
        return super().take(category, share)

    def share(self, rows: StateRows) -> None:
        """Tells the others how many requests there were here."""
        for name, amount in list(self._requests.items()):
            if self._shared.get(name) != amount:
                self._shared[name] = amount
                rows.put_share("request", name, amount)

    def tell_again(self) -> None:
        """Tells what a file that was made anew does not know, and what one that was locked has missed."""
        self._shared.clear()
        for name, taken in self._hedges.items():
            self._state.rows.put_share("hedge", name, taken)

    def learn(self, rows: StateRows) -> None:
        """How many requests there were elsewhere."""
        self._elsewhere = {name: others for name, (_, others) in rows.shares("request").items()}


class SharedSlot:
    """A provider's `max_concurrency` over all workers, as a semaphore that is polled while others hold it."""

    def __init__(self, state: SharedState, provider: str, limit: int) -> None:
        self._state = state
        self._provider = provider
        self.limit = limit
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def acquire(self) -> bool:
        """Waits for a slot; first come, first served within this worker."""
        async with self._turn:
            while not self._take():
                self._freed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._freed.wait(), _SLOT_AGAIN_AFTER)
        return True

    def release(self) -> None:
        """Gives the slot back."""
        self._state.give_slot_back(self._provider)
        self._freed.set()

    def resize(self, limit: int) -> None:
        """From now on `limit` are let in."""
        self.limit = limit
        self._freed.set()

    def _take(self) -> bool:
        return self._state.take_slot(self._provider, self.limit)
