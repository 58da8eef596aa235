"""Idle connections, kept for the next request to the same origin."""

from __future__ import annotations

from llm_router.proxy.upstream.connection import Connection
from llm_router.proxy.upstream.request import Origin


class Pool:
    """Keeps connections by origin, the last used first. Has no limit: an answer needs a connection."""

    def __init__(self) -> None:
        # By the origin's key, in the order of their last use; not in lists, since each may leave from the middle.
        self._idle: dict[str, dict[Connection, None]] = {}
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
        waiting = self._idle.get(origin.key)
        while waiting:
            connection, _ = waiting.popitem()
            if now < connection.idle_until and not connection.closed:
                return connection
            connection.abort()
        return None

    def connection_idle(self, connection: Connection) -> None:
        """The answer is complete and another request may follow."""
        key = connection.origin.key
        waiting = self._idle.get(key)
        if waiting is None:
            waiting = self._idle[key] = {}
        waiting[connection] = None

    def connection_gone(self, connection: Connection) -> None:
        """The connection is closed or about to be."""
        self._all.discard(connection)
        waiting = self._idle.get(connection.origin.key)
        if waiting:
            waiting.pop(connection, None)

    def sweep(self, now: float) -> None:
        """Closes what has been idle for too long, or leads nowhere, and has the kernel watch those that live long."""
        for key, waiting in list(self._idle.items()):
            for connection in [one for one in waiting if now >= one.idle_until]:
                connection.abort()
            if not waiting:
                del self._idle[key]
        for connection in self._all:
            if now >= connection.watch_from:
                connection.watch()
        if [one for one in tuple(self._all) if one.vanished()]:
            self.drop_idle()  # the way to them may be the one that is gone

    def drop_idle(self) -> None:
        """Closes all that wait for a request."""
        for waiting in tuple(self._idle.values()):
            for connection in tuple(waiting):
                connection.abort()

    def close(self) -> None:
        """Aborts every connection, busy ones too."""
        for connection in list(self._all):
            connection.abort()
