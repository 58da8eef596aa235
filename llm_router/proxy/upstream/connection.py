"""One connection to an upstream: the HTTP machine, fed by a transport."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol, cast

from llm_router.proxy.outbox import Outbox
from llm_router.proxy.upstream.errors import ConnectionLost, UpstreamError
from llm_router.proxy.upstream.http1 import IDLE_SECONDS, ResponseReader, idle_seconds
from llm_router.proxy.upstream.request import Origin, head_end
from llm_router.proxy.upstream.response import UpstreamResponse, ignore
from llm_router.vanished import Socket, unheard_for, watch

DRAIN_SECONDS = 1.0
READ_BYTES = 256 * 1024
# More is waiting behind such a read, and uvloop would take up to 32 of them, 8 MB, before anybody else has a turn.
FULL_READ_BYTES = READ_BYTES // 2
# To have the kernel watch a peer costs as much as a tenth of connecting, and most answers are whole by then.
WATCH_AFTER_SECONDS = 10.0
# For so long a request may go unacknowledged: sent again four times by then, on most networks. A kept connection is
# likelier to lead nowhere, and to replace it costs less.
UNHEARD_SECONDS = 10.0
STALE_SECONDS = 3.0
# Up to here a copy costs less than a system call with several buffers.
JOIN_BYTES = 32 * 1024


class Holder(Protocol):
    """Who keeps connections between answers."""

    def connection_idle(self, connection: Connection) -> None:
        """The answer is complete and another request may follow."""
        ...

    def connection_gone(self, connection: Connection) -> None:
        """The connection is closed or about to be."""
        ...


class Connection(ResponseReader, asyncio.BaseProtocol):
    """Carries one request at a time. Made by `dial`, which calls `connection_made` once it is ready for HTTP.

    It is the reader of its answers, so that a piece of a stream touches one object less on its way; hundreds of them
    do not stay in the processor's cache.
    """

    __slots__ = (
        "_answers",
        "_asked",
        "_drain_timer",
        "_holder",
        "_loop",
        "_outbox",
        "_reading",
        "_response",
        "_resting",
        "_transport",
        "_waiter",
        "heard",
        "idle_until",
        "origin",
        "push",
        "watch_from",
    )

    def __init__(self, origin: Origin, holder: Holder, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        super().__init__()
        self.origin = origin
        self.idle_until = 0.0
        self.watch_from = math.inf  # when `watch` is due
        self.heard = False  # body bytes came since the response looked last
        self.push: Callable[[bytes], None] = ignore  # where body bytes go; the response decides
        self._holder = holder
        self._loop = loop
        self._outbox = outbox
        self._transport: asyncio.Transport | None = None
        self._answers = 0
        self._asked = False  # a request is under way
        self._waiter: asyncio.Future[UpstreamResponse] | None = None  # until the head is in
        self._response: UpstreamResponse | None = None  # from then to the end of the message
        self._reading = True
        self._resting = False  # not reading until the loop's next turn
        self._drain_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        if self.closed:
            state = "closed"
        elif not self._asked:
            state = "idle"
        else:
            state = "head" if self._waiter is not None else "body"
        return f"<{type(self).__name__} {self.origin.authority} {state} answers={self._answers}>"

    @property
    def closed(self) -> bool:
        """Whether no request can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def request(self, start: bytes, body: bytes) -> asyncio.Future[UpstreamResponse]:
        """Sends a request, `start` being its head but for the length of its body.

        The future has the answer, as soon as its head is in, or a typed error. Whoever gives it up calls `abort`.
        """
        assert not self._asked
        waiter = self._loop.create_future()
        transport = self._transport
        if transport is None or transport.is_closing():
            waiter.set_exception(ConnectionLost("upstream connection closed without an answer"))
            return waiter
        if self.done:
            self.again()
        self._asked = True
        self._waiter = waiter
        parts = (start, head_end(len(body)), body)
        if len(body) > JOIN_BYTES:
            transport.writelines(parts)  # no copy of a large body where the loop can help it
        else:
            self._outbox.put(transport, b"".join(parts))
        return waiter

    def abort(self) -> None:
        """Closes at once; nobody hears of this answer any more."""
        self._forget()
        self.retire()
        if self._transport is not None:
            self._transport.abort()
        self._holder.connection_gone(self)

    def pause(self) -> None:
        """Stops reading."""
        self._resting = False
        if self._reading and not self.closed:
            self._reading = False
            cast(asyncio.Transport, self._transport).pause_reading()

    def resume(self) -> None:
        """Reads again."""
        if not self._reading and not self._resting and not self.closed:
            self._reading = True
            cast(asyncio.Transport, self._transport).resume_reading()

    def drain(self) -> None:
        """Gives the message a short while to end, so that the connection may be kept."""
        self.resume()
        if self._asked and not self.done and self._drain_timer is None:
            self._drain_timer = self._loop.call_later(DRAIN_SECONDS, self.abort)

    def watch(self) -> None:
        """Has the kernel ask a silent peer now and then whether it is still there: one that vanished says nothing."""
        self.watch_from = math.inf
        if (sock := self._socket()) is not None:
            watch(sock)

    def vanished(self) -> bool:
        """Whether it was closed because its peer does not even acknowledge the request; who waits hears that it is."""
        if self._waiter is None or (sock := self._socket()) is None:
            return False
        if unheard_for(sock) < (STALE_SECONDS if self._answers else UNHEARD_SECONDS):
            return False
        cast(asyncio.Transport, self._transport).abort()
        return True

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.watch_from = self._loop.time() + WATCH_AFTER_SECONDS

    def data_received(self, data: bytes | memoryview) -> None:
        if not self._asked:
            self.abort()  # nobody asked: kept, these bytes would answer the next request
            return
        if len(data) >= FULL_READ_BYTES and self._reading:
            self._rest()
        body = self.feed(data)
        if self._waiter is not None and self.status:
            self._head_arrived(self._waiter)
        if body:
            self.heard = True
            push = self.push  # calling it through the attribute takes longer
            push(body)
        if self.done and self._asked:
            self._message_over()

    def eof_received(self) -> None:
        if self._asked:
            self.feed_eof()
            self._message_over()
        self._holder.connection_gone(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None  # first of all: asyncio trips over an abort from inside this call
        if self._asked:
            self.lost()
            self._message_over()
        self.retire()
        self._holder.connection_gone(self)

    # Details.

    def _socket(self) -> Socket | None:
        return None if self._transport is None else self._transport.get_extra_info("socket")

    def _rest(self) -> None:
        """Lets everybody else have a turn before the next read, however much a provider sends."""
        self.pause()
        self._resting = True
        self._loop.call_soon(self._rested)

    def _rested(self) -> None:
        if self._resting:
            self._resting = False
            self.resume()

    def _head_arrived(self, waiter: asyncio.Future[UpstreamResponse]) -> None:
        self._waiter = None
        if waiter.done():
            self.abort()  # given up a moment ago
            return
        self._response = UpstreamResponse(self.status, self.headers, self, self._loop, self._answers > 0)
        waiter.set_result(self._response)

    def _message_over(self) -> None:
        waiter, response = self._waiter, self._response
        self._forget()
        self._answers += 1
        if self.reusable and self._is_quiet():
            if not self._reading:
                self.resume()
            said = self.headers.get("keep-alive")
            self.idle_until = self._loop.time() + (IDLE_SECONDS if said is None else idle_seconds(said))
            self._holder.connection_idle(self)
        else:
            self.abort()
        if response is not None:
            response.message_over(self.error)
        elif waiter is not None and not waiter.done():
            waiter.set_exception(cast(UpstreamError, self.error))

    def _is_quiet(self) -> bool:
        """An answer may come before the request was sent whole; then the rest of it is still on its way."""
        return self._transport is not None and self._transport.get_write_buffer_size() == 0

    def _forget(self) -> None:
        self._asked = False
        self._waiter = self._response = None
        self.push = ignore
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None


class BufferedConnection(Connection, asyncio.BufferedProtocol):
    """For TLS, which reads into a buffer of ours: without it 256 KiB are allocated for each read, however small.

    `buffer` may be shared with all connections of the loop: it holds one read, only while that is being parsed.
    """

    __slots__ = ("_buffer",)

    def __init__(
        self, origin: Origin, holder: Holder, loop: asyncio.AbstractEventLoop, outbox: Outbox, buffer: memoryview
    ) -> None:
        super().__init__(origin, holder, loop, outbox)
        self._buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self._buffer[:nbytes])
