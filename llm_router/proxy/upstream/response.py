"""An answer whose head has arrived, and the delivery of its body to a sink."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Protocol

from llm_router.proxy.upstream.coding import inflater_for
from llm_router.proxy.upstream.errors import ProtocolError, ResponseTooLarge, UpstreamError

MAX_BACKLOG_BYTES = 256 * 1024  # kept before a sink is attached; then reading pauses
MAX_TURN_BYTES = 1024 * 1024  # decompressed in one go; then other connections have their turn
MAX_DRAIN_BYTES = 64 * 1024  # thrown away after `release` for the sake of keeping the connection


class BodySink(Protocol):
    """Takes a body as it arrives."""

    def body_received(self, data: bytes) -> None:
        """Body bytes, as one socket read brought them or as they had to wait; at least one."""
        ...

    def body_ended(self, error: UpstreamError | None) -> None:
        """The body is over, whole if there is no error. Called exactly once, unless the answer was let go before."""
        ...


class Carrier(Protocol):
    """What a response needs of the connection that it arrives on.

    `push` is where that puts body bytes: in the steady state the sink's own method, with nothing between. It sets
    `heard` whenever there are some.
    """

    push: Callable[[bytes], None]
    heard: bool

    def pause(self) -> None:
        """Stops reading."""
        ...

    def resume(self) -> None:
        """Reads again."""
        ...

    def drain(self) -> None:
        """Reads on without a listener, to the end of the message or a bound, whichever is first."""
        ...

    def abort(self) -> None:
        """Closes at once."""
        ...


class UpstreamResponse:
    """Status, headers and body of one answer.

    Attributes: `status`; `headers` (lower-case names, repeated ones joined with `, `); `reused`, whether the connection
    had carried an answer before.

    Whoever holds it ends it: by taking the body to its end, by `release` or by `close`.
    """

    __slots__ = (
        "_backlog",
        "_backlog_size",
        "_carrier",
        "_error",
        "_heard",
        "_inflater",
        "_loop",
        "_over",
        "_paused",
        "_pumping",
        "_scheduled",
        "_sink",
        "headers",
        "reused",
        "status",
    )

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        carrier: Carrier,
        loop: asyncio.AbstractEventLoop,
        reused: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers
        self.reused = reused
        self._loop = loop
        self._carrier: Carrier | None = carrier
        coding = headers.get("content-encoding")
        self._inflater = inflater_for(coding) if coding is not None else None
        self._sink: BodySink | None = None
        self._backlog: list[bytes] = []
        self._backlog_size = 0
        self._paused = False
        self._pumping = False
        self._scheduled: asyncio.Handle | None = None
        self._over = False
        self._error: UpstreamError | None = None
        self._heard = 0.0
        carrier.heard = True
        carrier.push = self._keep

    def __repr__(self) -> str:
        state = "over" if self._over else "gone" if self._carrier is None else "paused" if self._paused else "open"
        return f"<UpstreamResponse {self.status} {state} backlog={self._backlog_size}>"

    @property
    def last_read(self) -> float:
        """The loop's time of the last body bytes (at first, of the head), found out by looking now and then.

        It is late by as much as nobody has looked: one flag a read costs less than one look at the clock.
        """
        carrier = self._carrier
        if carrier is not None and carrier.heard:
            carrier.heard = False
            self._heard = self._loop.time()
        return self._heard

    def attach(self, sink: BodySink) -> None:
        """Gives the body to `sink`: first what was kept, then read by read."""
        self._sink = sink
        self._pump()

    def take_whole(self, limit: int) -> bytes | None:
        """The body that came together with its head, as most do; None where it has to be `read`."""
        if not self._over or self._error is not None or self._inflater is not None or self._backlog_size > limit:
            return None
        body = b"".join(self._backlog)
        self._backlog.clear()
        return body

    async def read(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes. Raises ResponseTooLarge, ConnectionLost or ProtocolError.

        Being cancelled closes the connection.
        """
        whole = self.take_whole(limit)
        if whole is not None:
            return whole
        collector = _Collector(self, limit, self._loop.create_future())
        self.attach(collector)
        try:
            return await collector.whole
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            # A failed future, its error and this frame would hold one another, and what was collected, in a ring.
            del collector

    def pause(self) -> None:
        """Nothing to the sink until `resume`. Idempotent.

        Reading goes on until it brings something: most pauses are over by then, and cost the loop nothing.
        """
        self._paused = True
        if self._carrier is not None:
            self._carrier.push = self._keep

    def resume(self) -> None:
        """Reads on. Idempotent."""
        self._paused = False
        self._pump()

    def release(self) -> None:
        """The answer is over for us. No sink calls afterwards; the connection is kept if the message ends soon."""
        self._let_go()
        if self._carrier is not None:
            self._backlog_size = 0
            self._carrier.push = self._discard
            self._carrier.drain()

    def close(self) -> None:
        """Aborts the connection unless the message is complete. No sink calls afterwards. Idempotent."""
        self._let_go()
        if self._carrier is not None:
            carrier, self._carrier = self._carrier, None
            carrier.abort()

    def message_over(self, error: UpstreamError | None) -> None:
        """Called by the connection when it has no more for this answer; it is not touched any more."""
        self._carrier = None
        self._over = True
        self._heard = math.inf  # no silence to be had any more
        self._error = error
        if self._sink is not None:
            self._pump()

    # Details.

    def _let_go(self) -> None:
        self._sink = None
        self._backlog.clear()
        if self._carrier is not None:
            self._carrier.push = ignore
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None

    def _discard(self, data: bytes) -> None:
        self._backlog_size += len(data)
        if self._backlog_size > MAX_DRAIN_BYTES:
            self.close()

    def _keep(self, data: bytes) -> None:
        if self._inflater is None:
            self._backlog.append(data)
        else:
            self._inflater.feed(data)
        self._backlog_size += len(data)
        if self._sink is not None and not self._paused:
            self._pump()
        elif (self._paused or self._backlog_size >= MAX_BACKLOG_BYTES) and self._carrier is not None:
            self._carrier.pause()

    def _next_piece(self) -> bytes:
        if self._inflater is not None:
            return self._inflater.take()
        piece = b"".join(self._backlog)
        self._backlog.clear()
        return piece

    def _pump(self) -> None:
        """Delivers what was kept, as far as the sink takes it."""
        if self._pumping or self._scheduled is not None:
            return  # a sink that resumes from within its own call is inside the loop already
        self._pumping = True
        try:
            drained = self._deliver()
        except ProtocolError as error:
            self._fail(error)
            return
        finally:
            self._pumping = False
        if drained and self._sink is not None:
            self._all_delivered(self._sink)

    def _deliver(self) -> bool:
        """Whether everything that was kept has gone to the sink."""
        budget = MAX_TURN_BYTES
        while not self._paused and self._sink is not None:
            piece = self._next_piece()
            if not piece:
                if self._over and self._error is None and self._inflater is not None:
                    self._inflater.end()
                return True
            self._sink.body_received(piece)
            budget -= len(piece)
            if budget <= 0 and self._inflater is not None and self._sink is not None:
                self._scheduled = self._loop.call_soon(self._next_turn)
                if self._carrier is not None:
                    self._carrier.pause()
                return False
        return False

    def _next_turn(self) -> None:
        self._scheduled = None
        self._pump()

    def _all_delivered(self, sink: BodySink) -> None:
        self._backlog_size = 0
        if self._over:
            self._sink = None
            sink.body_ended(self._error)
            return
        if self._carrier is not None:
            if self._inflater is None:
                self._carrier.push = sink.body_received
            self._carrier.resume()

    def _fail(self, error: ProtocolError) -> None:
        sink = self._sink
        self.close()
        self._over = True
        if sink is not None:
            sink.body_ended(error)


def ignore(data: bytes) -> None:
    """Where bytes go that nobody waits for."""


class _Collector:
    """A sink that waits for the whole body."""

    __slots__ = ("_left", "_pieces", "_response", "whole")

    def __init__(self, response: UpstreamResponse, limit: int, whole: asyncio.Future[bytes]) -> None:
        self._response = response
        self._left = limit
        self._pieces: list[bytes] = []
        self.whole = whole

    def body_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._left -= len(data)
        if self._left < 0:
            self._response.close()
            self._settle(ResponseTooLarge("the answer is larger than allowed"))

    def body_ended(self, error: UpstreamError | None) -> None:
        self._settle(error)

    def _settle(self, error: UpstreamError | None) -> None:
        if self.whole.done():
            return
        if error is not None:
            self.whole.set_exception(error)
        else:
            self.whole.set_result(b"".join(self._pieces))
