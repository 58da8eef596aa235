"""Routes that look at and change configuration and circuits. Who may change is the guard's business."""

from __future__ import annotations

import json
import logging
from typing import Any

from aiohttp import web

from llm_router.config.edits import category_change, mapping_change, without_category
from llm_router.config.report import effective
from llm_router.config.values import Category
from llm_router.server.answers import json_answer
from llm_router.server.app_keys import ROUTER
from llm_router.server.bodies import expect_later, read_body
from llm_router.server.chat import caller_in
from llm_router.server.telling import take_over
from llm_router.wire.chat import parse_chat, parse_object

log = logging.getLogger("llm_router")

_MOST_BYTES = 1_048_576


def add_routes(app: web.Application) -> None:
    """Registers the routes of this room."""
    app.router.add_get("/config", config)
    app.router.add_get("/circuit-breaker", circuits)
    app.router.add_delete("/config/category/{name}", delete_category)
    for path, handler in {
        "/config/category": put_category,
        "/config/model-mapping": put_mapping,
        "/config/reload": reload,
        "/circuit-breaker/reset-all": reset_all,
        "/circuit-breaker/reset/{model:(?s:.+)}": reset,
        "/v1/explain": explain,
    }.items():
        app.router.add_post(path, handler, expect_handler=expect_later)


async def config(request: web.Request) -> web.StreamResponse:
    """GET /config: the configuration in force, without secrets."""
    return json_answer(effective(request.app[ROUTER].snapshot))


async def put_category(request: web.Request) -> web.StreamResponse:
    """POST /config/category: adds a category or changes it."""
    body = await _read_object(request)
    snapshot = await request.app[ROUTER].edit(category_change(body))
    category = snapshot.categories[body["name"]]
    _log_chain(category)
    return json_answer({"status": "ok", "category": category.name, "models": list(category.models)})


async def put_mapping(request: web.Request) -> web.StreamResponse:
    """POST /config/model-mapping: gives a category another chain."""
    body = await _read_object(request)
    snapshot = await request.app[ROUTER].edit(mapping_change(body))
    category = snapshot.categories[body["category"]]
    _log_chain(category)
    return json_answer({"status": "ok", "category": category.name, "models": list(category.models)})


async def delete_category(request: web.Request) -> web.StreamResponse:
    """DELETE /config/category/{name}."""
    name = request.match_info["name"]
    await request.app[ROUTER].edit(lambda file: without_category(file, name))
    log.info("through the API: the category %s was deleted", name)
    return json_answer({"status": "ok", "deleted": name})


async def reload(request: web.Request) -> web.StreamResponse:
    """POST /config/reload: reads the file again; the old configuration stays if the new one is not valid."""
    router = request.app[ROUTER]
    snapshot = await take_over(router, router.reload)
    return json_answer(
        {"status": "ok", "config_file": snapshot.config_file or None, "categories": list(snapshot.categories)}
    )


async def circuits(request: web.Request) -> web.StreamResponse:
    """GET /circuit-breaker."""
    return json_answer(request.app[ROUTER].circuit_report())


async def reset(request: web.Request) -> web.StreamResponse:
    """POST /circuit-breaker/reset/{model}: the id's slashes may come as they are or percent-encoded."""
    router = request.app[ROUTER]
    model = request.match_info["model"]
    if "/" not in model:
        model = f"{router.snapshot.default_provider}/{model}"
    router.reset_circuit(model)
    log.info("through the API: the circuit of %s was reset", json.dumps(model))
    return json_answer({"status": "ok", "model": model})


async def reset_all(request: web.Request) -> web.StreamResponse:
    """POST /circuit-breaker/reset-all."""
    request.app[ROUTER].reset_all_circuits()
    log.info("through the API: all circuits were reset")
    return json_answer({"status": "ok"})


async def explain(request: web.Request) -> web.StreamResponse:
    """POST /v1/explain: what would be chosen for this chat request, and why. Calls nobody."""
    router = request.app[ROUTER]
    chat = parse_chat(await read_body(request, router.snapshot.max_body_bytes))
    return json_answer(router.explain(chat, caller_in(request)))


def _log_chain(category: Category) -> None:
    log.info("through the API: the chain of the category %s is %s", category.name, ", ".join(category.models))


async def _read_object(request: web.Request) -> dict[str, Any]:
    limit = min(_MOST_BYTES, request.app[ROUTER].snapshot.max_body_bytes)
    return parse_object(await read_body(request, limit))
