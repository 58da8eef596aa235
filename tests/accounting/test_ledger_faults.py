"""A ledger that is damaged, somebody else's, locked or full: nothing is written over, nothing is lost, chat goes on."""

import logging
import resource
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from llm_router.accounting import store, writer
from llm_router.accounting.drift import DriftBook
from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.schema import MIGRATIONS
from llm_router.accounting.settle import Settler, no_encoding
from llm_router.accounting.store import LEDGER_NAME, LedgerUnusable, Store
from llm_router.accounting.writer import Writer
from tests.accounting.books import keeping, rows, wait_for
from tests.accounting.conftest import booking

ROOT = Path(__file__).parents[2]


def test_values_that_sqlite_cannot_take_hold_up_nobody(tmp_path):
    """Lone surrogates and numbers past 64 bits are mended; the records beside them are written as they are."""
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("r-1", model="openai/\ud800"))
        keeper.submit(booking("r-2", answer_bytes=2**70))
        keeper.submit(booking("r-3"))
        assert keeper.flush(60)
        assert keeper.unwritten == 0
    assert [name for name, _ in rows(tmp_path)] == ["r-1", "r-2", "r-3"]
    assert rows(tmp_path, columns="model")[0] == ("openai/?",)


def test_what_a_mended_batch_leaves_behind_misleads_nobody(tmp_path):
    """A transaction that was undone takes along what it had added: later records are of the kind that they say."""
    settler, ledger = Settler(no_encoding, DriftBook()), Store(tmp_path)
    one, two, three, bad, four = [
        settler.settle(booking(f"r-{number}", category=category, answer_bytes=size))
        for number, (category, size) in enumerate(
            [("code", 1), ("code", 1), ("tools", 1), ("tools", 2**70), ("tools", 1)]
        )
    ]
    ledger.write([one, two, three, bad])
    ledger.write([four])
    ledger.close()
    assert [category for (category,) in rows(tmp_path, columns="category")] == ["code", "code", *["tools"] * 3]


def test_kinds_are_not_remembered_without_bound(tmp_path, monkeypatch):
    """Clients may name any model: what is known of the file stays small, and every record keeps what it says."""
    monkeypatch.setattr(store, "_MAX_KINDS", 3)
    settler = Settler(no_encoding, DriftBook())
    ledger = Store(tmp_path)
    for number in (*range(8), *range(8)):
        ledger.write([settler.settle(booking(f"r-{number}", model=f"openai/m{number}"))])
    assert len(ledger._kinds) <= 3
    ledger.close()
    assert rows(tmp_path, columns="request_id, model") == [(f"r-{n}", f"openai/m{n}") for n in (*range(8), *range(8))]


def test_a_damaged_ledger_is_left_alone(tmp_path, caplog):
    """A corrupt file keeps every byte; records go to a file beside it, also after a restart, and one line says so."""
    damaged = tmp_path / LEDGER_NAME
    damaged.write_bytes(b"this is no database, but somebody's money " * 300)
    before = damaged.read_bytes()
    for number in (1, 2):
        caplog.clear()
        with keeping(tmp_path) as keeper:
            keeper.submit(booking(f"r-{number}"))
            assert keeper.flush(60)
            assert keeper.request(f"r-{number}") is not None
            assert keeper.usage()[0]["requests"] == number
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert LEDGER_NAME in caplog.text
        assert "ledger-2.sqlite3" in caplog.text
    assert damaged.read_bytes() == before
    assert len(rows(tmp_path, "ledger-2.sqlite3")) == 2


def test_a_ledger_damaged_in_the_middle_is_left_alone(tmp_path):
    """Damage that shows only on use makes no difference: nothing is written over, records go on beside it."""
    with keeping(tmp_path) as keeper:
        for number in range(500):
            keeper.submit(booking(f"r-{number}"))
    path = tmp_path / LEDGER_NAME
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xee" * (len(data) - 4096)
    path.write_bytes(data)
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("after"))
        assert keeper.flush(60)
        assert keeper.unwritten == 0
        assert keeper.request("after") is not None
    assert path.read_bytes() == bytes(data)


def test_two_damaged_ledgers_are_left_alone(tmp_path):
    """The file that stands in may be damaged, too: the next one takes its place."""
    for name in (LEDGER_NAME, "ledger-2.sqlite3"):
        (tmp_path / name).write_bytes(b"this is no database " * 300)
    with keeping(tmp_path) as keeper:
        keeper.submit(booking())
        assert keeper.flush(60)
        assert keeper.unwritten == 0
    assert rows(tmp_path, "ledger-3.sqlite3") == [("r-1", "completed")]


def test_what_another_router_wrote_is_summed_as_well(tmp_path):
    """Two that share a state folder write to one ledger: each sums up what stands there, not what it remembers."""
    settler, mine, other = Settler(no_encoding, DriftBook()), Store(tmp_path), Store(tmp_path)
    for number, ledger in enumerate((mine, other, mine, mine)):
        ledger.write([settler.settle(booking(f"r-{number}"))])
    assert mine.roll_up(100) == 4
    other.write([settler.settle(booking("r-4"))])
    mine.write([settler.settle(booking("r-5"))])
    assert mine.roll_up(100) == 2
    for ledger in (mine, other):
        ledger.close()
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as connection:
        assert connection.execute("SELECT sum(requests), sum(cost_usd) FROM hours").fetchone() == (
            6,
            pytest.approx(6 * (12 * 1.0 + 3 * 2.0) / 1e6),
        )


def test_what_cannot_be_summed_is_not_kept_for_it(tmp_path, monkeypatch):
    """Records that wait for their sums in memory are bounded: the file has them all."""
    monkeypatch.setattr(store, "_MAX_FRESH", 3)
    settler, ledger = Settler(no_encoding, DriftBook()), Store(tmp_path)
    for number in range(20):
        ledger.write([settler.settle(booking(f"r-{number}"))])
    assert len(ledger._fresh) <= 4
    assert ledger.roll_up(100) == 20
    ledger.close()


def test_a_newer_ledger_is_left_alone(tmp_path):
    """A file of a later version is not touched by this one."""
    path = tmp_path / LEDGER_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with keeping(tmp_path) as keeper:
        keeper.submit(booking())
        assert keeper.flush(60)
        assert keeper.request("r-1") is not None
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(tmp_path):
    """A database of somebody else's that happens to have the name gets no tables of ours."""
    path = tmp_path / LEDGER_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with keeping(tmp_path) as keeper:
        keeper.submit(booking())
        assert keeper.flush(60)
    assert path.read_bytes() == before
    assert len(rows(tmp_path, "ledger-2.sqlite3")) == 1


def test_an_empty_file_becomes_a_ledger(tmp_path):
    """A file of no bytes (a crash at the first start) is nobody's data and is used."""
    (tmp_path / LEDGER_NAME).touch()
    with keeping(tmp_path) as keeper:
        keeper.submit(booking())
    assert len(rows(tmp_path)) == 1


@contextmanager
def full_disk():
    """No file of this process may grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_nothing_and_is_told_once(tmp_path, monkeypatch, caplog):
    """While nothing can be written records wait in memory and can be asked for; then all are written, in order."""
    monkeypatch.setattr(Writer, "patience", 0.05)
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("before"))
        assert keeper.flush(60)
        with full_disk():
            for number in range(50):
                keeper.submit(booking(f"r-{number}"))
                assert keeper.flush(60)
            assert keeper.unwritten == 50
            assert keeper.trouble
            assert keeper.request("r-7")["status"] == 200
            time.sleep(0.2)
        wait_for(lambda: not keeper.trouble)
        assert keeper.unwritten == 0
    assert [name for name, _ in rows(tmp_path)] == ["before", *(f"r-{number}" for number in range(50))]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    assert "Chat goes on" in caplog.text


def test_a_disk_that_was_always_full_stops_nothing(tmp_path, monkeypatch):
    """A start on a full disk gives no board and no ledger, but figures; both come when there is room."""
    monkeypatch.setattr(Writer, "patience", 0.05)
    seen = []
    keeper = Bookkeeper(tmp_path, sinks=[seen.extend])
    with full_disk():
        keeper.start()
        keeper.submit(booking(ticket=keeper.enter("r-1", 0.0)))
        assert keeper.flush(60)
        assert len(seen) == 1
    wait_for(lambda: keeper.unwritten == 0)
    assert keeper.close(60)
    assert len(rows(tmp_path)) == 1


class Moody:
    """A ledger that takes what it is given only at times."""

    def __init__(self) -> None:
        self.taken, self.works = [], False

    def write(self, records):
        if not self.works:
            raise LedgerUnusable("no")
        self.taken += records


def test_what_waits_goes_first(monkeypatch):
    """A ledger that can be written again gets its records in their order, though the newest came at that moment."""
    monkeypatch.setattr(Writer, "patience", 0.0)
    cleared, moody = [], Moody()
    one = Writer(moody, cleared.extend)
    assert not one.write(["a", "b"], [1, 2])
    moody.works = True
    assert not one.write(["c"], [3])
    assert (moody.taken, cleared, len(one)) == (["a", "b", "c"], [1, 2, 3], 0)
    assert one.write(["d"], [4])
    assert cleared == [1, 2, 3]


def test_what_memory_cannot_hold_is_counted_as_lost(tmp_path, monkeypatch, caplog):
    """Waiting records have a bound; past it the oldest go, and how many is known."""
    monkeypatch.setattr(writer, "_MOST_WAITING", 10)
    monkeypatch.setattr(Store, "write", lambda *args, **options: (_ for _ in ()).throw(LedgerUnusable("no room")))
    keeper = Bookkeeper(tmp_path)
    keeper.start()
    for number in range(25):
        keeper.submit(booking(f"r-{number}"))
    assert keeper.flush(60)
    assert (keeper.unwritten, keeper.lost) == (10, 15)
    assert keeper.close(60)
    assert keeper.lost == 25
    assert "10 records could not be written and are lost: no room" in caplog.text


def test_a_folder_that_cannot_be_written(tmp_path, caplog):
    """A state folder that is a file, or read-only, costs the ledger and nothing else."""
    blocked = tmp_path / "state"
    blocked.write_text("not a folder")
    seen = []
    with keeping(blocked, sinks=[seen.extend]) as keeper:
        keeper.submit(booking())
        assert keeper.flush(60)
        assert keeper.request("r-1", "") is not None
        assert keeper.request("r-1", "somebody-else") is None
    assert len(seen) == 1
    assert sum("cannot be written" in record.message for record in caplog.records) == 1
    assert blocked.read_text() == "not a folder"


READ_ONLY = textwrap.dedent(
    """
    import os, tempfile
    from pathlib import Path
    from llm_router.accounting.ledger import Bookkeeper
    from tests.accounting.conftest import booking
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o500)
    seen = []
    keeper = Bookkeeper(folder, sinks=[seen.extend])
    keeper.start()
    keeper.submit(booking(ticket=keeper.enter("r-1", 0.0)))
    assert keeper.flush()
    assert (keeper.unwritten, len(seen)) == (1, 1), keeper
    assert keeper.request("r-1")["status"] == 200
    assert keeper.trouble
    folder.chmod(0o700)
    assert keeper.close(60)
    (ledger,) = folder.iterdir()
    assert keeper.lost == 0
    ledger.unlink()
    folder.rmdir()
    """
)


def test_a_read_only_folder():
    """Without the right to write figures go on and records wait; the last chance to write them is the end."""
    subprocess.run([sys.executable, "-c", READ_ONLY], check=True, cwd=ROOT, timeout=120)


def test_a_locked_ledger_is_waited_for(tmp_path, monkeypatch):
    """Another program that holds the file for long only delays the records."""
    monkeypatch.setattr(Writer, "patience", 0.05)
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("r-1"))
        assert keeper.flush(60)
        with closing(sqlite3.connect(tmp_path / LEDGER_NAME, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            keeper.submit(booking("r-2"))
            assert keeper.pending("r-2")
            time.sleep(0.3)
            other.execute("ROLLBACK")
        wait_for(lambda: len(rows(tmp_path)) == 2)


def test_a_fault_of_the_writing_loses_nothing(tmp_path, monkeypatch, caplog):
    """An error that nobody foresaw costs no record and no place on the board: all are written once it can be."""
    monkeypatch.setattr(Writer, "patience", 0.05)
    broken = threading.Event()
    broken.set()
    real = Store.write

    def write(self, records, **options):
        if records and broken.is_set():
            raise MemoryError("unforeseen")
        return real(self, records, **options)

    monkeypatch.setattr(Store, "write", write)
    with keeping(tmp_path) as keeper:
        for number in range(20):
            keeper.submit(booking(f"r-{number}"))
        assert keeper.flush(60)
        assert (keeper.unwritten, keeper.in_flight) == (20, 0)
        assert not keeper.pending("r-1")
        assert keeper.request("r-1") is not None
        broken.clear()
        wait_for(lambda: keeper.unwritten == 0)
    assert [name for name, _ in rows(tmp_path)] == [f"r-{number}" for number in range(20)]
    assert list(tmp_path.glob("inflight-*.board")) == []
    assert "unforeseen" in caplog.text


def test_a_state_folder_removed_while_running_is_made_anew(tmp_path, caplog):
    """Records go on in a new ledger that is found under the usual name, and one line says so."""
    folder = tmp_path / "state"
    with keeping(folder) as keeper:
        keeper.submit(booking("before"))
        assert keeper.flush(60)
        shutil.rmtree(folder)
        for name in ("after", "later"):
            keeper.submit(booking(name))
            assert keeper.flush(60)
        assert keeper.request("after") is not None
        assert keeper.unwritten == 0
    assert [name for name, _ in rows(folder)] == ["after", "later"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert LEDGER_NAME in caplog.text


def test_a_state_folder_that_cannot_be_made_anew_is_waited_for(tmp_path, caplog):
    """A removed folder that cannot come back is trouble like a full disk: told once, and records wait for its end."""
    folder = tmp_path / "state"
    with keeping(folder, linger=0) as keeper:
        keeper.submit(booking("before"))
        assert keeper.flush(60)
        shutil.rmtree(folder)
        folder.write_text("in the way")
        keeper.submit(booking("after"))
        assert keeper.flush(60)
        assert keeper.unwritten == 1
        assert keeper.trouble
        folder.unlink()
        wait_for(lambda: not keeper.unwritten)
    assert [name for name, _ in rows(folder)] == ["after"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR", "WARNING"]


def test_a_ledger_moved_away_is_whole_and_followed_by_a_new_one(tmp_path):
    """A ledger may be put aside while it is written: it keeps all that it was given, and the next one begins anew."""
    with keeping(tmp_path) as keeper:
        for number in range(30):
            keeper.submit(booking(f"r-{number}"))
        assert keeper.flush(60)
        (tmp_path / LEDGER_NAME).rename(tmp_path / "last-year.sqlite3")
        keeper.submit(booking("new"))
        assert keeper.flush(60)
        assert [name for name, _ in rows(tmp_path, "last-year.sqlite3")] == [f"r-{number}" for number in range(30)]
    assert [name for name, _ in rows(tmp_path)] == ["new"]
