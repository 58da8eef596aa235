"""The places of a provider that takes only so many requests at once: a queue whose length the configuration may change.

An `asyncio.Semaphore` keeps the limit that it began with; one in its stead, beside those who hold places of the old
one, would let in both limits together.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """Who asks gets a place in turn, while fewer than `limit` are taken."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<Places {self._taken} of {self.limit} taken, {len(self._waiting)} waiting>"

    async def acquire(self) -> bool:
        """Waits until there is room."""
        if self._taken < self.limit and not self._waiting:
            self._taken += 1
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given a place in the moment in which it left
                self.release()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise
        return True

    def release(self) -> None:
        """Makes room for the next one."""
        self._taken -= 1
        self._let_in()

    def resize(self, limit: int) -> None:
        """From now on `limit` are let in; who has a place keeps it."""
        self.limit = limit
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._taken < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
