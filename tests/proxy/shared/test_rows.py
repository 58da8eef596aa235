"""The common rows: tidied, exact, private, and made anew where they are gone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from llm_router.errors import Failure, FailureKind
from llm_router.proxy import shared_rows
from llm_router.proxy.shared_rows import StateRows
from llm_router.routing.breaker import COOLDOWN_MOST
from llm_router.routing.shared import StayRow
from tests.proxy.shared.conftest import MODEL, SETTINGS, Make, sync


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


def test_tidying_keeps_keys_that_have_to_be_tried(make: Make) -> None:
    """A refused key whose time is over is one that one attempt tries, until nobody remembers it after an hour."""
    one, two = make(1), make(2)
    one.fail(100, Failure(FailureKind.AUTHENTICATION, "who are you", 401))
    one.fail(100, Failure(FailureKind.AUTHENTICATION, "who are you", 401))
    sync(one, two)
    one.rows.tidy(200)
    permits = [one.admit(200), two.admit(200), two.admit(200)]
    assert [permit.account if permit else None for permit in permits] == ["k1", "k2", None]
    one.rows.tidy(110 + COOLDOWN_MOST + 1)
    assert [row for row in one.rows.news(-1)[1] if row.scope == "account"] == []


def test_shares_are_exact(make: Make) -> None:
    """Over all workers no more is taken than there is; what is given back can be taken by another."""
    one, two = make(1), make(2)
    taken = [worker.rows.take_share("slot", "a", 3, own) for worker, own in ((one, 0), (two, 0), (one, 1), (two, 1))]
    assert taken == [True, True, True, False]
    assert two.rows.take_share("slot", "b", 1, 0)
    one.rows.put_share("slot", "a", 1)
    assert two.rows.take_share("slot", "a", 3, 1)
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


def test_what_is_made_anew_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of each start is made without one fsync: there are disks where each takes a second."""
    waits: list[int] = []

    class Watched(sqlite3.Connection):
        def close(self) -> None:
            waits.extend(self.execute("PRAGMA synchronous").fetchone())
            super().close()

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, factory=Watched, **more))
    shared_rows.create(tmp_path)
    assert waits == [0]
