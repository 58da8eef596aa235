"""The short way for plain chat requests, past aiohttp's application: what a connection asks of who answers there."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

from llm_router.proxy.outbox import Outbox
from llm_router.server.heads import PlainHead
from llm_router.server.rules import Identity

Body: TypeAlias = bytes | StreamReader  # whole, or still coming
# A request that comes by the short way. No class of its own: one is made per request.
Plain: TypeAlias = tuple[PlainHead, Identity, Body]


class Direct(Protocol):
    """Takes some requests; what it does not take goes the usual way. Its answers leave by `outbox`."""

    outbox: Outbox

    def reads(self, message: RawRequestMessage) -> PlainHead | None:
        """What counts of its head, if such a request may come by the short way."""
        ...

    def admits(self, head: PlainHead, length: int) -> Identity | None:
        """Who sent this request with a body of `length` bytes, if it may come by the short way now."""
        ...

    async def serve(self, connection: Any, head: PlainHead, identity: Identity, body: Body) -> bool:
        """Answers it on its `connection`; tells whether that may carry another request."""
        ...
