"""The HTTP server under the application: aiohttp's, with the limits and clocks that it lacks.

One coarse sweep watches all connections; a timer per connection or per read would cost more than it brings. What a
connection is doing can only be learned from attributes that aiohttp keeps to itself (`_waiter`, `_messages`,
`_request_in_progress`, `_reading_paused`, `_max_msg_queue_size`); the tests hold them fast, setup.cfg its version.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import Any, cast

from aiohttp import web
from aiohttp.hdrs import CONTENT_LENGTH
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from llm_router.errors import CLOSE, ApiError, shutting_down
from llm_router.proxy.outbox import Outbox
from llm_router.server.answers import error_answer, raw_answer
from llm_router.server.heads import KnownHead, ends_there, learn
from llm_router.server.limits import (
    BIG_BODY_BYTES,
    FAREWELL_S,
    KEEPALIVE_S,
    LINGER_BYTES,
    LINGER_S,
    MAX_HEAD_BYTES,
    MOST_HELD_BYTES,
    SPARE_DESCRIPTORS,
    bad_http,
    connection_limit,
    parser_words,
)
from llm_router.server.refusals import refusals
from llm_router.server.short_way import Direct, Plain
from llm_router.vanished import GONE_SECONDS, unheard_for

_EVICTION_LOOK = 64
QUIET_S = 0.1  # who has been quiet for less may have sent a request that was not read yet
_LESSONS = 4  # a client whose heads are never the same is not worth more of them

logger = logging.getLogger(__name__)


class BodyEnded(web.RequestPayloadError):
    """The connection gave up a request body that was still coming; `answer` is what its reader shall say."""

    def __init__(self, answer: ApiError) -> None:
        super().__init__(answer.message)
        self.answer = answer


class Connections(web.Server):
    """What the connections of one server have in common: how many they may be, and what they hold and know."""

    def __init__(self, handler: Any, direct: Direct | None, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self.direct = direct
        self.held_bytes = 0
        self.known_head: KnownHead | None = None  # the one that was learned last
        self.outbox = direct.outbox if direct is not None else Outbox()
        self._most = connection_limit()
        self.crowd = self._most + SPARE_DESCRIPTORS // 2  # with those who were refused and may not have read it yet

    def has_room_for(self, newcomer: Connection) -> bool:
        """Whether one more connection fits; the longest idle one of the oldest makes room if none does."""
        if len(self._connections) <= self._most:
            return True
        for connection in islice(self._connections, _EVICTION_LOOK):
            if not isinstance(connection, Connection) or connection is newcomer:
                continue
            if connection.idle and self._loop.time() - connection._last_data >= QUIET_S:
                connection.force_close()
                return True
        return False


class Connection(web.RequestHandler):
    """One client's connection; says when it has been waited for too long, and answers bad HTTP in JSON."""

    __slots__ = (
        "_body",
        "_head_bytes",
        "_head_since",
        "_held",
        "_idle_since",
        "_known",
        "_last_data",
        "_lessons",
        "_lingered",
        "_lost",
        "_missing",
        "_parsed_head",
        "_parser_empty",
        "_recognized",
        "_refused_at",
        "_short",
        "_started",
    )

    _manager: Connections | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # What aiohttp does here is not done: the listening socket passes its options on (`prepare_listener`), the
        # sweep is the clock, and there is nothing to run before there is a request.
        self.transport = cast(asyncio.Transport, transport)
        # a fresh connection owes us a head at once; an idle one does not
        self._head_since = self._last_data = self._loop.time()
        self._head_bytes = self._held = self._lingered = 0
        self._refused_at = self._idle_since = 0.0
        self._short = self._started = False
        self._parser_empty = True  # it surely holds no part of a head
        self._body: StreamReader = EMPTY_PAYLOAD  # the one that is still coming, if any is
        self._missing = 0  # bytes of a body that is not parsed
        self._lessons = _LESSONS
        self._parsed_head = b""  # of a message that came alone, and its head in one read
        self._recognized: Plain | None = None  # a request that was not parsed
        self._lost: asyncio.Future[None] | None = None  # for who waits until the connection is no more
        server = self._manager
        self._known = server.known_head if server is not None else None  # of the last plain request
        if server is not None:
            server.connection_made(self, self.transport)
            if not server.has_room_for(self):
                self.refuse(503, "This router has too many connections open; try again later", "too_many_connections")
                if len(server._connections) > server.crowd:
                    self.transport.close()  # those who run need the descriptors

    def connection_lost(self, exc: BaseException | None) -> None:
        waiter = self._waiter
        if self._short and waiter is not None and not waiter.done():
            # nothing is in progress: the loop of requests ends by itself, which is cheaper than to cancel it
            self._force_close = True
            self._task_handler = None
            waiter.set_result(None)
        super().connection_lost(exc)
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)

    async def start(self) -> None:
        """The requests of this connection, one after the other: by the short way up to the first that must not."""
        server = self._manager
        if server is not None and server.direct is not None:
            self._short = True
            await self._go_direct(server, server.direct)
            self._short = False
            self._known = None  # whoever reads messages from here on finds only what was parsed
        if not self._force_close:
            await super().start()

    async def _go_direct(self, server: Connections, direct: Direct) -> None:
        while not self._force_close:
            plain, self._recognized = self._recognized, None
            if plain is None:
                if not self._messages:
                    self._waiter = self._loop.create_future()
                    try:
                        await self._waiter
                    finally:
                        self._waiter = None
                    continue
                plain = self._take_parsed(direct)
                if plain is None:
                    return
            server.requests_count += 1
            self._request_in_progress = True
            try:
                keep = await direct.serve(self, *plain)
            except BaseException:
                self.force_close()
                raise
            finally:
                self._request_in_progress = False
            if keep and self._messages:
                await asyncio.sleep(0)  # others shall not wait for who asks without pause; what was answered leaves
            if keep and self._paused:
                # who does not read answers gets no more of them
                try:
                    await self._drain_helper()
                except ConnectionError:
                    return
            if not keep or self._close:
                self.force_close()
                return

    def _take_parsed(self, direct: Direct) -> Plain | None:
        """The next message, if it may come by the short way."""
        messages = self._messages
        if len(messages) >= self._max_msg_queue_size:
            return None  # reading is paused, and aiohttp's own loop resumes it
        message, payload = messages[0]
        if type(message) is not RawRequestMessage or (head := direct.reads(message)) is None:
            return None
        length = int(message.headers[CONTENT_LENGTH])
        identity = direct.admits(head, length)
        if identity is None:
            return None
        messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._parsed_head and self._lessons:
            self._lessons -= 1
            self._known = learn(self._parsed_head, length, head)
            if self._manager is not None and self._known is not None:
                self._manager.known_head = self._known
        self._parsed_head = b""
        return head, identity, payload

    def _recognize(self, known: KnownHead, data: bytes) -> bool:
        """Takes a request that begins as the last one did, without parsing it; only where none is under way."""
        waiter, server = self._waiter, self._manager
        busy = waiter.done() if waiter is not None else self._started
        if busy or not self._parser_empty or not self._body.is_eof() or (length := known.length_in(data)) is None:
            return False
        missing = known.size + length - len(data)
        if missing < 0 or server is None or server.direct is None:
            return False
        identity = server.direct.admits(known.plain, length)
        if identity is None:
            return False  # why not is told the long way
        body = self._begin_body(memoryview(data)[known.size :], missing) if missing else data[known.size :]
        self._recognized = known.plain, identity, body
        self._lessons = _LESSONS
        self._head_since = self._idle_since = 0.0
        if waiter is not None:
            waiter.set_result(None)
        else:
            self._begin()
        return True

    def _begin_body(self, part: memoryview, missing: int) -> StreamReader:
        body = self._body = StreamReader(self, BIG_BODY_BYTES, loop=self._loop)
        body.feed_data(part)  # type: ignore[arg-type] # whoever takes it joins it
        self._missing = missing
        self._last_data = self._loop.time()
        return body

    def _go_on_with_body(self, data: bytes) -> None:
        """More of a body that is not parsed; what comes behind it is a matter for the parser."""
        self._last_data = self._loop.time()
        part = data[: self._missing]
        self._missing -= len(part)
        self._body.feed_data(part)
        if not self._missing:
            self._body.feed_eof()
            if len(part) < len(data):
                self.data_received(data[len(part) :])

    def _begin(self) -> None:
        self._started = True
        self._task_handler = self._loop.create_task(self.start())

    def data_received(self, data: bytes) -> None:
        if self._refused_at:
            self._drop(data)
            return
        if self._missing:
            self._go_on_with_body(data)
            return
        known = self._known
        if known is not None and self._recognize(known, data):
            return
        self._last_data = self._loop.time()
        waiting, fed = len(self._messages), self._body.total_bytes
        alone = self._parser_empty and self.idle
        super().data_received(data)
        if len(self._messages) > waiting:
            self._parser_empty = len(self._messages) == waiting + 1
            self._note_message(data, alone)
        elif self.idle:
            self._parser_empty = False
            self._note_part_of_head(len(data))
        else:
            self._parser_empty = self._body.total_bytes == fed + len(data)
            if not (self._request_in_progress or self._messages or self._body.is_eof()):
                self._drop(data)

    def _note_message(self, data: bytes, alone: bool) -> None:
        """What counts of the last message that `data` completed; `alone` if it began the message that is next."""
        self._head_since = self._idle_since = 0.0
        self._head_bytes = self._lingered = 0
        message, body = self._messages[-1]
        if type(message) is RawRequestMessage:
            self._body = body
            head = data[: len(data) - body.total_bytes]
            self._parser_empty = self._parser_empty and ends_there(head)
            if alone and self._parser_empty:
                self._parsed_head = head
        elif not self._body.is_eof():
            # the framing broke inside a body: whoever reads it must hear of it, which aiohttp does not do
            self._body.set_exception(web.RequestPayloadError("the body's framing is broken"))
        if not self._started:
            self._begin()

    def _note_part_of_head(self, size: int) -> None:
        if not self._head_since:
            self._head_since = self._last_data
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self.refuse(431, f"The head of a request may have {MAX_HEAD_BYTES} bytes", "headers_too_large")

    def _drop(self, data: bytes) -> None:
        """Bytes that come after the answer: read, so that the client gets to reading it, but not for ever."""
        self._lingered += len(data)
        if self._lingered > LINGER_BYTES and self.transport is not None:
            self.transport.abort()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp calls this for every body that is read, paused or not; without a pause nothing is left to parse
        if self._reading_paused:
            self._last_data = self._loop.time()  # the silence so far was ours
            super().resume_reading(resume_parser)

    def hold(self, size: int) -> None:
        """Counts what a big body takes against what all connections may hold together. Raises ApiError (413, 503)."""
        if self._manager is not None:
            self._held += size
            self._manager.held_bytes += size
            if self._held > MOST_HELD_BYTES:
                message = "The request body has more values in it than fit into memory"
                raise ApiError(413, message, code="request_too_large", headers=CLOSE)
            if self._manager.held_bytes > MOST_HELD_BYTES:
                message = "Too many big requests are being read at the moment; try again"
                raise ApiError(503, message, "server_error", "too_busy", headers={**CLOSE, "Retry-After": "1"})

    def release(self, server: Connections) -> None:
        """Gives back what the request that has just ended held."""
        server.held_bytes -= self._held
        self._held = 0

    def check_clocks(self, now: float, limit: float) -> None:
        """Ends a head that has not come, or a body that has gone silent, `limit` seconds ago, and who rests too long.

        When a connection began to rest is noted here, a sweep late, rather than at every answer.
        """
        if self._refused_at:
            if now - self._refused_at > LINGER_S and self.transport is not None:
                self.transport.abort()
        elif self._head_since:
            if now - self._head_since > limit:
                if self._head_bytes:
                    self.refuse(408, f"No whole request head came within {limit:g} s", "request_timeout")
                else:
                    self.force_close()
        elif self.idle:
            if not self._idle_since:
                self._idle_since = now
            elif now - self._idle_since > KEEPALIVE_S:
                self.force_close()
        elif now - self._last_data > limit and not self._reading_paused and self._body_is_awaited():
            message = "The request body stopped coming (ROUTER_HEADER_TIMEOUT bounds the silence)"
            self._end_body(ApiError(408, message, code="request_timeout", headers=CLOSE))

    def check_client(self, now: float) -> None:
        """Closes the connection of a client that vanished before it had its answer: what that costs shall end."""
        transport = self.transport
        if transport is None or self.idle or now - self._last_data < GONE_SECONDS:
            return
        if unheard_for(transport.get_extra_info("socket")) > GONE_SECONDS:
            transport.abort()

    def refuse_unfinished(self) -> None:
        """The router drains: a request that is not whole yet is none that runs."""
        if self._body_is_awaited():
            self._end_body(shutting_down())

    def _body_is_awaited(self) -> bool:
        return not self._body.is_eof() and self._body.exception() is None

    def _end_body(self, answer: ApiError) -> None:
        self._body.set_exception(BodyEnded(answer))

    def refuse(self, status: int, message: str, code: str) -> None:
        """Answers outside any request and takes no other."""
        error = ApiError(status, message, "invalid_request_error" if status < 500 else "server_error", code)
        if self._manager is not None:
            self._manager.outbox.flush()
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(raw_answer(error))
            refusals.note(error, transport)
        self._linger()

    def _linger(self) -> None:
        """Ends our side of the connection; what the client still sends is read and dropped for a while.

        Closing at once would reset the connection, and the client would never see the answer.
        """
        self._refused_at = self._loop.time()
        transport, self.transport = self.transport, None  # aiohttp closes what it can reach
        super().force_close()
        self.transport = transport
        if transport is not None and not transport.is_closing():
            transport.write_eof()
            if not transport.is_reading():
                transport.resume_reading()

    def force_close(self) -> None:
        """Closes at once, unless the client is in the middle of a body that was ended."""
        if self._manager is not None:
            self._manager.outbox.flush()
        if self._refused_at or not isinstance(self._body.exception(), BodyEnded):
            super().force_close()
        else:
            self._linger()

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        waiter = self._waiter
        return not waiter.done() if waiter is not None else not self._started

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Lets the request in progress end, and its client read, each for `timeout` seconds; takes no other."""
        task = self._task_handler
        self.refuse_unfinished()
        self.close()
        if task is not None and not task.done():
            await asyncio.wait({task}, timeout=timeout)
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=1.0)
        self.force_close()
        if self._manager is not None:  # its client has not read all, or it lingers
            if self.transport is not None:
                timeout = FAREWELL_S if timeout is None else min(timeout, FAREWELL_S)
            self._lost = self._loop.create_future()
            await asyncio.wait({self._lost}, timeout=timeout)
            self.force_close()

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """For what aiohttp did not expect; a body that ended badly is no such thing, and its reader was told."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """For what aiohttp refuses before there is a request: bad HTTP, mostly."""
        if isinstance(exc, HttpProcessingError):
            logger.debug("malformed request from %s: %s", request.remote, parser_words(exc))
            self.refuse(*bad_http(exc))
            raise ConnectionResetError("refused")
        if not isinstance(exc, ConnectionError):
            logger.error("unexpected error in the server", exc_info=exc)
            if request.writer.output_size == 0:
                return error_answer(ApiError(500, "Internal error", "server_error", "internal", headers=CLOSE))
        raise ConnectionResetError("the answer had begun, or there is nobody to read it")
