"""Idle connections, kept for the next request to the same origin."""

from __future__ import annotations

from llm_router.proxy.upstream.connection import Connection
from llm_router.proxy.upstream.request import Origin

# Shorter than the keep-alive of the providers' front ends (60 s and more), so that it is rarely the server that closes
# first. Servers that close sooner (5 s is common for small ones) are noticed by their FIN.
IDLE_SECONDS = 15.0


class Pool:
    """Keeps connections by origin, the last used first. Has no limit: an answer needs a connection."""

    def __init__(self) -> None:
        self._idle: dict[Origin, list[Connection]] = {}
        self._all: set[Connection] = set()

    def __repr__(self) -> str:
        return f"<Pool open={len(self._all)} idle={self.idle}>"

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return sum(map(len, self._idle.values()))

    @property
    def open(self) -> int:
        """How many connections there are, busy ones and those being made included."""
        return len(self._all)

    def add(self, connection: Connection) -> None:
        """Counts a connection in; it is busy until it says otherwise."""
        self._all.add(connection)

    def take(self, origin: Origin, now: float) -> Connection | None:
        """An idle connection to the origin, which is busy from now on."""
        waiting = self._idle.get(origin)
        while waiting:
            connection = waiting.pop()
            if not connection.closed and not _expired(connection, now):
                return connection
            connection.abort()
        return None

    def connection_idle(self, connection: Connection) -> None:
        """The answer is complete and another request may follow."""
        self._idle.setdefault(connection.origin, []).append(connection)

    def connection_gone(self, connection: Connection) -> None:
        """The connection is closed or about to be."""
        self._all.discard(connection)
        waiting = self._idle.get(connection.origin)
        if waiting and connection in waiting:
            waiting.remove(connection)

    def sweep(self, now: float) -> None:
        """Closes what has been idle for too long."""
        for origin, waiting in list(self._idle.items()):
            for connection in [one for one in waiting if _expired(one, now)]:
                connection.abort()
            if not waiting:
                del self._idle[origin]

    def close(self) -> None:
        """Aborts every connection, busy ones too."""
        for connection in list(self._all):
            connection.abort()


def _expired(connection: Connection, now: float) -> bool:
    limit = IDLE_SECONDS if connection.idle_limit is None else min(IDLE_SECONDS, connection.idle_limit)
    return now - connection.idle_since >= limit
