"""Files and folders that nobody but their owner may read: 0600 and 0700, whatever the umask."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Makes the folder and what is missing above it; one that exists keeps its mode. Raises OSError.

    Who may write to a folder above could put another one in its place.
    """
    missing = [level for level in (folder, *folder.parents) if not level.is_dir()]
    for level in reversed(missing):
        try:
            level.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(level)) from None
        level.chmod(0o700)


def create(path: Path) -> int:
    """Makes an empty file and gives its descriptor. Raises OSError, FileExistsError where anything has that name.

    A link counts as well: in a folder that others can write to one may stand under a name that they can guess.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
