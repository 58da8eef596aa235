"""Several processes that are one router: what they need before they start, and what each of them is.

The supervisor holds a listening socket for each worker, all bound to the one address (SO_REUSEPORT), so that the kernel
spreads connections over them. The first is bound as a router's only one would be, and joined by the others after that:
a second router, with workers or without, finds the port in use. Since the supervisor holds the sockets, what connects
while a worker is being replaced waits for the new one. The keeper (`accounting.keeper`) has the books and the figures,
`proxy.shared_state` what workers know of each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from llm_router import __version__, exits
from llm_router.accounting.keeper import LAST_WORDS, Keeper
from llm_router.accounting.ranks import Encodings
from llm_router.accounting.remote import RemoteBooks
from llm_router.accounting.settle import DEFAULT_ENCODING
from llm_router.config.values import Snapshot
from llm_router.errors import ApiError, ConfigError
from llm_router.proxy import shared_rows
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.dispatch import Router
from llm_router.proxy.parts import Memory
from llm_router.proxy.shared_state import SharedState
from llm_router.proxy.state import CircuitFile, prepare_state_folder
from llm_router.routing.shared import Row, RowCircuits
from llm_router.server.opening import BACKLOG, access_logs
from llm_router.server.serving import HELPERS, hire, serve, settle_memory
from llm_router.server.supervisor import Events, Post, Supervisor
from llm_router.server.systemd import Notifier

log = logging.getLogger("llm_router")

LOCK_NAME: Final = "workers.lock"
SOCKET_NAME: Final = "keeper.sock"
_BEAT: Final = 0.5
_LOCK_PATIENCE: Final = 2.0
# The path of a Unix socket has room for about a hundred bytes.
_LONGEST_ADDRESS: Final = 100
_MOUNTS: Final = Path("/proc/self/mountinfo")
# Where locks cannot be trusted, or memory is not shared with whoever else has the file open.
_REMOTE: Final = re.compile(
    r"9p|afs|beegfs|ceph|cifs|coda|davfs|fuse\..*|gfs2?|glusterfs|gpfs|lustre|ncpfs|nfs4?|ocfs2|orangefs|pvfs2|smb.*|vboxsf"
    r"|vmhgfs"
)


class CannotShare(Exception):
    """The workers could not have anything in common here; the text says why and what helps."""


@dataclass(frozen=True, slots=True)
class Colleague:
    """What a worker's router is made of."""

    snapshot: Snapshot
    books: RemoteBooks
    memory: Memory
    circuit_file: CircuitFile | None


Make = Callable[[Colleague], tuple[Router, web.Application]]
InLoop = Callable[[Coroutine[Any, Any, int]], int]


def run_workers(
    snapshot: Snapshot,
    config_file: ConfigFile,
    listener: socket.socket,
    notifier: Notifier,
    make: Make,
    in_loop: InLoop,
    address: str,
) -> int:
    """Serves with `snapshot.workers` processes until told to stop; the exit code. Raises CannotShare."""
    with common_folder(snapshot) as (folder, unwritten), keepers_ear(folder) as ear:
        crew = Crew(snapshot, config_file, folder, unwritten, ear, join(listener, snapshot.workers), make, in_loop)
        posts = [Post("keeper", crew.keep, stays=True)]
        posts += [Post(f"worker {number}", crew.worker(number)) for number in range(1, snapshot.workers + 1)]

        def tell() -> None:
            log.info("llm-router %s is ready on %s with %d workers", __version__, address, snapshot.workers)

        events = Events(tell, crew.follow_configuration, crew.close_listeners, lambda: crew.snapshot.drain_timeout)
        code = Supervisor(posts, notifier, events).run()
        _keep_circuits(crew.snapshot, folder)
        return code


@contextlib.contextmanager
def common_folder(snapshot: Snapshot) -> Iterator[tuple[Path, list[Row]]]:
    """The state folder, ready for workers and locked against those of another router. Raises CannotShare.

    With it comes what is known of circuits and could not be written there.
    """
    folder = Path(snapshot.state_dir)
    if not prepare_state_folder(snapshot.state_dir):
        raise CannotShare(f"workers need a state folder that can be written, and {folder} cannot; set ROUTER_STATE_DIR")
    if (kind := remote_file_system(folder)) is not None:
        raise CannotShare(
            f"workers need a state folder on a disk of this machine, and {folder} is on {kind}; set ROUTER_STATE_DIR, "
            "or do without --workers"
        )
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotShare(f"workers need a common state, and {folder} cannot hold it: {error}") from error
    try:
        _lock(folder, descriptor)
        yield folder, _make_state(snapshot, folder)
    finally:
        os.close(descriptor)


def _lock(folder: Path, lock: int) -> None:
    """Takes the lock of this process alone: what it forks does not hold it beyond its death. Raises CannotShare."""
    end = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            os.fchmod(lock, 0o600)
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            if time.monotonic() > end:
                raise CannotShare(
                    f"the workers of another router use the state folder {folder}; give this one its own "
                    "(ROUTER_STATE_DIR)"
                ) from None
            # It may be about to end.
            time.sleep(0.05)
        except OSError as error:
            raise CannotShare(f"workers need a common state, and {folder} cannot hold it: {error}") from error


def _make_state(snapshot: Snapshot, folder: Path) -> list[Row]:
    """Makes the common state anew; gives what is known of circuits if that fails, as it does on a full disk."""
    circuits = RowCircuits(snapshot.breaker)
    CircuitFile(snapshot.state_dir).load(circuits, time.time())
    try:
        shared_rows.create(folder, circuits.rows())
    except (OSError, sqlite3.Error) as error:
        log.error("the workers' common state cannot be made in %s (%s): it is tried again", folder, error)
        return circuits.rows()
    return []


def _keep_circuits(snapshot: Snapshot, folder: Path) -> None:
    """Writes down for the next start what all workers knew in the end: one of them alone may have left too early."""
    circuits = RowCircuits(snapshot.breaker)
    try:
        with contextlib.closing(shared_rows.StateRows(folder, 0, lambda: snapshot.breaker)) as state:
            _, rows, _ = state.news(-1)
    except sqlite3.Error as error:
        log.warning("the last that the workers knew of circuits cannot be read (%s)", error)
        return
    for row in rows:
        circuits.take(row)
    CircuitFile(snapshot.state_dir).save(circuits.dump())


def remote_file_system(folder: Path, mounts: str | None = None) -> str | None:
    """The kind of file system of `folder` if locks and shared memory cannot be trusted there, else None.

    `mounts` is the content of Linux's mountinfo; where there is none (macOS), nothing is known to be remote.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text("utf-8", "surrogateescape")
        except OSError:
            return None
    path, found, kind = os.path.realpath(folder), "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
        if len(point) >= len(found) and (path == point or path.startswith(point.rstrip("/") + "/")):
            found, kind = point, rest.split(" ")[0]
    return kind if _REMOTE.fullmatch(kind) else None


def join(first: socket.socket, number: int) -> list[socket.socket]:
    """A listening socket for each of `number` workers, all on the address of `first`, which is one of them."""
    if not sys.platform.startswith("linux"):
        # Elsewhere the option does not spread connections: the workers take turns at one socket.
        return [first] * number
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listeners = [first]
    for _ in range(number - 1):
        listener = socket.socket(first.family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(first.getsockname())
        listener.listen(BACKLOG)
        listener.setblocking(False)
        listeners.append(listener)
    return listeners


@contextlib.contextmanager
def keepers_ear(folder: Path) -> Iterator[socket.socket]:
    """Where the keeper listens for workers. Raises CannotShare."""
    path = folder / SOCKET_NAME
    with contextlib.ExitStack() as stack:
        if len(os.fsencode(path)) > _LONGEST_ADDRESS:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-router-"))) / SOCKET_NAME
        ear = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            path.unlink(missing_ok=True)
            ear.bind(str(path))
            path.chmod(0o600)
            ear.listen()
            ear.setblocking(False)
        except OSError as error:
            raise CannotShare(f"workers need a socket at {path}: {error.strerror or error}") from error
        yield ear
        path.unlink(missing_ok=True)


class Crew:
    """What the supervisor knows, and each process inherits."""

    def __init__(
        self,
        snapshot: Snapshot,
        config_file: ConfigFile,
        folder: Path,
        unwritten: list[Row],
        ear: socket.socket,
        listeners: list[socket.socket],
        make: Make,
        in_loop: InLoop,
    ) -> None:
        self.snapshot = snapshot
        self._config_file = config_file
        self._folder = folder
        self._unwritten = unwritten
        self._ear = ear
        self._listeners = listeners
        self._make = make
        self._in_loop = in_loop
        self._started, self._began = time.time(), time.monotonic()
        self._supervisor = os.getpid()

    def __repr__(self) -> str:
        return f"<Crew workers={self.snapshot.workers}>"

    # --- in the supervisor ------------------------------------------------------------------------------------------

    def follow_configuration(self) -> None:
        """A process that is started later starts with the last configuration that was valid, as the others have it."""
        if self._config_file.changed():
            with contextlib.suppress(ConfigError):
                self.snapshot = self._config_file.load()

    def close_listeners(self) -> None:
        """Lets go of the port."""
        for listener in self._listeners:
            listener.close()

    # --- the keeper -------------------------------------------------------------------------------------------------

    def keep(self, line: socket.socket) -> int:
        """The keeper's life."""
        self.close_listeners()
        for number in (signal.SIGTERM, signal.SIGINT):
            # It ends after the workers, when its line does.
            signal.signal(number, signal.SIG_IGN)
        return self._in_loop(self._keep(line))

    async def _keep(self, line: socket.socket) -> int:
        encodings = Encodings()
        keeper = Keeper(
            self._folder,
            version=__version__,
            encodings=encodings,
            sinks=access_logs(self.snapshot),
            count=self.snapshot.count,
            pids=lambda: [self._supervisor, os.getpid()],
        )
        stop = asyncio.Event()
        reporter = Line(line)
        # What is wrong with the ledger is told meanwhile; nobody is heard before there is something to count with.
        keeper.bookkeeper.start()
        encodings.build(DEFAULT_ENCODING)
        asyncio.get_running_loop().set_default_executor(hire(HELPERS))
        settle_memory()
        reporter.ready()
        reporter.start_watchdog(stop.set, bool)
        # Workers whose supervisor was killed drain all the same, and want to be heard to the end.
        await keeper.serve(self._ear, stop, self.snapshot.drain_timeout + LAST_WORDS)
        reporter.close()
        return exits.OK

    # --- a worker ---------------------------------------------------------------------------------------------------

    def worker(self, number: int) -> Callable[[socket.socket], int]:
        """The life of worker `number`, counted from 1."""

        def work(line: socket.socket) -> int:
            listener = self._listeners[number - 1]
            for other in self._listeners:
                if other is not listener:
                    other.close()
            address = str(self._ear.getsockname())
            self._ear.close()
            return self._in_loop(self._work(number, line, listener, address))

        return work

    async def _work(self, number: int, line: socket.socket, listener: socket.socket, address: str) -> int:
        with contextlib.suppress(ConfigError):
            # What the file does not show (.env) may have changed as well since the supervisor looked.
            self.snapshot = self._config_file.load()
        snapshot = self.snapshot
        state = SharedState(self._folder, number, snapshot.breaker)
        memory = Memory(state.circuits, state.conversations, state.hedges, state.slot, state.announce_reload)
        books = RemoteBooks(self._folder, address, snapshot.count)
        # One writes down for the next start what all have in common.
        circuit_file = CircuitFile(snapshot.state_dir) if number == 1 else None
        router, app = self._make(Colleague(snapshot, books, memory, circuit_file))
        router.started, router.began = self._started, self._began

        async def read_again() -> None:
            # Silent: the worker that was asked for it says what came of it.
            with contextlib.suppress(ApiError):
                await router.refresh()

        state.when_heard = router.circuits_changed
        state.when_told = lambda: router.tasks.begin(read_again(), "reload")
        state.start(self._unwritten)
        await serve(router, app, listener, Line(line), bool, aloud=number == 1)
        await asyncio.to_thread(state.close)
        return exits.OK


class Line:
    """A process's line to the supervisor, see there."""

    # Service managers and terminals signal whole groups, and the supervisor passes signals on.
    alone: Final = False

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._line.setblocking(False)
        self._is_ready = False
        self._beat: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """It answers; also the end of a reload."""
        self._say(b"L" if self._is_ready else b"R")
        self._is_ready = True

    def reloading(self) -> None:
        """The supervisor knows: it has passed the signal on."""

    def stopping(self) -> None:
        """The supervisor knows."""

    def start_watchdog(self, when_orphaned: Callable[[], object], when_hurried: Callable[[], object]) -> None:
        """Lets the supervisor hear that the event loop turns; hears when its end is closed, or what it says."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            try:
                said = self._line.recv(64)
            except BlockingIOError:
                return
            except ConnectionError:
                # So it ends if the supervisor had not heard all of ours.
                said = b""
            if said:
                when_hurried()
            else:
                loop.remove_reader(self._line)
                when_orphaned()

        loop.add_reader(self._line, look)
        self._say_so()

    def close(self) -> None:
        """Nothing more will be told."""
        if self._beat is not None:
            self._beat.cancel()

    def _say_so(self) -> None:
        self._say(b".")
        self._beat = asyncio.get_running_loop().call_later(_BEAT, self._say_so)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self._line.send(word)
