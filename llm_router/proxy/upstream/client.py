"""The client: one call in, one answer out, over a kept connection where there is one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from types import MappingProxyType

from llm_router.proxy.outbox import Outbox
from llm_router.proxy.upstream.connection import READ_BYTES, BufferedConnection, Connection
from llm_router.proxy.upstream.dial import Dialer
from llm_router.proxy.upstream.errors import CancelledUnsent, ConnectFailed, ConnectionLost
from llm_router.proxy.upstream.pool import Pool
from llm_router.proxy.upstream.proxies import proxy_secrets
from llm_router.proxy.upstream.response import UpstreamResponse
from llm_router.proxy.upstream.route import Route, Routes
from llm_router.proxy.upstream.tls import Trust
from llm_router.wire.providers.base import UpstreamCall

_NOTHING: Mapping[str, str] = MappingProxyType({})


class UpstreamClient:
    """Sends calls to upstreams over HTTP/1.1: keep-alive, TLS, proxies; no redirects, cookies or pool limit.

    `environ` gives the proxy variables and, unless an `ssl_context` is handed in, SSL_CERT_FILE and SSL_CERT_DIR.
    `secrets` are those that the proxies' addresses hold. `outbox` is what requests leave by.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None, environ: Mapping[str, str] = _NOTHING) -> None:
        environ = dict(environ)
        self.secrets = proxy_secrets(environ)
        self.outbox = Outbox()
        self._routes = Routes(environ)
        self._dialer = Dialer(Trust(ssl_context, environ))
        self._pool = Pool()
        self._buffer: memoryview | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<UpstreamClient {'closed' if self._closed else 'open'} open={self.open} idle={self.idle}>"

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return self._pool.idle

    @property
    def open(self) -> int:
        """How many connections there are, busy ones included."""
        return self._pool.open

    async def send(self, call: UpstreamCall, *, connect_timeout: float) -> UpstreamResponse:
        """Sends the call and waits for the final head; the connection, if one must be made, has `connect_timeout` s.

        A kept connection that dies before the first byte of the answer is replaced once by a fresh one; nothing else
        is tried twice. Raises InvalidCall, ConnectFailed, ConnectTimeout, ConnectionLost or ProtocolError. Being
        cancelled closes the connection; until there was one it raises CancelledUnsent.
        """
        if self._closed:
            raise ConnectFailed("the client is closed")
        route = self._routes.find(call.url)
        head = route.head(call.headers)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # asking costs a system call each time
        self.outbox.awaited += 1
        try:
            kept = self._pool.take(route.endpoint.origin, self._loop.time())
            if kept is not None:
                waiter = kept.request(head, call.body)
                try:
                    return await waiter
                except BaseException as error:
                    _give_up(kept, waiter)
                    if not isinstance(error, ConnectionLost) or error.started:
                        raise
            try:
                fresh = await self._connect(route, connect_timeout, self._loop)
            except asyncio.CancelledError:
                raise CancelledUnsent from None
            waiter = fresh.request(head, call.body)
            try:
                return await waiter
            except BaseException:
                _give_up(fresh, waiter)
                raise
        finally:
            self.outbox.awaited -= 1

    def sweep(self, now: float) -> None:
        """Closes connections that have been idle for too long and sees to old ones; `now` is the loop's time."""
        self._pool.sweep(now)

    def distrust(self) -> None:
        """Lets go of what may have come to nothing, as while the machine slept: kept connections, known addresses."""
        self._pool.drop_idle()
        self._dialer.distrust()

    async def close(self) -> None:
        """Aborts every connection, busy ones too."""
        self._closed = True
        self._dialer.close()
        self._pool.close()
        await asyncio.sleep(0)  # the loop closes an aborted transport in its next turn

    async def _connect(self, route: Route, seconds: float, loop: asyncio.AbstractEventLoop) -> Connection:
        origin = route.endpoint.origin
        if origin.secure:
            if self._buffer is None:
                self._buffer = memoryview(bytearray(READ_BYTES))
            connection: Connection = BufferedConnection(origin, self._pool, loop, self.outbox, self._buffer)
        else:
            connection = Connection(origin, self._pool, loop, self.outbox)
        self._pool.add(connection)
        try:
            await self._dialer.dial(connection, route.proxy, loop=loop, seconds=seconds)
            if self._closed:
                raise ConnectFailed("the client is closed")
        except BaseException:
            connection.abort()
            raise
        return connection


def _give_up(connection: Connection, waiter: asyncio.Future[UpstreamResponse]) -> None:
    """Ends what was asked for with `request`, however that went."""
    if waiter.cancelled():
        connection.abort()
    elif waiter.exception() is None:
        # Cancelled after the head came in. The connection may serve somebody else by now: the answer knows.
        waiter.result().close()
