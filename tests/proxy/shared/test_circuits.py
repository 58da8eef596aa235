"""Circuits that workers have in common: failures add up, one of them probes, and what one learns all know."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from pathlib import Path

import pytest

from llm_router.errors import Failure, FailureKind
from llm_router.proxy import shared_rows
from llm_router.routing.shared import RowCircuits
from tests.proxy.shared.conftest import ACCOUNTS, BROKEN, MODEL, SETTINGS, Make, Worker, opened, sync

REFUSED = Failure(FailureKind.AUTHENTICATION, "who are you", 401)
AT_FAULT = Failure(FailureKind.INVALID_REQUEST, "bad", 400)


def test_failures_in_a_row_add_up(make: Make) -> None:
    """One worker's two failures and the other's one open the circuit in both."""
    one, two = make(1), make(2)
    one.fail(100)
    two.fail(100)
    one.fail(100)
    assert (one.state(101), two.state(101)) == ("closed", "closed")
    sync(one, two)
    assert (one.state(101), two.state(101)) == ("open", "open")


def test_one_claims_the_probe(make: Make) -> None:
    """When both think that the circuit is half-open, the first to ask gets the permit, and the other knows of it."""
    one, two = opened(make)
    probe = one.admit(111)
    assert probe is not None
    assert probe.probe
    assert two.admit(111) is None
    block = two.circuits.block(MODEL, ACCOUNTS, 111)
    assert block is not None
    assert "probed" in block.reason
    one.circuits.committed(probe)
    one.circuits.completed(probe)
    sync(one, two)
    assert two.state(111) == "closed"
    permit = two.admit(111)
    assert permit is not None
    assert not permit.probe


def test_a_closed_circuit_is_heard_of_at_the_claim(make: Make) -> None:
    """A worker that has not heard yet that the probe of another one succeeded gets a plain permit."""
    one, two = opened(make)
    probe = one.admit(111)
    assert probe is not None
    one.circuits.committed(probe)
    one.sync()
    permit = two.admit(111)
    assert permit is not None
    assert not permit.probe
    assert two.state(111) == "closed"


def test_a_provider_that_could_be_reached_is_heard_of(make: Make) -> None:
    """Its failures count in a row over all workers: an answer that one of them got ends the row of all."""
    one, two = make(1), make(2)
    unreachable = Failure(FailureKind.CONNECT_ERROR, "refused")
    for worker in (one, two):
        worker.fail(100, unreachable)
    sync(one, two)
    answered = one.admit(101)
    assert answered is not None
    one.circuits.connected(answered)
    sync(one, two)
    two.fail(102, unreachable)
    sync(one, two)
    assert (one.state(102), two.state(102)) == ("closed", "closed")


def test_rows_hold_all_that_is_known() -> None:
    """Taken apart and put together again circuits, cooldowns and accounts are what they were, but for the probes."""
    known, again = RowCircuits(SETTINGS), RowCircuits(SETTINGS)
    for model, kind, times in (
        ("a/m1", FailureKind.SERVER_ERROR, 3),
        ("b/m1", FailureKind.CONNECT_ERROR, 3),
        ("c/m1", FailureKind.RATE_LIMITED, 1),
        ("d/m1", FailureKind.AUTHENTICATION, 1),
    ):
        for _ in range(times):
            permit = known.admit(model, (f"key of {model}",), 100)
            assert permit is not None
            known.failed(permit, Failure(kind, "x"), 100)
    for row in known.rows():
        again.take(row)
    assert again.dump() == known.dump()
    assert {row.scope for row in known.rows()} == {"model", "provider", "cooldown", "account"}


def test_an_early_probe_comes_once_a_second_over_all(make: Make) -> None:
    """The probe ahead of time of a chain that is all open is one for all workers too."""
    one, two = opened(make)
    probe = one.admit(102, early=True)
    assert probe is not None
    one.circuits.failed(probe, BROKEN, 102)
    one.sync()
    assert two.admit(102.5, early=True) is None
    sync(one, two)
    assert two.admit(103.1, early=True) is not None


def test_a_probe_of_the_dead_is_freed(make: Make) -> None:
    """A worker that starts frees what the one before it held, and nothing of the others."""
    one, two = opened(make)
    assert one.admit(111) is not None
    two.rows.release_probes()
    sync(two)
    assert two.admit(111) is None
    successor = make(1)
    successor.rows.release_probes()
    sync(two, successor)
    assert two.admit(111) is not None


def test_a_released_probe_may_be_claimed_at_once(make: Make) -> None:
    """A worker whose probe ended without a verdict may probe again before the common rows have heard of it."""
    one, two = opened(make)
    probe = one.admit(111)
    assert probe is not None
    one.circuits.released(probe)
    assert one.admit(111) is not None
    assert two.admit(111) is None


@pytest.mark.parametrize("end", ["released", "at fault", "rate limited"])
def test_a_probe_that_ends_without_a_verdict_is_free_for_all(make: Make, end: str) -> None:
    """Where the client left, or its request was at fault, another worker may probe."""
    one, two = opened(make)
    probe = one.admit(111)
    assert probe is not None
    sync(one, two)
    assert two.admit(111) is None
    if end == "released":
        one.circuits.released(probe)
    elif end == "at fault":
        one.circuits.failed(probe, Failure(FailureKind.INVALID_REQUEST, "bad", 400), 112)
    else:
        one.circuits.failed(probe, Failure(FailureKind.RATE_LIMITED, "wait", 429, retry_after=1), 112)
    sync(one, two)
    assert two.admit(114) is not None


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        (Failure(FailureKind.RATE_LIMITED, "wait", 429, retry_after=30), "cooldown"),
        (Failure(FailureKind.AUTHENTICATION, "who are you", 401), "open"),
        (Failure(FailureKind.MODEL_NOT_FOUND, "no such model", 404), "open"),
    ],
    ids=["cooldown", "account", "model"],
)
def test_whatever_one_learns_the_other_knows(make: Make, failure: Failure, state: str) -> None:
    """Cooldowns and refused keys of both accounts, a missing model; and a reset is heard of as well."""
    one, two = make(1), make(2)
    one.fail(100, failure)
    if failure.kind is not FailureKind.MODEL_NOT_FOUND:
        one.fail(100, failure)
    sync(one, two)
    assert two.state(101) == state
    two.circuits.reset(MODEL)
    two.circuits.reset_accounts(ACCOUNTS)
    sync(two, one)
    assert (one.state(101), two.state(101)) == ("closed", "closed")


def test_all_know_why_a_provider_cannot_be_reached(make: Make) -> None:
    """The worker that tells of outages need not be the one that met it."""
    one, two = make(1), make(2)
    for _ in range(3):
        one.fail(100, Failure(FailureKind.CONNECT_ERROR, "the certificate has expired"))
    sync(one, two)
    why, _ = two.circuits.left_out()["provider", MODEL.partition("/")[0]]
    assert why == "connect_error: the certificate has expired"


def test_a_key_that_is_taken_again_is_so_for_all(make: Make) -> None:
    """What one attempt found out about a refused key all workers know; a failure after it does not call it back."""
    one, two = make(1), make(2)
    for _ in ACCOUNTS:
        one.fail(100, Failure(FailureKind.AUTHENTICATION, "who are you", 401))
    sync(one, two)
    permit = one.admit(111)
    assert permit is not None
    one.circuits.committed(permit)
    one.circuits.failed(permit, BROKEN, 112)
    sync(one, two)
    for worker in (one, two, one, two):
        again = worker.admit(113)
        assert again is not None
        assert (again.account, again.tries_key) == ("k1", False)


def _refused(make: Make) -> tuple[Worker, Worker]:
    """Two workers that know of both keys that they were refused at 100, for ten seconds."""
    one, two = make(1), make(2)
    for _ in ACCOUNTS:
        one.fail(100, REFUSED)
    sync(one, two)
    return one, two


@pytest.mark.parametrize("end", ["taken", "refused again", "released", "at fault", "killed"])
def test_a_refused_key_is_tried_by_one(make: Make, end: str) -> None:
    """Of all workers one attempt finds out whether a refused key is taken again; the others wait for what it finds."""
    one, two = _refused(make)
    tries = [one.admit(111), two.admit(111), one.admit(111), two.admit(111)]
    assert [permit.account if permit else None for permit in tries] == ["k1", "k2", None, None]
    sync(one, two)
    assert (one.admit(112), two.admit(112)) == (None, None)
    first = tries[0]
    assert first is not None
    if end == "taken":
        one.circuits.committed(first)
    elif end == "released":
        one.circuits.released(first)
    elif end == "killed":
        make(1).rows.release_probes()
    else:
        one.circuits.failed(first, REFUSED if end == "refused again" else AT_FAULT, 112)
    sync(one, two)
    again = two.admit(113)
    assert (again.account if again else None) == (None if end == "refused again" else "k1")
    if end == "taken":
        assert one.admit(113) is not None


def test_what_came_of_a_probe_outlasts_a_rollback(make: Make) -> None:
    """What came of a probe is told the common rows again where they could not be written at the first try."""
    one, two = _refused(make)
    permit = one.admit(111)
    assert permit is not None
    one.circuits.committed(permit)
    with contextlib.suppress(sqlite3.OperationalError), one.rows.transaction():
        one.rows.apply(one.changes)
        raise sqlite3.OperationalError("disk is full")
    sync(one, two)
    for worker in (one, two):
        again = worker.admit(112)
        assert again is not None
        assert (again.account, again.tries_key) == ("k1", False)


def test_a_reset_of_all_reaches_all(make: Make) -> None:
    """Nothing is left of circuits, cooldowns and accounts."""
    one, two = opened(make)
    two.circuits.reset_all()
    sync(two, one)
    assert (one.state(101), two.state(101)) == ("closed", "closed")
    assert one.circuits.rows() == []


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("kind", [FailureKind.MODEL_NOT_FOUND, FailureKind.RATE_LIMITED, FailureKind.AUTHENTICATION])
def test_a_failure_that_comes_late_does_not_undo_a_reset(make: Make, kind: FailureKind, everything: bool) -> None:
    """What one worker met with before another one resets is forgotten, whoever writes first; what follows is not."""
    one, two = make(1), make(2)
    one.fail(100, Failure(kind, "no", 400))
    one.changes[:] = [change._replace(at=1.0) for change in one.changes]
    if everything:
        two.circuits.reset_all()
    else:
        two.circuits.reset(MODEL)
    two.changes[:] = [change._replace(at=2.0) for change in two.changes]
    sync(two, one)
    assert (one.state(101), two.state(101)) == ("closed", "closed")
    assert one.circuits.rows() == []
    for _ in ACCOUNTS:
        one.fail(101, Failure(kind, "no", 400))
        one.changes[:] = [change._replace(at=3.0) for change in one.changes]
        one.sync()
        if kind is FailureKind.MODEL_NOT_FOUND:
            break
    sync(one, two)
    assert two.state(102) == one.state(102) != "closed"


def test_a_clock_set_back_is_heeded_by_all(make: Make) -> None:
    """An open circuit is half-open after its recovery time by the new clock, and the probe can be claimed."""
    one, two = opened(make)
    two.circuits.bound_waits(20)
    sync(two, one)
    assert (one.state(29), one.state(30)) == ("open", "half-open")
    assert one.admit(30) is not None


def test_old_news_do_not_undo_what_is_on_its_way(make: Make) -> None:
    """Rows that were read before a change of ours was written do not take its place in memory."""
    one, two = make(1), make(2)
    two.fail(100)
    two.sync()
    for _ in range(3):
        one.fail(100)
    _, rows, _ = one.rows.news(-1)
    one.circuits.hear(rows, [])
    assert one.state(101) == "open"


def test_without_the_file_a_worker_decides_alone(make: Make) -> None:
    """When the common rows cannot be asked, the probe is this worker's own decision."""
    one, _ = opened(make)
    one.circuits._claim = lambda keys, ask: None
    permit = one.admit(111)
    assert permit is not None
    assert permit.probe


def test_circuits_become_rows_and_circuits_again(make: Make, tmp_path: Path) -> None:
    """What was saved by a router that is one process is what workers start with; the file is private."""
    former = RowCircuits(SETTINGS)
    for kind in (FailureKind.RATE_LIMITED, FailureKind.AUTHENTICATION, FailureKind.MODEL_NOT_FOUND):
        permit = former.admit(MODEL, (*ACCOUNTS, "k3"), 100)
        assert permit is not None
        former.failed(permit, Failure(kind, "x", retry_after=50), 100)
    shared_rows.create(tmp_path, former.rows())
    assert stat.S_IMODE((tmp_path / "state.sqlite3").stat().st_mode) == 0o600
    one = Worker(tmp_path, 1)
    one.sync()
    assert one.circuits.dump() == former.dump()
    one.rows.close()
