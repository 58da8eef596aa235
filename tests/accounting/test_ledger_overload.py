"""Bookings that come faster than they are settled: batches, estimates, bounds, and an event loop that never waits."""

import sqlite3
import threading
import time
from contextlib import closing

import orjson

from llm_router.accounting import ledger
from llm_router.accounting.booking import SideCost
from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.store import LEDGER_NAME, Store
from tests.accounting.books import keeping, rows, wait_for
from tests.accounting.conftest import INFO, USAGE, booking, completion, stream


class Slow:
    """A tokenizer that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def count(self, text: str) -> int:
        time.sleep(self.seconds)
        return 1


def _settle_slowly(folder, number):
    """A bookkeeper that has settled so many requests, all there from the start, with a slow tokenizer."""
    keeper = Bookkeeper(folder, find_encoding=lambda name: Slow(0.005))
    for each in range(number):
        keeper.submit(booking(f"r-{each}", answer=[completion(f"text {each}", usage=USAGE)]))
    keeper.start()
    assert keeper.close(60)
    return keeper


def test_counting_that_falls_behind_becomes_an_estimate(tmp_path, monkeypatch):
    """Past a queue of so many requests tokens are estimated, visibly, and no record is dropped."""
    monkeypatch.setattr(ledger, "_LAGGING_BOOKINGS", 20)
    keeper = _settle_slowly(tmp_path, 200)
    assert 150 < keeper.degraded <= 200
    by = [row[0] for row in rows(tmp_path, columns="counted_by")]
    assert len(by) == 200
    assert by.count("estimate") == 200 - by.count("tiktoken") > 150


def test_bookings_that_wait_too_long_are_estimated(tmp_path, monkeypatch):
    """A queue in which bookings grow old is estimated, however short it is; what was quick enough is counted."""
    monkeypatch.setattr(ledger, "_LATE_BOOKINGS", 5)
    monkeypatch.setattr(ledger, "_LATE_SECONDS", 0.02)
    keeper = _settle_slowly(tmp_path, 100)
    assert 0 < keeper.degraded < 100
    by = [row[0] for row in rows(tmp_path, columns="counted_by")]
    assert (by[0], by.count("estimate")) == ("tiktoken", keeper.degraded)


def test_bytes_that_wait_are_bounded(tmp_path, monkeypatch):
    """A queue that would hold too much lets go of requests and answers, but keeps the reported usage and side costs."""
    monkeypatch.setattr(ledger, "QUEUED_BYTES", 200_000)
    keeper = Bookkeeper(tmp_path)
    kept = []
    for number in range(20):
        request = bytes(50_000)
        one = booking(
            f"r-{number}",
            request=request,
            answer=stream(*["word "] * 100, usage=USAGE),
            answer_is_stream=True,
            side_costs=(SideCost("hedge", "x/h", request, price_info=INFO),),
        )
        keeper.submit(one)
        kept.append(max(len(one.request), len(one.side_costs[0].request)) + sum(map(len, one.answer)))
    assert sum(kept) < 250_000
    assert keeper.shed > 10
    keeper.start()
    assert keeper.flush(60)
    assert keeper.close(60)
    assert set(rows(tmp_path, columns="input_tokens, cost_source, request_bytes")) == {(12, "provider_usage", 50_000)}
    assert {row[0] for row in rows(tmp_path, columns="counted_by")} == {"estimate"}
    assert {row[0] for row in rows(tmp_path, columns="side_cost_usd")} == {12_500 * INFO.prices.input / 1e6}


def test_what_was_let_go_of_is_estimated_by_its_size(tmp_path, monkeypatch):
    """Of a prompt that is there no more nothing is counted: a tokenizer would find it to be short."""
    monkeypatch.setattr(ledger, "QUEUED_BYTES", 0)
    request = orjson.dumps({"messages": [{"role": "user", "content": "word " * 1000}]})
    with keeping(tmp_path, find_encoding=lambda name: Slow(0.0)) as keeper:
        keeper.submit(booking(request=request))
        assert keeper.flush(60)
    assert rows(tmp_path, columns="counted_by, counted_input") == [("estimate", len(request) // 4)]


def test_submitting_never_waits(tmp_path, monkeypatch):
    """However long a write takes, the event loop's side does not wait for its end."""
    writing, release = threading.Event(), threading.Event()
    real = Store.write

    def write(self, records, **options):
        if records:
            writing.set()
            release.wait(60)
        return real(self, records, **options)

    monkeypatch.setattr(Store, "write", write)
    with keeping(tmp_path) as keeper:
        try:
            keeper.submit(booking("first"))
            assert writing.wait(60)
            for number in range(1, 1000):
                keeper.submit(booking(f"r-{number}", ticket=keeper.enter(f"r-{number}", 0.0)))
            assert keeper.queued == 1000
        finally:
            release.set()
        assert keeper.flush(60)
    assert len(rows(tmp_path)) == 1000


def test_quiet_work_is_done_while_nothing_runs(tmp_path):
    """Work that would be felt is called only after a batch with no request in flight."""
    calls = []
    with keeping(tmp_path, when_quiet=lambda: calls.append(1), linger=0.0) as keeper:
        keeper.submit(booking())
        keeper.flush(60)
        wait_for(lambda: calls)
        ticket = keeper.enter("running", 0.0)
        time.sleep(0.05)
        calls.clear()
        keeper.submit(booking("r-2"))
        keeper.flush(60)
        time.sleep(0.1)
        assert not calls
        keeper.submit(booking("running", ticket=ticket))
        wait_for(lambda: calls)


def test_a_burst_is_one_transaction(tmp_path, monkeypatch):
    """Requests that close together share a commit."""
    commits = []
    real = Store.write

    def write(self, records, **options):
        commits.append(len(records))
        return real(self, records, **options)

    monkeypatch.setattr(Store, "write", write)
    keeper = Bookkeeper(tmp_path)
    for number in range(300):
        keeper.submit(booking(f"r-{number}"))
    keeper.start()
    assert keeper.close(60)
    assert len(rows(tmp_path)) == 300
    # A batch ends by its time, too: on a busy machine there may be more than one.
    assert len([size for size in commits if size]) < 60


class Stuck:
    """A tokenizer that does not come to an end with long texts before it is let go."""

    def __init__(self) -> None:
        self.reached, self.release = threading.Event(), threading.Event()

    def count(self, text: str) -> int:
        if len(text) > 100:
            self.reached.set()
            assert self.release.wait(60)
        return 1


def test_a_heavy_request_holds_up_no_record_before_it(tmp_path, monkeypatch):
    """What was settled already is in the ledger before a request is counted that may take long."""
    monkeypatch.setattr(ledger, "_HEAVY_BYTES", 10_000)
    stuck = Stuck()
    keeper = Bookkeeper(tmp_path, find_encoding=lambda name: stuck)
    for number in range(3):
        keeper.submit(booking(f"r-{number}"))
    long = orjson.dumps({"messages": [{"role": "user", "content": "y" * 20_000}]})
    keeper.submit(booking("heavy", request=long))
    keeper.start()
    try:
        assert stuck.reached.wait(60)
        wait_for(lambda: len(rows(tmp_path)) == 3)
    finally:
        stuck.release.set()
    assert keeper.close(60)
    assert len(rows(tmp_path)) == 4


def test_bytes_that_were_settled_wait_no_longer(tmp_path, monkeypatch):
    """What counts as waiting is what does: request after request, nothing is let go of."""
    monkeypatch.setattr(ledger, "QUEUED_BYTES", 60_000)
    with keeping(tmp_path, linger=0.0) as keeper:
        for number in range(10):
            keeper.submit(booking(f"r-{number}", request=bytes(50_000)))
            assert keeper.flush(60)
        assert keeper.shed == 0


def _hours(folder):
    with closing(sqlite3.connect(folder / LEDGER_NAME)) as connection:
        return connection.execute("SELECT coalesce(sum(requests), 0) FROM hours").fetchone()[0]


def test_hours_are_summed_under_load(tmp_path, monkeypatch):
    """The sums do not wait for a quiet moment that may never come."""
    monkeypatch.setattr(ledger, "_ROLL_UP_ROWS", 5)
    monkeypatch.setattr(ledger, "_IDLE_SECONDS", 3600.0)
    with keeping(tmp_path, linger=0.0) as keeper:
        for number in range(20):
            keeper.submit(booking(f"r-{number}"))
            assert keeper.flush(60)
        wait_for(lambda: _hours(tmp_path) >= 15)


def test_all_hours_are_summed_in_the_end(tmp_path, monkeypatch):
    """However many records have not been summed, a clean end leaves none."""
    keeper = Bookkeeper(tmp_path)
    for number in range(95):
        keeper.submit(booking(f"r-{number}"))
    monkeypatch.setattr(ledger, "_ROLL_UP_ROWS", 1)
    monkeypatch.setattr(keeper, "_care", lambda idle: idle and Bookkeeper._care(keeper, idle=True))
    keeper.start()
    assert keeper.close(60)
    assert _hours(tmp_path) == 95
