"""Standard error: who reads it, and one line there before there is a log, or where there will be none."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Final

DESCRIPTOR: Final = 2
# As syslog counts them; a line without a mark is the journal's 6, information.
_ERROR: Final = 3


def goes_to_journal(environ: Mapping[str, str], descriptor: int = DESCRIPTOR) -> bool:
    """Whether what is written to `descriptor` is read by systemd's journal, by the rule of systemd.exec(5)."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def mark(gravity: int) -> str:
    """What tells the journal how grave a line is, and is taken off by it."""
    return f"<{gravity}>"


def complain(message: str) -> None:
    """Says why something is refused or failed; the journal shows it among the mistakes."""
    _write((mark(_ERROR) if goes_to_journal(os.environ) else "") + f"llm-router: {message}")


def tell(message: str) -> None:
    """Says what a person who waits wants to know."""
    _write(f"llm-router: {message}")


def _write(line: str) -> None:
    # Where it cannot be read (a full disk), the exit code has to say it.
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
