"""Reading the ledger: right sums at any moment, quick on a million rows, and beside a running writer."""

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.report import DIMENSIONS, LedgerReader, NoLedger, NothingBooked, parse_since
from llm_router.accounting.schema import MIGRATIONS
from llm_router.accounting.store import LEDGER_NAME, Store
from tests.accounting.conftest import booking

NOW = 1_795_000_000.0
HOUR = 3600.0


def fill(folder, bookings, roll_up=True):
    """Writes bookings as the bookkeeper does and closes."""
    keeper = Bookkeeper(folder)
    keeper.start()
    for one in bookings:
        keeper.submit(one)
    assert keeper.close(30)
    if not roll_up:
        with closing(sqlite3.connect(folder / LEDGER_NAME)) as connection, connection:
            connection.execute("DELETE FROM hours")
            connection.execute("UPDATE rolled_up SET last_id = 0")


def many() -> list:
    """Requests over five days, models, categories and outcomes."""
    made = []
    for number in range(240):
        outcome = ("completed", "completed", "cut", "cancelled", "failed")[number % 5]
        made.append(
            booking(
                f"r-{number}",
                started=NOW - number * HOUR / 2,
                model=f"p{number % 2}/m{number % 3}",
                provider=f"p{number % 2}",
                category=("code", "tools")[number % 2],
                client=f"c{number % 4}",
                outcome=outcome,
                price_info=None if number % 7 == 0 else booking().price_info,
            )
        )
    return made


@pytest.mark.parametrize("roll_up", [True, False])
@pytest.mark.parametrize("by", DIMENSIONS)
@pytest.mark.parametrize("since", [None, NOW - 30 * HOUR, NOW - 30.3 * HOUR, NOW + HOUR])
def test_sums_are_those_of_the_records(tmp_path, by, since, roll_up):
    """Every grouping from any moment is the same from hourly sums as from the records themselves."""
    fill(tmp_path, many(), roll_up)
    expected = {}
    for one in many():
        if since is not None and one.started < since:
            continue
        day = datetime.fromtimestamp(one.started, UTC).date().isoformat()
        key = day if by == "day" else getattr(one, by)
        row = expected.setdefault(key, [0, 0, 0, 0, 0, 0.0])
        row[0] += 1
        row[1] += one.outcome == "completed"
        row[2] += one.outcome in ("failed", "cut")
        row[3] += one.outcome == "cancelled"
        row[4] += one.price_info is None
        row[5] += 18e-6 if one.price_info else 0.0
    found = LedgerReader(tmp_path).usage(by, since)
    assert {
        row[by]: [row["requests"], row["succeeded"], row["failed"], row["cancelled"], row["unknown_cost"]]
        for row in found
    } == {key: row[:5] for key, row in expected.items()}
    for row in found:
        assert row["cost_usd"] == pytest.approx(expected[row[by]][5])
        assert row["input_tokens"] == 12 * row["requests"] == row["reported_input"]
        assert row["avg_ms"] == 7.0


def test_the_newest_of_several_files_comes_first(tmp_path):
    """Where a damaged ledger was worked around, a request's record is the one that was written last."""
    for name, status in ((LEDGER_NAME, 200), ("ledger-2.sqlite3", 503)):
        fill(tmp_path / "made", [booking("r-1", status=status)])
        (tmp_path / "made" / LEDGER_NAME).rename(tmp_path / name)
    assert LedgerReader(tmp_path).request("r-1")["status"] == 503
    assert LedgerReader(tmp_path).usage()[0]["requests"] == 2


@pytest.mark.parametrize("roll_up", [True, False])
@pytest.mark.parametrize("since", [0.0, NOW - 30.3 * HOUR, NOW - 30.8 * HOUR])
def test_a_client_sees_only_its_own_sums(tmp_path, since, roll_up):
    """Sums can be kept to one client, those of part of an hour and of what is not summed yet as well."""
    fill(tmp_path, many(), roll_up)
    for client in ("c0", "c1", "c2", "c3"):
        (row,) = LedgerReader(tmp_path).usage("client", since, client=client)
        own = [one for one in many() if one.client == client and one.started >= since]
        assert (row["client"], row["requests"]) == (client, len(own))


def test_a_cost_of_which_nothing_is_known_is_none(tmp_path):
    """Where not one price is known the sum is unknown too; where some are, how many are missing is said."""
    fill(tmp_path, [booking("a", model="x/a", price_info=None), booking("b"), booking("c", price_info=None)])
    found = {row["model"]: (row["cost_usd"], row["unknown_cost"]) for row in LedgerReader(tmp_path).usage("model")}
    assert found == {"x/a": (None, 1), "openai/m": (18e-6, 1)}


def test_days_come_in_order_and_models_dearest_first(tmp_path):
    """Reports are sorted as people read them."""
    fill(
        tmp_path,
        [*many(), booking("dear", model="x/dear", provider="x", started=NOW)]
        + [booking(f"d{n}", model="x/dear") for n in range(99)],
    )
    days = [row["day"] for row in LedgerReader(tmp_path).usage("day")]
    assert days == sorted(days)
    assert LedgerReader(tmp_path).usage("model")[0]["model"] == "x/dear"


def test_no_ledger_is_said(tmp_path):
    """Before the first request there is nothing, and the message names the file."""
    with pytest.raises(NoLedger, match=r"ledger\.sqlite3 does not exist"):
        LedgerReader(tmp_path).usage()
    (tmp_path / LEDGER_NAME).write_text("no database at all, but long enough to be read as one" * 20)
    with pytest.raises(NoLedger, match="not a database"):
        LedgerReader(tmp_path).request("r-1")


def test_a_ledger_of_another_user_is_said(tmp_path, monkeypatch):
    """A state folder that this user may not look into is no stack trace, and not taken for one without requests."""
    fill(tmp_path, many())

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(NoLedger, match=r"ledger\.sqlite3 cannot be read: Permission denied") as told:
        LedgerReader(tmp_path).usage()
    assert not isinstance(told.value, NothingBooked)


def test_reading_changes_nothing(tmp_path):
    """A report on a stopped router's ledger leaves the file as it was, and no helper files behind."""
    fill(tmp_path, many())
    before = (tmp_path / LEDGER_NAME).read_bytes()
    LedgerReader(tmp_path).usage()
    assert (tmp_path / LEDGER_NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER_NAME]


def test_reports_work_while_the_router_writes(tmp_path):
    """A reader sees whole batches of a running writer and never holds it up."""
    keeper = Bookkeeper(tmp_path)
    keeper.start()
    reader = LedgerReader(tmp_path)
    seen = 0
    for number in range(400):
        keeper.submit(booking(f"r-{number}"))
        if number % 40 == 39:
            assert keeper.flush()
            (row,) = reader.usage("model")
            assert row["requests"] == number + 1
            seen += 1
    assert seen == 10
    assert keeper.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", NOW - 1800),
        ("24h", NOW - 86400),
        ("7d", NOW - 7 * 86400),
        (" 2w ", NOW - 14 * 86400),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC).timestamp()),
        ("2026-11-01T12:00:00+02:00", datetime(2026, 11, 1, 10, tzinfo=UTC).timestamp()),
        ("1795000000", NOW),
        ("0", 0),
    ],
)
def test_moments_people_write(text, expected):
    """Spans, dates and Unix times are understood."""
    assert parse_since(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "7", "yesterday", "7x", "-7d", "9999999999d", "2026-13-01"])
def test_moments_nobody_understands(text):
    """Anything else is refused with examples."""
    with pytest.raises(ValueError, match="use for example"):
        parse_since(text, NOW)


@pytest.mark.slow
def test_a_million_records_are_still_quick(tmp_path):
    """With 10^6 rows a report takes well under a second, a lookup milliseconds, a write what it always took."""
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as connection, connection:
        for statement in MIGRATIONS[0].split(";"):
            connection.execute(statement)
        connection.execute("PRAGMA user_version = 1")
        connection.execute(
            """
            WITH RECURSIVE numbers(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < 1000000)
            INSERT INTO requests SELECT value, printf('r-%d', value), ? - (1000000 - value) * 2.592,
            'c' || (value % 5), 'local', 'p' || (value % 3) || '/m' || (value % 10),
            'p' || (value % 3), 0, 'k' || (value % 4),
            'completed', 200, NULL, '[]', 1, 5.0, 9.0, 1000, 1000, 'stop', 'm', 100, 20, 100, 20, 'tiktoken',
            100, 0, 0, 0, 20, 0, 0.001, 'provider_usage', NULL, NULL FROM numbers
            """,
            (NOW,),
        )
    store = Store(tmp_path)
    store.write(())
    while store.roll_up(200_000):
        pass
    reader = LedgerReader(tmp_path)
    took = {}
    for name, call in {
        "30 days by model": lambda: reader.usage("model"),
        "7 days by model": lambda: reader.usage("model", NOW - 7 * 86400 - 1234),
        "7 days by day, one client": lambda: reader.usage("day", NOW - 7 * 86400 - 1234, "k1"),
        "one request": lambda: reader.request("r-777777"),
    }.items():
        began = time.process_time()
        assert call()
        took[name] = time.process_time() - began
    assert sum(row["requests"] for row in reader.usage("model")) == 1_000_000
    keeper = Bookkeeper(tmp_path, linger=0.0)
    keeper.start()
    began = time.process_time()
    for number in range(5000):
        keeper.submit(booking(f"r-{number}"))
    assert keeper.flush()
    took["one write"] = (time.process_time() - began) / 5000
    assert keeper.close()
    print(took)
    assert max(took.values()) < 1.0, took
    assert took["one request"] < 0.1, took
    assert took["one write"] < 0.001, took
    store.close()


def test_an_empty_file_is_no_ledger_yet(tmp_path):
    """A router that was started and killed at once leaves one: nothing was booked, and nothing is wrong."""
    (tmp_path / LEDGER_NAME).touch()
    with pytest.raises(NothingBooked):
        LedgerReader(tmp_path).usage()
