"""The other end of the wire: servers that run a script, sinks that write down what they are given."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping

from llm_router.proxy.upstream import UpstreamError, UpstreamResponse
from llm_router.wire.providers.base import UpstreamCall

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def raw_deflate(data: bytes) -> bytes:
    """Deflate without zlib's head, which some servers send under that name."""
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


class Request:
    """A request as the server read it."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head = head
        self.body = body
        lines = head.decode().split("\r\n")
        self.line = lines[0]
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)


class Peer:
    """The server's end of one connection. `closed` is set when the client has closed its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests: list[Request] = []
        self.sent = 0
        self.closed_at: float | None = None

    async def request(self) -> Request:
        """Reads the next request whole."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        request = Request(head[:-4], b"")
        request.body = await self.reader.readexactly(int(request.headers.get("content-length", 0)))
        self.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        """Writes and waits for room."""
        self.writer.write(data)
        await self.writer.drain()
        self.sent += len(data)

    async def gone(self) -> None:
        """Returns when the client has closed; `closed_at` says when."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await self.reader.read(65536):
                pass
        self.closed_at = time.monotonic()

    def close(self) -> None:
        """FIN."""
        self.writer.close()

    def reset(self) -> None:
        """RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def echo(peer: Peer) -> None:
    """Answers every request with its body."""
    while True:
        request = await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(request.body), request.body))


class Server:
    """Runs a script for each connection."""

    def __init__(self, script: Callable[[Peer], Awaitable[None]]) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.problems: list[BaseException] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._secure = False

    async def start(self, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Server:
        self._secure = tls is not None
        self._server = await asyncio.start_server(self._accept, host, 0, ssl=tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.host = f"[{host}]" if ":" in host else host
        return self

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            with contextlib.suppress(AttributeError):  # asyncio's transport, once it is gone
                peer.writer.transport.abort()
        await asyncio.sleep(0)
        assert not self.problems, self.problems

    def url(self, path: str = "/v1/chat/completions", host: str | None = None) -> str:
        return f"http{'s' * self._secure}://{host or self.host}:{self.port}{path}"

    def call(
        self, body: bytes = b"{}", headers: Mapping[str, str] | None = None, host: str | None = None
    ) -> UpstreamCall:
        return UpstreamCall(self.url(host=host), headers or {}, body)

    @property
    def requests(self) -> list[Request]:
        return [request for peer in self.peers for request in peer.requests]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._tasks.append(asyncio.get_running_loop().create_task(self._run(peer)))

    async def _run(self, peer: Peer) -> None:
        try:
            await self.script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the client left
        except Exception as error:
            self.problems.append(error)
        finally:
            peer.writer.close()


class ConnectProxy:
    """A proxy that leads every tunnel to one server. `heads` are the requests that it saw."""

    def __init__(self, target: Server, answer: bytes = ESTABLISHED) -> None:
        self.target = target
        self.answer = answer
        self.heads: list[bytes] = []

    async def script(self, peer: Peer) -> None:
        self.heads.append(await peer.reader.readuntil(b"\r\n\r\n"))
        for byte in self.answer:  # in small pieces, as a network may deliver them
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target.port)
        try:
            async with asyncio.TaskGroup() as pipes:
                pipes.create_task(_pipe(peer.reader, writer))
                pipes.create_task(_pipe(reader, peer.writer))
        finally:
            writer.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Sink:
    """Writes down what it is given. `over` is done at the end; `on_data` may act in the middle of a delivery."""

    def __init__(self, on_data: Callable[[bytes], None] | None = None) -> None:
        self.pieces: list[bytes] = []
        self.ends: list[UpstreamError | None] = []
        self.over = asyncio.Event()
        self.came = asyncio.Event()
        self._on_data = on_data

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    def body_received(self, data: bytes) -> None:
        assert data
        assert not self.ends
        self.pieces.append(data)
        self.came.set()
        if self._on_data is not None:
            self._on_data(data)

    def body_ended(self, error: UpstreamError | None) -> None:
        assert not self.ends, "told twice"
        self.ends.append(error)
        self.over.set()

    async def end(self) -> UpstreamError | None:
        """Waits for the end and gives its error."""
        async with asyncio.timeout(30):
            await self.over.wait()
        return self.ends[0]


async def collect(response: UpstreamResponse) -> bytes:
    """The whole body; raises what it ended with."""
    sink = Sink()
    response.attach(sink)
    error = await sink.end()
    if error is not None:
        raise error
    return sink.data


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Waits for something that the other side of a socket has to notice."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition may be anything
            await asyncio.sleep(0.002)


async def at_once(condition: Callable[[], object]) -> None:
    """Waits for something that must happen within 100 ms: fifty looks, which on a busy machine are further apart."""
    for _ in range(50):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not happen at once")


async def a_few_turns() -> None:
    """Lets what was sent arrive. The loop looks at its sockets in each turn, however late that is."""
    for _ in range(5):
        await asyncio.sleep(0.002)


@contextlib.contextmanager
def silent_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port where connecting neither succeeds nor fails: its queue is full, and Linux drops what comes then."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname()[:2])
        yield listener.getsockname()[1]


def sockets_of_this_process() -> int:
    """How many sockets are open."""
    return sum(link.startswith("socket:") for link in _descriptors())


def _descriptors() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/self/fd/{name}")


Serve = Callable[..., Awaitable[Server]]


async def whole_forever(peer: Peer) -> None:
    """Answers every request with the same whole answer."""
    while True:
        await peer.request()
        await peer.send(WHOLE)
