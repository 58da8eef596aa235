"""The bookkeeper and its ledger: every record arrives once, and is found."""

import os
import stat
import time

import pytest

from llm_router.accounting import ledger
from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.store import LEDGER_NAME
from tests.accounting.books import keeping, rows, wait_for
from tests.accounting.conftest import booking


def test_a_request_is_found_by_its_id(tmp_path, find_encoding):
    """What was submitted can be read back as the API shows it, and is pending until then."""
    with keeping(tmp_path, find_encoding=find_encoding) as keeper:
        ticket = keeper.enter("r-1", 1000.5, client="c1")
        assert keeper.pending("r-1")
        assert keeper.in_flight == 1
        keeper.submit(booking(ticket=ticket, client="c1", started=1000.5))
        assert keeper.flush(60)
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
        assert keeper.flush(60)
        assert keeper.request("r-1", "c1")["status"] == 429
        assert keeper.request("r-1", "c2")["status"] == 503
        assert keeper.request("r-1", "c3") is None
        assert keeper.request("nobody") is None
        keeper.submit(booking("r-2", ticket=waiting))


def test_what_is_submitted_is_on_disk_within_half_a_second(tmp_path):
    """A record is committed soon after its request has closed, seen by another connection."""
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("warm"))
        keeper.flush(60)
        took = []
        # On a busy machine it may take longer now and then, but not each time.
        while len(took) < 30 and min(took, default=1.0) >= 0.5:
            name, began = f"r-{len(took)}", time.monotonic()
            keeper.submit(booking(name))
            wait_for(lambda name=name: (name, "completed") in rows(tmp_path))
            took.append(time.monotonic() - began)
        assert min(took) < 0.5


def test_sinks_see_records_that_are_in_the_ledger(tmp_path):
    """A sink is called after the commit, with whole batches; one that fails hurts nobody."""
    seen = []

    def sink(batch):
        seen.extend((settled.request_id, len(rows(tmp_path))) for settled in batch)

    def broken(batch):
        raise RuntimeError("full")

    with keeping(tmp_path, sinks=[broken, sink]) as keeper:
        keeper.submit(booking("r-1"))
        assert keeper.flush(60)
        keeper.submit(booking("r-2"))
        assert keeper.flush(60)
    assert seen == [("r-1", 1), ("r-2", 2)]


def test_a_booking_that_cannot_be_read_still_leaves_a_record(tmp_path, monkeypatch, caplog):
    """An error in the settling costs the tokens of one record, not the record and not the thread."""
    monkeypatch.setattr(ledger.Settler, "_evidence", lambda *args: 1 / 0)
    with keeping(tmp_path) as keeper:
        keeper.submit(booking("r-1"))
        assert keeper.flush(60)
    assert rows(tmp_path, columns="request_id, cost_usd") == [("r-1", None)]
    assert "could not be read" in caplog.text


def test_without_a_folder_nothing_is_kept_but_sinks_work():
    """No state folder: no ledger, live figures all the same."""
    seen = []
    with keeping(None, sinks=[seen.extend]) as keeper:
        keeper.submit(booking())
        assert keeper.flush(60)
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
            keeper.flush(60)
            found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
            keeper.submit(booking("r-1", ticket=1))
    finally:
        os.umask(before)
    assert {LEDGER_NAME, f"{LEDGER_NAME}-wal", f"{LEDGER_NAME}-shm"} < set(found)
    assert set(found.values()) == {0o600}, found
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


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


class _Wake:
    """Stands in for the event that the bookkeeper's thread waits for: until it is set, requests close."""

    def __init__(self, keeper: Bookkeeper) -> None:
        self._keeper = keeper
        self._is_set = False

    def wait(self, seconds: float) -> bool:
        while not self._is_set:
            self._keeper.submit(booking())
        return True

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False


@pytest.mark.parametrize(
    ("running", "closed", "settled"), [(False, 1, 1), (True, 1, 64), (True, 63, 64), (True, 64, 64), (True, 500, 500)]
)
def test_what_has_closed_waits_for_what_will_close_soon(monkeypatch, running, closed, settled):
    """While other requests run records are settled in company, but no more than a fair number is waited for."""
    keeper = Bookkeeper(None, linger=0.0)
    if running:
        keeper.enter("running", 0.0)
    for _ in range(closed):
        keeper.submit(booking())
    monkeypatch.setattr(keeper, "_wake", _Wake(keeper))
    keeper._await_company()
    assert keeper.queued == settled


def test_large_bookings_wait_for_no_company(monkeypatch):
    """What others may be as large as is not collected: memory is for requests that run."""
    keeper = Bookkeeper(None, linger=0.0)
    keeper.enter("running", 0.0)
    keeper.submit(booking(request=b"x" * 1_000_000))
    monkeypatch.setattr(keeper, "_wake", _Wake(keeper))
    keeper._await_company()
    assert keeper.queued == 1
