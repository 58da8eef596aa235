"""`state.sqlite3`: the rows that workers have in common, and the transactions on them.

The file is the workers' common memory, not a store: the supervisor makes it anew at each start. So nothing is ever
synced to the disk, a commit takes some tens of microseconds, and a file that a power cut has damaged is never read.
Each change carries the number of its transaction, so that a worker can ask for what is newer than it has seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from llm_router.config.values import BreakerSettings
from llm_router.private_files import create as create_file
from llm_router.private_files import make_folder
from llm_router.routing.breaker import CIRCUITS_MOST, COOLDOWN_MOST, Circuits, Permit
from llm_router.routing.shared import EVERY_MODEL, Change, Key, Row, RowCircuits, StayRow, cooldowns_between
from llm_router.routing.sticky import CONVERSATIONS_MOST, IDLE_SECONDS

STATE_NAME: Final = "state.sqlite3"
_SCHEMA: Final = """
CREATE TABLE clock (version INTEGER NOT NULL);
INSERT INTO clock VALUES (0);
CREATE TABLE circuits (
    scope TEXT NOT NULL, name TEXT NOT NULL, failures INTEGER NOT NULL, until REAL NOT NULL, kind TEXT NOT NULL,
    prober INTEGER NOT NULL, last_attempt REAL NOT NULL, gone INTEGER NOT NULL, words TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;
CREATE INDEX circuits_by_version ON circuits (version);
CREATE TABLE resets (model TEXT PRIMARY KEY, at REAL NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE stays (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, category TEXT NOT NULL, used REAL NOT NULL, version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX stays_by_version ON stays (version);
CREATE TABLE shares (
    kind TEXT NOT NULL, name TEXT NOT NULL, worker INTEGER NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (kind, name, worker)
) WITHOUT ROWID;
CREATE TABLE notices (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID"""
_ROW: Final = ", ".join(Row._fields)
_VALUES: Final = f"({'?, ' * len(Row._fields)}?)"  # of a row, and its version
# A commit takes microseconds; whoever finds the file locked for this long goes on alone.
_PATIENCE: Final = 0.25
# There is no such table; the file is malformed; it is no database.
_RUINED: Final = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def create(folder: Path, rows: Sequence[Row] = ()) -> None:
    """Makes the file anew, 0600, with `rows` in it. No process may have it open. Raises OSError or sqlite3.Error."""
    path = folder / STATE_NAME
    for suffix in ("", "-wal", "-shm"):
        path.with_name(f"{STATE_NAME}{suffix}").unlink(missing_ok=True)
    os.close(create_file(path))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")  # it is made anew after a power cut: no start waits for the disk
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.executemany(f"INSERT INTO circuits VALUES {_VALUES}", [(*row, 0) for row in rows])  # noqa: S608 - a constant


def restore(folder: Path) -> bool:
    """Makes the file anew, empty, where it is gone or ruined; False where it is neither. Raises OSError, sqlite3.Error.

    Who has the old one open goes on with that, until he sees that it `has_moved`.
    """
    path = folder / STATE_NAME
    make_folder(folder)
    # One worker at a time: what another has begun to write beside a new file is no rest of the old one.
    with _locked(folder):
        if path.exists() and not _is_ruined(path):
            return False
        for suffix in ("-wal", "-shm"):
            path.with_name(f"{STATE_NAME}{suffix}").unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".state-") as place:
            create(Path(place))
            (Path(place) / STATE_NAME).rename(path)  # whole at once
    return True


def _is_ruined(path: Path) -> bool:
    """Whether a file is no common state any more, whatever else may keep it from being used at the moment."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=_PATIENCE)) as connection:
            connection.execute("SELECT version FROM clock")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _RUINED
    return bool(verdict != "ok")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class StateRows:
    """One connection of one worker, for one thread, made when it is first used. All methods raise sqlite3.Error."""

    def __init__(self, folder: Path, worker: int, settings: Callable[[], BreakerSettings]) -> None:
        self.worker = worker
        self._path = folder / STATE_NAME
        self._settings = settings
        self._tidied = -1
        self._known: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"<StateRows worker={self.worker} open={self._known is not None}>"

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._known is None:
            # Before it is opened: one that takes its place in between is taken for another one, and gone over to.
            found = _identity(self._path)
            connection = sqlite3.connect(
                f"file:{self._path}?mode=rw", uri=True, isolation_level=None, timeout=_PATIENCE, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA synchronous=OFF")
            except sqlite3.Error:
                connection.close()
                raise
            self._known, self._file = connection, found
        return self._known

    def has_moved(self) -> bool:
        """Whether the file that was opened is not, or not any more, the one that others find."""
        return self._file is not None and _identity(self._path) != self._file

    def close(self) -> None:
        """Lets go of the file; whatever is asked next opens it again."""
        if self._known is not None:
            self._known.close()
            self._known = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and nobody else meanwhile."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            yield
            execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                execute("ROLLBACK")
            raise

    # --- news -------------------------------------------------------------------------------------------------------

    def prove(self) -> None:
        """Raises unless something can be written."""
        with self.transaction():
            self._next_version()

    def changes_elsewhere(self) -> int:
        """A number that is another one once any other connection has changed anything. Costs next to nothing."""
        (number,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(number)

    def news(self, after: int) -> tuple[int, list[Row], list[StayRow]]:
        """The newest transaction's number, and what was changed in those after `after`."""
        execute = self._connection.execute
        execute("BEGIN")
        try:
            (newest,) = execute("SELECT version FROM clock").fetchone()
            rows = execute(f"SELECT {_ROW} FROM circuits WHERE version > ?", (after,)).fetchall()  # noqa: S608
            stays = execute("SELECT key, model, category, used FROM stays WHERE version > ?", (after,)).fetchall()
        finally:
            execute("COMMIT")
        return newest, [_row(row) for row in rows], [StayRow(*stay) for stay in stays]

    def _next_version(self) -> int:
        self._connection.execute("UPDATE clock SET version = version + 1")
        (version,) = self._connection.execute("SELECT version FROM clock").fetchone()
        return int(version)

    # --- circuits ---------------------------------------------------------------------------------------------------

    def apply(self, changes: Sequence[Change]) -> list[Row]:
        """Lets changes happen to the common rows, inside a transaction; gives the rows that these are about.

        Workers come in any order: what happened before a reset that is here already is not to undo it.
        """
        version = self._next_version()
        touched: dict[Key, Row] = {}
        for change in changes:
            before = self._load(self._keys(change))
            if self._was_reset_since(change):
                touched |= {row.key: row for row in before}
                continue
            if change.resets is not None:
                self._connection.execute(
                    "INSERT OR REPLACE INTO resets VALUES (?, ?, ?)", (change.resets, change.at, version)
                )
            common = self._circuits(before)
            change.apply(common)
            for row in before:
                after = common.row(row.key, row.prober)
                touched[row.key] = after
                if after != row:
                    self._put(after, version)
        return list(touched.values())

    def _was_reset_since(self, change: Change) -> bool:
        models = [EVERY_MODEL, *(name for scope, name in change.keys if scope == "model")]
        return any(
            self._connection.execute("SELECT 1 FROM resets WHERE model = ? AND at > ?", (model, change.at)).fetchone()
            for model in models
        )

    def contribute(self, rows: Sequence[Row]) -> None:
        """Adds rows about what nothing is known of here: to a file that was made anew."""
        with self.transaction():
            version = self._next_version()
            self._connection.executemany(
                f"INSERT OR IGNORE INTO circuits VALUES {_VALUES}",  # noqa: S608 - a constant
                [(*row, version) for row in rows],
            )

    def claim(self, keys: tuple[Key, ...], ask: Callable[[Circuits], Permit | None]) -> tuple[Permit | None, list[Row]]:
        """Lets `ask` decide about a probe on the common rows; gives its permit, and the rows as they are then."""
        with self.transaction():
            before = self._load(keys)
            # Nobody asks for a probe that is his: what stands there as ours is about to be freed.
            common = self._circuits(before, free_for=self.worker)
            permit = ask(common)
            if permit is None or not permit.tries:
                return permit, before
            version = self._next_version()
            # Another worker may try another one of the provider's keys.
            rows = [common.row(row.key, row.prober or self.worker) for row in before]
            for row, former in zip(rows, before, strict=True):
                if row != former:
                    self._put(row, version)
            return permit, rows

    def release_probes(self) -> None:
        """Frees what this worker's predecessor held, and the slots that it had taken."""
        with self.transaction():
            version = self._next_version()
            self._connection.execute(
                "UPDATE circuits SET prober = 0, version = ? WHERE prober = ?", (version, self.worker)
            )
            self._connection.execute("DELETE FROM shares WHERE kind = 'slot' AND worker = ?", (self.worker,))

    def _keys(self, change: Change) -> tuple[Key, ...]:
        if change.everything:
            return tuple(self._connection.execute("SELECT scope, name FROM circuits"))
        if change.cooldowns_of is None:
            return change.keys
        found = self._connection.execute(
            "SELECT scope, name FROM circuits WHERE scope = 'cooldown' AND name >= ? AND name < ?",
            cooldowns_between(change.cooldowns_of),
        )
        return (*change.keys, *found)

    def _load(self, keys: Sequence[Key]) -> list[Row]:
        rows = []
        for scope, name in keys:
            found = self._connection.execute(
                f"SELECT {_ROW} FROM circuits WHERE scope = ? AND name = ?",  # noqa: S608 - a constant
                (scope, name),
            ).fetchone()
            rows.append(Row(scope, name, gone=True) if found is None else _row(found))
        return rows

    def _circuits(self, rows: Sequence[Row], free_for: int = 0) -> RowCircuits:
        common = RowCircuits(self._settings())
        for row in rows:
            common.take(row, free_for=free_for)
        return common

    def _put(self, row: Row, version: int) -> None:
        self._connection.execute(f"INSERT OR REPLACE INTO circuits VALUES {_VALUES}", (*row, version))  # noqa: S608

    # --- conversations ----------------------------------------------------------------------------------------------

    def put_stays(self, stays: Sequence[StayRow]) -> None:
        """Writes down where conversations stay, inside a transaction; what is newer already is left."""
        version = self._next_version()
        self._connection.executemany(
            "INSERT INTO stays VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET model = excluded.model, "
            "category = excluded.category, used = excluded.used, version = excluded.version "
            "WHERE excluded.used >= used",
            [(*stay, version) for stay in stays],
        )

    # --- shares: how much of something each worker has taken ----------------------------------------------------------

    def shares(self, kind: str) -> dict[str, tuple[int, int]]:
        """By name: what this worker has, and what the others have together."""
        found = self._connection.execute(
            "SELECT name, sum(amount * (worker = ?)), sum(amount * (worker != ?)) FROM shares WHERE kind = ? "
            "GROUP BY name",
            (self.worker, self.worker, kind),
        )
        return {name: (own, others) for name, own, others in found}

    def put_share(self, kind: str, name: str, amount: int) -> None:
        """Writes down what this worker has."""
        self._connection.execute("INSERT OR REPLACE INTO shares VALUES (?, ?, ?, ?)", (kind, name, self.worker, amount))

    def take_share(self, kind: str, name: str, most: int, own: int) -> bool:
        """One more of something for this worker, if all workers together have less than `most`.

        `own` is how much of it this worker has, which it knows better than the file.
        """
        with self.transaction():
            _, others = self.shares(kind).get(name, (0, 0))
            if own + others >= most:
                return False
            self.put_share(kind, name, own + 1)
        return True

    # --- notices, and tidiness --------------------------------------------------------------------------------------

    def announce(self, name: str) -> int:
        """Lets every worker see that `name` has happened once more; gives how often by now."""
        with self.transaction():
            number = self.announced(name) + 1
            self._connection.execute("INSERT OR REPLACE INTO notices VALUES (?, ?)", (name, number))
        return number

    def announced(self, name: str) -> int:
        """How often `name` has happened."""
        found = self._connection.execute("SELECT number FROM notices WHERE name = ?", (name,)).fetchone()
        return int(found[0]) if found else 0

    def tidy(self, now: float) -> None:
        """Drops what nobody needs any more, so that the file stays small."""
        execute = self._connection.execute
        with self.transaction():
            # A key that was refused is one that has to be tried, for as long as a single process remembers it.
            for scope, until in (("cooldown", now), ("account", now - COOLDOWN_MOST)):
                execute("DELETE FROM circuits WHERE scope = ? AND NOT gone AND until < ?", (scope, until))
            # Every worker has seen by now what had gone at the last tidying, and told what happened before.
            execute("DELETE FROM circuits WHERE gone AND version <= ?", (self._tidied,))
            execute("DELETE FROM resets WHERE version <= ?", (self._tidied,))
            (self._tidied,) = execute("SELECT version FROM clock").fetchone()
            execute("DELETE FROM stays WHERE used < ?", (now - IDLE_SECONDS,))
            for table, most in (("circuits", CIRCUITS_MOST), ("stays", CONVERSATIONS_MOST)):
                execute(
                    f"DELETE FROM {table} WHERE version <= coalesce("  # noqa: S608 - constants
                    f"(SELECT version FROM {table} ORDER BY version DESC LIMIT 1 OFFSET ?), -1)",
                    (2 * most,),
                )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _row(found: tuple[Any, ...]) -> Row:
    scope, name, failures, until, kind, prober, last_attempt, gone, words = found
    return Row(scope, name, failures, until, kind, prober, last_attempt, bool(gone), words)
