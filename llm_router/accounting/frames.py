"""Frames: how workers and the keeper speak to each other over their Unix socket.

A frame is its head's length, the head, and after it the large blobs as they are, so that a prompt of megabytes is
never copied on a worker's event loop. Both ends are forks of one process: the head is `marshal`, the quickest form
there is, which must never be read from anybody else.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Sequence
from typing import Any, Final

LENGTH: Final = struct.Struct("<I")
# Later versions of `marshal` look for objects that come twice, which costs half as much again; here hardly one does.
_WITHOUT_REFERENCES: Final = 2

_ROOM: Final = 256 * 1024
# Room that was needed once is kept up to this: fresh memory would have to be cleared each time.
_MOST_ROOM: Final = 4 * 1024 * 1024

Message = tuple[Any, ...]
Frame = tuple[str, Message, list[bytes]]


def frame(kind: str, *values: Any, blobs: Sequence[bytes] = ()) -> list[bytes]:
    """The parts of one frame, to be written one after the other. Raises ValueError for what is no plain value."""
    head = marshal.dumps((kind, values, [len(blob) for blob in blobs]), _WITHOUT_REFERENCES)
    return [LENGTH.pack(len(head)), head, *blobs]


class FrameBuffer:
    """Bytes as they come in, and the frames that become whole with them; for `asyncio.BufferedProtocol`."""

    def __init__(self) -> None:
        self._data = bytearray(_ROOM)
        self._filled = 0
        self._head: tuple[str, Message, list[int]] | None = None

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return memoryview(self._data)[self._filled :]

    def filled(self, size: int) -> list[Frame]:
        """So many bytes have come: the frames that are whole now."""
        self._filled += size
        found: list[Frame] = []
        view = memoryview(self._data)
        start, needed = self._split(view, found)
        rest = self._filled - start
        if needed > len(self._data) or (len(self._data) > _MOST_ROOM and not rest):
            # The last reader of the old one may still look at it: it is left as it is.
            self._data = bytearray(max(_ROOM, needed))
        if start or self._data is not view.obj:
            self._data[:rest] = bytes(view[start : self._filled])
            self._filled = rest
        return found

    def _split(self, view: memoryview, found: list[Frame]) -> tuple[int, int]:
        """How far whole frames go, and how many bytes there must be after that for more to be understood."""
        start = 0
        while True:
            if self._head is None:
                left = self._filled - start
                if left < LENGTH.size:
                    return start, LENGTH.size
                end = start + LENGTH.size + int(LENGTH.unpack_from(view, start)[0])
                if self._filled < end:
                    return start, end - start
                # Written by `frame` in a process of ours.
                self._head = marshal.loads(view[start + LENGTH.size : end])  # noqa: S302
                start = end
            kind, values, lengths = self._head
            needed = sum(lengths)
            if self._filled - start < needed:
                return start, needed
            blobs = []
            for length in lengths:
                blobs.append(bytes(view[start : start + length]))
                start += length
            found.append((kind, values, blobs))
            self._head = None
