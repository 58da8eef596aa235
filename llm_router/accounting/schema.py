"""The ledger's tables, how they came to be, and what is summed of them.

`records` holds what differs from request to request, `kinds` what many requests have in common; the view `requests`
shows both as one row, for whoever reads. `hours` holds the sums of whole hours; `spans` tells when the requests in a
range of ids began, so that those of some hours are found without an index.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from llm_router.accounting.booking import Kind, LedgerRecord

_FIELDS: Final = LedgerRecord._fields
# Where in a record the provider's report begins, then what few have, then what stands elsewhere.
_REPORT, _RARE = _FIELDS.index("reported_fresh_input"), _FIELDS.index("side_cost_usd")
OWN, OWN_AND_REPORT, RARE = slice(_REPORT), slice(_RARE), slice(_RARE, _FIELDS.index("attempts"))
# The columns of a row that is nothing unusual, without and with a report, and of any other.
_ALWAYS: Final = ("kind", "attempt_ms")
BARE_COLUMNS: Final = (*_ALWAYS, *_FIELDS[OWN])
PLAIN_COLUMNS: Final = (*_ALWAYS, *_FIELDS[OWN_AND_REPORT])
ALL_COLUMNS: Final = (*PLAIN_COLUMNS, *_FIELDS[RARE], "attempts")

_SUMS: Final = """
    requests INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, cancelled INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    counted_input INTEGER NOT NULL, counted_output INTEGER NOT NULL,
    reported_input INTEGER NOT NULL, reported_output INTEGER NOT NULL, cached_input INTEGER NOT NULL,
    cost_usd REAL NOT NULL, unknown_cost INTEGER NOT NULL, total_ms REAL NOT NULL"""

_WIDE_TABLE: Final = f"""
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL, started REAL NOT NULL, category TEXT NOT NULL, mode TEXT NOT NULL,
        model TEXT NOT NULL, provider TEXT NOT NULL, stream INTEGER NOT NULL, client TEXT NOT NULL,
        outcome TEXT NOT NULL, status INTEGER NOT NULL, failure TEXT, attempts TEXT NOT NULL,
        attempt_count INTEGER NOT NULL, first_byte_ms REAL, total_ms REAL,
        request_bytes INTEGER NOT NULL, answer_bytes INTEGER NOT NULL, finish_reason TEXT, reported_model TEXT,
        input_tokens INTEGER, output_tokens INTEGER,
        counted_input INTEGER, counted_output INTEGER, counted_by TEXT,
        reported_fresh_input INTEGER, reported_cache_read INTEGER, reported_cache_write INTEGER,
        reported_cache_write_1h INTEGER, reported_output INTEGER, reported_reasoning INTEGER,
        cost_usd REAL, cost_source TEXT, side_cost_usd REAL, side_costs TEXT
    );
    CREATE INDEX requests_by_request_id ON requests (request_id);
    CREATE INDEX requests_by_start ON requests (started);
    CREATE TABLE hours (
        hour INTEGER NOT NULL, model TEXT NOT NULL, provider TEXT NOT NULL, category TEXT NOT NULL,
        client TEXT NOT NULL, {_SUMS},
        PRIMARY KEY (hour, model, provider, category, client)
    ) WITHOUT ROWID;
    CREATE TABLE rolled_up (last_id INTEGER NOT NULL);
    INSERT INTO rolled_up VALUES (0);
    CREATE TABLE drift (
        model TEXT PRIMARY KEY, samples INTEGER NOT NULL,
        counted_input REAL NOT NULL, reported_input REAL NOT NULL,
        counted_output REAL NOT NULL, reported_output REAL NOT NULL
    ) WITHOUT ROWID
    """  # noqa: S608 - no value is put into it

_OF_RECORDS: Final = """
    request_id, started, first_byte_ms, total_ms, request_bytes, answer_bytes, input_tokens, output_tokens,
    counted_input, counted_output, reported_fresh_input, reported_cache_read, reported_cache_write,
    reported_cache_write_1h, reported_output, reported_reasoning, cost_usd, side_cost_usd, side_costs"""
_OF_KINDS: Final = """
    category, mode, model, provider, stream, client, outcome, status, failure, attempt_count, finish_reason,
    reported_model, counted_by, cost_source"""
_SAME_KIND: Final = " AND ".join(f"kinds.{name.strip()} IS requests.{name.strip()}" for name in _OF_KINDS.split(","))

# The texts of a kind stand once: a third of the size, half the time to write a row.
_RECORDS_AND_KINDS: Final = f"""
    CREATE TABLE kinds (
        id INTEGER PRIMARY KEY,
        category TEXT NOT NULL, mode TEXT NOT NULL, model TEXT NOT NULL, provider TEXT NOT NULL,
        stream INTEGER NOT NULL, client TEXT NOT NULL, outcome TEXT NOT NULL, status INTEGER NOT NULL, failure TEXT,
        attempt_count INTEGER NOT NULL, finish_reason TEXT, reported_model TEXT, counted_by TEXT, cost_source TEXT
    );
    CREATE TABLE records (
        id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, attempt_ms INTEGER,
        request_id TEXT NOT NULL, started REAL NOT NULL, first_byte_ms REAL, total_ms REAL,
        request_bytes INTEGER NOT NULL, answer_bytes INTEGER NOT NULL, input_tokens INTEGER, output_tokens INTEGER,
        counted_input INTEGER, counted_output INTEGER,
        reported_fresh_input INTEGER, reported_cache_read INTEGER, reported_cache_write INTEGER,
        reported_cache_write_1h INTEGER, reported_output INTEGER, reported_reasoning INTEGER,
        cost_usd REAL, side_cost_usd REAL, side_costs TEXT, attempts TEXT
    );
    CREATE TABLE spans (after_id INTEGER NOT NULL, last_id INTEGER NOT NULL, first_started REAL, last_started REAL);
    INSERT INTO kinds ({_OF_KINDS}) SELECT DISTINCT {_OF_KINDS} FROM requests;
    CREATE INDEX kinds_by_all ON kinds ({_OF_KINDS});
    INSERT INTO records (id, kind, {_OF_RECORDS}, attempts)
        SELECT requests.id, kinds.id, {_OF_RECORDS}, attempts FROM requests CROSS JOIN kinds ON {_SAME_KIND};
    DROP INDEX kinds_by_all;
    INSERT INTO spans SELECT min(id) - 1, max(id), min(started), max(started)
        FROM requests WHERE id <= (SELECT last_id FROM rolled_up) GROUP BY id / 1000;
    DROP TABLE requests;
    CREATE INDEX records_by_request_id ON records (request_id);
    CREATE VIEW requests AS SELECT
        records.id, request_id, started, category, mode, model, provider, stream, client, outcome, status, failure,
        coalesce(attempts, json_array(json_object('model', model, 'kind', 'ok', 'status', status, 'ms', attempt_ms)))
        AS attempts,
        attempt_count, first_byte_ms, total_ms, request_bytes, answer_bytes, finish_reason, reported_model,
        input_tokens, output_tokens, counted_input, counted_output, counted_by,
        reported_fresh_input, reported_cache_read, reported_cache_write, reported_cache_write_1h,
        reported_output, reported_reasoning, cost_usd, cost_source, side_cost_usd, side_costs
        FROM records CROSS JOIN kinds ON kinds.id = kind
    """  # noqa: S608 - no value is put into it

# A change of the schema is a new entry at the end; the file's user_version counts those that it has seen.
MIGRATIONS: Final = (_WIDE_TABLE, _RECORDS_AND_KINDS)

# A file that no writer of this version has opened has no spans yet: for a reader one stands for all that is summed.
SPANS_BEFORE: Final = """
    CREATE TEMP VIEW spans AS SELECT 0 AS after_id, last_id, 0.0 AS first_started, 1e300 AS last_started FROM rolled_up
    """

SUM_NAMES: Final = tuple(column.split()[0] for column in _SUMS.replace("\n", " ").split(","))


def _counts(number: str) -> str:
    """How many requests there are by outcome, where a row stands for `number` of them."""
    return f"""
    sum({number}) AS requests, sum({number} * (outcome = 'completed')) AS succeeded,
    sum({number} * (outcome IN ('failed', 'cut', 'interrupted'))) AS failed,
    sum({number} * (outcome = 'cancelled')) AS cancelled"""


_FIGURES: Final = """
    coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens,
    coalesce(sum(counted_input), 0) AS counted_input, coalesce(sum(counted_output), 0) AS counted_output,
    coalesce(sum(reported_fresh_input + reported_cache_read + reported_cache_write), 0) AS reported_input,
    coalesce(sum(reported_output), 0) AS reported_output, coalesce(sum(reported_cache_read), 0) AS cached_input,
    coalesce(sum(cost_usd), 0.0) AS cost_usd, sum(cost_usd IS NULL) AS unknown_cost,
    coalesce(sum(total_ms), 0.0) AS total_ms"""

# One row of sums out of any set of requests; `hours` holds such rows by hour and key.
SUMS_OF_REQUESTS: Final = f"{_counts('1')}, {_FIGURES}"

_ADD_TO_HOURS: Final = f"""
    ON CONFLICT (hour, model, provider, category, client) DO UPDATE SET
    {", ".join(f"{name} = {name} + excluded.{name}" for name in SUM_NAMES)}"""

# First by kind, which compares no texts; then kinds that differ only in what the sums do not keep apart are added up.
ROLL_UP: Final = f"""
    INSERT INTO hours
    SELECT hour, model, provider, category, client, {_counts("number")}, {", ".join(f"sum({n})" for n in SUM_NAMES[4:])}
    FROM (
        SELECT CAST(started / 3600 AS INTEGER) AS hour, kind, count(*) AS number, {_FIGURES}
        FROM records WHERE id > ? AND id <= ? GROUP BY 1, 2
    ) CROSS JOIN kinds ON kinds.id = kind
    GROUP BY 1, 2, 3, 4, 5
    {_ADD_TO_HOURS}"""  # noqa: S608 - names are constants

ADD_SPAN: Final = """
    INSERT INTO spans SELECT :done, :last, min(started), max(started) FROM records WHERE id > :done AND id <= :last"""

# The same for records that are still at hand, which takes a third of the time: adds a row of `hourly_sums`.
ADD_SUMS: Final = f"INSERT INTO hours VALUES ({', '.join('?' * (5 + len(SUM_NAMES)))}) {_ADD_TO_HOURS}"  # noqa: S608

_STARTED, _COST = _FIELDS.index("started"), _FIELDS.index("cost_usd")
_kind: Final = itemgetter(_FIELDS.index("kind"))
_summed: Final = itemgetter(
    *map(
        _FIELDS.index,
        (
            "input_tokens",
            "output_tokens",
            "counted_input",
            "counted_output",
            "reported_fresh_input",
            "reported_cache_read",
            "reported_cache_write",
            "reported_output",
            "cost_usd",
            "total_ms",
        ),
    )
)


def hourly_sums(records: Iterable[LedgerRecord]) -> Iterator[tuple[Any, ...]]:
    """Rows for `hours`: what ROLL_UP would read from the ledger. A key may come more than once."""
    kinds: defaultdict[Kind, list[LedgerRecord]] = defaultdict(list)
    for record in records:
        kinds[_kind(record)].append(record)
    for kind, alike in kinds.items():
        key = kind.model, kind.provider, kind.category, kind.client
        for hour, columns in _hours(alike):
            yield hour, *key, *_sums(kind.outcome, columns)


def _hours(records: Sequence[LedgerRecord]) -> Iterator[tuple[int, Sequence[Sequence[Any]]]]:
    """The columns of records by the hour in which they started, mostly one."""
    columns = tuple(zip(*records, strict=True))
    hour, last = (int(moment // 3600) for moment in (min(columns[_STARTED]), max(columns[_STARTED])))
    if hour == last:
        yield hour, columns
        return
    hours: defaultdict[int, list[LedgerRecord]] = defaultdict(list)
    for record in records:
        hours[int(record.started // 3600)].append(record)
    for hour, same in hours.items():
        yield hour, tuple(zip(*same, strict=True))


def _sums(outcome: str, columns: Sequence[Sequence[Any]]) -> tuple[float, ...]:
    number, costs = len(columns[0]), columns[_COST]
    inputs, outputs, counted_in, counted_out, fresh, read, write, output, cost, total_ms = map(_sum, _summed(columns))
    return (
        number,
        number * (outcome == "completed"),
        number * (outcome in ("failed", "cut", "interrupted")),
        number * (outcome == "cancelled"),
        inputs,
        outputs,
        counted_in,
        counted_out,
        fresh + read + write,
        output,
        read,
        cost,
        costs.count(None),
        total_ms,
    )


def _sum(column: Sequence[float | None]) -> float:
    """The sum of what is known, which mostly is all."""
    try:
        return sum(column)  # type: ignore[arg-type]
    except TypeError:
        return sum(filter(None, column))
