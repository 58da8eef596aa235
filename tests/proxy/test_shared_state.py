"""What workers have in common: rows in SQLite, and the state machines that are fed from them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_router.config.values import BreakerSettings
from llm_router.errors import Failure, FailureKind
from llm_router.proxy import shared_rows, shared_state
from llm_router.proxy.shared_rows import StateRows
from llm_router.proxy.shared_state import SharedState
from llm_router.routing.breaker import Permit
from llm_router.routing.shared import Change, RowCircuits, SharedCircuits, SharedConversations, StayRow
from tests.support.waiting import until

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


def test_a_reset_of_all_reaches_all(make: Make) -> None:
    """Nothing is left of circuits, cooldowns and accounts."""
    one, two = opened(make)
    two.circuits.reset_all()
    sync(two, one)
    assert (one.state(101), two.state(101)) == ("closed", "closed")
    assert one.circuits.rows() == []


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


def test_tidying_drops_what_nobody_needs(make: Make) -> None:
    """Expired cooldowns, circuits that have gone, idle conversations; nothing that was not heard of yet."""
    one, two = make(1), make(2)
    one.fail(100, Failure(FailureKind.RATE_LIMITED, "wait", retry_after=5))
    one.fail(100, Failure(FailureKind.MODEL_NOT_FOUND, "gone"))
    with one.rows.transaction():
        one.rows.put_stays([StayRow(b"old", MODEL, "code", 100), StayRow(b"new", MODEL, "code", 1000)])
    sync(one, two)
    one.circuits.reset(MODEL)
    one.sync()
    one.rows.tidy(1000)
    two.sync()
    assert two.circuits.known_models() == set()
    one.rows.tidy(1000)
    _, rows, stays = one.rows.news(-1)
    assert rows == []
    assert [stay.key for stay in stays] == [b"new"]


def test_shares_are_exact(make: Make) -> None:
    """Over all workers no more is taken than there is; what is given back can be taken by another."""
    one, two = make(1), make(2)
    taken = [worker.rows.take_share("slot", "a", 3) for worker in (one, two, one, two)]
    assert taken == [True, True, True, False]
    assert two.rows.take_share("slot", "b", 1)
    one.rows.put_share("slot", "a", 1)
    assert two.rows.take_share("slot", "a", 3)
    assert two.rows.shares("slot") == {"a": (2, 1), "b": (1, 0)}
    make(1).rows.release_probes()
    assert two.rows.shares("slot") == {"a": (2, 0), "b": (1, 0)}


def test_a_notice_is_counted(make: Make) -> None:
    """Each announcement is one more, whoever made it; and other connections see that something changed."""
    one, two = make(1), make(2)
    before = two.rows.changes_elsewhere()
    assert (one.rows.announce("reload"), one.rows.announce("reload")) == (1, 2)
    assert two.rows.announced("reload") == 2
    assert two.rows.changes_elsewhere() != before


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A worker does not make the file: that would be another one than the others'."""
    rows = StateRows(tmp_path, 1, lambda: SETTINGS)
    with pytest.raises(sqlite3.Error):
        rows.announced("reload")
    assert list(tmp_path.iterdir()) == []


def test_conversations_tell_what_is_new() -> None:
    """A new stay, a move and a leaving are told; staying is told again only now and then."""
    told: list[StayRow] = []
    mine = SharedConversations(told.append)
    for now in (1000.0, 1001.0, 1002.0):
        mine.served(b"c", "a/m1", "code", now)
    mine.served(b"c", "a/m1", "code", 1100.0)
    mine.served(b"c", "b/m2", "code", 1101.0)
    mine.served(b"c", "b/m2", "tools", 1102.0)
    mine.left(b"c")
    mine.left(b"c")
    assert [(row.model, row.category, row.used) for row in told] == [
        ("a/m1", "code", 1000.0),
        ("a/m1", "code", 1100.0),
        ("b/m2", "code", 1101.0),
        ("b/m2", "tools", 1102.0),
        ("", "", 1102.0),
    ]


def test_conversations_hear_what_is_newer() -> None:
    """What another worker told wins if it is newer, and is not told again."""
    told: list[StayRow] = []
    mine = SharedConversations(told.append)
    mine.hear([StayRow(b"c", "a/m1", "code", 1000.0)])
    stay = mine.find(b"c", 1001.0)
    assert stay is not None
    assert stay.model == "a/m1"
    mine.served(b"c", "b/m2", "code", 1002.0)
    mine.hear([StayRow(b"c", "a/m1", "code", 1001.0), StayRow(b"c", "", "", 1000.0)])
    stay = mine.find(b"c", 1003.0)
    assert stay is not None
    assert stay.model == "b/m2"
    mine.hear([StayRow(b"c", "", "", 1002.0)])
    assert mine.find(b"c", 1003.0) is None
    assert len(told) == 1


async def test_hedges_keep_within_the_share_of_all(tmp_path: Path) -> None:
    """Two workers with a hundred requests each may together hedge a twentieth of two hundred, and not one more."""
    shared_rows.create(tmp_path)
    both = [SharedState(tmp_path, number, SETTINGS) for number in (1, 2)]
    for state in both:
        state.start()
    for _ in range(100):
        for state in both:
            state.hedges.count("code")
    await until(lambda: all(state.hedges._elsewhere == {"code": 100} for state in both))
    taken = [both[turn % 2].hedges.take("code", 0.05) for turn in range(30)]
    assert sum(taken) == 10
    assert all(taken[:10])
    for state in both:
        await asyncio.to_thread(state.close)
    successor = SharedState(tmp_path, 1, SETTINGS)
    successor.start()
    assert not successor.hedges.take("code", 0.05)
    await asyncio.to_thread(successor.close)


async def test_a_file_that_breaks_is_borne(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the common rows cannot be used any more that is told once, and the worker goes on from its memory."""
    shared_rows.create(tmp_path)
    state = SharedState(tmp_path, 1, SETTINGS)
    state.start()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite3")) as vandal:
        for table in ("clock", "circuits", "stays", "shares", "notices"):
            vandal.execute(f"DROP TABLE {table}")
    for now in (100, 101, 102):
        permit = state.circuits.admit(MODEL, ACCOUNTS, now)
        assert permit is not None
        state.circuits.failed(permit, BROKEN, now)
    await asyncio.sleep(0.5)
    probe = state.circuits.admit(MODEL, ACCOUNTS, 200)
    assert probe is not None
    assert probe.probe
    assert state.hedges.take("code", 1.0)
    slot = state.slot("a", 1)
    assert await slot.acquire()
    slot.release()
    state.announce_reload()
    await asyncio.to_thread(state.close)
    assert sum("goes on alone" in record.message for record in caplog.records) == 1


def test_a_removed_file_is_made_anew_by_whoever_comes_first(tmp_path: Path) -> None:
    """Workers that begin after the common file was removed have one in common again; one that stands is left alone."""
    shared_rows.create(tmp_path)
    assert not shared_rows.restore(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / f"{shared_rows.STATE_NAME}-wal").write_bytes(b"what others had still to write")
    assert shared_rows.restore(tmp_path)
    assert not shared_rows.restore(tmp_path)
    (state,) = tmp_path.iterdir()
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    first, second = (StateRows(tmp_path, number, lambda: SETTINGS) for number in (1, 2))
    with contextlib.closing(first), contextlib.closing(second):
        first.put_share("slot", "a", 3)
        assert second.shares("slot") == {"a": (0, 3)}


def test_folders_above_a_file_that_is_made_anew_are_private(tmp_path: Path) -> None:
    """Where the state folder was taken away with what is above it, nobody else may put another one in its place."""
    former = os.umask(0)
    try:
        assert shared_rows.restore(tmp_path / "above" / "state")
    finally:
        os.umask(former)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("above", "above/state")] == [0o700, 0o700]


def test_workers_that_begin_together_have_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one has begun to write beside the new file is not taken for a rest of the old one by another."""
    begun: list[StateRows] = []

    def begin(number: int) -> None:
        shared_rows.restore(tmp_path)
        begun.append(StateRows(tmp_path, number, lambda: SETTINGS))
        begun[-1].put_share("slot", "a", number)

    other = threading.Thread(target=begin, args=(2,))
    remove = Path.unlink

    def let_the_other_go_first(path: Path, missing_ok: bool = False) -> None:
        if other.ident is None:
            other.start()
            other.join(0.3)
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", let_the_other_go_first)
    begin(1)
    other.join()
    with contextlib.ExitStack() as stack:
        for rows in begun:
            stack.callback(rows.close)
        assert {rows.worker: rows.shares("slot")["a"] for rows in begun} == {1: (1, 2), 2: (2, 1)}


def _vandal(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "state.sqlite3", isolation_level=None)


async def _two_states(folder: Path) -> tuple[SharedState, SharedState]:
    shared_rows.create(folder)
    both = SharedState(folder, 1, SETTINGS), SharedState(folder, 2, SETTINGS)
    for state in both:
        state.start()
    return both


def _fail_until_open(state: SharedState) -> None:
    for now in (100, 101, 102):
        permit = state.circuits.admit(MODEL, ACCOUNTS, now)
        assert permit is not None
        state.circuits.failed(permit, BROKEN, now)


def _is_open(state: SharedState) -> bool:
    return bool(state.circuits.report({MODEL: ACCOUNTS}, 103)["open_circuits"])


async def test_what_happens_while_the_file_is_locked_reaches_the_others(tmp_path: Path) -> None:
    """Failures and resets that could not be written down are told once they can be."""
    one, two = await _two_states(tmp_path)
    with contextlib.closing(_vandal(tmp_path)) as vandal:
        vandal.execute("BEGIN IMMEDIATE")
        _fail_until_open(one)
        await until(lambda: not one.is_usable)
        vandal.execute("COMMIT")
    await until(lambda: _is_open(two))
    with contextlib.closing(_vandal(tmp_path)) as vandal:
        vandal.execute("BEGIN IMMEDIATE")
        two.circuits.reset(MODEL)
        await until(lambda: not two.is_usable)
        vandal.execute("COMMIT")
    await until(lambda: not _is_open(one))
    for state in (one, two):
        await asyncio.to_thread(state.close)


async def test_a_locked_file_is_left_alone_by_the_event_loop(tmp_path: Path) -> None:
    """Waiting for the lock stops the loop, so it happens once; until the thread got through, each decides alone."""
    one, two = await _two_states(tmp_path)
    with contextlib.closing(_vandal(tmp_path)) as vandal:
        vandal.execute("BEGIN IMMEDIATE")
        assert one.take_slot("a", 2)
        assert not one.is_usable
        one.rows.close()
        assert [one.take_slot("a", 2) for _ in range(2)] == [True, False]
        assert one.hedges.take("code", 1.0)
        one.announce_reload()
        assert "open=False" in repr(one.rows)
        vandal.execute("COMMIT")
    await until(lambda: one.is_usable)
    await until(lambda: two.rows.shares("slot") == {"a": (0, 2)})
    for state in (one, two):
        await asyncio.to_thread(state.close)


async def test_a_slot_that_was_given_back_while_the_file_was_locked_is_free(tmp_path: Path) -> None:
    """A provider's slot is not lost to all because the file could not be written in the moment that it got free."""
    one, two = await _two_states(tmp_path)
    assert one.take_slot("a", 1)
    assert not two.take_slot("a", 1)
    with contextlib.closing(_vandal(tmp_path)) as vandal:
        vandal.execute("BEGIN IMMEDIATE")
        one.give_slot_back("a")
        assert not one.is_usable
        vandal.execute("COMMIT")
    await until(lambda: two.take_slot("a", 1))
    for state in (one, two):
        await asyncio.to_thread(state.close)


@pytest.mark.parametrize("harm", ["removed", "no database", "empty", "folder"])
async def test_a_file_that_is_gone_or_ruined_is_made_anew(tmp_path: Path, harm: str) -> None:
    """One of the workers makes it, all go over to it, and what each knew is known to all there."""
    folder = tmp_path / "state"
    folder.mkdir()
    one, two = await _two_states(folder)
    _fail_until_open(one)
    await until(lambda: _is_open(two))
    assert one.take_slot("a", 2)
    if harm == "folder":
        folder.rename(tmp_path / "elsewhere")
    for path in folder.glob("state.sqlite3*"):
        if harm == "removed" or path.name != "state.sqlite3":
            path.unlink()
        else:
            path.write_bytes(b"" if harm == "empty" else b"x" * 9000)
    for state in (one, two):
        # What they have open may be fine: that others cannot find it is enough.
        state.circuits.reset("b/other")
    late = SharedState(folder, 3, SETTINGS)
    late.start()
    await until(lambda: all(state.is_usable and not state.rows.has_moved() for state in (one, two, late)))
    await until(lambda: _is_open(late))
    await until(lambda: late.rows.shares("slot") == {"a": (0, 1)})
    late.circuits.reset(MODEL)
    await until(lambda: not _is_open(one) and not _is_open(two))
    for state in (one, two, late):
        await asyncio.to_thread(state.close)


async def test_orphans_leave_the_next_router_s_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers whose supervisor was killed keep to the file that they know: numbers of theirs are others' in the new."""
    one, two = await _two_states(tmp_path)
    assert one.take_slot("a", 2)
    _fail_until_open(one)
    await until(lambda: _is_open(two))
    monkeypatch.setattr(os, "getppid", lambda: 1)
    shared_rows.create(tmp_path)
    two.circuits.reset(MODEL)
    await until(lambda: not _is_open(one))
    one.give_slot_back("a")
    assert one.take_slot("a", 2)
    assert one.is_usable
    with contextlib.closing(StateRows(tmp_path, 3, lambda: SETTINGS)) as theirs:
        assert theirs.news(-1)[1:] == ([], [])
        assert theirs.shares("slot") == {}
    for state in (one, two):
        await asyncio.to_thread(state.close)


async def test_a_worker_begins_without_the_file(tmp_path: Path) -> None:
    """Where there is none it begins with what it is told, and has the file in common with others once there is one."""
    (tmp_path / "state").write_bytes(b"in the way of the folder")
    one, two = SharedState(tmp_path / "state", 1, SETTINGS), SharedState(tmp_path / "state", 2, SETTINGS)
    former = RowCircuits(SETTINGS)
    for now in (100, 101, 102):
        permit = former.admit(MODEL, ACCOUNTS, now)
        assert permit is not None
        former.failed(permit, BROKEN, now)
    one.start(former.rows())
    two.start()
    assert _is_open(one)
    assert not one.is_usable
    assert not _is_open(two)
    (tmp_path / "state").unlink()
    await until(lambda: one.is_usable and two.is_usable)
    await until(lambda: _is_open(two))
    for state in (one, two):
        await asyncio.to_thread(state.close)


async def test_what_waits_for_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it cannot be used for long the oldest is forgotten, and news about that are taken over again."""
    monkeypatch.setattr(shared_state, "_WAITING_MOST", 3)
    (tmp_path / "state").write_bytes(b"in the way of the folder")
    state = SharedState(tmp_path / "state", 1, SETTINGS)
    state.start()
    for number in range(9):
        state.circuits.reset(f"a/m{number}")
        state.conversations.served(b"%d" % number, MODEL, "code", 100.0)
    assert "waiting=6" in repr(state)
    assert ("model", "a/m0") not in state.circuits._unsaved
    assert ("model", "a/m8") in state.circuits._unsaved
    await asyncio.to_thread(state.close)
