"""From an origin to a connection that is ready for HTTP: DNS, TCP, a proxy's tunnel, TLS, within one deadline."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from functools import partial

import aiohappyeyeballs

from llm_router.proxy.deadlines import Deadlines
from llm_router.proxy.upstream.connection import Connection
from llm_router.proxy.upstream.errors import ConnectFailed, ConnectTimeout, NoResources, TlsFailed
from llm_router.proxy.upstream.proxies import Proxy
from llm_router.proxy.upstream.resolver import Resolver, is_shortage
from llm_router.proxy.upstream.tls import Trust
from llm_router.proxy.upstream.tunnel import adopt, open_tunnel

HAPPY_EYEBALLS_DELAY = 0.25  # seconds (RFC 8305)

# The deadline decides; this only keeps asyncio's own limit (60 s) out of the way.
HANDSHAKE_SECONDS = 3600.0

_TELL_AGAIN_AFTER = 60.0  # seconds

log = logging.getLogger(__name__)

# OpenSSL's verification codes whose message names the host that we asked for.
_MISMATCH_CODES = (62, 64)


class Dialer:
    """Makes connections; keeps what it learned about names, and whom to trust."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._resolver = Resolver()
        self._deadlines = Deadlines()
        self._told_at = -_TELL_AGAIN_AFTER

    def __repr__(self) -> str:
        return f"<Dialer {self._resolver} {self._trust}>"

    def distrust(self) -> None:
        """Has names asked for again."""
        self._resolver.forget_all()

    def close(self) -> None:
        """Gives up the lookups under way."""
        self._resolver.close()

    async def dial(
        self, connection: Connection, proxy: Proxy | None, *, loop: asyncio.AbstractEventLoop, seconds: float
    ) -> None:
        """Connects within `seconds`.

        Raises ConnectFailed (NoResources, TlsFailed) or ConnectTimeout; being cancelled or failing closes the socket at
        once.
        """
        try:
            with self._deadlines.within(seconds):
                hop = proxy or connection.origin
                if not connection.origin.secure:
                    await self._open(loop, hop.host, hop.port, connection)
                    return
                tls = await self._trust.context()
                open_raw = partial(self._open, loop, hop.host, hop.port)
                raw = await open_tunnel(loop, open_raw, connection.origin if proxy else None, proxy)
                await _secure(loop, raw, connection, tls)
        except TimeoutError:
            raise ConnectTimeout("no connection to the upstream in time") from None
        except NoResources as error:
            self._tell(error, loop.time())
            raise

    async def _open(
        self, loop: asyncio.AbstractEventLoop, host: str, port: int, protocol: asyncio.BaseProtocol
    ) -> asyncio.Transport:
        """A TCP connection for the protocol."""
        addresses = self._resolver.known(host, port, loop.time()) or await self._resolver.resolve(host, port)
        try:
            if len(addresses) == 1 and not any(addresses[0][4][2:]):
                # Nothing to race. The loop does it all itself, at a third of the cost.
                address, number = addresses[0][4][:2]
                transport, _ = await loop.create_connection(lambda: protocol, address, number)
                return transport
            sock = await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY, interleave=1, loop=loop
            )
            transport = await adopt(loop, sock, protocol)
            peer = transport.get_extra_info("peername")
            if peer and peer[0] != addresses[0][4][0]:
                self._resolver.prefer(host, port, peer[0])
            return transport
        except (OSError, RuntimeError) as error:  # uvloop raises RuntimeError for some
            words = f"the upstream could not be reached: {_reason(error, 'no address answered')}"
            if is_shortage(error, addresses):
                raise NoResources(words) from error
            self._resolver.forget(host, port)
            if isinstance(error, TimeoutError):
                raise
            raise ConnectFailed(words) from error

    def _tell(self, error: NoResources, now: float) -> None:
        """Tells the operator, whom no circuit will tell of it."""
        if now - self._told_at >= _TELL_AGAIN_AFTER:
            self._told_at = now
            log.warning("this machine is short of what connections need, no provider is to blame (%s)", error)


async def _secure(
    loop: asyncio.AbstractEventLoop, raw: asyncio.Transport, connection: Connection, tls: ssl.SSLContext
) -> None:
    try:
        secured = await loop.start_tls(
            raw, connection, tls, server_hostname=connection.origin.host, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
    except BaseException as error:
        raw.abort()
        if isinstance(error, OSError | ValueError | RuntimeError) and not isinstance(error, TimeoutError):
            raise TlsFailed(f"no secure connection to the upstream: {_tls_reason(error)}") from error
        raise
    if secured is None:
        raise TlsFailed("no secure connection to the upstream: closed in the handshake")
    connection.connection_made(secured)


def _reason(error: Exception, otherwise: str) -> str:
    """The system's word for an error; the error's own text may have an address in it."""
    code = getattr(error, "errno", None)
    return os.strerror(code).lower() if code else otherwise


def _tls_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate is for another host" if error.verify_code in _MISMATCH_CODES else error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "handshake failed").replace("_", " ").lower()
    return _reason(error, "handshake failed")
