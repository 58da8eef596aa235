"""The board of requests in flight: what a process that is killed leaves behind, so that nothing admitted is lost.

A file of fixed slots, mapped into memory: to enter or clear a request is a memory write, and the kernel keeps the
pages when the process dies. All blocks are allocated beforehand, since a full disk would else show as SIGBUS. Each
process has its own file and holds a lock on it; a file whose lock is free belongs to a dead process.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from llm_router.private_files import create, make_folder

SLOTS: Final = 4096
_MAGIC: Final = b"llm-router board 1\n"
_HEADER: Final = 64
# In use or not, start, and three texts that are cut to their room; files of older versions have a fourth in the gap.
_SLOT: Final = struct.Struct("<?d130p34p66x210p")
_pack: Final = _SLOT.pack_into
_SLOT_BYTES: Final = 512
_END: Final = _HEADER + SLOTS * _SLOT_BYTES
_PATTERN: Final = "inflight-*.board"

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One admitted request; `started` is Unix time."""

    request_id: str
    started: float
    client: str
    model: str


class Slots(Protocol):
    """Where requests are noted until they are in the ledger: a `Board`, or the boards of other processes."""

    def enter(self, entry: tuple[str, float, str, str]) -> int:
        """Notes an admitted request, the fields of an `Entry`; gives its slot, -1 where none is free."""
        ...

    def clear(self, slots: Sequence[int]) -> None:
        """These requests are in the ledger."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class Board:
    """This process's board. `enter` belongs to one thread; `clear` may come from another."""

    def __init__(self, path: Path, descriptor: int, view: mmap.mmap) -> None:
        self.path = path
        self._descriptor = descriptor
        self._view = view
        # A slot is the offset of its place; `_fresh` is the first that was never used.
        self._free: list[int] = []
        self._fresh = _HEADER

    def __repr__(self) -> str:
        return f"<Board {self.path.name} in_use={self._in_use}>"

    @property
    def _in_use(self) -> int:
        return (self._fresh - _HEADER) // _SLOT_BYTES - len(self._free)

    @classmethod
    def create(cls, folder: Path) -> Board | None:
        """A new empty board in `folder`, or None (told in the log) where there can be none."""
        try:
            return cls(*_make(folder))
        except OSError as error:
            log.warning("No board of requests in flight (%s): a killed process will leave no trace of them", error)
            return None

    def enter(self, entry: tuple[str, float, str, str]) -> int:
        """Writes an `Entry` down; gives its slot, -1 where none is free."""
        if self._free:
            slot = self._free.pop()
        elif self._fresh < _END:
            slot = self._fresh
            self._fresh += _SLOT_BYTES
        else:
            return -1
        request_id, started, client, model = entry
        view = self._view
        try:
            _pack(view, slot, False, started, request_id.encode(), client.encode(), model.encode())
        except UnicodeEncodeError:
            names = (request_id, client, model)
            _pack(view, slot, False, started, *(name.encode("utf-8", "replace") for name in names))
        # Last, so that a half-written entry never counts.
        view[slot] = 1
        return slot

    def clear(self, slots: Sequence[int]) -> None:
        """Frees slots; their records are in the ledger. Finds another place if the file was removed."""
        view = self._view
        for slot in slots:
            view[slot] = 0
        self._free.extend(slots)
        if not os.path.exists(self.path):
            self._move()

    def _move(self) -> None:
        """The state folder was taken away: what stands here is written on a board where it belongs."""
        before, descriptor = self._view, self._descriptor
        try:
            self.path, self._descriptor, view = _make(self.path.parent)
        except OSError:
            return  # The ledger has the same trouble, and tells.
        # First, so that what is entered meanwhile stands there already.
        self._view = view
        for slot in range(_HEADER, self._fresh, _SLOT_BYTES):
            if before[slot] and not view[slot]:
                view[slot : slot + _SLOT_BYTES] = before[slot : slot + _SLOT_BYTES]
        os.close(descriptor)

    def close(self) -> None:
        """Lets go of the file. It stays, to be found at the next start, if requests are still on it."""
        empty = not self._in_use
        self._view.close()
        if empty:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)


def _make(folder: Path) -> tuple[Path, int, mmap.mmap]:
    """A new file with an empty board, its descriptor, which holds the lock, and its memory. Raises OSError."""
    make_folder(folder)
    name = f"{os.getpid()}-{time.time_ns():x}"
    # Renamed once it is locked: nobody shall take it for a dead one before.
    draft, path = folder / f".inflight-{name}.tmp", folder / f"inflight-{name}.board"
    descriptor = create(draft)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _allocate(descriptor, _END)
        view = mmap.mmap(descriptor, _END)
        view[: len(_MAGIC)] = _MAGIC
        draft.rename(path)
    except OSError:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    return path, descriptor, view


@dataclass(slots=True)
class DeadBoard:
    """What a process that is no more left behind. Locked until it is discarded or kept."""

    path: Path
    entries: list[Entry]
    _descriptor: int

    def discard(self) -> None:
        """Its entries are in the ledger: the file goes."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.keep()

    def keep(self) -> None:
        """Leaves the file for the next start."""
        os.close(self._descriptor)


def dead_boards(folder: Path) -> Iterator[DeadBoard]:
    """The boards of processes that are no more. Files that cannot be read are left alone."""
    for path in sorted(folder.glob(_PATTERN)):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            entries = list(_entries(path.read_bytes()))
        except (OSError, ValueError):
            os.close(descriptor)
            continue
        yield DeadBoard(path, entries, descriptor)


def all_entries(folder: Path) -> Iterator[Entry]:
    """What stands on all boards at the moment, those of living processes included. Reads the disk."""
    for path in folder.glob(_PATTERN):
        with contextlib.suppress(OSError, ValueError):
            yield from _entries(path.read_bytes())


def _entries(data: bytes) -> Iterator[Entry]:
    if not data.startswith(_MAGIC):
        raise ValueError("no board")
    for offset in range(_HEADER, len(data) - _SLOT_BYTES + 1, _SLOT_BYTES):
        if data[offset]:
            _, started, *texts = _SLOT.unpack_from(data, offset)
            request_id, client, model = (text.decode("utf-8", "replace") for text in texts)
            yield Entry(request_id, started, client, model)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(65_536)
    for start in range(0, size, len(zeros)):
        os.pwrite(descriptor, zeros[: size - start], start)
