"""The state folder: created private, and the circuits' file in it."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import orjson

from llm_router.private_files import create, make_folder
from llm_router.routing.breaker import Circuits

log = logging.getLogger("llm_router")

CIRCUIT_FILE = "circuits.json"


def prepare_state_folder(path: str) -> bool:
    """Makes the state folder. False, with one warning, if it cannot be used; the router runs on without."""
    try:
        make_folder(Path(path))
        with tempfile.TemporaryFile(dir=path):
            if os.stat(path).st_mode & stat.S_IWOTH:
                log.warning("the state folder %s can be written by every user of this machine: chmod 700 it", path)
            return True
    except OSError as error:
        log.warning(
            "the state folder %s cannot be written (%s): nothing will be kept over a restart", path, error.strerror
        )
        return False


class CircuitFile:
    """Keeps the circuits over a restart. Every failure of the disk is told once and otherwise borne."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / CIRCUIT_FILE
        self._told = False

    def load(self, circuits: Circuits, now: float) -> None:
        """Takes over what was saved; a file that cannot be read is set aside, not overwritten."""
        try:
            saved = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self._tell("read", error)
            return
        try:
            circuits.load(orjson.loads(saved), now)
        except (ValueError, TypeError, KeyError, AttributeError):
            aside = self.path.with_name(f"{CIRCUIT_FILE}.corrupt-{int(now)}")
            log.warning("%s is corrupt: kept as %s, starting with closed circuits", self.path, aside.name)
            with contextlib.suppress(OSError):
                os.replace(self.path, aside)

    def save(self, dump: dict[str, Any]) -> None:
        """Writes `dump` atomically, 0600; call it in a thread."""
        temporary = self.path.with_name(f".{CIRCUIT_FILE}.{os.getpid()}")
        try:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            with os.fdopen(create(temporary), "wb") as file:
                file.write(orjson.dumps(dump))
            os.replace(temporary, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            self._tell("save", error)

    def _tell(self, doing: str, error: OSError) -> None:
        if not self._told:
            self._told = True
            log.warning("cannot %s %s (%s): circuits are kept in memory only", doing, self.path, error.strerror)
