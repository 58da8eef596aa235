"""Heads that come again: from request to request a client changes the length of the body, and mostly nothing else.

What the parser has read once means the same when the same bytes come again between two requests of the connection.
So a connection keeps the head of its last plain request, and what comes with that head again is not parsed. A new one
begins with the head that was learned last: many programs open a connection for each request.
"""

from __future__ import annotations

from dataclasses import dataclass

_NAME = b"\r\ncontent-length: "
_END = b"\r\n\r\n"
_MOST_BYTES = 8192  # of a head that is worth being kept for each connection


@dataclass(slots=True)
class PlainHead:
    """What counts of the head of a plain chat request; header values as they were sent, None where absent.

    Nobody changes it; not frozen, since one is made for each head that has to be parsed.
    """

    path: str
    host: str
    authorization: str | None
    request_id: str | None
    session: str
    max_price: str | None
    keep_alive: bool


class KnownHead:
    """The head of a request that was parsed, in two parts around the digits of its length, and what counts of it."""

    __slots__ = ("_after", "_before", "_digits_end", "_digits_start", "plain", "size")

    def __init__(self, before: bytes, digits: bytes, after: bytes, plain: PlainHead) -> None:
        self._before = before
        self._after = after
        self._digits_start = len(before)
        self._digits_end = len(before) + len(digits)
        self.size = self._digits_end + len(after)
        self.plain = plain

    def __repr__(self) -> str:
        return f"<KnownHead {self.plain.path}>"

    def length_in(self, data: bytes) -> int | None:
        """The length of the body, if `data` begins with the same head but for that length.

        Lengths of another number of digits are left to the parser: they are rare.
        """
        if not data.startswith(self._before) or not data.startswith(self._after, self._digits_end):
            return None
        digits = data[self._digits_start : self._digits_end]
        return int(digits) if digits.isdigit() else None


def ends_there(head: bytes) -> bool:
    """Whether the first blank line of `head` is its end."""
    return 0 <= head.find(_END) == len(head) - len(_END)


def learn(head: bytes, length: int, plain: PlainHead) -> KnownHead | None:
    """Keeps a head that was parsed, `length` being that of its body; None where its bytes leave a doubt."""
    found = head.lower().find(_NAME)
    start = found + len(_NAME)
    digits = b"%d" % length
    if found < 0 or not head.startswith(digits + b"\r\n", start) or len(head) > _MOST_BYTES:
        return None
    if not ends_there(head):
        return None  # blank lines before it, or more than a head
    return KnownHead(head[:start], digits, head[start + len(digits) :], plain)
