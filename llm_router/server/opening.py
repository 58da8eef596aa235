"""Before the first request: the listening socket, and where the log goes."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from datetime import UTC, datetime

import orjson

from llm_router import standard_error
from llm_router.accounting.access_log import AccessLog
from llm_router.config.values import Snapshot

BACKLOG = 4096
# As syslog counts them.
_GRAVITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class TextLines(logging.Formatter):
    """Log records as lines that begin as the access log's: with the time in UTC, whatever the machine's zone."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """The time of a record."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonLines(logging.Formatter):
    """Log records as one JSON object a line, as the access log's."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


class JournalLines(logging.Formatter):
    """Lines of another formatter with the mark that tells the journal how grave they are, and that it takes off."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        """One line, or those of an exception; the journal takes each for an entry of its own."""
        mark = standard_error.mark(_GRAVITY.get(record.levelno, 6))
        return mark + self._lines.format(record).replace("\n", f"\n{mark}")


def set_up_logging(snapshot: Snapshot) -> None:
    """Everything goes to standard error; level and form are the configuration's."""
    lines = _lines(snapshot)
    handler = logging.StreamHandler(_way_out(lines))
    handler.setFormatter(lines)
    logging.basicConfig(level=snapshot.log_level.upper(), handlers=[handler])


def _lines(snapshot: Snapshot) -> logging.Formatter:
    lines = JsonLines() if snapshot.log_format == "json" else TextLines()
    return JournalLines(lines) if standard_error.goes_to_journal(os.environ) else lines


def _way_out(lines: logging.Formatter) -> standard_error.PatientStream:
    def missing(number: int) -> str:
        words = "lines of the log that are missing here, since nobody read them: %d"
        return lines.format(logging.LogRecord("llm_router", logging.WARNING, __file__, 0, words, (number,), None))

    return standard_error.PatientStream(sys.stderr, missing)


def listen(host: str, port: int, patience: float = 0.0) -> socket.socket:
    """A bound, listening socket. Raises OSError, also where another process listens on the port for `patience` more."""
    end = time.monotonic() + patience
    while True:
        try:
            return _listen(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise
            time.sleep(0.05)


def _listen(host: str, port: int) -> socket.socket:
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except UnicodeError:  # a name that no name server could be asked for
        raise socket.gaierror(socket.EAI_NONAME, "is no host name") from None
    listener = socket.socket(info[0], socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(info[4])
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def access_logs(snapshot: Snapshot) -> list[AccessLog]:
    """The access log on standard error; none where the log level is above info."""
    if snapshot.log_level not in ("debug", "info"):
        return []
    return [AccessLog(_way_out(_lines(snapshot)).write, snapshot.log_format)]
