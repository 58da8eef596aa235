"""The end of a process, clean or not, and the next start: what was admitted is on record, each request once."""

import errno
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.schema import MIGRATIONS
from llm_router.accounting.store import LEDGER_NAME, Store
from llm_router.accounting.writer import Writer
from tests.accounting.books import keeping, rows, wait_for
from tests.accounting.conftest import booking

ROOT = Path(__file__).parents[2]


CHILD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from llm_router.accounting.ledger import Bookkeeper
    from tests.accounting.conftest import booking
    keeper = Bookkeeper(Path(sys.argv[1]))
    keeper.start()
    tickets = [keeper.enter(f"r-{n}", 1000.0 + n, client="c", model="openai/m") for n in range(200)]
    for n in range(100):
        keeper.submit(booking(f"r-{n}", ticket=tickets[n], started=1000.0 + n))
    if sys.argv[2] == "settled":
        keeper.flush()
    print("ready", flush=True)
    time.sleep(60)
    """
)


@pytest.mark.parametrize("when", ["settled", "at once"])
def test_kill_9_loses_no_request(tmp_path, when):
    """SIGKILL: what had closed is in the ledger or found as interrupted, what was running is; each exactly once."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), when], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait(60)
    child.stdout.close()
    assert list(tmp_path.glob("inflight-*.board"))
    with keeping(tmp_path) as keeper:
        wait_for(lambda: keeper.request("r-199"))
        wait_for(lambda: len(rows(tmp_path)) == 200)
        found = keeper.request("r-150")
        assert (found["outcome"], found["model"], found["cost_usd"]) == ("interrupted", "openai/m", None)
    outcomes = dict(rows(tmp_path))
    assert len(outcomes) == len(rows(tmp_path)) == 200
    assert {outcomes[f"r-{number}"] for number in range(100, 200)} == {"interrupted"}
    if when == "settled":
        assert {outcomes[f"r-{number}"] for number in range(100)} == {"completed"}
    assert not list(tmp_path.glob("inflight-*.board"))
    with keeping(tmp_path):
        pass
    assert len(rows(tmp_path)) == 200


def test_boards_that_cannot_be_looked_for_are_looked_for_again(tmp_path, monkeypatch, caplog):
    """Short of descriptors for a moment, the keeper of the books finds what the dead left a little later."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), "settled"], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert child.stdout.readline() == "ready\n"
    child.kill()
    child.wait(60)
    child.stdout.close()
    fails, glob = [OSError(errno.EMFILE, "Too many open files")], Path.glob

    def look(folder, pattern):
        if fails:
            raise fails.pop()
        return glob(folder, pattern)

    monkeypatch.setattr(Path, "glob", look)
    monkeypatch.setattr(Writer, "patience", 0.05)
    with keeping(tmp_path):
        wait_for(lambda: len(rows(tmp_path)) == 200)
    assert "stumbled" not in caplog.text
    assert "Too many open files" in caplog.text


def test_a_clean_end_leaves_nothing_to_find(tmp_path):
    """After a drain there is no board, no WAL, and the hourly sums are complete."""
    with keeping(tmp_path) as keeper:
        for number in range(10):
            keeper.submit(booking(f"r-{number}", ticket=keeper.enter(f"r-{number}", 0.0)))
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER_NAME]
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as connection:
        assert connection.execute("SELECT sum(requests) FROM hours").fetchone() == (10,)


def test_what_was_learned_survives_a_restart(tmp_path, find_encoding):
    """Drift is kept in the ledger."""
    with keeping(tmp_path, find_encoding=find_encoding) as keeper:
        for number in range(6):
            keeper.submit(booking(f"r-{number}"))
        assert keeper.flush(60)
        learned = keeper.drift_ratios()
        assert learned["openai/m"][0] == pytest.approx(1.2)
    with keeping(tmp_path) as keeper:
        wait_for(lambda: keeper.drift_ratios() == learned)


def test_requests_still_running_at_the_end_are_found_later(tmp_path):
    """A request that outlives the drain without a booking is found as interrupted at the next start."""
    with keeping(tmp_path) as keeper:
        keeper.enter("r-1", 5.0, model="openai/m")
    assert rows(tmp_path) == []
    with keeping(tmp_path):
        wait_for(lambda: rows(tmp_path) == [("r-1", "interrupted")])


def test_how_many_were_interrupted_is_told_right(tmp_path, caplog):
    """What stands on a board and in the ledger, too, was not interrupted, and is not told as such."""
    with keeping(tmp_path) as keeper:
        for name in ("r-1", "r-2", "r-3"):
            keeper.enter(name, 5.0)
        # What a keeper had written, whose worker was killed before it heard of that.
        for name in ("r-1", "r-2"):
            keeper.submit(booking(name, started=5.0))
        assert keeper.flush(60)
    with keeping(tmp_path):
        wait_for(lambda: len(rows(tmp_path)) == 3)
    assert "1 requests were interrupted" in caplog.text
    assert sorted(rows(tmp_path)) == [("r-1", "completed"), ("r-2", "completed"), ("r-3", "interrupted")]


def test_a_board_waits_for_a_ledger_that_can_be_written(tmp_path, monkeypatch):
    """Leftovers are not thrown away while the ledger cannot take them."""
    with keeping(tmp_path) as keeper:
        keeper.enter("r-1", 5.0)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_open", lambda self: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with keeping(tmp_path):
            pass
    assert list(tmp_path.glob("inflight-*.board"))
    with keeping(tmp_path):
        wait_for(lambda: rows(tmp_path) == [("r-1", "interrupted")])


def test_what_was_left_behind_is_booked_once_the_ledger_can_be_written(tmp_path, monkeypatch):
    """A ledger that is in trouble at the start alone costs no interrupted request its record, also without traffic."""
    with keeping(tmp_path) as keeper:
        keeper.enter("r-1", 5.0)
    monkeypatch.setattr(Writer, "patience", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_open", lambda self: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        keeper = Bookkeeper(tmp_path)
        keeper.start()
        wait_for(lambda: keeper.trouble)
    wait_for(lambda: not keeper.trouble)
    assert keeper.close(60)
    assert rows(tmp_path) == [("r-1", "interrupted")]
    assert not list(tmp_path.glob("inflight-*.board"))


def test_every_migration_was_run_once(tmp_path):
    """The file's version is the number of migrations, and a second start changes nothing."""
    for _ in range(2):
        with keeping(tmp_path) as keeper:
            keeper.submit(booking())
        with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
