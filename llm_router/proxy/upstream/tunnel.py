"""A raw connection for TLS: straight to the upstream, or through a proxy's CONNECT."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import cast

from llm_router.proxy.upstream.errors import ConnectFailed, UpstreamError
from llm_router.proxy.upstream.http1 import ResponseReader
from llm_router.proxy.upstream.proxies import Proxy
from llm_router.proxy.upstream.request import Origin


async def adopt(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.BaseProtocol
) -> asyncio.Transport:
    """Makes a connected socket a transport, which owns it from then on. Raises ConnectFailed.

    Interrupted halfway nobody could say who owns the socket, and a descriptor closed twice may be somebody else's the
    second time. So the loop always finishes (it takes two turns of it), and who was cancelled leaves an abort behind.
    """
    making = loop.create_task(loop.create_connection(lambda: protocol, sock=sock))
    try:
        await asyncio.wait((making,))
    except asyncio.CancelledError:
        making.add_done_callback(_abort_made)
        raise
    try:
        transport, _ = making.result()
    except OSError as error:
        raise ConnectFailed("the upstream could not be reached") from error
    return transport


async def open_tunnel(
    loop: asyncio.AbstractEventLoop,
    connect: Callable[[asyncio.BaseProtocol], Awaitable[asyncio.Transport]],
    origin: Origin | None,
    proxy: Proxy | None,
) -> asyncio.Transport:
    """Makes a transport for TLS out of a raw connection; with a proxy, one that leads to `origin`.

    Raises ConnectFailed. Failing or being cancelled closes the connection at once.
    """
    reader = ResponseReader() if proxy is not None else None
    opening = _Opening(loop, reader)
    transport = await connect(opening)
    try:
        if origin is not None and proxy is not None:
            await opening.connect(connect_head(origin, proxy))
        if transport.is_closing():
            raise ConnectFailed("the connection was closed before the handshake")
    except BaseException:
        transport.abort()
        raise
    finally:
        if reader is not None:
            reader.retire()
    return transport


def connect_head(origin: Origin, proxy: Proxy) -> bytes:
    """The CONNECT request for an origin."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    authorization = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n".encode("ascii")


def _abort_made(making: asyncio.Task[tuple[asyncio.Transport, asyncio.BaseProtocol]]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result()[0].abort()


class _Opening(asyncio.Protocol):
    """A connection before TLS; `connect` asks a proxy for a tunnel, and `reader` reads its answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reader: ResponseReader | None) -> None:
        self._loop = loop
        self._reader = reader
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[None] | None = None

    async def connect(self, head: bytes) -> None:
        """Returns when the tunnel stands. Raises ConnectFailed."""
        if self._transport is None:
            raise ConnectFailed("the connection was closed before the handshake")
        self._answered = self._loop.create_future()
        self._transport.write(head)
        await self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            return  # the handshake will tell
        early = reader.feed(data) if not reader.done else data
        if not reader.status:
            if reader.done:
                self._settle(ConnectFailed("the proxy does not speak HTTP"))
        elif not 200 <= reader.status < 300:
            self._settle(ConnectFailed(f"the proxy refused the tunnel (status {reader.status})"))
        elif early:
            # In TLS the client speaks first: whoever sends now is not at the far end of the tunnel.
            self._settle(ConnectFailed("the proxy sent bytes of its own into the tunnel"))
        else:
            self._settle(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._settle(ConnectFailed("the connection was closed before the handshake"))

    def _settle(self, error: UpstreamError | None) -> None:
        if self._answered is None or self._answered.done():
            return
        if error is not None:
            self._answered.set_exception(error)
        else:
            self._answered.set_result(None)
