"""Routes that only look: health, metrics, models, providers, the ledger, and what this is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import hdrs, web

from llm_router import __version__
from llm_router.accounting.report import DIMENSIONS, parse_since
from llm_router.config.values import Snapshot
from llm_router.errors import ApiError
from llm_router.proxy.dispatch import Router
from llm_router.server.answers import json_answer
from llm_router.server.app_keys import ROUTER
from llm_router.server.guard import identity_of
from llm_router.server.page import front_page

# Who wants both alike gets what tells more.
_PROMETHEUS_TYPES: Final = ("application/openmetrics-text", "text/plain")


def add_routes(app: web.Application) -> None:
    """Registers the routes of this room."""
    for path, handler in {
        "/": front,
        "/health": health,
        "/ready": ready,
        "/metrics": metrics,
        "/providers": providers,
        "/models": models,
        "/v1/models": models,
        "/models/{model:(?s:.+)}": model,
        "/v1/models/{model:(?s:.+)}": model,
        "/v1/requests/{request_id}": ledger_request,
        "/v1/usage": usage,
        "/openapi.json": openapi,
    }.items():
        app.router.add_get(path, handler)


async def front(request: web.Request) -> web.StreamResponse:
    """GET /: a page for people, JSON for programs."""
    if quality(_accepted(request), "text/html") > 0:
        text, headers = await asyncio.to_thread(front_page, f"{request.scheme}://{request.host}")
        return web.Response(text=text, content_type="text/html", headers=headers)
    return json_answer(
        {
            "name": "llm-router",
            "version": __version__,
            "what": "an OpenAI-compatible proxy that picks the model for each request",
            "chat": "POST /v1/chat/completions",
            "routes": "/openapi.json",
            "docs": "the folder docs/ of the source; docs/API.md lists every route",
        }
    )


async def health(request: web.Request) -> web.StreamResponse:
    """GET /health: the process is alive. Says nothing about upstreams."""
    router = request.app[ROUTER]
    snapshot = router.snapshot
    return json_answer(
        {
            "status": "healthy",
            "version": __version__,
            "uptime_s": round(time.monotonic() - router.began, 3),
            "routing_mode": snapshot.routing_mode,
            "providers": [provider.name for provider in snapshot.providers.values() if provider.configured],
            "categories": list(snapshot.categories),
        }
    )


async def ready(request: web.Request) -> web.StreamResponse:
    """GET /ready: whether a request sent now could be answered."""
    router = request.app[ROUTER]
    if router.draining:
        return json_answer({"status": "draining"}, 503)
    if not router.has_able_candidate():
        return json_answer({"status": "no_able_candidate"}, 503)
    return json_answer({"status": "ready"})


async def metrics(request: web.Request) -> web.StreamResponse:
    """GET /metrics: JSON, or Prometheus text for those who ask for text rather than JSON."""
    router = request.app[ROUTER]
    accept = _accepted(request)
    wanted = max(_PROMETHEUS_TYPES, key=lambda kind: quality(accept, kind))
    text = quality(accept, wanted) > quality(accept, "application/json")
    # The form is chosen by who writes it, which looks at versions and not at weights.
    forms = ",".join(entry for entry in accept.split(",") if _media_type(entry) == wanted) if text else None
    body, content_type = await router.metrics.figures(router.circuit_report(), forms)
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


async def providers(request: web.Request) -> web.StreamResponse:
    """GET /providers."""
    snapshot = request.app[ROUTER].snapshot
    return json_answer(
        {
            "providers": {
                name: {"base_url": provider.shown_url, "configured": provider.configured}
                for name, provider in snapshot.providers.items()
            },
            "default_provider": snapshot.default_provider,
        }
    )


async def models(request: web.Request) -> web.StreamResponse:
    """GET /v1/models and /models: what may be written as `model`."""
    router = request.app[ROUTER]
    names = model_names(router.snapshot)
    return json_answer({"object": "list", "data": [_entry(router, name, owner) for name, owner in names.items()]})


async def model(request: web.Request) -> web.StreamResponse:
    """GET /v1/models/{model} and /models/{model}: one entry of that list; a slash in the id may come raw or encoded."""
    router = request.app[ROUTER]
    name = request.match_info["model"]
    owner = model_names(router.snapshot).get(name)
    if owner is None:
        raise ApiError(
            404,
            f"There is no model {name[:130]!a} in the list of GET /v1/models; any 'provider/model' may be asked for",
            param="model",
            code="model_not_found",
        )
    return json_answer(_entry(router, name, owner))


def _entry(router: Router, name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(router.started), "owned_by": owner}


def model_names(snapshot: Snapshot) -> dict[str, str]:
    """Every name that a request may carry and that we know of, with who answers to it."""
    names = {"router": "llm-router"}
    names |= {f"router/{category}": "llm-router" for category in snapshot.categories}
    chains = (model for category in snapshot.categories.values() for model in category.models)
    return names | {model: model.partition("/")[0] for model in chains}


async def ledger_request(request: web.Request) -> web.StreamResponse:
    """GET /v1/requests/{request_id}: its ledger record, 202 while it is not settled."""
    bookkeeper = request.app[ROUTER].bookkeeper
    name = request.match_info["request_id"]
    client = _own_client(request)
    # asked in this order: a request that settles between the two questions is found by the second
    if bookkeeper.pending(name, client) or await asyncio.to_thread(bookkeeper.pending_elsewhere, name, client):
        return json_answer({"request_id": name, "status": "pending"}, 202, {"Retry-After": "1"})
    record = await asyncio.to_thread(bookkeeper.request, name, client)
    if record is None:
        raise ApiError(404, f"There is no request {name[:130]!a} in the ledger", code="request_not_found")
    return json_answer(record)


async def usage(request: web.Request) -> web.StreamResponse:
    """GET /v1/usage?by=&since=: sums over the ledger."""
    query: Mapping[str, str] = request.query
    by = query.get("by") or "model"
    if by not in DIMENSIONS:
        raise ApiError(400, f"'by' must be one of {', '.join(DIMENSIONS)}", param="by")
    since = None
    if text := query.get("since"):
        try:
            since = parse_since(text, time.time())
        except (ValueError, OverflowError) as error:
            raise ApiError(400, f"'since': {error}", param="since") from None
    client = _own_client(request)
    rows = await asyncio.to_thread(request.app[ROUTER].bookkeeper.usage, by, since, client)
    answer: dict[str, Any] = {"object": "list", "by": by, "since": since, "data": rows}
    return json_answer(answer)


async def openapi(request: web.Request) -> web.StreamResponse:
    """GET /openapi.json: this API for machines."""
    return json_answer(await asyncio.to_thread(_description))


def _description() -> dict[str, Any]:
    from llm_router.server.openapi import description  # few ask for it

    return description()


def _own_client(request: web.Request) -> str | None:
    """The client whose records the caller may see; None for all of them.

    Where keys are asked for, each key sees its own requests and the admin key all; without keys nobody can be told
    from anybody, and everybody may see everything.
    """
    identity = identity_of(request)
    return identity.client if identity.role == "client" else None


def _accepted(request: web.Request) -> str:
    """All of the request's Accept headers, which together are one list."""
    return ",".join(request.headers.getall(hdrs.ACCEPT, ())).lower()


def _media_type(entry: str) -> str:
    return entry.partition(";")[0].strip()


def quality(accept: str, media_type: str) -> float:
    """How much an Accept header wants exactly this media type; wildcards want nothing in particular."""
    for entry in accept.lower().split(","):
        if _media_type(entry) == media_type:
            for parameter in (part.strip() for part in entry.split(";")[1:]):
                if parameter.startswith("q="):
                    try:
                        return float(parameter[2:])
                    except ValueError:
                        return 0.0
            return 1.0
    return 0.0
