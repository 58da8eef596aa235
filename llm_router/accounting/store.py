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
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from llm_router.accounting.booking import Kind, LedgerRecord, as_json
from llm_router.accounting.schema import (
    ADD_SPAN,
    ADD_SUMS,
    ALL_COLUMNS,
    BARE_COLUMNS,
    MIGRATIONS,
    OWN,
    OWN_AND_REPORT,
    PLAIN_COLUMNS,
    RARE,
    ROLL_UP,
    hourly_sums,
)
from llm_router.private_files import create, make_folder

LEDGER_NAME: Final = "ledger.sqlite3"
_MAX_FILES: Final = 9
_WAL_TRIES: Final = 50
_WAL_PAUSE: Final = 0.02

log = logging.getLogger(__name__)

# Clients may name any model, and models call themselves anything: past so many kinds the oldest are written anew.
_MAX_KINDS: Final = 4_096


# The hourly sums are behind by more only where they cannot be written.
_MAX_FRESH: Final = 4_096
# So many rows alike are written by one statement: that costs a sixth less.
_ROWS: Final = 16


def _insert_sql(table: str, columns: Sequence[str], rows: int = 1) -> str:
    values = ", ".join([f"({', '.join('?' * len(columns))})"] * rows)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values}"  # noqa: S608


_KIND_SQL: Final = _insert_sql("kinds", Kind.__slots__)
# By the number of values, for one row and for many.
_RECORD_SQL: Final = {
    len(columns): (_insert_sql("records", columns), _insert_sql("records", columns, _ROWS))
    for columns in (BARE_COLUMNS, PLAIN_COLUMNS, ALL_COLUMNS)
}
_KNOWN_SQL: Final = "SELECT 1 FROM records WHERE request_id = ? AND started = ?"

_parts: Final = attrgetter(*Kind.__slots__)

Drift = tuple[str, int, float, float, float, float]
Row = tuple[Any, ...]


class LedgerUnusable(Exception):
    """No record can be written at the moment; nothing was changed. The text is for the operator."""


class Store:
    """The writer's side of one ledger file. All calls come from one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: sqlite3.Connection | None = None
        self._opened: os.stat_result | None = None
        # Ids of kinds in the open file. One that was not found is added again: nobody counts them.
        self._kinds: dict[Kind, int] = {}
        # Records that follow one another in the file, and the id before theirs: they can be summed without reading.
        self._fresh: list[LedgerRecord] = []
        self._fresh_after = 0
        self._unusable: set[Path] = set()
        self.path = folder / LEDGER_NAME

    def __repr__(self) -> str:
        return f"<Store {self.path} {'open' if self._connection else 'closed'}>"

    def write(self, records: Sequence[LedgerRecord], *, once: Sequence[LedgerRecord] = ()) -> int:
        """Commits all records or none; those of `once` only where the ledger lacks them. Raises LedgerUnusable.

        Gives how many of `once` it lacked.
        """
        for _ in range(_MAX_FILES):
            try:
                self._follow_name()
                return self._commit(self._connection or self._open(), records, once)
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
        fresh, self._fresh = self._fresh, []
        try:
            with _transaction(connection):
                (done,) = connection.execute("SELECT last_id FROM rolled_up").fetchone()
                (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()
                last = min(newest, done + most)
                if last > done:
                    if (done, last) == (self._fresh_after, self._fresh_after + len(fresh)):
                        connection.executemany(ADD_SUMS, hourly_sums(fresh))
                    else:
                        connection.execute(ROLL_UP, (done, last))
                    connection.execute(ADD_SPAN, {"done": done, "last": last})
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
            self._connection = self._opened = None
            self._forget()

    def _follow_name(self) -> None:
        """Lets go of a file that was removed or moved away: nobody would find there what is still written to it."""
        connection = self._connection
        if connection is None or self._opened is None or _is(self.path, self._opened):
            return
        log.warning("The ledger %s was removed or moved away: records from now on go to a new one", self.path)
        # SQLite leaves this out where it closes a file that has lost its name.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.close()

    def _open(self) -> sqlite3.Connection:
        make_folder(self._folder)
        with contextlib.suppress(FileExistsError):
            os.close(create(self.path))  # SQLite gives its -wal and -shm files the mode of the database
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            _check_ours(connection)
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint=2000")
            _migrate(connection)
            self._opened = os.stat(self.path)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _commit(
        self, connection: sqlite3.Connection, records: Sequence[LedgerRecord], once: Sequence[LedgerRecord]
    ) -> int:
        try:
            with self._writing(connection):
                self._insert(connection, records)
                self._keep_fresh(connection, records)
                return sum(self._insert_once(connection, record) for record in once)
        except _BAD_VALUES:
            with self._writing(connection):
                for record in records:
                    self._insert_cleaned(connection, record)
                return sum(self._insert_cleaned(connection, record) for record in once)

    @contextlib.contextmanager
    def _writing(self, connection: sqlite3.Connection) -> Iterator[None]:
        """A transaction; if it fails, what it added is gone again."""
        try:
            with _transaction(connection):
                yield
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        self._kinds.clear()
        self._fresh = []

    def _keep_fresh(self, connection: sqlite3.Connection, records: Sequence[LedgerRecord]) -> None:
        """Notes what was just written; what others wrote in between parts it from what was noted before."""
        (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()
        before = last - len(records)
        if before != self._fresh_after + len(self._fresh) or len(self._fresh) > _MAX_FRESH:
            self._fresh = []
            self._fresh_after = before
        self._fresh += records

    def _insert(self, connection: sqlite3.Connection, records: Iterable[LedgerRecord]) -> None:
        rows = [self._row(connection, record) for record in records]
        for columns, run in groupby(rows, len):
            one, many = _RECORD_SQL[columns]
            alike = list(run)
            few = len(alike) % _ROWS
            connection.executemany(one, alike[:few])
            connection.executemany(many, [_joined(alike[at : at + _ROWS]) for at in range(few, len(alike), _ROWS)])

    def _insert_once(self, connection: sqlite3.Connection, record: LedgerRecord) -> bool:
        row = self._row(connection, record)
        if connection.execute(_KNOWN_SQL, (record.request_id, record.started)).fetchone():
            return False
        connection.execute(_RECORD_SQL[len(row)][0], row)
        return True

    def _insert_cleaned(self, connection: sqlite3.Connection, record: LedgerRecord) -> bool:
        try:
            return self._insert_once(connection, _cleaned(record))
        except _BAD_VALUES:
            log.exception("The ledger cannot take the record of request %r", record.request_id)
            return False

    def _row(self, connection: sqlite3.Connection, record: LedgerRecord) -> Row:
        """The record's row of `records`, without the last columns where there is nothing to be said in them.

        Nearly all have one attempt, of which the time alone does not stand elsewhere. What is not bound is quicker
        than a None: to SQLite's module that costs four times what a number does.
        """
        kind, attempts = record.kind, record.attempts
        values: Row = record
        number = self._kinds.get(kind) or self._add_kind(connection, kind)
        if len(attempts) == 1 and record.side_costs is None:
            model, end, status, ms = attempts[0]
            if end == "ok" and model == kind.model and status == kind.status:
                return (number, ms) + values[OWN if record.reported_output is None else OWN_AND_REPORT]
        told = as_json([attempt._asdict() for attempt in attempts])
        return (number, None, *values[OWN_AND_REPORT], *values[RARE], told)

    def _add_kind(self, connection: sqlite3.Connection, kind: Kind) -> int:
        number = connection.execute(_KIND_SQL, _parts(kind)).lastrowid
        assert number is not None
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = number
        return number

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


def _joined(rows: Iterable[Row]) -> list[Any]:
    """The values of rows one after the other; `chain` would take twice as long."""
    values: list[Any] = []
    for row in rows:
        values += row
    return values


def ledger_files(folder: Path) -> list[Path]:
    """The names that a ledger may have, in the order in which they are tried."""
    stem, _, suffix = LEDGER_NAME.partition(".")
    return [folder / LEDGER_NAME, *(folder / f"{stem}-{number}.{suffix}" for number in range(2, _MAX_FILES + 2))]


def _is(path: Path, file: os.stat_result) -> bool:
    """Whether that file stands there; what cannot be seen is taken to."""
    try:
        return os.path.samestat(os.stat(path), file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


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


def _cleaned(record: LedgerRecord) -> LedgerRecord:
    return LedgerRecord._make(map(_clean, record))._replace(kind=Kind(*map(_clean, _parts(record.kind))))


def _clean(value: Any) -> Any:
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
