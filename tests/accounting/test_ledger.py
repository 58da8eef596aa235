"""The bookkeeper and its ledger: every record arrives once, whatever happens to the disk or to the process."""

import logging
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from llm_router.accounting import ledger
from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.schema import MIGRATIONS
from llm_router.accounting.store import LEDGER_NAME, LedgerUnusable, Store
from tests.accounting.conftest import USAGE, booking, completion, stream

ROOT = Path(__file__).parents[2]


@contextmanager
def keeping(folder, **options):
    """A running bookkeeper."""
    keeper = Bookkeeper(folder, **options)
    keeper.start()
    try:
        yield keeper
    finally:
        assert keeper.close(30)


def rows(folder, name=LEDGER_NAME, columns="request_id, outcome"):
    with closing(sqlite3.connect(f"file:{folder / name}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT {columns} FROM requests ORDER BY id").fetchall()


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_request_is_found_by_its_id(tmp_path, find_encoding):
    """What was submitted can be read back as the API shows it, and is pending until then."""
    with keeping(tmp_path, find_encoding=find_encoding) as keeper:
        ticket = keeper.enter("r-1", 1000.5, client="c1")
        assert keeper.pending("r-1")
        assert keeper.in_flight == 1
        keeper.submit(booking(ticket=ticket, client="c1", started=1000.5))
        assert keeper.flush()
        assert not keeper.pending("r-1")
        found = keeper.request("r-1")
    assert found["started_at"] == "1970-01-01T00:16:40.500000+00:00"
    assert found["attempts"] == [{"model": "openai/m", "kind": "ok", "status": 200, "ms": 7}]
    assert (found["stream"], found["side_costs"], found["counted_by"]) == (False, [], "tiktoken")
    assert found["cost_usd"] == 18e-6
    assert "client" not in found


def test_a_client_sees_its_own_requests(tmp_path):
    """Ids are the clients' own, so two may use the same: each finds its record, and the newest of them."""
    with keeping(tmp_path) as keeper:
        for client, status in (("c1", 200), ("c2", 503), ("c1", 429)):
            keeper.submit(booking(client=client, status=status))
        waiting = keeper.enter("r-2", 0.0, client="c2")
        assert keeper.pending("r-2", "c2")
        assert not keeper.pending("r-2", "c1")
        assert keeper.flush()
        assert keeper.request("r-1", "c1")["status"] == 429
        assert keeper.request("r-1", "c2")["status"] == 503
        assert keeper.request("r-1", "c3") is None
        assert keeper.request("nobody") is None
        keeper.submit(booking("r-2", ticket=waiting))


def test_what_is_submitted_is_on_disk_within_half_a_second(tmp_path):
    """A record is committed soon after its request has closed, seen by another connection."""
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("warm"))
        keeper.flush()
        took = []
        for number in range(3):
            began = time.monotonic()
            keeper.submit(booking(f"r-{number}"))
            wait_for(lambda name=f"r-{number}": (name, "completed") in rows(tmp_path))
            took.append(time.monotonic() - began)
        assert min(took) < 0.5


def test_a_burst_is_one_transaction(tmp_path, monkeypatch):
    """Requests that close together share a commit."""
    commits = []
    real = Store.write

    def write(self, records, **options):
        commits.append(len(records))
        return real(self, records, **options)

    monkeypatch.setattr(Store, "write", write)
    with keeping(tmp_path) as keeper:
        for number in range(300):
            keeper.submit(booking(f"r-{number}"))
        assert keeper.flush()
    assert len(rows(tmp_path)) == 300
    assert len([size for size in commits if size]) <= 5


def test_sinks_see_records_that_are_in_the_ledger(tmp_path):
    """A sink is called after the commit, with whole batches; one that fails hurts nobody."""
    seen = []

    def sink(batch):
        seen.extend((settled.request_id, len(rows(tmp_path))) for settled in batch)

    def broken(batch):
        raise RuntimeError("full")

    with keeping(tmp_path, sinks=[broken, sink]) as keeper:
        keeper.submit(booking("r-1"))
        assert keeper.flush()
        keeper.submit(booking("r-2"))
        assert keeper.flush()
    assert seen == [("r-1", 1), ("r-2", 2)]


def test_a_booking_that_cannot_be_read_still_leaves_a_record(tmp_path, monkeypatch, caplog):
    """An error in the settling costs the tokens of one record, not the record and not the thread."""
    monkeypatch.setattr(ledger.Settler, "_evidence", lambda *args: 1 / 0)
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("r-1"))
        assert keeper.flush()
    assert rows(tmp_path, columns="request_id, cost_usd") == [("r-1", None)]
    assert "could not be read" in caplog.text


def test_values_that_sqlite_cannot_take_hold_up_nobody(tmp_path):
    """Lone surrogates and numbers past 64 bits are mended; the records beside them are written as they are."""
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("r-1", model="openai/\ud800"))
        keeper.submit(booking("r-2", answer_bytes=2**70))
        keeper.submit(booking("r-3"))
        assert keeper.flush()
        assert keeper.unwritten == 0
    assert [name for name, _ in rows(tmp_path)] == ["r-1", "r-2", "r-3"]
    assert rows(tmp_path, columns="model")[0] == ("openai/?",)


def test_without_a_folder_nothing_is_kept_but_sinks_work():
    """No state folder: no ledger, live figures all the same."""
    seen = []
    with keeping(None, sinks=[seen.extend]) as keeper:
        keeper.submit(booking())
        assert keeper.flush()
        assert keeper.request("r-1") is None
        assert keeper.usage() == []
        assert keeper.unwritten == 0
    assert len(seen) == 1


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_files_are_private_whatever_the_umask(tmp_path, umask):
    """Ledger, its helpers and the board are 0600, the folder 0700."""
    folder = tmp_path / "state" / "inner"
    (tmp_path / "state").mkdir()
    before = os.umask(umask)
    try:
        with keeping(folder) as keeper:
            keeper.enter("r-1", 0.0)
            keeper.submit(booking())
            keeper.flush()
            found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
            keeper.submit(booking("r-1", ticket=1))
    finally:
        os.umask(before)
    assert {LEDGER_NAME, f"{LEDGER_NAME}-wal", f"{LEDGER_NAME}-shm"} < set(found)
    assert set(found.values()) == {0o600}, found
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


# Faults of the disk


def test_a_damaged_ledger_is_left_alone(tmp_path, caplog):
    """A corrupt file keeps every byte; records go to a file beside it, also after a restart, and one line says so."""
    damaged = tmp_path / LEDGER_NAME
    damaged.write_bytes(b"this is no database, but somebody's money " * 300)
    before = damaged.read_bytes()
    for number in (1, 2):
        caplog.clear()
        with keeping(tmp_path) as keeper:
            keeper.submit(booking(f"r-{number}"))
            assert keeper.flush()
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
        assert keeper.flush()
        assert keeper.unwritten == 0
        assert keeper.request("after") is not None
    assert path.read_bytes() == bytes(data)


def test_a_newer_ledger_is_left_alone(tmp_path):
    """A file of a later version is not touched by this one."""
    path = tmp_path / LEDGER_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with keeping(tmp_path) as keeper:
        keeper.submit(booking())
        assert keeper.flush()
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
        assert keeper.flush()
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
    monkeypatch.setattr(ledger, "_RETRY_SECONDS", 0.05)
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("before"))
        assert keeper.flush()
        with full_disk():
            for number in range(50):
                keeper.submit(booking(f"r-{number}"))
                assert keeper.flush()
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
    monkeypatch.setattr(ledger, "_RETRY_SECONDS", 0.05)
    seen = []
    keeper = Bookkeeper(tmp_path, sinks=[seen.extend])
    with full_disk():
        keeper.start()
        keeper.submit(booking(ticket=keeper.enter("r-1", 0.0)))
        assert keeper.flush()
        assert len(seen) == 1
    wait_for(lambda: keeper.unwritten == 0)
    assert keeper.close()
    assert len(rows(tmp_path)) == 1


def test_what_memory_cannot_hold_is_counted_as_lost(tmp_path, monkeypatch, caplog):
    """Waiting records have a bound; past it the oldest go, and how many is known."""
    monkeypatch.setattr(ledger, "_UNWRITTEN", 10)
    monkeypatch.setattr(Store, "write", lambda *args, **options: (_ for _ in ()).throw(LedgerUnusable("no room")))
    keeper = Bookkeeper(tmp_path)
    keeper.start()
    for number in range(25):
        keeper.submit(booking(f"r-{number}"))
    assert keeper.flush()
    assert (keeper.unwritten, keeper.lost) == (10, 15)
    keeper.close()
    assert keeper.lost == 25
    assert "10 records could not be written and are lost: no room" in caplog.text


def test_a_folder_that_cannot_be_written(tmp_path, caplog):
    """A state folder that is a file, or read-only, costs the ledger and nothing else."""
    blocked = tmp_path / "state"
    blocked.write_text("not a folder")
    seen = []
    with keeping(blocked, sinks=[seen.extend]) as keeper:
        keeper.submit(booking())
        assert keeper.flush()
        assert keeper.request("r-1") is not None
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
    assert keeper.close()
    (ledger,) = folder.iterdir()
    assert keeper.lost == 0
    ledger.unlink()
    folder.rmdir()
    """
)


def test_a_read_only_folder():
    """Without the right to write figures go on and records wait; the last chance to write them is the end."""
    subprocess.run([sys.executable, "-c", READ_ONLY], check=True, cwd=ROOT, timeout=30)


def test_a_locked_ledger_is_waited_for(tmp_path, monkeypatch):
    """Another program that holds the file for long only delays the records."""
    monkeypatch.setattr(ledger, "_RETRY_SECONDS", 0.05)
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("r-1"))
        assert keeper.flush()
        with closing(sqlite3.connect(tmp_path / LEDGER_NAME, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            keeper.submit(booking("r-2"))
            assert keeper.pending("r-2")
            time.sleep(0.3)
            other.execute("ROLLBACK")
        wait_for(lambda: len(rows(tmp_path)) == 2)


def test_two_processes_may_write_one_ledger(tmp_path):
    """Writers take turns; none loses a record, and the file is set up once."""
    keepers = [Bookkeeper(tmp_path) for _ in range(3)]
    for keeper in keepers:
        keeper.start()
    for number in range(200):
        for index, keeper in enumerate(keepers):
            keeper.submit(booking(f"r-{index}-{number}"))
    assert all(keeper.close(30) for keeper in keepers)
    assert len(rows(tmp_path)) == 600


# Overload


class Slow:
    """A tokenizer that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def encode_ordinary(self, text: str) -> list[int]:
        time.sleep(self.seconds)
        return [0]


def test_counting_that_falls_behind_becomes_an_estimate(tmp_path, monkeypatch):
    """Past a queue of so many requests tokens are estimated, visibly, and no record is dropped."""
    monkeypatch.setattr(ledger, "_LAGGING_BOOKINGS", 20)
    with keeping(tmp_path, find_encoding=lambda name: Slow(0.005)) as keeper:
        for number in range(200):
            keeper.submit(booking(f"r-{number}", answer=[completion(f"text {number}", usage=USAGE)]))
        assert keeper.flush(20)
        assert 150 < keeper.degraded <= 200
    by = [row[0] for row in rows(tmp_path, columns="counted_by")]
    assert len(by) == 200
    assert by.count("estimate") == 200 - by.count("tiktoken") > 150


def test_bookings_that_wait_too_long_are_estimated(tmp_path, monkeypatch):
    """A queue in which bookings grow old is estimated, however short it is; what was quick enough is counted."""
    monkeypatch.setattr(ledger, "_LATE_BOOKINGS", 5)
    monkeypatch.setattr(ledger, "_LATE_SECONDS", 0.02)
    keeper = Bookkeeper(tmp_path, find_encoding=lambda name: Slow(0.005))
    for number in range(100):
        keeper.submit(booking(f"r-{number}", answer=[completion(f"text {number}", usage=USAGE)]))
    keeper.start()
    assert keeper.flush(20)
    assert 0 < keeper.degraded < 100
    assert keeper.close(30)
    by = [row[0] for row in rows(tmp_path, columns="counted_by")]
    assert (by[0], by.count("estimate")) == ("tiktoken", keeper.degraded)


def test_a_fault_of_the_writing_loses_nothing(tmp_path, monkeypatch, caplog):
    """An error that nobody foresaw costs no record and no place on the board: all are written once it can be."""
    monkeypatch.setattr(ledger, "_RETRY_SECONDS", 0.05)
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
        assert keeper.flush()
        assert (keeper.unwritten, keeper.in_flight) == (20, 0)
        assert not keeper.pending("r-1")
        assert keeper.request("r-1") is not None
        broken.clear()
        wait_for(lambda: keeper.unwritten == 0)
    assert [name for name, _ in rows(tmp_path)] == [f"r-{number}" for number in range(20)]
    assert list(tmp_path.glob("inflight-*.board")) == []
    assert "unforeseen" in caplog.text


def test_bytes_that_wait_are_bounded(tmp_path, monkeypatch):
    """A queue that would hold too much lets go of requests and answers, but keeps the reported usage."""
    monkeypatch.setattr(ledger, "QUEUED_BYTES", 200_000)
    keeper = Bookkeeper(tmp_path)
    kept = []
    for number in range(20):
        one = booking(
            f"r-{number}",
            request=b"x" * 50_000,
            answer=stream(*["word "] * 100, usage=USAGE),
            answer_is_stream=True,
        )
        keeper.submit(one)
        kept.append(len(one.request) + sum(map(len, one.answer)))
    assert sum(kept) < 250_000
    assert keeper.shed > 10
    keeper.start()
    assert keeper.flush()
    assert keeper.close()
    assert set(rows(tmp_path, columns="input_tokens, cost_source, request_bytes")) == {(12, "provider_usage", 50_000)}
    assert {row[0] for row in rows(tmp_path, columns="counted_by")} == {"estimate"}


def test_submitting_never_waits(tmp_path, monkeypatch):
    """However long a write takes, the event loop's side is done at once."""
    release = threading.Event()
    real = Store.write

    def write(self, records, **options):
        release.wait(10)
        return real(self, records, **options)

    monkeypatch.setattr(Store, "write", write)
    with keeping(tmp_path) as keeper:
        began = time.monotonic()
        for number in range(1000):
            keeper.submit(booking(f"r-{number}", ticket=keeper.enter(f"r-{number}", 0.0)))
        assert time.monotonic() - began < 0.5
        assert keeper.queued == 1000
        release.set()
        assert keeper.flush()
    assert len(rows(tmp_path)) == 1000


def test_quiet_work_is_done_while_nothing_runs(tmp_path):
    """Work that would be felt is called only after a batch with no request in flight."""
    calls = []
    with keeping(tmp_path, when_quiet=lambda: calls.append(1), linger=0.0) as keeper:
        keeper.submit(booking())
        keeper.flush()
        wait_for(lambda: calls)
        ticket = keeper.enter("running", 0.0)
        time.sleep(0.05)
        calls.clear()
        keeper.submit(booking("r-2"))
        keeper.flush()
        time.sleep(0.1)
        assert not calls
        keeper.submit(booking("running", ticket=ticket))
        wait_for(lambda: calls)


# Death


CHILD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from llm_router.accounting.ledger import Bookkeeper
    from tests.accounting.conftest import booking
    keeper = Bookkeeper(Path(sys.argv[1]))
    keeper.start()
    tickets = [keeper.enter(f"r-{n}", 1000.0 + n, client="c", category="code", model="openai/m") for n in range(200)]
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
    child.wait(10)
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
        assert keeper.flush()
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


def test_every_migration_was_run_once(tmp_path):
    """The file's version is the number of migrations, and a second start changes nothing."""
    for _ in range(2):
        with keeping(tmp_path) as keeper:
            keeper.submit(booking())
        with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
