"""A worker that keeps up with the others by its thread, and goes on alone where the file cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from llm_router.proxy import shared_rows, shared_state
from llm_router.proxy.shared_rows import StateRows
from llm_router.proxy.shared_state import SharedState
from llm_router.routing.breaker import Circuits
from llm_router.routing.shared import RowCircuits
from tests.proxy.shared.conftest import ACCOUNTS, BROKEN, MODEL, SETTINGS
from tests.support.waiting import until


def _vandal(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "state.sqlite3", isolation_level=None)


def _remove(folder: Path) -> None:
    for path in folder.glob("state.sqlite3*"):
        path.unlink()


async def _two_states(folder: Path) -> tuple[SharedState, SharedState]:
    shared_rows.create(folder)
    both = SharedState(folder, 1, SETTINGS), SharedState(folder, 2, SETTINGS)
    for state in both:
        state.start()
    return both


def _fail_until_open(circuits: Circuits) -> None:
    for now in (100, 101, 102):
        permit = circuits.admit(MODEL, ACCOUNTS, now)
        assert permit is not None
        circuits.failed(permit, BROKEN, now)


def _is_open(state: SharedState) -> bool:
    return bool(state.circuits.report({MODEL: ACCOUNTS}, 103)["open_circuits"])


async def test_a_reset_outlasts_what_another_worker_has_not_told_yet(tmp_path: Path) -> None:
    """Failures that happened first do not open a circuit again because they are written down last."""
    shared_rows.create(tmp_path)
    one, two = SharedState(tmp_path, 1, SETTINGS), SharedState(tmp_path, 2, SETTINGS)
    _fail_until_open(one.circuits)
    two.circuits.reset(MODEL)
    two.start()
    await asyncio.to_thread(two.close)
    one.start()
    await until(lambda: not one._changes and not _is_open(one))
    await asyncio.to_thread(one.close)
    assert [row for row in one.rows.news(-1)[1] if not row.gone] == []
    one.rows.close()


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


@pytest.mark.parametrize("harm", ["removed", "locked"])
async def test_hedges_are_not_forgotten_with_the_file(tmp_path: Path, harm: str) -> None:
    """What was hedged before the file was gone, or while it was locked, is spent: the share of all is no larger."""
    both = await _two_states(tmp_path)
    for state in both:
        for _ in range(100):
            state.hedges.count("code")
    await until(lambda: all(state.hedges._elsewhere == {"code": 100} for state in both))
    if harm == "removed":
        assert all(both[turn % 2].hedges.take("code", 0.05) for turn in range(10))
        _remove(tmp_path)
    else:
        with contextlib.closing(_vandal(tmp_path)) as vandal:
            vandal.execute("BEGIN EXCLUSIVE")
            for state in both:
                assert all(state.hedges.take("code", 0.05) for _ in range(5))
                assert not state.hedges.take("code", 0.05)
    for state in both:
        await until(lambda one=state: one.is_usable and not one.rows.has_moved())
    await until(lambda: both[0].rows.shares("hedge") == {"code": (5, 5)})
    await until(lambda: all(state.hedges._elsewhere == {"code": 100} for state in both))
    assert [state.hedges.take("code", 0.05) for state in both] == [False, False]
    for state in both:
        await asyncio.to_thread(state.close)


async def test_a_file_that_breaks_is_borne(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the common rows cannot be used any more that is told once, and the worker goes on from its memory."""
    shared_rows.create(tmp_path)
    state = SharedState(tmp_path, 1, SETTINGS)
    state.start()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite3")) as vandal:
        for table in ("clock", "circuits", "stays", "shares", "notices"):
            vandal.execute(f"DROP TABLE {table}")
    _fail_until_open(state.circuits)
    await until(lambda: any("goes on alone" in record.message for record in caplog.records))
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


async def test_a_closed_state_does_not_open_the_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that can be used again just before the end is not come back to after it."""
    monkeypatch.setattr(shared_state, "_MEND_EVERY", 0.0)
    shared_rows.create(tmp_path)
    state = SharedState(tmp_path, 1, SETTINGS)
    state.start()
    with contextlib.closing(_vandal(tmp_path)) as vandal:
        vandal.execute("BEGIN IMMEDIATE")
        assert state.take_slot("a", 1)
        assert not state.is_usable
        vandal.execute("COMMIT")
    state.close()  # its last look finds the file usable, while the event loop is not there to hear of it
    heard = asyncio.Event()
    asyncio.get_running_loop().call_soon(heard.set)
    await heard.wait()
    assert "open=False" in repr(state.rows)


async def test_what_happens_while_the_file_is_locked_reaches_the_others(tmp_path: Path) -> None:
    """Failures and resets that could not be written down are told once they can be."""
    one, two = await _two_states(tmp_path)
    with contextlib.closing(_vandal(tmp_path)) as vandal:
        vandal.execute("BEGIN IMMEDIATE")
        _fail_until_open(one.circuits)
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
    _fail_until_open(one.circuits)
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
    _fail_until_open(one.circuits)
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
    (tmp_path / shared_rows.STATE_NAME).unlink()
    one._judge(OSError("it cannot be used"))
    one._round()
    assert not (tmp_path / shared_rows.STATE_NAME).exists()
    for state in (one, two):
        await asyncio.to_thread(state.close)


async def test_a_worker_begins_without_the_file(tmp_path: Path) -> None:
    """Where there is none it begins with what it is told, and has the file in common with others once there is one."""
    (tmp_path / "state").write_bytes(b"in the way of the folder")
    one, two = SharedState(tmp_path / "state", 1, SETTINGS), SharedState(tmp_path / "state", 2, SETTINGS)
    former = RowCircuits(SETTINGS)
    _fail_until_open(former)
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
