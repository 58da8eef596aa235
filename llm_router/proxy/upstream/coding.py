"""Content codings of bodies that come compressed although we asked for none: bounded pieces, whatever goes in."""

from __future__ import annotations

import zlib
from collections import deque

from llm_router.proxy.upstream.errors import ProtocolError

PIECE_BYTES = 64 * 1024
_INPUT_BYTES = 16 * 1024  # zlib hands the rest of its input back as a copy, so it gets little at a time
_GZIP_WBITS = 31


class Inflater:
    """Undoes gzip or deflate. `feed` bytes, then `take` pieces until there is none, `end` after the last byte."""

    __slots__ = ("_coding", "_full", "_input", "_member", "_zlib")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._input: deque[bytes] = deque()
        self._zlib = zlib.decompressobj(_GZIP_WBITS)
        self._member = False  # inside compressed data
        self._full = False  # the last piece was as large as allowed: zlib may hold more output

    def __repr__(self) -> str:
        return f"<Inflater {self._coding} waiting={sum(map(len, self._input))}>"

    def feed(self, data: bytes) -> None:
        """Takes compressed bytes, cut anywhere."""
        self._input.append(data)

    def take(self) -> bytes:
        """The next piece, PIECE_BYTES at most; nothing if more input is needed. Raises ProtocolError."""
        while self._input or self._full:
            piece = self._step(self._next_input())
            self._full = len(piece) == PIECE_BYTES
            if piece:
                return piece
        return b""

    def end(self) -> None:
        """The body is over. Raises ProtocolError if the compressed data is not."""
        if self._member:
            raise ProtocolError("compressed body is cut")

    def _next_input(self) -> bytes:
        if not self._input:
            return b""
        data = self._input.popleft()
        if len(data) > _INPUT_BYTES:
            self._input.appendleft(data[_INPUT_BYTES:])
            return data[:_INPUT_BYTES]
        return data

    def _step(self, data: bytes) -> bytes:
        if not self._member and data:
            self._member = True
            self._zlib = zlib.decompressobj(self._window(data[0]))
        try:
            piece = self._zlib.decompress(data, PIECE_BYTES)
        except zlib.error:
            raise ProtocolError("compressed body is corrupt") from None
        rest = self._zlib.unconsumed_tail
        if self._zlib.eof:
            self._member = False
            rest = self._zlib.unused_data
            if rest and self._coding != "gzip":
                raise ProtocolError("bytes behind the compressed body")
        if rest:
            self._input.appendleft(rest)
        return piece

    def _window(self, first: int) -> int:
        if self._coding == "gzip":
            return _GZIP_WBITS
        # "deflate" means zlib's format, but raw deflate is sent too; a zlib header's low four bits are 8.
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS


class Refuser(Inflater):
    """Stands in for a coding that we cannot undo: the head may be used, the body not."""

    __slots__ = ()

    def take(self) -> bytes:
        """Raises ProtocolError as soon as there is a byte of body."""
        if self._input:
            raise ProtocolError("body has a content coding that was not asked for")
        return b""


def inflater_for(content_encoding: str | None) -> Inflater | None:
    """What undoes the coding that a Content-Encoding header names; None if there is nothing to undo."""
    coding = (content_encoding or "").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding in ("gzip", "x-gzip"):
        return Inflater("gzip")
    return Inflater("deflate") if coding == "deflate" else Refuser(coding)
