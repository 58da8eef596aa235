"""The guard in front of every route: gathers the facts of a request, asks `rules`, and keeps out who may not ask."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web
from multidict import istr

from llm_router.config.values import Snapshot
from llm_router.errors import ApiError
from llm_router.server.answers import CHAT_PATHS, EXTRA_HEADERS, UNDECIDED, Handler, answer_errors, error_answer
from llm_router.server.rules import ANONYMOUS, Facts, Identity, Rules, cors_headers

IDENTITY: Final = web.RequestKey("identity", Identity)
Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

_SEC_FETCH_SITE = istr("Sec-Fetch-Site")
_NOBODY = Identity("anonymous", ANONYMOUS)
_HEADER_NAMES = re.compile(r"[A-Za-z0-9, _-]{1,1000}", re.ASCII)


class Guard:
    """Judges by the access settings of the snapshot in force."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._rules = Rules(snapshot().access, snapshot().host)

    def rules(self) -> Rules:
        """The rules in force; the same object while the access settings are the same."""
        current = self._snapshot()
        if current.access is not self._rules.access:
            self._rules = Rules(current.access, current.host)
        return self._rules

    def judge(self, facts: Facts) -> ApiError | Identity:
        """The refusal, or who it is that may ask."""
        return self.rules().judge(facts)


def make_guard(snapshot: Callable[[], Snapshot]) -> Middleware:
    """The middleware that judges every request."""
    judge = Guard(snapshot).judge

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        verdict = judge(facts_of(request))
        if isinstance(verdict, ApiError):
            if request.path in CHAT_PATHS:
                verdict.headers = {**UNDECIDED, **verdict.headers}
            return error_answer(verdict)
        request[IDENTITY] = verdict
        if verdict.cors:
            return await _answer_across(request, handler, verdict.cors)
        return await handler(request)

    return guard


def identity_of(request: web.BaseRequest) -> Identity:
    """Who sent this request, as the guard found."""
    try:
        return request[IDENTITY]
    except KeyError:
        return _NOBODY


def client_of(request: web.BaseRequest) -> str:
    """The short name of the client for the ledger: a hash of its key, empty without one."""
    return identity_of(request).client


def facts_of(request: web.BaseRequest) -> Facts:
    """What the decision needs to know of a request."""
    headers = request.headers
    path = request.rel_url.path_safe
    origin = headers.get(hdrs.ORIGIN)
    site = headers.get(_SEC_FETCH_SITE)
    browser = origin is not None or site is not None
    peer = request.protocol.peername
    return Facts(
        request.method,
        path,
        headers.getall(hdrs.HOST, ()),
        None if request.raw_path[:1] == "/" else _target(request),
        origin,
        site,
        headers.get(hdrs.AUTHORIZATION),
        hdrs.FORWARDED in headers or hdrs.X_FORWARDED_FOR in headers,
        peer[0] if isinstance(peer, tuple) else peer,
        _local_port(request) if origin is not None else 0,
        headers.get(hdrs.CONTENT_TYPE) if browser else None,
        browser and request.body_exists,
    )


def _target(request: web.BaseRequest) -> str | None:
    """The authority of an absolute request target (`GET http://localhost:3456/health`)."""
    return request.raw_path.partition("://")[2].partition("/")[0].partition("?")[0] or None


async def _answer_across(request: web.Request, handler: Handler, origin: str) -> web.StreamResponse:
    """For a configured origin: lets its scripts read the answer, also an error."""
    headers = cors_headers(origin)
    if request.method == hdrs.METH_OPTIONS:
        return web.Response(status=204, headers={**headers, **_preflight(request)})
    request[EXTRA_HEADERS] = headers
    answer = await answer_errors(request, handler)
    if not answer.prepared:
        answer.headers.update(headers)
    return answer


def _local_port(request: web.BaseRequest) -> int:
    name = request.protocol.sockname
    return int(name[1]) if isinstance(name, tuple) else 0


def _preflight(request: web.BaseRequest) -> dict[str, str]:
    """What the scripts of a configured origin may send."""
    headers = {"Access-Control-Allow-Methods": "GET, POST, DELETE", "Access-Control-Max-Age": "600"}
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    if _HEADER_NAMES.fullmatch(wanted):
        headers["Access-Control-Allow-Headers"] = wanted
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers
