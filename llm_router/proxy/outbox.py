"""What leaves together at the end of the event loop's turn.

A send wakes whoever waits for it. Where a turn's sends lie apart, with the work for each between them, he has gone back
to sleep before the next one, and waking him costs more than sending: with all on one machine a tenth of a request.
"""

from __future__ import annotations

import asyncio
import logging

# What is larger keeps its reader awake by itself, and whoever sent it wants to know at once that it is too much.
MOST_BYTES = 32 * 1024

logger = logging.getLogger(__name__)


class Outbox:
    """Keeps what is put in until everything else that is ready has run; what one transport is given stays in order.

    Whoever writes to such a transport past it, or closes it, calls `flush` before. `awaited` is how many upstreams are
    being waited for: while there is one at most nothing is likely to come together, and what is put in leaves at once.
    So does what is large.
    """

    __slots__ = ("_loop", "_waiting", "awaited")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []
        self.awaited = 0

    def __repr__(self) -> str:
        return f"<Outbox waiting={len(self._waiting)} awaited={self.awaited}>"

    def put(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Sends `data` at the end of this turn or before, if `transport` is not closed by then."""
        large = len(data) > MOST_BYTES
        if large:
            self.flush()
        if not self._waiting:
            if large or self.awaited < 2:
                if not transport.is_closing():
                    transport.write(data)
                return
            if self._loop is None:
                self._loop = asyncio.get_running_loop()  # asking costs a system call each time
            self._loop.call_soon(self.flush)
        self._waiting.append((transport, data))

    def flush(self) -> None:
        """Sends now what waits."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            try:
                if not transport.is_closing():
                    transport.write(data)
            except Exception:  # all the others must get theirs
                logger.exception("unexpected error while sending")
                transport.abort()
