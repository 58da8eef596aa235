"""The relay: one upstream answer on its way to one client.

Before the commit point it feeds the gate and holds; after it, each read goes to the client inside the upstream's data
callback, as whole events, without waking a task. The awaiting handler is only woken to drain a slow client and at the
end. `sweep` watches the idle clocks of all relays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Protocol

import orjson

from llm_router.errors import Failure, FailureKind
from llm_router.proxy.gate import HOLD, REJECT, Gate, Verdict
from llm_router.proxy.screen import finished_choices, is_plain, screen
from llm_router.proxy.tap import Tap
from llm_router.proxy.upstream import ConnectionLost, UpstreamError, UpstreamResponse
from llm_router.wire.chat import TooDeep
from llm_router.wire.error_objects import bare_error_event, upstream_error
from llm_router.wire.providers.base import StreamTranslator
from llm_router.wire.providers.errors import request_trouble
from llm_router.wire.sse import DONE_EVENT, EventSplitter, EventTooLarge, data_event, unfinished_event
from llm_router.wire.usage import Usage


class ClientStream(Protocol):
    """The client's side of a streamed answer, after its head was sent."""

    @property
    def full(self) -> bool:
        """Whether the client has not read enough yet."""
        ...

    def write(self, data: bytes) -> bool:
        """Sends whole events and tells whether that was enough (`full`); never blocks. Nothing once the client left."""
        ...

    def end(self, data: bytes) -> None:
        """Sends the last events, if there are any left, and ends the body cleanly."""
        ...

    async def drain(self) -> None:
        """Returns when the client has read enough to take more."""
        ...


class End(Enum):
    """How a relayed answer ended."""

    COMPLETED = "completed"
    CUT = "cut"


COMPLETED, CUT = End


class Relay:
    """The sink of one streamed answer: holds, commits, passes on, ends.

    `verdict` is awaited before the commit point, `run` after it. `failure` says why it was rejected or cut.
    """

    __slots__ = (
        "_blocked",
        "_choices",
        "_client",
        "_cut",
        "_loop",
        "_mask",
        "_pending",
        "_resumed",
        "_splitter",
        "_tail",
        "_translator",
        "_verdict",
        "_wake",
        "_write",
        "end",
        "failure",
        "gate",
        "idle",
        "look_at",
        "response",
        "tap",
        "whole",
    )

    def __init__(
        self,
        response: UpstreamResponse,
        translator: StreamTranslator | None,
        tap: Tap,
        *,
        choices: int,
        idle: float,
        mask: Callable[[str], str],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self.response = response
        self.gate = Gate()
        self.failure: Failure | None = None
        self.end: End | None = None
        self.tap = tap
        self.idle = idle
        self.look_at = 0.0  # the loop's clock; when the sweep looks at it again
        self.whole = False  # the upstream ended the message cleanly
        self._translator = translator
        self._splitter = EventSplitter()
        self._cut = self._splitter.feed if translator is None else translator.feed
        self._write: Callable[[bytes], bool] | None = None  # in the steady state: nothing to translate, client open
        self._choices = choices
        self._mask = mask
        self._client: ClientStream | None = None
        self._pending: list[bytes] = []
        self._tail = b""  # what of the body was no event
        self._verdict: Verdict | None = None
        self._resumed = 0.0
        self._blocked = False
        self._wake: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Relay verdict={self._verdict} end={self.end} {self.tap!r}>"

    @property
    def usage(self) -> Usage | None:
        """What the provider reported, where its stream had to be translated; else the bytes tell."""
        return self._translator.usage if self._translator is not None else None

    # --- what the upstream connection calls ------------------------------------------------------------------------

    def body_received(self, data: bytes) -> None:
        """Bytes of the answer, as one read brought them."""
        if (write := self._write) is not None and not self._splitter.waiting and is_plain(data):
            tap = self.tap
            if (room := tap.room - len(data)) >= 0:
                tap.room = room
                tap.blocks.append(data)
            else:
                tap.keep(data)
            if write(data):
                self._block()
        elif self.end is None:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """The same where they are not plain events for an open client."""
        try:
            block = self._cut(data)
        except (EventTooLarge, TooDeep) as error:
            self._fail(_untranslated(error))
            return
        if not block:
            return
        if self._client is None:
            self._hold(block)
        elif block is data and self._write is not None:
            self._screen(block)  # it is not plain, as was seen above
        else:
            self._pass(block)

    def body_ended(self, error: UpstreamError | None) -> None:
        """The message is over, or broke off."""
        if self.end is not None:
            return
        if error is not None:
            kind = FailureKind.CONNECTION_LOST if isinstance(error, ConnectionLost) else FailureKind.PROTOCOL_ERROR
            self._fail(Failure(kind, str(error)))
            return
        try:
            rest = self._translator.close() if self._translator is not None else self._last_event()
        except TooDeep as deep:
            self._fail(_untranslated(deep))
            return
        if rest:
            if self._client is not None:
                self._pass(rest)
            else:
                self._hold(rest)
        if self.end is None:
            self.whole = True
            if self._client is not None:
                self._finish()
            elif self._verdict is None:
                self._decide(REJECT)

    def _last_event(self) -> bytes:
        rest = self._splitter.rest()
        event = unfinished_event(rest) or bare_error_event(rest)
        if not event and self._client is None:
            self._tail = rest
        return event

    # --- before the commit point -----------------------------------------------------------------------------------

    def unsent(self) -> list[bytes]:
        """What came before the client's side was open."""
        return [*self.gate.held, *self._pending]

    async def verdict(self) -> Verdict:
        """COMMIT or REJECT, as soon as it is known."""
        while self._verdict is None:
            await self._next_wake()
        return self._verdict

    def unlabelled(self) -> bytes:
        """The body of a rejected answer that came to its end without one event, and begins like JSON; else nothing.

        Gateways exist that send a whole completion as `text/plain`, or as the stream that was asked for.
        """
        if not self.whole or self.gate.chunks:
            return b""
        body = b"".join([*self.gate.held, self._tail])
        return body if body.lstrip().startswith(b"{") else b""

    def _hold(self, block: bytes) -> None:
        if self._verdict is not None:
            self._pending.append(block)
            return
        verdict = self.gate.feed(block)
        if verdict is not HOLD:
            self._pending.append(block)
            self._decide(verdict)

    def _decide(self, verdict: Verdict) -> None:
        self._verdict = verdict
        if verdict is REJECT and self.failure is None:
            self.failure = self.gate.failure()
        # Until the client's side is open nothing more needs to come in.
        self.response.pause()
        self._wake_up()

    # --- after it --------------------------------------------------------------------------------------------------

    def open(self, client: ClientStream) -> None:
        """The client has the head of the answer: what was held goes out now, the rest as it comes."""
        self._client = client
        first = b"".join(self.unsent())
        if self.gate.read_all and len(self._pending) == 1:
            self._send(first)
        elif first:
            self._pass(first)
        self._pending.clear()
        if self.end is None:
            if self._translator is None:
                self._write = client.write
            if self.failure is not None:
                self._cut_off(self.failure)
            elif self.whole:
                self._finish()
            elif not self._blocked:
                self.response.resume()

    def pass_on_empty(self, client: ClientStream) -> None:
        """Sends a rejected but well-formed empty answer as it came; `[DONE]` behind it as behind any other."""
        self._client = client
        whole = screen(b"".join(self.unsent())).passed  # nothing behind a [DONE]
        if not self.gate.ended and finished_choices([whole], self._choices):
            whole += DONE_EVENT
        self.tap.keep(whole)
        client.end(whole)
        self.end = COMPLETED
        self.response.release()

    async def run(self) -> End:
        """Until the answer has ended; drains the client where it is slower than the upstream."""
        client = self._client
        assert client is not None
        while self.end is None:
            if self._blocked:
                self.response.pause()
                await client.drain()
                self._blocked = False
                self._resumed = self._loop.time()
                self.response.resume()
            else:
                await self._next_wake()
        return self.end

    def _pass(self, block: bytes) -> None:
        if is_plain(block):
            self._send(block)
        else:
            self._screen(block)

    def _send(self, block: bytes) -> None:
        client = self._client
        assert client is not None
        self.tap.keep(block)
        if client.write(block):
            self._block()

    def _block(self) -> None:
        """The client has enough for now; until `run` reads on, the upstream's silence is our doing."""
        self._blocked = True
        self.response.pause()
        self._wake_up()

    def _screen(self, block: bytes) -> None:
        client = self._client
        assert client is not None
        screened = screen(block)
        if screened.passed:
            self.tap.keep(screened.passed)
        if screened.done:
            self._close(COMPLETED, screened.passed)
            return
        full = bool(screened.passed) and client.write(screened.passed)
        if screened.error is not None:
            self._cut_off(upstream_error(screened.error))
        elif full:
            self._block()

    def _finish(self) -> None:
        """A clean end without `[DONE]`: whole if every choice has finished, else cut."""
        assert self._client is not None
        if finished_choices(self.tap.last_blocks(), self._choices):
            self._close(COMPLETED, DONE_EVENT)
        else:
            message = "the provider's stream ended without a finish_reason: the answer is not whole"
            self._cut_off(Failure(FailureKind.TRUNCATED, message))

    def _fail(self, failure: Failure) -> None:
        if self._client is not None:
            self._cut_off(failure)
        elif self._verdict is None:
            self.failure = failure
            self._decide(REJECT)
        else:
            self.failure = self.failure or failure

    def _cut_off(self, failure: Failure) -> None:
        assert self._client is not None
        self.failure = failure
        self._close(CUT, error_event(failure, self._mask))

    def _close(self, end: End, last: bytes) -> None:
        """The end of the answer; `last` leaves together with the end of the body."""
        assert self._client is not None
        self.end = end
        self._write = None
        self._client.end(last)
        if end is COMPLETED:
            self.response.release()
        else:
            self.response.close()
        self._wake_up()

    def abandon(self) -> None:
        """Stops the upstream at once, if it still answers: the client left, or another candidate was better."""
        self._write = None
        if self.end is not COMPLETED:  # else the message may be about to end, and then the connection is kept
            self.end = CUT
            self.response.close()

    def stop(self, failure: Failure) -> None:
        """Ends an answer that still runs with an error event: this router will not live to see its own end."""
        if self._client is not None and self.end is None:
            self._cut_off(failure)

    def check_idle(self, now: float) -> None:
        """Called by the sweep with the loop's clock: cuts a stream that has been silent for too long."""
        if self._client is None or self.end is not None or self._blocked or self._client.full:
            return
        # The clock stands still while the client is not reading.
        if now - max(self.response.last_read, self._resumed) > self.idle:
            message = f"the provider's stream timed out: nothing came for {self.idle:g} seconds"
            self._cut_off(Failure(FailureKind.IDLE_TIMEOUT, message))

    def _next_wake(self) -> asyncio.Future[None]:
        wake = self._wake = self._loop.create_future()
        return wake

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def _untranslated(error: EventTooLarge | TooDeep) -> Failure:
    kind = FailureKind.RESPONSE_TOO_LARGE if isinstance(error, EventTooLarge) else FailureKind.INVALID_RESPONSE
    return Failure(kind, str(error))


# After the commit point a client is told one of these codes.
_CODES = {
    FailureKind.IDLE_TIMEOUT: "upstream_idle_timeout",
    FailureKind.TRUNCATED: "upstream_truncated",
    FailureKind.CONNECTION_LOST: "upstream_truncated",
    FailureKind.PROTOCOL_ERROR: "upstream_truncated",
    FailureKind.SHUTTING_DOWN: "upstream_truncated",
}


def error_event(failure: Failure, mask: Callable[[str], str]) -> bytes:
    """The one event that ends a cut answer, in OpenAI's shape.

    Agents read in the type, or in the words that our own failures have, whether to repeat the turn.
    """
    code = _CODES.get(failure.kind, "upstream_error")
    hopeless = failure.kind is FailureKind.UPSTREAM_ERROR and request_trouble(failure) is not None
    kind = "invalid_request_error" if hopeless else "server_error"
    error = {"message": mask(failure.message), "type": kind, "param": None, "code": code}
    return data_event(orjson.dumps({"error": error}))
