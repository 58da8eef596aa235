"""The ledger file: its schema, its one writer, and how a file that cannot be used is left alone.

SQLite in WAL mode with `synchronous=NORMAL`: a commit outlives the process at once, and a power cut costs at most
the last moments. Readers open connections of their own (see `report`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from llm_router.accounting.booking import LedgerRecord

LEDGER_NAME: Final = "ledger.sqlite3"
_MAX_FILES: Final = 9
_WAL_TRIES: Final = 50
_WAL_PAUSE: Final = 0.02

log = logging.getLogger(__name__)

_SUMS = """
    requests INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, cancelled INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    counted_input INTEGER NOT NULL, counted_output INTEGER NOT NULL,
    reported_input INTEGER NOT NULL, reported_output INTEGER NOT NULL, cached_input INTEGER NOT NULL,
    cost_usd REAL NOT NULL, unknown_cost INTEGER NOT NULL, total_ms REAL NOT NULL"""

# A change of the schema is a new entry at the end; the file's user_version counts those that it has seen.
MIGRATIONS: Final[tuple[str, ...]] = (
    f"""
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
    ) WITHOUT ROWID;
    """,  # noqa: S608 - no value is put into it
)

# One row of sums out of any set of requests; `hours` holds such rows by hour and key.
SUMS_OF_REQUESTS: Final = """
    count(*) AS requests, sum(outcome = 'completed') AS succeeded,
    sum(outcome IN ('failed', 'cut', 'interrupted')) AS failed, sum(outcome = 'cancelled') AS cancelled,
    coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens,
    coalesce(sum(counted_input), 0) AS counted_input, coalesce(sum(counted_output), 0) AS counted_output,
    coalesce(sum(reported_fresh_input + reported_cache_read + reported_cache_write), 0) AS reported_input,
    coalesce(sum(reported_output), 0) AS reported_output, coalesce(sum(reported_cache_read), 0) AS cached_input,
    coalesce(sum(cost_usd), 0.0) AS cost_usd, sum(cost_usd IS NULL) AS unknown_cost,
    coalesce(sum(total_ms), 0.0) AS total_ms"""

SUM_NAMES: Final = tuple(column.split()[0] for column in _SUMS.replace("\n", " ").split(","))

_ROLL_UP: Final = f"""
    INSERT INTO hours
    SELECT CAST(started / 3600 AS INTEGER) AS hour, model, provider, category, client, {SUMS_OF_REQUESTS}
    FROM requests WHERE id > ? AND id <= ? GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (hour, model, provider, category, client) DO UPDATE SET
    {", ".join(f"{name} = {name} + excluded.{name}" for name in SUM_NAMES)}"""  # noqa: S608 - names are constants

_COLUMNS: Final = ", ".join(LedgerRecord._fields)
_INSERT: Final = f"INSERT INTO requests ({_COLUMNS}) VALUES ({', '.join('?' * len(LedgerRecord._fields))})"  # noqa: S608
_INSERT_ONCE: Final = (
    f"INSERT INTO requests ({_COLUMNS}) SELECT {', '.join('?' * len(LedgerRecord._fields))} "  # noqa: S608
    "WHERE NOT EXISTS (SELECT 1 FROM requests WHERE request_id = ? AND started = ?)"
)

Drift = tuple[str, int, float, float, float, float]


class LedgerUnusable(Exception):
    """No record can be written at the moment; nothing was changed. The text is for the operator."""


class Store:
    """The writer's side of one ledger file. All calls come from one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: sqlite3.Connection | None = None
        self._unusable: set[Path] = set()
        self.path = folder / LEDGER_NAME

    def __repr__(self) -> str:
        return f"<Store {self.path} {'open' if self._connection else 'closed'}>"

    def write(self, records: Sequence[LedgerRecord], *, once: Sequence[LedgerRecord] = ()) -> None:
        """Commits all records or none; those of `once` only where the ledger lacks them. Raises LedgerUnusable."""
        for _ in range(_MAX_FILES):
            try:
                connection = self._connection or self._open()
                self._commit(connection, records, once)
                return
            except OSError as error:
                raise LedgerUnusable(f"{self.path}: {error.strerror or error}") from error
            except sqlite3.DatabaseError as error:
                if _passes(error):
                    self.close()
                    raise LedgerUnusable(f"{self.path}: {error}") from error
                self._leave(error)
        raise LedgerUnusable(f"{self._folder}: no usable ledger file")

    def roll_up(self, most: int) -> int:
        """Adds up to `most` records to the hourly sums; gives how many there were. Raises LedgerUnusable."""
        connection = self._connection
        if connection is None:
            return 0
        try:
            with _transaction(connection):
                (done,) = connection.execute("SELECT last_id FROM rolled_up").fetchone()
                (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM requests").fetchone()
                last = min(newest, done + most)
                if last > done:
                    connection.execute(_ROLL_UP, (done, last))
                    connection.execute("UPDATE rolled_up SET last_id = ?", (last,))
                return int(last - done)
        except sqlite3.DatabaseError as error:
            self.close()
            raise LedgerUnusable(f"{self.path}: {error}") from error

    def load_drift(self) -> list[Drift]:
        """What was learned about models before; empty where that cannot be read."""
        try:
            connection = self._connection or self._open()
            return connection.execute("SELECT * FROM drift").fetchall()
        except (sqlite3.DatabaseError, OSError):
            self.close()
            return []

    def save_drift(self, rows: Iterable[Drift]) -> None:
        """Keeps what was learned for the next start. Raises LedgerUnusable."""
        if self._connection is None:
            return
        try:
            with _transaction(self._connection) as connection:
                connection.executemany("INSERT OR REPLACE INTO drift VALUES (?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.DatabaseError as error:
            self.close()
            raise LedgerUnusable(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Lets go of the file; the next write opens it again."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        prepare_folder(self._folder)
        make_private(self.path)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            _check_ours(connection)
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint=2000")
            _migrate(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _commit(
        self, connection: sqlite3.Connection, records: Sequence[LedgerRecord], once: Sequence[LedgerRecord]
    ) -> None:
        try:
            with _transaction(connection):
                # Plain tuples: of a named one SQLite's module fetches each value by a call.
                connection.executemany(_INSERT, [record[:] for record in records])
                connection.executemany(_INSERT_ONCE, ((*record, record.request_id, record.started) for record in once))
        except _BAD_VALUES:
            with _transaction(connection):
                for record in (*records, *once):
                    _insert_cleaned(connection, record)

    def _leave(self, error: sqlite3.DatabaseError) -> None:
        """A damaged (or newer) file stays as it is; records go to another file beside it."""
        self.close()
        damaged = self.path
        self._unusable.add(damaged)
        self.path = next(path for path in ledger_files(self._folder) if path not in self._unusable)
        log.error(
            "The ledger %s cannot be used (%s) and is left untouched; records now go to %s. "
            "Move that file away to return to the usual name.",
            damaged,
            error,
            self.path.name,
        )


def ledger_files(folder: Path) -> list[Path]:
    """The names that a ledger may have, in the order in which they are tried."""
    stem, _, suffix = LEDGER_NAME.partition(".")
    return [folder / LEDGER_NAME, *(folder / f"{stem}-{number}.{suffix}" for number in range(2, _MAX_FILES + 2))]


def prepare_folder(folder: Path) -> None:
    """Makes the folder (0700) if it is missing. Raises OSError."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)


def make_private(path: Path) -> None:
    """Creates an empty file with mode 0600, whatever the umask; one that exists stays as it is. Raises OSError.

    SQLite gives its -wal and -shm files the mode of the database.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


# Conditions of the machine, not of the file: disk full, read-only, no rights, locked, out of memory.
_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
    }
)


def _passes(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _PASSING


# One record that SQLite cannot take (a lone surrogate, a number past 64 bits) must not hold up the others.
_BAD_VALUES: Final = (
    OverflowError,
    UnicodeEncodeError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
_LARGEST: Final = 2**63 - 1


def _insert_cleaned(connection: sqlite3.Connection, record: LedgerRecord) -> None:
    cleaned = [_clean(value) for value in record]
    once = (_clean(record.request_id), _clean(record.started))
    try:
        connection.execute(_INSERT_ONCE, (*cleaned, *once))
    except _BAD_VALUES:
        log.exception("The ledger cannot take the record of request %r", record.request_id)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return max(-_LARGEST, min(value, _LARGEST))
    return value


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _check_ours(connection: sqlite3.Connection) -> None:
    """Looks without touching: a newer ledger, or somebody else's database, is not ours to write."""
    # One statement: another process may be setting the file up at this moment.
    version, tables = connection.execute(
        "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
    ).fetchone()
    if version > len(MIGRATIONS):
        raise sqlite3.DatabaseError("it was written by a newer llm-router")
    if version == 0 and tables:
        raise sqlite3.DatabaseError("it is another program's database")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Changing the journal needs the file for itself for a moment, and SQLite does not wait for that by itself."""
    for _ in range(_WAL_TRIES):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            time.sleep(_WAL_PAUSE)
    connection.execute("PRAGMA journal_mode=WAL")


def _migrate(connection: sqlite3.Connection) -> None:
    with _transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for script in MIGRATIONS[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        if version < len(MIGRATIONS):
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
