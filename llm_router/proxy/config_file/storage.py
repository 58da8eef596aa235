"""Reads and replaces a small file as a whole: whoever reads it, at whatever moment, sees the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from llm_router.private_files import create, make_folder

_LOCK_PATIENCE_SECONDS = 10.0
_LOCK_RETRY_SECONDS = 0.01
# File systems that cannot lock a folder; the in-process lock and O_EXCL on the temporary file remain.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF, errno.ENOSYS)

Signature = tuple[int, int, int, int]


def signature(path: Path) -> Signature | None:
    """What tells one state of a file from the next; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class ForeignFile(OSError):
    """The file belongs to another user."""


def read(path: Path, limit: int, owner: int | None = None) -> bytes | None:
    """The bytes of a regular file, one more than `limit` at most; None if there is none. Raises OSError.

    With `owner` only of a file that this user owns, whatever stands under its name a moment later (ForeignFile).
    """
    try:
        # O_NONBLOCK: opening a named pipe must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if owner is not None and found.st_uid != owner:
            raise ForeignFile(errno.EPERM, "belongs to another user")
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        return file.read(limit + 1)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock against other processes. Raises TimeoutError when another one does not let go."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _wait_for_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes) -> None:
    """Puts `data` in the place of a file in one step; keeps its mode, its owner and a symlink. Raises OSError.

    The caller holds the folder's lock. A file that is new gets 0600.
    """
    target = Path(os.path.realpath(path))
    temporary = _write_temporary(target, data)
    try:
        os.rename(temporary, target)
    except OSError:
        _discard(temporary)
        raise
    _sync_folder(target.parent)


def write_new(path: Path, data: bytes) -> None:
    """Creates a file with `data`, 0600, whole or not at all. Raises FileExistsError rather than touch one."""
    make_folder(path.parent)
    if path.is_symlink():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with locked(path.parent):
        temporary = _write_temporary(path, data)
        try:
            os.link(temporary, path)
        finally:
            _discard(temporary)
        _sync_folder(path.parent)


def _wait_for_lock(descriptor: int) -> None:
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("another program holds the configuration's folder locked") from None
            time.sleep(_LOCK_RETRY_SECONDS)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            raise
        else:
            return


def _write_temporary(target: Path, data: bytes) -> Path:
    """A synced file beside `target`, with its mode and owner. Its name is fixed, so that a crash leaves one at most."""
    temporary = target.with_name(f".{target.name}.tmp")
    _discard(temporary)
    descriptor = create(temporary)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            _take_over_mode(file.fileno(), target)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        _discard(temporary)
        raise
    return temporary


def _take_over_mode(descriptor: int, target: Path) -> None:
    try:
        former = target.stat()
    except FileNotFoundError:
        return
    if (former.st_uid, former.st_gid) != (os.geteuid(), os.getegid()):
        # Only root may give a file away; to anyone else the file becomes their own, as with any editor.
        with contextlib.suppress(OSError):
            os.fchown(descriptor, former.st_uid, former.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(former.st_mode))


def _discard(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Some file systems cannot sync a folder; the rename has happened all the same.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
