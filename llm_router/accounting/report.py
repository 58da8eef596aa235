"""Reading the ledger: one request, or sums by model, provider, category, client or day. Works beside the writer."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import orjson

from llm_router.accounting.schema import MIGRATIONS, SPANS_BEFORE, SUM_NAMES, SUMS_OF_REQUESTS
from llm_router.accounting.store import ledger_files

By = Literal["model", "provider", "category", "client", "day"]
DIMENSIONS: Final[tuple[By, ...]] = ("model", "provider", "category", "client", "day")

_HOUR: Final = 3600
_KEYS: Final = {
    "model": ("model", "model"),
    "provider": ("provider", "provider"),
    "category": ("category", "category"),
    "client": ("client", "client"),
    # Days are UTC: the same ledger gives the same report everywhere.
    "day": ("date(hour * 3600, 'unixepoch')", "date(started, 'unixepoch')"),
}
_SUM_OF_SUMS: Final = ", ".join(f"sum({name})" for name in SUM_NAMES)
_SPAN: Final = re.compile(r"(\d{1,6})\s*([smhdw])\Z")
_SECONDS: Final = {"s": 1, "m": 60, "h": _HOUR, "d": 86_400, "w": 604_800}


class NoLedger(Exception):
    """There is nothing that could be read; the text says why."""


class NothingBooked(NoLedger):
    """There is no ledger yet."""


class LedgerReader:
    """Reads the ledger of one state folder. Each call opens its own read-only connection: call it from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"<LedgerReader {self._folder}>"

    def request(self, request_id: str, client: str | None = None) -> dict[str, Any] | None:
        """The newest record of a request id (of that client, if one is given), or None. Raises NoLedger."""
        sql = "SELECT * FROM requests WHERE request_id = ? AND client = coalesce(?, client) ORDER BY id DESC LIMIT 1"
        for found in self._query(sql, (request_id, client)):
            return shown(dict(found))
        return None

    def has(self, request_id: str, started: float) -> bool:
        """Whether this very request is on record. Raises NoLedger."""
        return bool(self._query("SELECT 1 FROM requests WHERE request_id = ? AND started = ?", (request_id, started)))

    def usage(self, by: By = "model", since: float | None = None, client: str | None = None) -> list[dict[str, Any]]:
        """Sums by `by` over the requests that started at `since` (Unix time) or later, dearest first.

        `cost_usd` is the sum of the known costs, None where not one is known; `unknown_cost` counts the requests that
        are missing from it. Raises NoLedger.
        """
        totals: dict[str, list[float]] = {}
        for key, *sums in self._query(_usage_sql(by), _usage_parameters(since, client)):
            known = totals.setdefault(key, [0] * len(sums))
            totals[key] = [a + b for a, b in zip(known, sums, strict=True)]
        rows = [_usage_row(by, key, sums) for key, sums in totals.items()]
        if by == "day":
            return sorted(rows, key=lambda row: row["day"])
        return sorted(rows, key=lambda row: (-(row["cost_usd"] or 0.0), -row["requests"], row[by]))

    def _query(self, sql: str, parameters: Any) -> list[sqlite3.Row]:
        """The rows of all ledger files; there is more than one where a damaged file was worked around."""
        problems: list[str] = []
        rows: list[sqlite3.Row] = []
        names = ledger_files(self._folder)
        try:
            found = [path for path in names if path.is_file() and path.stat().st_size > 0]
        except OSError as error:
            raise NoLedger(f"{names[0]} cannot be read: {error.strerror}") from error
        for path in reversed(found):
            try:
                rows += _read(path, sql, parameters)
            except NoLedger as error:
                problems.append(str(error))
        if not found:
            raise NothingBooked(f"{names[0]} does not exist; no request has been booked yet")
        if len(problems) == len(found):
            raise NoLedger("; ".join(problems))
        return rows


def parse_since(text: str, now: float) -> float:
    """Unix time of `30m`, `24h`, `7d`, `4w` ago, of an ISO date or time (UTC unless it says else), or a Unix time."""
    text = text.strip()
    if found := _SPAN.match(text):
        return now - int(found[1]) * _SECONDS[found[2]]
    if re.fullmatch(r"0|\d{9,11}(\.\d+)?", text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time span; use for example 12h, 7d, 4w or 2026-11-01") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def usage_columns(by: By) -> list[str]:
    """The names that a row of `LedgerReader.usage` has."""
    return list(_usage_row(by, "", [0.0] * len(SUM_NAMES)))


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A record as the API shows it: JSON columns opened, the time readable, the key's hash left out."""
    row.pop("id", None)
    row.pop("client", None)
    row["stream"] = bool(row["stream"])
    attempts = row["attempts"]
    row["attempts"] = (
        orjson.loads(attempts) if isinstance(attempts, str) else [attempt._asdict() for attempt in attempts]
    )
    row["side_costs"] = orjson.loads(row["side_costs"]) if row["side_costs"] else []
    row["started_at"] = (datetime.fromtimestamp(0, UTC) + timedelta(seconds=row["started"])).isoformat()
    return row


def _read(path: Path, sql: str, parameters: Any) -> list[sqlite3.Row]:
    try:
        if not path.with_name(f"{path.name}-wal").exists():
            # Nobody writes: no helper files need to be made, so a folder that is read-only will do as well.
            with contextlib.suppress(sqlite3.Error):
                return _query(path, "immutable=1", sql, parameters)
        return _query(path, "mode=ro", sql, parameters)
    except sqlite3.Error as error:
        raise NoLedger(f"{path}: {error}") from error


def _query(path: Path, how: str, sql: str, parameters: Any) -> list[sqlite3.Row]:
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True, timeout=5.0)) as ledger:
        ledger.row_factory = sqlite3.Row
        (version,) = ledger.execute("PRAGMA user_version").fetchone()
        if not 0 < version <= len(MIGRATIONS):
            raise NoLedger(f"{path} is no ledger of this version of llm-router")
        if version == 1:
            ledger.execute(SPANS_BEFORE)
        return ledger.execute(sql, parameters).fetchall()


def _usage_sql(by: By) -> str:
    """Whole hours come from the hourly sums; part of a first hour, and what is not summed yet, from the records."""
    of_hours, of_requests = _KEYS[by]
    return f"""
        SELECT key, {_SUM_OF_SUMS} FROM (
            SELECT {of_hours} AS key, {", ".join(SUM_NAMES)} FROM hours
            WHERE hour >= :hour AND (:client IS NULL OR client = :client)
            UNION ALL
            SELECT {of_requests} AS key, {SUMS_OF_REQUESTS} FROM requests
            WHERE id > (SELECT last_id FROM rolled_up) AND started >= :since
            AND (:client IS NULL OR client = :client) GROUP BY 1
            UNION ALL
            SELECT {of_requests} AS key, {SUMS_OF_REQUESTS}
            FROM spans CROSS JOIN requests ON requests.id > after_id AND requests.id <= spans.last_id
            WHERE last_started >= :since AND first_started < :hour * {_HOUR}
            AND started >= :since AND started < :hour * {_HOUR} AND id <= (SELECT last_id FROM rolled_up)
            AND (:client IS NULL OR client = :client) GROUP BY 1
        ) GROUP BY key"""  # noqa: S608 - column names come from the constants above


def _usage_parameters(since: float | None, client: str | None) -> dict[str, Any]:
    since = max(since or 0.0, 0.0)
    return {"since": since, "hour": -int(-since // _HOUR), "client": client}


def _usage_row(by: By, key: str, sums: list[float]) -> dict[str, Any]:
    row: dict[str, Any] = {by: key, **dict(zip(SUM_NAMES, sums, strict=True))}
    requests, total_ms = row["requests"], row.pop("total_ms")
    row["avg_ms"] = round(total_ms / requests, 1) if requests else None
    row["cost_usd"] = None if row["unknown_cost"] == requests else round(row["cost_usd"], 10)
    return row
