"""The guard in front of every route: gathers the facts of a request, asks `rules`, and keeps out who may not ask."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web
from multidict import istr

from llm_router.config.values import Snapshot
from llm_router.errors import ApiError
from llm_router.server.answers import EXTRA_HEADERS, Handler, error_answer
from llm_router.server.rules import ANONYMOUS, Caller, Facts, Rules

CALLER: Final = web.RequestKey("caller", Caller)
Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

_SEC_FETCH_SITE = istr("Sec-Fetch-Site")
_FORWARDED_BY = (hdrs.FORWARDED, hdrs.X_FORWARDED_FOR)
_EXPOSED = "x-request-id, x-router-category, x-router-mode, x-router-model, x-router-provider, x-router-attempts"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9, _-]{1,1000}", re.ASCII)


def make_guard(snapshot: Callable[[], Snapshot]) -> Middleware:
    """The middleware that judges every request by the access settings of the snapshot in force."""
    rules = Rules(snapshot().access, snapshot().host)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal rules
        current = snapshot()
        if current.access is not rules.access:
            rules = Rules(current.access, current.host)
        verdict = rules.judge(facts_of(request))
        if isinstance(verdict, ApiError):
            return error_answer(verdict)
        request[CALLER] = verdict
        if verdict.cors:
            request[EXTRA_HEADERS] = {
                "Access-Control-Allow-Origin": verdict.cors,
                "Access-Control-Expose-Headers": _EXPOSED,
                "Vary": "Origin",
            }
            if request.method == hdrs.METH_OPTIONS:
                return _preflight_answer(request)
        return await handler(request)

    return guard


def caller_of(request: web.BaseRequest) -> Caller:
    """Who sent this request, as the guard found."""
    return request.get(CALLER) or Caller("anonymous", ANONYMOUS)


def client_of(request: web.BaseRequest) -> str:
    """The short name of the client for the ledger: a hash of its key, or "anonymous"."""
    return caller_of(request).client


def facts_of(request: web.BaseRequest) -> Facts:
    """What the decision needs to know of a request."""
    headers = request.headers
    peer = request.get_extra_info("peername")
    origin = headers.get(hdrs.ORIGIN)
    target = None
    if not request.raw_path.startswith("/"):
        target = request.raw_path.partition("://")[2].partition("/")[0].partition("?")[0] or None
    return Facts(
        method=request.method,
        path=request.path,
        hosts=headers.getall(hdrs.HOST, ()),
        target=target,
        origin=origin,
        sec_fetch_site=headers.get(_SEC_FETCH_SITE),
        authorization=headers.get(hdrs.AUTHORIZATION),
        forwarded=any(name in headers for name in _FORWARDED_BY),
        peer=peer[0] if isinstance(peer, tuple) else peer,
        port=_local_port(request) if origin is not None else 0,
        content_type=headers.get(hdrs.CONTENT_TYPE),
        has_body=request.body_exists,
    )


def _local_port(request: web.BaseRequest) -> int:
    name = request.get_extra_info("sockname")
    return int(name[1]) if isinstance(name, tuple) else 0


def _preflight_answer(request: web.BaseRequest) -> web.Response:
    """For a configured origin only: what its scripts may send."""
    headers = {"Access-Control-Allow-Methods": "GET, POST, DELETE", "Access-Control-Max-Age": "600"}
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    if _HEADER_NAMES.fullmatch(wanted):
        headers["Access-Control-Allow-Headers"] = wanted
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return web.Response(status=204, headers=headers)
