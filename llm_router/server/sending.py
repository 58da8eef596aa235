"""The client's side of a chat answer: head and body are written to its transport by ourselves.

A head is a few joined byte strings, most of them made once, and it leaves together with the first bytes of the body;
the last bytes of a stream leave together with its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Final

import orjson
from aiohttp.base_protocol import BaseProtocol

from llm_router.errors import ApiError
from llm_router.proxy.exchange import ROUTER_HEADERS, Told
from llm_router.proxy.outbox import Outbox
from llm_router.server.answers import SERVER_NAME

_STREAM: Final = (
    b"HTTP/1.1 200 OK\r\nServer: llm-router\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\nDate: "
)
_JSON: Final = b"HTTP/1.1 200 OK\r\nServer: llm-router\r\nContent-Type: application/json\r\nDate: "
_CLOSE: Final = b"Connection: close\r\n"
_TOLD_MOST: Final = 1024

_told: dict[Told, bytes] = {}


class Openings:
    """The heads of one kind of answer up to the value of their `x-request-id`, made once a second for each `Told`."""

    __slots__ = ("_kind", "_known", "_since", "_until")

    def __init__(self, kind: bytes) -> None:
        self._kind = kind
        self._known: dict[Told, bytes] = {}
        self._since = self._until = 0.0  # a number of its own kind is compared more quickly

    def now(self, told: Told) -> bytes:
        """The head for what was decided, with the time of now."""
        now = time()
        if now >= self._until or now < self._since:
            self._since = float(int(now))
            self._until = self._since + 1.0
            self._known.clear()
        return self._known.get(told) or self._make(told)

    def _make(self, told: Told) -> bytes:
        if len(self._known) >= _TOLD_MOST:
            self._known.clear()
        lines = _told.get(told) or _remember(told)
        opening = self._known[told] = b"%b%b\r\n%bx-request-id: " % (self._kind, http_date(int(self._since)), lines)
        return opening


_open_stream: Final = Openings(_STREAM)
_open_json: Final = Openings(_JSON)


class Sender:
    """One client connection for one answer, as the dispatcher sees it.

    `keep_alive` tells, once the answer was sent, whether the connection may carry another request; `begun` whether
    any byte was sent. `modern` says that the request is of HTTP 1.1: before that a stream ends with its connection.
    `outbox` takes what is no stream; without one it is sent at once.
    """

    __slots__ = ("_extra", "_head", "_modern", "_outbox", "_transport", "_wire", "begun", "keep_alive", "request_id")

    def __init__(
        self,
        wire: BaseProtocol,
        request_id: str,
        *,
        keep_alive: bool,
        modern: bool = True,
        extra: Mapping[str, str] | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self._wire = wire
        self._transport = wire.transport
        self._modern = modern
        self._outbox = outbox
        self._extra = b"" if not extra else _lines(extra)
        self._head = b""
        self.request_id = request_id
        self.keep_alive = keep_alive
        self.begun = False

    def __repr__(self) -> str:
        return f"<Sender {self.request_id} begun={self.begun}>"

    # --- whole answers ---------------------------------------------------------------------------------------------

    def send_whole(self, body: bytes, told: Told, allowed: Mapping[str, str], *, as_stream: bool) -> None:
        """A whole answer in one piece."""
        framing = b"Content-Length: %d\r\n\r\n" % len(body)
        self._write(self._start(_open_stream if as_stream else _open_json, told, allowed, framing, body))

    def send_error(self, error: ApiError, headers: Mapping[str, str]) -> None:
        """The answer that tells of an error; `headers` beside those of the error itself."""
        body = orjson.dumps(error.payload(), option=orjson.OPT_APPEND_NEWLINE)
        fields = {**headers, **error.headers}
        if fields.pop("Connection", "") == "close":
            self.keep_alive = False
        phrase = HTTPStatus(error.status).phrase
        self._write(
            b"HTTP/1.1 %d %b\r\nServer: %b\r\nContent-Type: application/json\r\nDate: %b\r\n"
            b"%b%b%bContent-Length: %d\r\n\r\n%b"
            % (
                error.status,
                phrase.encode(),
                SERVER_NAME.encode(),
                http_date(int(time())),
                _lines({**fields, "x-request-id": self.request_id}),
                self._extra,
                self._connection_line(),
                len(body),
                body,
            )
        )

    # --- streams ---------------------------------------------------------------------------------------------------

    def start_stream(self, told: Told, allowed: Mapping[str, str]) -> Sender:
        """The head of a stream; it leaves with the first bytes."""
        if self._outbox is not None:
            self._outbox.flush()  # it may still have the last answer of this connection
            self._outbox = None
        if not self._modern:
            self.keep_alive = False
        framing = b"Transfer-Encoding: chunked\r\n\r\n" if self._modern else b"\r\n"
        self._head = self._start(_open_stream, told, allowed, framing, b"")
        return self

    @property
    def full(self) -> bool:
        """Whether the client has not read enough yet."""
        return self._wire.writing_paused

    def write(self, data: bytes) -> bool:
        """Sends `data` as one chunk; nothing happens once the client is gone (the handler is being cancelled)."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if self._head:
            self._write_first(data, b"")
        elif self._modern:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            transport.write(data)
        return self._wire._paused  # what `full` says, without the two calls on the way to it

    def end(self, data: bytes) -> None:
        """Sends `data`, if there is any, and the clean end of the body."""
        if self._head:
            self._write_first(data, b"0\r\n\r\n")
        elif not self._modern:
            self._write(data)
        elif data:
            self._write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
        else:
            self._write(b"0\r\n\r\n")

    async def drain(self) -> None:
        """Waits for the client to read. Raises ConnectionError if it left."""
        await self._wire._drain_helper()

    # Details.

    def _write_first(self, data: bytes, end: bytes) -> None:
        head, self._head = self._head, b""
        if not self._modern:
            self._write(head + data)
        elif data:
            self._write(b"%b%x\r\n%b\r\n%b" % (head, len(data), data, end))
        else:
            self._write(head + end)

    def _write(self, data: bytes) -> None:
        self.begun = True
        transport = self._transport
        if transport is None:
            return
        if self._outbox is not None:
            self._outbox.put(transport, data)
        elif not transport.is_closing():
            transport.write(data)

    def _start(self, openings: Openings, told: Told, allowed: Mapping[str, str], framing: bytes, body: bytes) -> bytes:
        """A head and what follows it; `framing` is its last field and the blank line."""
        request_id = self.request_id.encode()
        if not allowed and self.keep_alive and self._modern and not self._extra:
            return b"".join((openings.now(told), request_id, b"\r\n", framing, body))
        fields = b"%b%b%b" % (_lines(allowed), self._extra, self._connection_line())
        return b"".join((openings.now(told), request_id, b"\r\n", fields, framing, body))

    def _connection_line(self) -> bytes:
        if not self.keep_alive:
            return _CLOSE
        return b"" if self._modern else b"Connection: keep-alive\r\n"


def http_date(second: int) -> bytes:
    """The time as HTTP says it."""
    return formatdate(second, usegmt=True).encode()


def _remember(told: Told) -> bytes:
    """The header lines for what was decided; bounded, since explicit models come from clients."""
    if len(_told) >= _TOLD_MOST:
        _told.clear()
    lines = _told[told] = _lines(dict(zip(ROUTER_HEADERS, told, strict=True)))
    return lines


def _lines(headers: Mapping[str, str]) -> bytes:
    """Header lines. Raises ValueError for what would begin another line."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers) or "\0" in text:
        raise ValueError("a header has a line break in it")
    return text.encode("utf-8", "surrogateescape")
