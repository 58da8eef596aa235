"""The chat route: reads a request, hands it to the dispatcher, and sends the answer.

Plain requests come by the short way (`DirectChat`): parsed by aiohttp's parser, but past its application. All others
(browsers, HTTP 1.0, `Expect`, large or chunked bodies, mistakes) come as an aiohttp handler. Both end in one place.
"""

from __future__ import annotations

import logging
import math

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import RawRequestMessage
from multidict import istr

from llm_router.config.settings import switch
from llm_router.config.values import Snapshot
from llm_router.errors import ApiError, shutting_down
from llm_router.proxy.dispatch import Router
from llm_router.proxy.exchange import Caller
from llm_router.server.answers import (
    ADMITTED,
    CHAT_PATHS,
    EXTRA_HEADERS,
    UNDECIDED,
    X_REQUEST_ID,
    internal_error,
    json_answer,
    request_id,
    sane_id,
)
from llm_router.server.app_keys import ROUTER
from llm_router.server.bodies import await_whole, read_body, whole_body
from llm_router.server.connections import Connection
from llm_router.server.guard import Guard, client_of
from llm_router.server.heads import PlainHead
from llm_router.server.limits import BIG_BODY_BYTES
from llm_router.server.refusals import refusals
from llm_router.server.rules import Identity
from llm_router.server.sending import Sender
from llm_router.server.short_way import Body
from llm_router.wire.chat import parse_chat

__all__ = ["CHAT_PATHS", "DirectChat", "caller_in", "chat"]

logger = logging.getLogger(__name__)


class Sent(web.StreamResponse):
    """Stands for an answer that was written past aiohttp."""

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self._eof_sent = True
        self._keep_alive = sender.keep_alive


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions and /chat/completions."""
    try:
        return await _chat(request)
    except ApiError as error:
        error.headers = {**UNDECIDED, **error.headers}
        raise


async def _chat(request: web.Request) -> web.StreamResponse:
    router = request.app[ROUTER]
    if router.draining:
        raise shutting_down()
    snapshot = router.snapshot
    parsed = parse_chat(await read_body(request, snapshot.max_body_bytes))
    caller = caller_in(request)
    if is_dry_run(request.headers.get(_DRY_RUN, "")):
        explained = router.explain(parsed, caller)
        decided = {f"x-router-{name}": str(explained[name]) for name in ("category", "mode")}
        return json_answer(explained, headers={**UNDECIDED, **decided})
    sender = Sender(
        request.protocol,
        caller.request_id,
        keep_alive=request.keep_alive,
        modern=request.version >= HttpVersion11,
        extra=request.get(EXTRA_HEADERS),
    )
    request[ADMITTED] = True
    try:
        await router.answer(parsed, caller, sender)
    finally:
        if sender.begun:
            request.writer.output_size += 1  # whoever handles a mistake of ours must know that the answer has begun
    if sender.full:
        await sender.drain()
    return Sent(sender)


class DirectChat:
    """The short way for plain chat requests, by the settings in force at each."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.outbox = router.upstream.outbox
        self._guard = Guard(lambda: router.snapshot)
        self._prepare(router.snapshot)

    def _prepare(self, snapshot: Snapshot) -> None:
        """What the same snapshot says to every request."""
        self._snapshot = snapshot
        self._rules = self._guard.rules()
        self._longest = min(BIG_BODY_BYTES, snapshot.max_body_bytes)

    def reads(self, message: RawRequestMessage) -> PlainHead | None:
        """What counts of the head, if such a request may come by the short way."""
        headers = message.headers
        length = headers.get(_LENGTH)
        if (
            length is None
            or message.path not in CHAT_PATHS
            or message.method != "POST"
            or message.version is not HttpVersion11
            or message.upgrade
            # one by one: a loop over them would cost more than what they protect
            or _ORIGIN in headers
            or _SEC_FETCH_SITE in headers
            or _EXPECT in headers
            or _TRANSFER_ENCODING in headers
            or _CONTENT_ENCODING in headers
            or _DRY_RUN in headers
            or len(length) > 7
        ):
            return None
        hosts = headers.getall(_HOST, ())
        if len(hosts) != 1:
            return None
        return PlainHead(
            message.path,
            hosts[0],
            headers.get(_AUTHORIZATION),
            headers.get(X_REQUEST_ID),
            headers.get(_SESSION, ""),
            headers.get(_MAX_PRICE),
            not message.should_close,
        )

    def admits(self, head: PlainHead, length: int) -> Identity | None:
        """Who sent this request, if it may come by the short way now; what is to be refused goes the long one."""
        router = self._router
        snapshot = router.snapshot
        if snapshot is not self._snapshot:
            self._prepare(snapshot)
        if router.draining or not 0 < length <= self._longest:
            return None
        return self._rules.admit(head.host, head.authorization)

    async def serve(self, connection: Connection, head: PlainHead, identity: Identity, body: Body) -> bool:
        """Answers; tells whether the connection may carry another request."""
        name = sane_id(head.request_id)
        sender = Sender(connection, name, keep_alive=head.keep_alive, outbox=self.outbox)
        admitted = False
        try:
            if not isinstance(body, bytes):
                body = whole_body(body) or await await_whole(connection, body)
            chat = parse_chat(body)
            del body
            caller = Caller(name, identity.client, head.session, max_price_of(head.max_price))
            admitted = True
            await self._router.answer(chat, caller, sender)
        except ApiError as error:
            if self._router.draining:
                sender.keep_alive = False
            sender.send_error(error, UNDECIDED)
            if not admitted:
                refusals.note(error, connection.transport, "POST", head.path, name)
        except ConnectionError:
            return False
        except Exception:
            logger.exception("unexpected error while answering POST %s", head.path)
            if sender.begun:
                if connection.transport is not None:
                    connection.transport.abort()  # a clean end would make a broken answer look whole
                return False
            sender.send_error(internal_error(), UNDECIDED)
        return sender.keep_alive and not self._router.draining


_HOST, _LENGTH, _AUTHORIZATION = hdrs.HOST, hdrs.CONTENT_LENGTH, hdrs.AUTHORIZATION
# With any of these a request goes the long way.
_ORIGIN, _EXPECT = hdrs.ORIGIN, hdrs.EXPECT
_TRANSFER_ENCODING, _CONTENT_ENCODING = hdrs.TRANSFER_ENCODING, hdrs.CONTENT_ENCODING
_SEC_FETCH_SITE = istr("Sec-Fetch-Site")
_DRY_RUN = istr("x-router-dry-run")
_SESSION = istr("x-session-id")
_MAX_PRICE = istr("x-router-max-price")


def caller_in(request: web.Request) -> Caller:
    """Who asks, and within which limits. Raises ApiError (400) for a limit that is no number."""
    return Caller(
        request_id=request_id(request),
        client=client_of(request),
        session=request.headers.get(_SESSION, ""),
        max_price=max_price_of(request.headers.get(_MAX_PRICE)),
    )


def is_dry_run(text: str) -> bool:
    """Whether the request is to be explained alone, as its header says. Raises ApiError (400): a guess would cost."""
    try:
        return bool(text) and switch(text)
    except ValueError:
        message = "the header x-router-dry-run must be 1 or 0 (true or false)"
        raise ApiError(400, message, param="x-router-dry-run") from None


def max_price_of(text: str | None) -> float | None:
    """The most that this request may cost, in USD, as its header says. Raises ApiError (400)."""
    if text is None:
        return None
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not math.isfinite(price) or price < 0:
        message = "the header x-router-max-price must be a number of USD, such as 0.05"
        raise ApiError(400, message, param="x-router-max-price")
    return price
