"""The ledger's tables: an older file is carried over, and what stands in parts is shown as one row."""

import logging
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.accounting import store
from llm_router.accounting.booking import Attempt, LedgerRecord, SideCost
from llm_router.accounting.drift import DriftBook
from llm_router.accounting.report import DIMENSIONS, LedgerReader, shown
from llm_router.accounting.schema import MIGRATIONS, SUM_NAMES, SUMS_OF_REQUESTS
from llm_router.accounting.settle import Settler, interrupted_record
from llm_router.accounting.store import LEDGER_NAME, Store
from tests.accounting.conftest import REQUEST, booking, completion

NOW = 1_795_000_000.0
# The columns of the ledger, in the order in which they always stood.
COLUMNS = (
    "id, request_id, started, category, mode, model, provider, stream, client, outcome, status, failure, attempts, "
    "attempt_count, first_byte_ms, total_ms, request_bytes, answer_bytes, finish_reason, reported_model, "
    "input_tokens, output_tokens, counted_input, counted_output, counted_by, reported_fresh_input, "
    "reported_cache_read, reported_cache_write, reported_cache_write_1h, reported_output, reported_reasoning, "
    "cost_usd, cost_source, side_cost_usd, side_costs"
)
OK = Attempt("openai/m", "ok", 200, 7)
REFUSED = Attempt("x/other", "rate_limited", 429, 3)


SETTLER = Settler(lambda name: None, DriftBook())


def settled(request_id: str, **fields) -> LedgerRecord:
    return SETTLER.settle(booking(request_id, **fields))


def various() -> list[LedgerRecord]:
    """Records of many kinds over three days, not quite in the order of their start."""
    side = SideCost("classifier", "x/c", REQUEST, [completion("side")])
    made = []
    for number in range(300):
        odd = (
            {},
            {"attempts": (REFUSED, OK)},
            {"outcome": "failed", "status": 503, "failure": "no", "answer": [b"{}"], "first_byte_ms": None},
            {"side_costs": (side,)},
            {"outcome": "cancelled", "price_info": None},
            {"answer": [completion("without a report")], "first_byte_ms": None},
        )[number % 6]
        started = NOW + number * 900 - (number % 4) * 2000
        made.append(
            settled(f"r-{number}", started=started, client=f"c{number % 2}", model=f"openai/m{number % 3}", **odd)
        )
    return [*made, interrupted_record("r-0", NOW + 5.0, "c1", "openai/m")]


def first_ledger(path, records, summed: int) -> None:
    """A ledger as the first version wrote it, of which the first records are in the hourly sums."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in MIGRATIONS[0].split(";"):
            connection.execute(statement)
        for record in records:
            row = record.flat()
            row["attempts"] = store.as_json([attempt._asdict() for attempt in record.attempts])
            names = ", ".join(row)
            connection.execute(f"INSERT INTO requests ({names}) VALUES ({', '.join('?' * len(row))})", [*row.values()])
        connection.execute("UPDATE rolled_up SET last_id = ?", (summed,))
        connection.execute(
            f"INSERT INTO hours SELECT CAST(started / 3600 AS INTEGER), model, provider, category, client, "
            f"{SUMS_OF_REQUESTS} FROM requests WHERE id <= {summed} GROUP BY 1, 2, 3, 4, 5"
        )
        connection.execute("PRAGMA user_version = 1")


def all_told(folder) -> list:
    """What the ledger answers to anything that can be asked."""
    reader = LedgerReader(folder)
    moments = (None, NOW + 40_000, NOW + 100_000.5, NOW + 180_000, NOW + 10**7)
    sums = [
        (by, since, client, rounded(reader.usage(by, since, client)))
        for by in DIMENSIONS
        for since in moments
        for client in (None, "c1")
    ]
    return [sums, [reader.request(f"r-{number}") for number in range(301)], reader.request("r-0", "c0")]


def rounded(rows: list[dict]) -> list[dict]:
    """Sums of costs depend on the order of adding."""
    return [{name: round(value, 9) if type(value) is float else value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("summed", [0, 123, 301])
def test_a_first_ledger_is_carried_over(tmp_path, summed):
    """A file of the first version answers the same before it is taken over, afterwards, and when all is summed."""
    first_ledger(tmp_path / LEDGER_NAME, various(), summed)
    before = all_told(tmp_path)
    assert before[1][7]["attempts"] == [REFUSED._asdict(), OK._asdict()]
    ledger = Store(tmp_path)
    ledger.write(())
    assert all_told(tmp_path) == before
    while ledger.roll_up(50):
        pass
    assert all_told(tmp_path) == before
    ledger.close()
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as connection:
        found = connection.execute("SELECT * FROM requests")
        assert ", ".join(column[0] for column in found.description) == COLUMNS
        assert connection.execute("SELECT count(*) FROM kinds").fetchone()[0] < 60


def test_a_new_ledger_says_what_an_old_one_said(tmp_path):
    """The same records give the same answers, whichever version of the ledger they were written to."""
    (tmp_path / "old").mkdir()
    first_ledger(tmp_path / "old" / LEDGER_NAME, various(), 200)
    ledger = Store(tmp_path / "new")
    ledger.write(various())
    ledger.roll_up(200)
    ledger.close()
    assert all_told(tmp_path / "new") == all_told(tmp_path / "old")


def test_sums_of_records_at_hand_are_those_that_would_be_read(tmp_path, monkeypatch):
    """What was just written is summed without being read again; a writer that has forgotten it reads the same."""
    found = []
    for name in ("at hand", "read"):
        folder = tmp_path / name
        ledger = Store(folder)
        ledger.write(various())
        if name == "read":
            ledger.close()
            ledger.write(())
        with monkeypatch.context() as patch:
            patch.setattr(store, "ADD_SUMS" if name == "read" else "ROLL_UP", "it is not needed")
            assert ledger.roll_up(1_000) == len(various())
        ledger.close()
        with closing(sqlite3.connect(folder / LEDGER_NAME)) as connection:
            connection.row_factory = sqlite3.Row
            found.append(rounded([dict(row) for row in connection.execute("SELECT * FROM hours")]))
    assert found[0] == found[1]
    assert sum(row["requests"] for row in found[0]) == len(various())


def test_what_others_wrote_in_between_is_summed_once(tmp_path):
    """Two writers of one ledger, each with records of its own at hand: every request is in the sums, none twice."""
    one, other = Store(tmp_path), Store(tmp_path)
    written = 0

    def write(ledger: Store, number: int) -> None:
        nonlocal written
        ledger.write([settled(f"r-{written + n}") for n in range(number)])
        written += number

    for sizes in ((3, 4, 5), (6, 6, 0), (0, 7, 7), (1, 0, 0)):
        for ledger, number in zip((one, other, one), sizes, strict=True):
            write(ledger, number)
            if number == 6:
                other.roll_up(100)
        one.roll_up(100)
        with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as connection:
            assert connection.execute("SELECT sum(requests) FROM hours").fetchone() == (written,)
    one.close()
    other.close()


_attempts = st.builds(
    Attempt,
    st.sampled_from(["openai/m", "x/other", 'x/"quoted"', "x/é\\"]),
    st.sampled_from(["ok", "timeout"]),
    st.sampled_from([200, 201, 429, None]),
    st.integers(0, 10**6),
)


@given(attempts=st.lists(_attempts, max_size=3).map(tuple), side=st.booleans())
@settings(max_examples=60, deadline=None)
def test_attempts_are_read_as_they_were(tmp_path_factory, attempts, side):
    """A plain attempt stands in the ledger as its time alone, others in full; both are shown alike."""
    sides = (SideCost("hedge", "x/h", REQUEST, [completion()]),) if side else ()
    record = settled("r-1", attempts=attempts, side_costs=sides)
    folder = tmp_path_factory.mktemp("ledger")
    ledger = Store(folder)
    ledger.write([record])
    ledger.close()
    assert LedgerReader(folder).request("r-1") == shown(record.flat())


def test_kinds_are_shared_and_found_again(tmp_path):
    """Like requests share one kind; a ledger that was closed and opened goes on with the right ones."""
    ledger = Store(tmp_path)
    for turn in range(2):
        ledger.write([settled(f"{turn}-{number}", model=f"openai/m{number % 3}") for number in range(30)])
        ledger.close()
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as connection:
        assert connection.execute("SELECT count(*) FROM kinds").fetchone() == (6,)
        found = dict(connection.execute("SELECT request_id, model FROM requests"))
    assert found == {f"{turn}-{number}": f"openai/m{number % 3}" for turn in range(2) for number in range(30)}


def test_kinds_that_a_failed_write_took_along_are_written_again(tmp_path, caplog):
    """A record that SQLite cannot take undoes the batch, its kinds too; the batch is then written with its own."""
    ledger = Store(tmp_path)
    bad = settled("bad", request_bytes=2**70, model="openai/bad")
    caplog.set_level(logging.ERROR)
    ledger.write([settled("r-0"), bad, settled("r-1", model="openai/new")])
    ledger.write([settled("r-2", model="openai/new"), settled("r-3", model="openai/bad")])
    found = {name: LedgerReader(tmp_path).request(name)["model"] for name in ("r-0", "bad", "r-1", "r-2", "r-3")}
    assert list(found.values()) == ["openai/m", "openai/bad", "openai/new", "openai/new", "openai/bad"]
    ledger.close()


def test_kinds_without_end_are_bounded_in_memory(tmp_path, monkeypatch):
    """Models that call themselves something new each time are booked right, and are not all remembered."""
    monkeypatch.setattr(store, "_MAX_KINDS", 8)
    ledger = Store(tmp_path)
    ledger.write([settled(f"r-{number}", model=f"openai/m{number % 20}") for number in range(60)])
    assert len(ledger._kinds) <= 8
    ledger.close()
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as connection:
        found = dict(connection.execute("SELECT request_id, model FROM requests"))
    assert found == {f"r-{number}": f"openai/m{number % 20}" for number in range(60)}


def test_sums_name_what_they_sum():
    """The expressions of the sums stand in the order of their columns."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for script in MIGRATIONS:
            for statement in script.split(";"):
                connection.execute(statement)
        found = connection.execute(f"SELECT {SUMS_OF_REQUESTS} FROM requests")
        assert tuple(column[0] for column in found.description) == SUM_NAMES
