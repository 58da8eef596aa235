"""Workers on common rows, without threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_router.config.values import BreakerSettings
from llm_router.errors import Failure, FailureKind
from llm_router.proxy import shared_rows
from llm_router.proxy.shared_rows import StateRows
from llm_router.routing.breaker import Permit
from llm_router.routing.shared import Change, SharedCircuits

SETTINGS = BreakerSettings(failure_threshold=3, recovery_timeout_sec=10)
BROKEN = Failure(FailureKind.SERVER_ERROR, "broken", 500)
MODEL, ACCOUNTS = "a/m1", ("k1", "k2")


class Worker:
    """One worker's circuits on the common rows, without threads: `sync` is what the thread does each time."""

    def __init__(self, folder: Path, number: int) -> None:
        self.changes: list[Change] = []
        self.rows = StateRows(folder, number, lambda: SETTINGS)
        self.circuits = SharedCircuits(SETTINGS, self.changes.append, self.rows.claim)
        self.seen = -1

    def sync(self) -> None:
        """Passes on what happened, and hears what is new."""
        changes, self.changes[:] = list(self.changes), []
        with self.rows.transaction():
            touched = self.rows.apply(changes)
        self.seen, rows, _ = self.rows.news(self.seen)
        self.circuits.hear([*touched, *rows], changes)

    def admit(self, now: float, *, early: bool = False) -> Permit | None:
        """A permit for the usual model."""
        return self.circuits.admit(MODEL, ACCOUNTS, now, early=early)

    def fail(self, now: float, failure: Failure = BROKEN) -> None:
        """One attempt that fails."""
        permit = self.admit(now)
        assert permit is not None
        self.circuits.failed(permit, failure, now)

    def state(self, now: float) -> str:
        """What it thinks of the usual model."""
        return str(self.circuits.report({MODEL: ACCOUNTS}, now)["circuits"][MODEL]["state"])


Make = Callable[[int], Worker]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes workers that share a new file."""
    shared_rows.create(tmp_path)
    made: list[Worker] = []

    def worker(number: int) -> Worker:
        made.append(Worker(tmp_path, number))
        return made[-1]

    yield worker
    for one in made:
        one.rows.close()


def sync(*workers: Worker) -> None:
    """All have heard of all."""
    for worker in (*workers, *workers):
        worker.sync()


def opened(make: Make) -> tuple[Worker, Worker]:
    """Two workers for which the circuit of the usual model opened at 100."""
    one, two = make(1), make(2)
    for _ in range(3):
        one.fail(100)
    sync(one, two)
    return one, two
