"""What is kept of an answer for the settling afterwards: references to the bytes that were sent, up to a bound."""

from __future__ import annotations

from collections import deque

KEEP_BYTES = 8 * 1024 * 1024
KEEP_BYTES_OF_ALL = 64 * 1024 * 1024
TAIL_BLOCKS = 8


class TapBudget:
    """How much all taps together may keep."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = KEEP_BYTES_OF_ALL) -> None:
        self.limit = limit
        self.used = 0


class Tap:
    """Keeps the blocks of one answer. Past its bound it counts on without keeping, but for the last few blocks."""

    __slots__ = ("_budget", "_limit", "_tail", "blocks", "kept", "size")

    def __init__(self, budget: TapBudget, limit: int = KEEP_BYTES) -> None:
        self._budget = budget
        self._limit = limit
        self._tail: deque[bytes] | None = None
        self.blocks: list[bytes] = []
        self.kept = 0
        self.size = 0

    def __repr__(self) -> str:
        return f"<Tap size={self.size} kept={self.kept}>"

    def keep(self, block: bytes) -> None:
        """Notes one block that went to the client."""
        length = len(block)
        self.size += length
        budget = self._budget
        if self._tail is None:
            if self.kept + length <= self._limit and budget.used + length <= budget.limit:
                self.kept += length
                budget.used += length
                self.blocks.append(block)
                return
            self._tail = deque(maxlen=TAIL_BLOCKS)
        # A block may be one huge event; of the tail only what a finish can fit into is worth its memory.
        self._tail.append(block[-65536:])

    def last_blocks(self) -> list[bytes]:
        """The end of the answer, newest block first; whether or not it was still kept."""
        return [*reversed(self._tail or ()), *reversed(self.blocks)]

    def kept_blocks(self) -> list[bytes]:
        """What was kept, oldest first; where the bound was passed, the end follows after a gap."""
        return [*self.blocks, *self._tail] if self._tail else self.blocks

    def release(self) -> None:
        """Gives the kept bytes back to the common budget; once, when the answer is settled."""
        self._budget.used -= self.kept
        self.kept = 0
        self._tail = None
        self.blocks = []
