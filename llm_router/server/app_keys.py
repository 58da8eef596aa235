"""Where the application keeps what its rooms share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from llm_router.proxy.dispatch import Router

ROUTER: Final[web.AppKey[Router]] = web.AppKey("router")
