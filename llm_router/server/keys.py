"""Where the server's rooms find the router."""

from __future__ import annotations

from aiohttp import web

from llm_router.proxy.dispatch import Router

ROUTER: web.AppKey[Router] = web.AppKey("router", Router)
