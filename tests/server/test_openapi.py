"""The API's description: sound, and true of the routes that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from llm_router import __version__
from llm_router.server.app import make_app
from llm_router.server.openapi import description
from tests.server.conftest import Served, StartRouter

CHAT = {"model": "router", "messages": [{"role": "user", "content": "hello"}]}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(METHOD, path, operation) of all that is described."""
    for path, methods in description()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """All objects within a description."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from nodes(value)


async def test_describes_every_route_and_no_other(serve: StartRouter) -> None:
    """Each route of the application is described, and each described route exists."""
    served = await serve()
    app = make_app(served.router)
    routes = {
        (route.method, re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.resource.canonical))
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert {(method, path) for method, path, _ in operations()} == routes


def test_is_plain_json() -> None:
    """The description survives a round through JSON and has its version."""
    assert json.loads(json.dumps(description())) == description()
    assert description()["info"]["version"] == __version__


def test_every_reference_leads_somewhere() -> None:
    """No `$ref` points into the void, and no schema or response is there for nothing."""
    components = description()["components"]
    used = {node["$ref"] for node in nodes(description()) if "$ref" in node}
    there = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in components[kind]}
    assert used <= there
    unused = there - used - {"#/components/responses/405"}
    assert not unused


def test_path_parameters_are_declared() -> None:
    """Every `{name}` in a path is a declared, required parameter."""
    for _, path, operation in operations():
        declared = {entry["name"] for entry in operation.get("parameters", []) if entry["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_every_operation_says_how_it_fails() -> None:
    """Each operation has a summary, an answer and the refusals of the guard."""
    for method, path, operation in operations():
        assert operation["summary"]
        statuses = set(operation["responses"])
        assert statuses >= {"200", "400", "403"}, (method, path)
        if path not in ("/health", "/ready"):
            assert "401" in statuses
        if "requestBody" in operation:
            assert statuses >= {"408", "413", "415", "417"}


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """What a reference stands for."""
    while "$ref" in node:
        found: Any = description()
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def check(value: Any, schema: dict[str, Any], place: str) -> None:
    """A small judge of the JSON Schema words that the description uses."""
    schema = resolve(schema)
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if (wanted := schema.get("type")) is not None:
        names = wanted if isinstance(wanted, list) else [wanted]
        fits = any(
            isinstance(value, (int, float) if name == "number" else int) and not isinstance(value, bool)
            if name in ("number", "integer")
            else isinstance(value, kinds[name])
            for name in names
        )
        assert fits, f"{place}: {value!r} is no {wanted}"
    assert "const" not in schema or value == schema["const"], place
    assert "enum" not in schema or value in schema["enum"], place
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value), f"{place}: {set(schema['required']) - set(value)} missing"
        for name, inner in value.items():
            if name in schema.get("properties", {}):
                check(inner, schema["properties"][name], f"{place}.{name}")
            elif isinstance(schema.get("additionalProperties"), dict):
                check(inner, schema["additionalProperties"], f"{place}.{name}")
    elif isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            check(inner, schema["items"], f"{place}[{index}]")


async def requests_of(served: Served) -> dict[tuple[str, str], tuple[str, Any]]:
    """For each described operation the path and body of a request that it takes."""
    served.router.bookkeeper.enter("pending", 1.0)
    plain = {(method, path): (path, None) for method, path, _ in operations()}
    return plain | {
        ("GET", "/models/{model}"): ("/models/router/code", None),
        ("GET", "/v1/models/{model}"): ("/v1/models/a%2Fm1", None),
        ("POST", "/v1/explain"): ("/v1/explain", CHAT),
        ("GET", "/v1/requests/{request_id}"): ("/v1/requests/pending", None),
        ("POST", "/config/category"): ("/config/category", {"name": "x", "models": ["a/m1"]}),
        ("POST", "/config/model-mapping"): ("/config/model-mapping", {"category": "code", "models": ["a/m1"]}),
        ("DELETE", "/config/category/{name}"): ("/config/category/creative", None),
        ("POST", "/circuit-breaker/reset/{model}"): ("/circuit-breaker/reset/a/m1", None),
        ("POST", "/v1/chat/completions"): ("/v1/chat/completions", CHAT),
        ("POST", "/chat/completions"): ("/chat/completions", CHAT),
    }


async def test_answers_are_as_described(serve: StartRouter) -> None:
    """Every route's real answer has a described status and fits its schema (the provider is down: chats are 503)."""
    served = await serve()
    for (method, template), (path, body) in (await requests_of(served)).items():
        answer = await served.ask(method, path, body)
        described = resolve(description()["paths"][template][method.lower()]["responses"][str(answer.status)])
        assert answer.status in (200, 202, 503), (method, path, answer.body)
        check(answer.json(), described["content"]["application/json"]["schema"], f"{method} {path}")


@pytest.mark.parametrize(
    ("headers", "status"), [({"Host": "evil.com"}, 403), ({"Host": "a b"}, 400), ({"Origin": "http://evil.com"}, 403)]
)
async def test_refusals_are_as_described(serve: StartRouter, headers: dict[str, str], status: int) -> None:
    """A refusal looks the same on every route and is described for it."""
    served = await serve()
    for method, path, operation in operations():
        answer = await served.ask(method, re.sub(r"\{\w+\}", "x", path), headers=headers)
        assert answer.status == status
        check(
            answer.json(), resolve(operation["responses"][str(status)])["content"]["application/json"]["schema"], path
        )
