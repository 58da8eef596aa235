"""What can go wrong between us and an upstream's bytes.

Nothing else leaves this package: what asyncio, sockets, ssl and the parser raise is told in these words. No text holds
an address, a host name or a header value, so it may be shown to a client.
"""

from __future__ import annotations

import asyncio


class UpstreamError(Exception):
    """Base of everything that this package raises about an upstream."""


class InvalidCall(UpstreamError, ValueError):
    """The call itself cannot be put on the wire (bad URL, line breaks in a header). Nothing was sent."""


class ConnectFailed(UpstreamError):
    """No connection: name not resolved, refused, unreachable, or the proxy would not have us. Nothing was sent."""


class NoResources(ConnectFailed):
    """This machine had no descriptor, port or memory for a connection; the upstream was not asked."""


class TlsFailed(ConnectFailed):
    """The TLS handshake failed, or the certificate is not for this host or not trusted. Nothing was sent."""


class ConnectTimeout(UpstreamError):
    """DNS, TCP, proxy and TLS together took longer than the connect timeout. Nothing was sent."""


class ConnectionLost(UpstreamError):
    """Closed or reset before the message was complete.

    `started` tells whether any byte of an answer was seen, `body` whether any byte of its body was.
    """

    def __init__(self, message: str, *, started: bool = False, body: bool = False) -> None:
        super().__init__(message)
        self.started = started
        self.body = body


class ProtocolError(UpstreamError):
    """Not HTTP, broken framing, corrupt or unknown compression, or a head beyond every measure."""


class ResponseTooLarge(UpstreamError):
    """A body that was to be read whole is larger than the limit."""


class CancelledUnsent(asyncio.CancelledError):
    """Cancelled before there was a connection: the upstream has heard nothing, and will charge nothing."""
