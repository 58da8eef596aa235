"""One configuration file over a process's life: loaded, watched, reloaded, edited."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace as changed_copy
from pathlib import Path
from typing import Any

from llm_router.config.advice import unguarded
from llm_router.config.edits import refusal
from llm_router.config.fields import FileKeyError
from llm_router.config.jsonfile import MAX_BYTES, dump_file, parse_file
from llm_router.config.loading import load
from llm_router.config.values import Snapshot
from llm_router.errors import ApiError, ConfigError
from llm_router.private_files import make_folder
from llm_router.proxy.config_file import storage
from llm_router.proxy.config_file.dotenv import DotEnv, read_dotenv

FILE_NAME = "router_config.json"


def working_folder() -> Path:
    """The folder that the process was started in. Raises OSError, which names it, where it has been removed since."""
    try:
        return Path.cwd()
    except OSError as error:
        error.filename = "the working directory"
        raise


def find_file(
    environ: Mapping[str, str], dotenv: Mapping[str, str], folder: Path, stated: str | None
) -> tuple[Path, str]:
    """Where the configuration is read from and written to, and what said so; the file need not exist.

    `stated` is the command line's --config; then ROUTER_CONFIG_FILE, then router_config.json in `folder`, then the
    XDG configuration folder.
    """
    for source, named in (
        ("flag", stated),
        ("environment", environ.get("ROUTER_CONFIG_FILE")),
        (".env", dotenv.get("ROUTER_CONFIG_FILE")),
    ):
        if named and named.strip():
            return folder / os.path.expanduser(named.strip()), source
    here = folder / FILE_NAME
    if os.path.lexists(here):
        return here, "default"
    xdg = environ.get("XDG_CONFIG_HOME", "")
    base = Path(xdg) if xdg.startswith("/") else Path(environ["HOME"]) / ".config"
    return base / "llm-router" / FILE_NAME, "default"


class ConfigFile:
    """The configuration file with the environment around it.

    `environ` and `flags` are what the process was started with (`config` among the flags names the file); `.env` and
    the file are read anew with each load. `folder` is the working directory.
    The methods that are coroutines do their file work in a thread.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        flags: Mapping[str, object] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._environ = {**environ, "HOME": _home(environ)}
        self._flags = dict(flags or {})
        stated = self._flags.get("config")
        self._stated = str(stated) if stated else None
        self._folder = folder or working_folder()
        self._seen: storage.Signature | None = None
        self._loaded: Path | None = None
        self._bound: str | None = None
        self._lock = asyncio.Lock()

    @property
    def path(self) -> Path:
        """Where the file is, or would be written."""
        return self._find(self._dotenv())[0]

    def serve_at(self, host: str) -> None:
        """The router listens there from now on: what would leave it open to other machines is no longer valid."""
        self._bound = host

    def load(self) -> Snapshot:
        """Reads everything anew. Raises ConfigError; the file is never touched."""
        self._seen, result = self._attempt()
        if isinstance(result, ConfigError):
            raise result
        return result

    async def reload(self) -> Snapshot:
        """As `load`, between two edits rather than in the middle of one."""
        async with self._lock:
            # Whoever is cancelled here has not taken the new state over: the file then still counts as changed.
            self._seen, result = await asyncio.to_thread(self._attempt)
        if isinstance(result, ConfigError):
            raise result
        return result

    def _attempt(self) -> tuple[storage.Signature | None, Snapshot | ConfigError]:
        """What a load gives, and the state of the file that it was made from."""
        seen = None
        try:
            dotenv = self._dotenv()
            path, source = self._find(dotenv)
            seen = storage.signature(path)
            data = self._read(path)
            if data is None and source != "default":
                _expect_folder(path)
            snapshot = self._parse(path, data, dotenv)
        except ConfigError as error:
            return seen, error
        self._loaded = path if data is not None else None
        return seen, snapshot

    def changed(self) -> bool:
        """Whether the file was changed since it was last read (or tried); a file that has gone is not a change."""
        try:
            path = self._loaded or self.path
        except ConfigError:
            return False  # a .env that cannot be read may name it; the next load tells
        found = storage.signature(path)
        return found is not None and found != self._seen

    async def edit(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Snapshot:
        """Applies `change` to the file as it stands on disk, checks the result, writes it, and gives the new snapshot.

        Raises ApiError: what `change` raises, 400 for a result that is no valid configuration, and 500
        (`config_not_saved`) where the file cannot be read or written. Then nothing has changed.
        """
        async with self._lock:
            self._seen, snapshot = await asyncio.to_thread(self._edit, change)
        return snapshot

    def _edit(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> tuple[storage.Signature | None, Snapshot]:
        with _as_not_saved():
            dotenv = self._dotenv()
            path, _ = self._find(dotenv)
            target = Path(os.path.realpath(path))
            make_folder(target.parent)
            with storage.locked(target.parent):
                before = self._read(path)
                content = parse_file(before, str(path)) if before is not None else {}
                self._parse(path, before, dotenv)
                after = dump_file(change(content), before)
                snapshot = self._check_result(path, after, dotenv)
                if after != before:
                    storage.replace(path, after)
                seen = storage.signature(path)
        self._loaded = path
        return seen, snapshot

    def _check_result(self, path: Path, data: bytes, dotenv: DotEnv) -> Snapshot:
        if len(data) > MAX_BYTES:
            raise ApiError(400, f"the configuration would grow beyond {MAX_BYTES // 2**20} MiB")
        try:
            return self._parse(path, data, dotenv)
        except FileKeyError as error:
            raise refusal(error) from None
        except ConfigError as error:
            raise ApiError(400, str(error)) from None

    def _parse(self, path: Path, data: bytes | None, dotenv: DotEnv) -> Snapshot:
        snapshot = load(self._environ, dotenv.variables, data, str(path), self._flags)
        if self._bound is not None and (problem := unguarded(snapshot, self._bound)) is not None:
            raise ConfigError("ROUTER_API_KEY", f"is not set: {problem}")
        source = self._find(dotenv)[1]
        return changed_copy(
            snapshot,
            warnings=(*dotenv.warnings, *_others_hands(path, named=source != "default"), *snapshot.warnings),
            sources={**snapshot.sources, "config_file": source},
        )

    def _read(self, path: Path) -> bytes | None:
        """The file's bytes; None where there is none and none was promised. Raises ConfigError."""
        try:
            data = storage.read(path, MAX_BYTES)
        except OSError as error:
            raise ConfigError(str(path), f"cannot be read: {error.strerror or error}") from None
        if data is None and self._loaded == path:
            raise ConfigError(str(path), "has gone; put it back, or restart to go on without it")
        if data is None and self._stated:
            raise ConfigError(str(path), "does not exist; `llm-router init` writes a file to start from")
        return data

    def _dotenv(self) -> DotEnv:
        return read_dotenv(self._folder, self._environ)

    def _find(self, dotenv: DotEnv) -> tuple[Path, str]:
        path, source = find_file(self._environ, dotenv.variables, self._folder, self._stated)
        # A file that was found by looking around stays the one: were it to vanish, another must not take its place.
        return (self._loaded, source) if self._loaded and source == "default" else (path, source)


def _home(environ: Mapping[str, str]) -> str:
    """Where the user's own files are; whoever has no home is at home in the root, as login and containers have it."""
    found = environ.get("HOME") or os.path.expanduser("~")
    return found if found.startswith("/") else "/"


def _expect_folder(path: Path) -> None:
    """A file that was named may be made later by an edit; a folder that is missing too is a mistake in the name."""
    if not os.path.isdir(os.path.realpath(path.parent)):
        problem = f"names {path}, but there is no folder {path.parent}; create it or correct the name"
        raise ConfigError("ROUTER_CONFIG_FILE", problem)


def _others_hands(path: Path, *, named: bool) -> tuple[str, ...]:
    """A warning where somebody else decides what is in the file, and so where keys and prompts go."""
    try:
        found = path.stat()
    except OSError:
        return ()
    if found.st_mode & stat.S_IWOTH:
        return (f"{path} can be written by every user of this machine, and says where keys are sent: chmod o-w it",)
    if not named and found.st_uid not in (0, os.geteuid()):
        meant = "name it with --config or ROUTER_CONFIG_FILE if it is the one that is meant"
        return (f"{path} belongs to another user, and says where keys are sent: {meant}",)
    return ()


@contextlib.contextmanager
def _as_not_saved() -> Iterator[None]:
    """Turns what keeps a file from being read or written into the error that a client is told."""
    try:
        yield
    except ConfigError as error:
        raise _not_saved(f"the file cannot be changed as it stands: {error}") from error
    except OSError as error:
        raise _not_saved(f"the file cannot be written: {error.strerror or error}") from error


def _not_saved(reason: str) -> ApiError:
    message = f"The configuration was not saved and the old one stays in force; {reason}"
    return ApiError(500, message, type="server_error", code="config_not_saved")
