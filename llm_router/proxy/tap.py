"""What is kept of an answer for the settling afterwards: references to the bytes that were sent, up to a bound."""

from __future__ import annotations

from collections import deque

KEEP_BYTES = 8 * 1024 * 1024
KEEP_BYTES_OF_ALL = 64 * 1024 * 1024
TAIL_BLOCKS = 8
# Asked of the common budget at a time, so that a short event need not ask.
_SLICE_BYTES = 4096


class TapBudget:
    """How much all taps together may keep."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = KEEP_BYTES_OF_ALL) -> None:
        self.limit = limit
        self.used = 0


class Tap:
    """Keeps the blocks of one answer. Past its bound it counts on without keeping, but for the last few blocks.

    `room` is how many bytes may still be kept before the budget has to be asked: whoever has a block that fits may
    append it to `blocks` himself and take its length off `room`.
    """

    __slots__ = ("_budget", "_granted", "_limit", "_missed", "_tail", "blocks", "room")

    def __init__(self, budget: TapBudget, limit: int = KEEP_BYTES) -> None:
        self._budget = budget
        self._limit = limit
        self._granted = 0
        self._missed = 0
        self._tail: deque[bytes] | None = None
        self.blocks: list[bytes] = []
        self.room = 0

    def __repr__(self) -> str:
        return f"<Tap size={self.size} kept={self.kept}>"

    @property
    def kept(self) -> int:
        """Bytes in `blocks`."""
        return self._granted - self.room

    @property
    def size(self) -> int:
        """Bytes that went to the client, kept or not."""
        return self._granted - self.room + self._missed

    def keep(self, block: bytes) -> None:
        """Notes one block that went to the client."""
        length = len(block)
        if self._tail is None and (length <= self.room or self._ask(length)):
            self.room -= length
            self.blocks.append(block)
            return
        if self._tail is None:
            self._tail = deque(maxlen=TAIL_BLOCKS)
            self._granted -= self.room
            self._budget.used -= self.room
            self.room = 0
        self._missed += length
        # A block may be one huge event; of the tail only what a finish can fit into is worth its memory.
        self._tail.append(block[-65536:])

    def _ask(self, length: int) -> bool:
        missing = length - self.room
        for size in (max(missing, _SLICE_BYTES), missing):
            if self._granted + size <= self._limit and self._budget.used + size <= self._budget.limit:
                self._granted += size
                self._budget.used += size
                self.room += size
                return True
        return False

    def last_blocks(self) -> list[bytes]:
        """The end of the answer, newest block first; whether or not it was still kept."""
        return [*reversed(self._tail or ()), *reversed(self.blocks)]

    def kept_blocks(self) -> list[bytes]:
        """What was kept, oldest first; where the bound was passed, the end follows after a gap."""
        return [*self.blocks, *self._tail] if self._tail else self.blocks

    def release(self) -> None:
        """Gives the kept bytes back to the common budget; once, when the answer is settled."""
        self._budget.used -= self._granted
        self._granted = self.room = 0
        self._tail = None
        self.blocks = []
