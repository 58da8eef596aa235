"""One connection to an upstream: the asyncio end of the HTTP machine."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from llm_router.proxy.upstream.errors import ConnectionLost, UpstreamError
from llm_router.proxy.upstream.http1 import ResponseReader, idle_limit
from llm_router.proxy.upstream.request import Origin
from llm_router.proxy.upstream.response import UpstreamResponse

DRAIN_SECONDS = 1.0
READ_BYTES = 256 * 1024
# Up to here a copy costs less than a system call with two buffers.
JOIN_BYTES = 32 * 1024


class Keeper(Protocol):
    """Who keeps connections between answers."""

    def connection_idle(self, connection: Connection) -> None:
        """The answer is complete and another request may follow."""
        ...

    def connection_gone(self, connection: Connection) -> None:
        """The connection is closed or about to be."""
        ...


class Connection(asyncio.BufferedProtocol):
    """Carries one request at a time. Made by `dial`, which calls `connection_made` once it is ready for HTTP.

    `buffer` may be shared with all connections of the loop: it holds one read, only while that is being parsed. Without
    it a loop allocates 256 KiB for each read, however small; with TLS that doubled the CPU time of a chunk.
    """

    def __init__(self, origin: Origin, keeper: Keeper, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self.idle_limit: float | None = None  # seconds, as the server announced it
        self._keeper = keeper
        self._buffer = buffer
        self._loop = loop
        self._time = loop.time
        self._transport: asyncio.Transport | None = None
        self._answers = 0
        self._reader: ResponseReader | None = None  # while a request is under way
        self._waiter: asyncio.Future[UpstreamResponse] | None = None  # until the head is in
        self._response: UpstreamResponse | None = None  # from then to the end of the message
        self._reading = True
        self._drain_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        if self.closed:
            state = "closed"
        elif self._reader is None:
            state = "idle"
        else:
            state = "head" if self._waiter is not None else "body"
        return f"<Connection {self.origin.authority} {state} answers={self._answers}>"

    @property
    def closed(self) -> bool:
        """Whether no request can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def request(self, head: bytes, body: bytes) -> asyncio.Future[UpstreamResponse]:
        """Sends a request; the future has the answer, as soon as its head is in, or a typed error.

        Whoever gives the future up calls `abort`.
        """
        assert self._reader is None
        waiter = self._loop.create_future()
        transport = self._transport
        if transport is None or transport.is_closing():
            waiter.set_exception(ConnectionLost("upstream connection closed without an answer"))
            return waiter
        self._waiter = waiter
        self._reader = ResponseReader()
        if len(body) > JOIN_BYTES:
            transport.writelines((head, body))  # no copy of a large body where the loop can help it
        else:
            transport.write(head + body)
        return waiter

    def abort(self) -> None:
        """Closes at once; nobody hears of this answer any more."""
        self._forget()
        if self._transport is not None:
            self._transport.abort()
        self._keeper.connection_gone(self)

    def pause(self) -> None:
        """Stops reading."""
        if self._reading and not self.closed:
            self._reading = False
            cast(asyncio.Transport, self._transport).pause_reading()

    def resume(self) -> None:
        """Reads again."""
        if not self._reading and not self.closed:
            self._reading = True
            cast(asyncio.Transport, self._transport).resume_reading()

    def drain(self) -> None:
        """Gives the message a short while to end, so that the connection may be kept."""
        self.resume()
        if self._reader is not None and not self._reader.done and self._drain_timer is None:
            self._drain_timer = self._loop.call_later(DRAIN_SECONDS, self.abort)

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        reader = self._reader
        if reader is None:
            self.abort()  # nobody asked: kept, these bytes would answer the next request
            return
        body = reader.feed(self._buffer[:nbytes])
        if self._waiter is not None:
            self._head_arrived(reader)
        response = self._response
        if body and response is not None:
            response.last_read = self._time()
            response.push(body)
        if reader.done and self._reader is reader:
            self._message_over(reader)

    def eof_received(self) -> None:
        reader = self._reader
        if reader is not None:
            reader.feed_eof()
            self._message_over(reader)
        self._keeper.connection_gone(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None  # first of all: asyncio trips over an abort from inside this call
        reader = self._reader
        if reader is not None:
            reader.lost()
            self._message_over(reader)
        self._keeper.connection_gone(self)

    # Details.

    def _head_arrived(self, reader: ResponseReader) -> None:
        if reader.head is None:
            return
        waiter, self._waiter = self._waiter, None
        assert waiter is not None
        if waiter.done():
            self.abort()  # given up a moment ago
            return
        self._response = UpstreamResponse(reader.head, self, self._loop, reused=self._answers > 0)
        waiter.set_result(self._response)

    def _message_over(self, reader: ResponseReader) -> None:
        waiter, response = self._waiter, self._response
        self._forget()
        self._answers += 1
        if reader.reusable and self._is_quiet():
            self.resume()
            self.idle_since = self._time()
            if response is not None:
                self.idle_limit = idle_limit(response.headers)
            self._keeper.connection_idle(self)
        else:
            self.abort()
        if response is not None:
            response.message_over(reader.error)
        elif waiter is not None and not waiter.done():
            waiter.set_exception(cast(UpstreamError, reader.error))

    def _is_quiet(self) -> bool:
        """An answer may come before the request was sent whole; then the rest of it is still on its way."""
        return not self.closed and cast(asyncio.Transport, self._transport).get_write_buffer_size() == 0

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = self._waiter = self._response = None
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
