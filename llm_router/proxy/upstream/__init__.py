"""The project's own HTTP/1.1 client for upstream answers, made for many slow streams on one core.

`http1`, `request`, `coding`, `proxies` and `route` are pure: bytes and values in, bytes and values out. `connection`,
`dial`, `tunnel` and `client` are the asyncio shell around them. Body bytes are pushed from the socket's own callback
into a `BodySink`; no task wakes up per read.
"""

from llm_router.proxy.upstream.client import UpstreamClient
from llm_router.proxy.upstream.errors import (
    CancelledUnsent,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    InvalidCall,
    NoResources,
    ProtocolError,
    ResponseTooLarge,
    TlsFailed,
    UpstreamError,
)
from llm_router.proxy.upstream.response import BodySink, UpstreamResponse
from llm_router.proxy.upstream.tls import create_tls_context

__all__ = [
    "BodySink",
    "CancelledUnsent",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "InvalidCall",
    "NoResources",
    "ProtocolError",
    "ResponseTooLarge",
    "TlsFailed",
    "UpstreamClient",
    "UpstreamError",
    "UpstreamResponse",
    "create_tls_context",
]
