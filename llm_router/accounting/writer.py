"""Records on their way into the ledger: what it cannot take waits in memory, in order, and is tried again."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from llm_router.accounting.booking import LedgerRecord
from llm_router.accounting.store import LedgerUnusable, Store

log = logging.getLogger(__name__)

BATCH = 512  # records of one transaction
_MOST_WAITING = 20_000


class Writer:
    """Writes to `store` (None: there is no ledger). For the bookkeeper's thread, but for what only tells.

    `trouble` is why the ledger cannot be written at the moment, empty if it can; `lost` how many records were given
    up; `unsummed` how many were written since the hourly sums. `clear` is called with the places on the board of
    records that waited and are dealt with now. Its length is how many wait.
    """

    patience = 2.0  # seconds for which a ledger that failed is left in peace

    def __init__(self, store: Store | None, clear: Callable[[list[int]], None]) -> None:
        self._store = store
        self._clear = clear
        self._waiting: deque[tuple[LedgerRecord, int]] = deque()
        self._retry_at = 0.0
        self.trouble = ""
        self.lost = 0
        self.unsummed = 0

    def __repr__(self) -> str:
        return f"<Writer waiting={len(self)} trouble={self.trouble!r}>"

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def rests(self) -> bool:
        """Whether a ledger that failed is left in peace at the moment."""
        return bool(self.trouble) and time.monotonic() < self._retry_at

    def newest_first(self) -> Iterator[LedgerRecord]:
        """What waits; from any thread."""
        return (record for record, _ in reversed(self._waiting.copy()))

    def write(self, records: list[LedgerRecord], slots: list[int]) -> bool:
        """Whether the ledger has them now, or there is none; else they wait, with their places on the board."""
        # Where others wait already these wait behind them.
        if not self._waiting and self._try(records):
            return True
        self._waiting.extend(zip(records, slots, strict=True))
        self.write_waiting()
        return False

    def write_waiting(self) -> None:
        """Tries to write all that waits. What does not fit into memory either is given up, the oldest first."""
        while self._waiting:
            part = [record for record, _ in islice(self._waiting, BATCH)]
            if not self._try(part):
                surplus = max(0, len(self._waiting) - _MOST_WAITING)
                self.lost += surplus
                self._drop(surplus)
                return
            self._drop(len(part))

    def hurry(self) -> None:
        """The next try comes at once."""
        self._retry_at = 0.0

    def give_up(self) -> None:
        """There is no other try."""
        if self._waiting:
            self.lost += len(self._waiting)
            log.error("%d records could not be written and are lost: %s", len(self._waiting), self.trouble)

    def tell(self, trouble: str) -> None:
        """Tells the operator once that the ledger cannot be written, and once that it can again."""
        if trouble:
            self._retry_at = time.monotonic() + self.patience
            if not self.trouble:
                log.error("The ledger cannot be written: %s. Chat goes on; records wait in memory", trouble)
        elif self.trouble:
            log.warning("The ledger can be written again (%d records were lost)", self.lost)
        self.trouble = trouble

    def _try(self, records: list[LedgerRecord]) -> bool:
        """Whether the ledger has them now; after a failure it is left in peace for a while."""
        if self._store is None:
            return True
        if self.rests:
            return False
        try:
            self._store.write(records)
        except Exception as error:
            # Whatever it was, they are not lost for it.
            self.tell(str(error) if isinstance(error, LedgerUnusable) else repr(error))
            return False
        self.tell("")
        self.unsummed += len(records)
        return True

    def _drop(self, number: int) -> None:
        """Takes records from the front; their requests need no place on the board any more."""
        take = self._waiting.popleft
        self._clear([take()[1] for _ in range(number)])
