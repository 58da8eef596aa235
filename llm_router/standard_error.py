"""Standard error: who reads it, one line there where there is no log, and a log that waits for no reader for ever."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TextIO

DESCRIPTOR: Final = 2
# A stream that can be written to takes so many bytes without waiting (PIPE_BUF), and a letter is ten at the most.
_AT_ONCE: Final = 4_096
_LETTERS_AT_ONCE: Final = _AT_ONCE // 10
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


class PatientStream:
    """The log's way out: while nobody reads what was written, lines are lost rather than waited for.

    Else a halted terminal or a full pipe would hold up whoever has something to tell: the books, every stream, the end.
    What `missing` gives for the number of lost lines stands in their place once somebody reads again.
    """

    patience = 1.0  # seconds for which a reader that falls behind is waited for

    def __init__(self, stream: TextIO, missing: Callable[[int], str]) -> None:
        self._stream = stream
        self._missing = missing
        self._lost = 0

    def __repr__(self) -> str:
        return f"<PatientStream lost={self._lost}>"

    def write(self, text: str) -> None:
        """Writes as many lines as are read. Raises OSError where nobody ever will read any."""
        for piece in _pieces(text):
            if not self._is_read():
                self._lost += piece.count("\n") or 1
                continue
            if self._lost:
                piece, self._lost = f"{self._missing(self._lost)}\n{piece}", 0
            self._stream.write(piece)
            self._stream.flush()

    def flush(self) -> None:
        """Nothing is kept back."""

    def _is_read(self) -> bool:
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):
            return True  # in memory
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(0 if self._lost else self.patience * 1000))


def _pieces(text: str) -> Iterator[str]:
    """Whole lines, as many as fit into one write that need not wait; a longer line in parts."""
    most = _AT_ONCE if text.isascii() else _LETTERS_AT_ONCE
    start = 0
    while len(text) - start > most:
        end = text.rfind("\n", start, start + most) + 1 or start + most
        yield text[start:end]
        start = end
    yield text[start:]
