"""From an origin to a connection that is ready for HTTP: DNS, TCP, a proxy's tunnel, TLS, within one deadline."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType

from llm_router.proxy.upstream.connection import Connection
from llm_router.proxy.upstream.errors import ConnectFailed, ConnectTimeout, TlsFailed
from llm_router.proxy.upstream.proxies import Proxy
from llm_router.proxy.upstream.tunnel import open_tunnel

HAPPY_EYEBALLS_DELAY = 0.25  # seconds (RFC 8305)

# OpenSSL's verification codes whose message names the host that we asked for.
_MISMATCH_CODES = (62, 64)


async def dial(connection: Connection, proxy: Proxy | None, tls: ssl.SSLContext | None, *, deadline: float) -> None:
    """Connects, by `deadline`, a time of the loop's clock. `tls` is None for plain HTTP.

    Raises ConnectFailed, TlsFailed or ConnectTimeout; being cancelled or failing closes the socket at once.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(deadline):
            origin = connection.origin
            sock = await _open_socket(loop, *((proxy.host, proxy.port) if proxy else (origin.host, origin.port)))
            if tls is None:
                await _hand_over(loop, sock, connection)
            else:
                await _secure(loop, sock, connection, proxy, tls)
    except TimeoutError:
        raise ConnectTimeout("no connection to the upstream in time") from None


async def resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Sequence[AddrInfoType]:
    """The addresses of a host, in the system's order. Raises ConnectFailed."""
    try:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        raise ConnectFailed("the upstream's name could not be resolved") from None


async def _open_socket(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    addresses = await resolve(loop, host, port)
    try:
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY, interleave=1, loop=loop
        )
    except TimeoutError:
        raise
    except (OSError, RuntimeError) as error:  # uvloop raises RuntimeError for some
        raise ConnectFailed(f"the upstream could not be reached: {_reason(error)}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


async def _hand_over(loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.Protocol) -> None:
    try:
        await loop.create_connection(lambda: protocol, sock=sock)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise ConnectFailed(f"the upstream could not be reached: {_reason(error)}") from error
        raise


async def _secure(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    connection: Connection,
    proxy: Proxy | None,
    tls: ssl.SSLContext,
) -> None:
    raw = await open_tunnel(loop, sock, connection.origin if proxy else None, proxy)
    try:
        secured = await loop.start_tls(raw, connection, tls, server_hostname=connection.origin.host)
    except BaseException as error:
        raw.abort()
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):  # ssl.SSLError is one too
            raise TlsFailed(f"no secure connection to the upstream: {_tls_reason(error)}") from error
        raise
    if secured is None:
        raise TlsFailed("no secure connection to the upstream: closed in the handshake")
    connection.connection_made(secured)


def _reason(error: Exception) -> str:
    code = getattr(error, "errno", None)
    return os.strerror(code).lower() if code else "no address answered"


def _tls_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate is for another host" if error.verify_code in _MISMATCH_CODES else error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "handshake failed").replace("_", " ").lower()
    return _reason(error)
