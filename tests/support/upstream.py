"""A raw scripted upstream: it sends, stalls, lies, resets and drips on cue, and records what it was sent.

    upstream = Upstream()
    await upstream.start()
    upstream.script = stream(answer("Hello"), end="reset")
    ...
    upstream.exchanges[0].request.json()

A script is an async function of the `Exchange`; the functions below make the usual ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from tests.support.chunks import answer, completion
from tests.support.waiting import PATIENCE

Framing = Literal["chunked", "length", "close", "http10"]
End = Literal["finish", "fin", "reset", "hang", "half_chunk", "bad_chunk", "garbage"]
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """What the router sent: names of headers as they came, the whole body, and when it was complete."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    at: float

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class PeerGone(Exception):
    """The router closed the connection while a script was still sending."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and what is being answered to it.

    `closed_at` is when the router's end of the connection closed (monotonic seconds), None while it is open;
    `sent` counts the bytes handed to the kernel or its queue.
    """

    request: Request
    connection: _Connection
    number: int
    framing: Framing = "chunked"
    sent: int = 0
    closed_at: float | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    _gzip: Any = None

    async def send(self, data: bytes) -> None:
        """Raw bytes; waits while the peer does not read."""
        if self.closed_at is not None:
            raise PeerGone
        self.connection.transport.write(data)
        self.sent += len(data)
        await asyncio.sleep(0)  # a peer that went away is noticed only where the loop runs
        await self.connection.writable.wait()
        if self.closed_at is not None:
            raise PeerGone

    async def head(
        self,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        framing: Framing = "chunked",
        content_type: str = "text/event-stream",
        length: int | None = None,
        encoding: str | None = None,
    ) -> None:
        """Status line and headers. `encoding="gzip"` compresses what `body` sends from now on."""
        self.framing = framing
        fields = {"Content-Type": content_type} if content_type else {}
        if framing == "chunked":
            fields["Transfer-Encoding"] = "chunked"
        elif framing == "length":
            fields["Content-Length"] = str(length or 0)
        else:
            fields["Connection"] = "close"
        if encoding == "gzip":
            fields["Content-Encoding"] = "gzip"
            self._gzip = zlib.compressobj(wbits=31)
        version = "HTTP/1.0" if framing == "http10" else "HTTP/1.1"
        lines = [f"{version} {status} Scripted", *(f"{k}: {v}" for k, v in (fields | dict(headers or {})).items())]
        await self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    async def body(self, data: bytes) -> None:
        """A piece of the body in the framing that `head` announced."""
        if self._gzip is not None:
            data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        if data:
            await self.send(b"%x\r\n%b\r\n" % (len(data), data) if self.framing == "chunked" else data)

    async def finish(self) -> None:
        """The clean end of the body; the connection stays open where the framing allows it."""
        if self._gzip is not None:
            rest, self._gzip = self._gzip.flush(), None
            await self.body(rest)
        if self.framing == "chunked":
            await self.send(b"0\r\n\r\n")
        elif self.framing in ("close", "http10"):
            self.close()

    def close(self) -> None:
        """FIN, after what is queued."""
        self.connection.transport.close()

    def reset(self) -> None:
        """RST at once."""
        self.connection.reset()

    async def hang(self) -> None:
        """Says nothing more until the router closes."""
        await self.closed.wait()


Script = Callable[[Exchange], Awaitable[None]]


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.writable = asyncio.Event()
        self.writable.set()
        self.buffer = bytearray()
        self.arrived = asyncio.Event()
        self.exchange: Exchange | None = None
        self.task: asyncio.Future[None] | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no asyncio.Transport
        self.transport = cast(asyncio.Transport, transport)
        self.upstream.connections.append(self)
        if self.upstream.on_connect == "close":
            transport.close()
        elif self.upstream.on_connect == "reset":
            self.reset()
        else:
            self.task = asyncio.ensure_future(self._serve())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.arrived.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def eof_received(self) -> bool:
        self._mark_gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._mark_gone()

    def _mark_gone(self) -> None:
        self.gone = True
        self.writable.set()
        self.arrived.set()
        if self.exchange is not None and self.exchange.closed_at is None:
            self.exchange.closed_at = time.monotonic()
            self.exchange.closed.set()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    async def _serve(self) -> None:
        with contextlib.suppress(PeerGone, ConnectionError):
            while (request := await self._read_request()) is not None:
                self.exchange = Exchange(request, self, len(self.upstream.exchanges))
                self.upstream.exchanges.append(self.exchange)
                self.upstream.arrived.set()
                await self.upstream.choose(request)(self.exchange)
                if self.transport.is_closing():
                    return

    async def _read_until(self, ready: Callable[[], bool]) -> bool:
        while not ready():
            if self.gone:
                return False
            self.arrived.clear()
            await self.arrived.wait()
        return True

    async def _take(self, size: int) -> bytes:
        if not await self._read_until(lambda: len(self.buffer) >= size):
            raise PeerGone
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def _line(self) -> bytes:
        if not await self._read_until(lambda: b"\r\n" in self.buffer):
            raise PeerGone
        return (await self._take(self.buffer.index(b"\r\n") + 2))[:-2]

    async def _read_request(self) -> Request | None:
        if not await self._read_until(lambda: b"\r\n\r\n" in self.buffer):
            return None
        head = (await self._take(self.buffer.index(b"\r\n\r\n") + 4)).decode("latin-1")
        first, *rest = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in rest)]
        lower = {name.lower(): value for name, value in headers}
        body = b""
        if "chunked" in lower.get("transfer-encoding", ""):
            while size := int((await self._line()).partition(b";")[0], 16):
                body += await self._take(size)
                await self._line()
            await self._line()
        else:
            body = await self._take(int(lower.get("content-length", "0")))
        return Request(method, target, headers, body, time.monotonic())


class Upstream:
    """A server on 127.0.0.1. `script` answers every request unless `scripts` has one for the request's model.

    `on_connect` set to "close" or "reset" ends each connection as soon as it is accepted.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.script: Script = stream(answer())
        self.scripts: dict[str, Script] = {}
        self.queue: list[Script] = []
        self.on_connect: Literal["serve", "close", "reset"] = "serve"
        self.exchanges: list[Exchange] = []
        self.connections: list[_Connection] = []
        self.arrived = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The base URL to configure."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def count(self) -> int:
        """How many requests came."""
        return len(self.exchanges)

    @property
    def last(self) -> Exchange:
        """The newest exchange."""
        return self.exchanges[-1]

    def choose(self, request: Request) -> Script:
        """The script for a request: the queue first, then by model, then the general one."""
        if self.queue:
            return self.queue.pop(0)
        if self.scripts:
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                return self.scripts.get(request.json().get("model"), self.script)
        return self.script

    async def start(self) -> Upstream:
        """Listens; on `port` if one was given."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self, reset: bool = True) -> None:
        """Stops listening and ends every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self.connections:
            if reset:
                connection.reset()
            else:
                connection.transport.close()
        tasks = [connection.task for connection in self.connections if connection.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def wait_for(self, count: int, patience: float = PATIENCE) -> Exchange:
        """Waits until `count` requests came; the newest of them."""
        async with asyncio.timeout(patience):
            while self.count < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.exchanges[count - 1]


def reply(
    status: int = 200,
    body: bytes | str | dict[str, Any] = b"",
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
    delay: float = 0.0,
) -> Script:
    """A whole answer with a Content-Length."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body

    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(delay)
        await exchange.head(status, headers, "length", content_type, len(data))
        await exchange.send(data)

    return script


def plain(content: str = "Hello", **message: Any) -> Script:
    """A whole JSON completion."""
    return reply(200, completion(content, **message))


def stream(
    events: Iterable[bytes] | bytes,
    *,
    framing: Framing = "chunked",
    encoding: str | None = None,
    headers: Mapping[str, str] | None = None,
    content_type: str = "text/event-stream",
    cut: int | None = None,
    gap: float = 0.0,
    delay: float = 0.0,
    end: End = "finish",
) -> Script:
    """A 200 whose body is sent piece by piece, `gap` seconds apart; `cut` makes pieces of that many bytes.

    `end`: the clean end of the body; FIN without it; RST; silence; half of a chunk; a chunk size that is none;
    bytes that fit nothing.
    """
    pieces = [events] if isinstance(events, bytes) else list(events)
    if cut is not None:
        whole = b"".join(pieces)
        pieces = [whole[at : at + cut] for at in range(0, len(whole), cut)]

    async def script(exchange: Exchange) -> None:
        if delay:
            await asyncio.sleep(delay)
        await exchange.head(200, headers, framing, content_type, sum(map(len, pieces)), encoding)
        for number, piece in enumerate(pieces):
            if number and (gap or cut is not None):
                await asyncio.sleep(gap)
            await exchange.body(piece)
        await finish_as(exchange, end)

    return script


async def finish_as(exchange: Exchange, end: End) -> None:
    """Ends the answer of `exchange` in the way that `end` names."""
    if end == "finish":
        await exchange.finish()
    elif end == "fin":
        exchange.close()
    elif end == "reset":
        if exchange.sent:
            await asyncio.sleep(0.05)  # what was written must have left the queue
        exchange.reset()
    elif end == "hang":
        await exchange.hang()
    elif end == "half_chunk":
        await exchange.send(b"64\r\ndata: {")
        exchange.close()
    elif end == "bad_chunk":
        await exchange.send(b"ZZ\r\nnonsense\r\n")
        await exchange.hang()
    else:
        await exchange.send(b"\x00\xff\x13garbage\r\n\r\n")
        exchange.close()


def raw(data: bytes, end: End = "fin") -> Script:
    """Bytes as they are, whatever HTTP says, and an end."""

    async def script(exchange: Exchange) -> None:
        if data:
            await exchange.send(data)
        await finish_as(exchange, end)

    return script


def either(streamed: Script, whole: Script) -> Script:
    """`streamed` for requests with `stream: true`, `whole` for all others."""

    async def script(exchange: Exchange) -> None:
        await (streamed if exchange.request.json().get("stream") else whole)(exchange)

    return script


async def healthy(exchange: Exchange) -> None:
    """A good answer, streamed or not as was asked."""
    await either(stream(answer()), plain("Hello from upstream"))(exchange)


async def hang(exchange: Exchange) -> None:
    """Takes the request and never says a word."""
    await exchange.hang()
