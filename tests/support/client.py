"""A raw HTTP/1.1 client over a bare socket: keeps what came and when, and leaves or misbehaves at any point.

    answer = await ask(port, "POST", "/v1/chat/completions", {"model": "router", ...})
    answer.status, answer.body, answer.events, answer.ended

Nothing is read that was not asked for, so a client that never reads is one that never calls `Connection.answer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support import sse
from tests.support.upstream import RESET_ON_CLOSE

Ended = Literal["whole", "eof", "reset", "timeout", "open"]


@dataclass(slots=True)
class Answer:
    """One answer: `ended` is "whole" when its framing came to its end, "eof" or "reset" when it was broken off,
    "timeout" when the patience ran out, "open" while it goes on. `pieces` holds (seconds, bytes) of the body."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    raw: bytes = b""
    ended: Ended = "open"
    asked_at: float = 0.0
    head_at: float | None = None
    closed: bool = False

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def events(self) -> list[sse.Event]:
        """The events of the body as a strict reader sees them."""
        return sse.read(self.body)

    @property
    def chunks(self) -> list[Any]:
        """The JSON of all events that hold some."""
        found = []
        for event in self.events:
            with contextlib.suppress(ValueError):
                found.append(json.loads(event.data))
        return found

    @property
    def done(self) -> bool:
        """Whether the stream says `[DONE]`."""
        return any(event.data.startswith("[DONE]") for event in self.events)

    @property
    def text(self) -> str:
        """The words: of the stream's deltas, or of a whole completion."""
        if "text/event-stream" not in (self.header("content-type") or ""):
            return "".join(c["message"].get("content") or "" for c in self.json().get("choices", []))
        choices = [c for chunk in self.chunks if isinstance(chunk, dict) for c in chunk.get("choices") or []]
        return "".join((c.get("delta") or {}).get("content") or "" for c in choices)

    @property
    def finishes(self) -> list[str]:
        """All finish reasons of the stream."""
        choices = [c for chunk in self.chunks if isinstance(chunk, dict) for c in chunk.get("choices") or []]
        return [c["finish_reason"] for c in choices if c.get("finish_reason")]

    @property
    def errors(self) -> list[Any]:
        """The error objects: of the stream's events, or of an error answer."""
        if "text/event-stream" in (self.header("content-type") or ""):
            return [chunk["error"] for chunk in self.chunks if isinstance(chunk, dict) and chunk.get("error")]
        return [self.json()["error"]] if self.status >= 400 else []

    @property
    def error(self) -> Any:
        """The only error object; fails where there is none or more than one."""
        (one,) = self.errors
        return one


class Ears:
    """Tells a scripted upstream what the client has got: `await chat(until=ears)`, `await ears.heard(word)`."""

    def __init__(self) -> None:
        self.body = b""
        self._more = asyncio.Event()

    def __call__(self, answer: Answer) -> bool:
        """Takes note of an answer that grows; never enough."""
        self.body = answer.body
        self._more.set()
        return False

    async def heard(self, words: bytes) -> None:
        """Waits until the client has got `words`."""
        while words not in self.body:
            self._more.clear()
            await self._more.wait()


class Connection:
    """A client's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.at_end: Literal["", "eof", "reset"] = ""

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1", receive_buffer: int | None = None) -> Connection:
        """Connects; `receive_buffer` bounds what the kernel takes for us."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, data: bytes, patience: float = 20.0) -> bool:
        """Sends all of it; False where the peer closed meanwhile."""
        try:
            async with asyncio.timeout(patience):
                await asyncio.get_running_loop().sock_sendall(self.sock, data)
        except (ConnectionError, BrokenPipeError):
            return False
        return True

    async def receive(self, patience: float = 10.0) -> bytes:
        """What is there next; nothing at the end (see `at_end`). Raises TimeoutError."""
        if self.rest:
            data, self.rest = self.rest, b""
            return data
        deadline = time.monotonic() + patience
        try:
            while (data := self._received()) is None:
                await self._readable(max(0.0, deadline - time.monotonic()))
        except ConnectionError:
            self.at_end = "reset"
            return b""
        if not data:
            self.at_end = "eof"
        return data

    def _received(self) -> bytes | None:
        """What the kernel holds for us; None where that is nothing yet. Raises ConnectionError."""
        try:
            return self.sock.recv(65536)
        except BlockingIOError:
            return None

    async def _readable(self, patience: float) -> None:
        """Waits for bytes without taking any, so that a patience that ends just then loses none."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self.sock, ready.set)
        try:
            async with asyncio.timeout(patience):
                await ready.wait()
        finally:
            loop.remove_reader(self.sock)

    async def everything(self, patience: float = 10.0) -> bytes:
        """All bytes until the peer closes or `patience` seconds passed; `at_end` tells which."""
        deadline = time.monotonic() + patience
        parts = []
        with contextlib.suppress(TimeoutError):
            while data := await self.receive(max(0.001, deadline - time.monotonic())):
                parts.append(data)
        return b"".join(parts)

    async def answer(
        self, patience: float = 15.0, until: Callable[[Answer], bool] | None = None, head_only: bool = False
    ) -> Answer:
        """The next answer, whole, or as far as `until` wants it; interim answers (1xx) are skipped."""
        answer = Answer(asked_at=time.monotonic())
        reader = _read_answer(self, answer, time.monotonic() + patience, head_only)
        try:
            async for _ in reader:
                if until is not None and until(answer):
                    break
        except TimeoutError:
            answer.ended = "timeout"
        finally:
            await reader.aclose()
        return answer

    async def closed_within(self, patience: float) -> bool:
        """Whether the peer closes in time; bytes that come meanwhile are dropped."""
        await self.everything(patience)
        return bool(self.at_end)

    def reset(self) -> None:
        """Leaves with RST."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.sock.close()

    def shutdown(self) -> None:
        """Sends FIN and can still read."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leaves with FIN."""
        self.sock.close()


class _Source:
    """Bytes of a connection, taken by line or by size."""

    def __init__(self, connection: Connection, answer: Answer, deadline: float) -> None:
        self.connection, self.answer, self.deadline = connection, answer, deadline
        self.buffer = b""

    async def more(self) -> bool:
        data = await self.connection.receive(max(0.001, self.deadline - time.monotonic()))
        self.buffer += data
        self.answer.raw += data
        return bool(data)

    async def line(self, ending: bytes = b"\r\n") -> bytes | None:
        while ending not in self.buffer:
            if not await self.more():
                return None
        line, _, self.buffer = self.buffer.partition(ending)
        return line

    async def upto(self, size: int) -> bytes:
        if not self.buffer:
            await self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data


async def _read_answer(connection: Connection, answer: Answer, deadline: float, head_only: bool) -> AsyncIterator[None]:
    source = _Source(connection, answer, deadline)
    try:
        while not answer.status or 100 <= answer.status < 200:
            head = await source.line(b"\r\n\r\n")
            if head is None:
                return
            first, *rest = head.decode("latin-1").split("\r\n")
            answer.status = int(first.split(" ")[1])
            answer.headers = [(k, v.strip()) for k, _, v in (line.partition(":") for line in rest)]
        answer.head_at = time.monotonic()
        yield
        async for piece in _body(source, answer, head_only):
            answer.pieces.append((time.monotonic(), piece))
            answer.body += piece
            yield
    finally:
        connection.rest = source.buffer + connection.rest
        answer.closed = bool(connection.at_end)
        if answer.ended == "open" and connection.at_end:
            answer.ended = connection.at_end  # type: ignore[assignment]


async def _body(source: _Source, answer: Answer, head_only: bool) -> AsyncIterator[bytes]:
    if head_only or answer.status in (204, 304):
        answer.ended = "whole"
    elif "chunked" in (answer.header("transfer-encoding") or ""):
        while (line := await source.line()) is not None:
            left = int(line.partition(b";")[0], 16)
            if not left:
                if await source.line() is not None:
                    answer.ended = "whole"
                return
            while left:
                data = await source.upto(left)
                if not data:
                    return
                left -= len(data)
                yield data
            if await source.line() is None:
                return
    elif (length := answer.header("content-length")) is not None:
        left = int(length)
        while left:
            data = await source.upto(left)
            if not data:
                return
            left -= len(data)
            yield data
        answer.ended = "whole"
    else:
        while data := await source.upto(1 << 20):
            yield data
        if source.connection.at_end == "eof":
            answer.ended = "whole"


def request_bytes(
    method: str = "POST",
    path: str = "/v1/chat/completions",
    body: Any = None,
    headers: Mapping[str, str | None] | None = None,
    version: str = "1.1",
) -> bytes:
    """A request as bytes. A body that is no bytes is sent as JSON; a header set to None is left out."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    fields: dict[str, str | None] = {"Host": "127.0.0.1"}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    fields |= dict(headers or {})
    lines = [f"{method} {path} HTTP/{version}", *(f"{k}: {v}" for k, v in fields.items() if v is not None)]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + data


async def ask(
    port: int,
    method: str = "GET",
    path: str = "/health",
    body: Any = None,
    headers: Mapping[str, str | None] | None = None,
    patience: float = 15.0,
    until: Callable[[Answer], bool] | None = None,
    host: str = "127.0.0.1",
) -> Answer:
    """One request on a connection of its own, and its answer."""
    connection = await Connection.open(port, host)
    try:
        asked_at = time.monotonic()
        await connection.send(request_bytes(method, path, body, headers))
        answer = await connection.answer(patience, until, head_only=method == "HEAD")
        answer.asked_at = asked_at
        return answer
    finally:
        connection.close()


def chat_body(model: str = "router/ab", stream: bool | None = True, content: Any = "Say hello", **more: Any) -> Any:
    """The body of a chat request; `messages` in `more` replaces the one user message."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}]}
    if stream is not None:
        body["stream"] = stream
    return body | more


@functools.cache
def bomb(megabytes: int) -> bytes:
    """Gzip of that many MB of zeros, about a thousandth of the size; made once, since making it takes seconds."""
    packer = zlib.compressobj(1, wbits=31)
    zeros = bytes(1 << 20)
    return b"".join([*(packer.compress(zeros) for _ in range(megabytes)), packer.flush()])
