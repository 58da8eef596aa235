"""Section 4 of the contract route by route: shapes, names and codes that other programs are written against."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.client import chat_body
from tests.support.fixtures import Stage
from tests.support.upstream import reply

Own = Callable[..., Awaitable[Stage]]
BUILT_IN = {"tools", "code", "reasoning", "conversation"}


async def test_health(stage: Stage) -> None:
    """`/health` tells version, uptime, mode, providers and categories."""
    got = await stage.router.ask("GET", "/health")
    health = got.json()
    assert (got.status, health["status"]) == (200, "healthy")
    assert isinstance(health["version"], str)
    assert isinstance(health["uptime_s"], int | float)
    assert health["routing_mode"] in ("local", "keywords", "ollama", "api", "hybrid")
    assert {"a", "b", "c"} <= set(health["providers"])
    assert set(health["categories"]) == {*BUILT_IN, "ab", "abc", "aab", "only"}


async def test_ready(own: Own) -> None:
    """`/ready` is 503 when no chain has an able candidate."""
    stage = await own(env={"A_KEY": "", "B_KEY": "", "C_KEY": ""})
    assert (await stage.router.ask("GET", "/ready")).status == 503
    assert (await stage.router.ask("GET", "/health")).status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_models(stage: Stage, path: str) -> None:
    """The models' list holds `router`, `router/<category>` and every configured chain model."""
    listed = (await stage.router.ask("GET", path)).json()
    assert listed["object"] == "list"
    names = [model["id"] for model in listed["data"]]
    assert {"router", "a/m1", "a/m2", "b/m2", "c/m3"} | {f"router/{name}" for name in (*BUILT_IN, "ab")} <= set(names)
    assert len(names) == len(set(names))
    assert all(model["object"] == "model" for model in listed["data"])


async def test_metrics(stage: Stage) -> None:
    """`/metrics` keeps its names; the figures of one request appear together."""
    before = await stage.metrics()
    await stage.chat("router/ab")
    figures = await stage.settled(before["requests"]["total"] + 1)
    assert set(figures["requests"]) >= {"total", "success", "failed", "cancelled"}
    wanted = {
        "avg_latency_ms",
        "total_cost_usd",
        "model_distribution",
        "category_distribution",
        "provider_distribution",
        "circuit_breaker",
        "recent_requests",
    }
    assert wanted <= set(figures)
    assert set(figures["circuit_breaker"]) >= {"open_circuits", "circuits"}
    assert figures["model_distribution"]["a/m1"] == before["model_distribution"].get("a/m1", 0) + 1
    assert figures["category_distribution"]["ab"] == before["category_distribution"].get("ab", 0) + 1
    assert figures["provider_distribution"]["a"] == before["provider_distribution"].get("a", 0) + 1
    assert "Say hello" not in json.dumps(figures)


@pytest.mark.parametrize(
    "accept", ["text/plain", "application/openmetrics-text; version=1.0.0", "text/plain;version=0.0.4"]
)
async def test_metrics_for_prometheus(stage: Stage, accept: str) -> None:
    """`/metrics` is Prometheus text for those who ask for it."""
    got = await stage.router.ask("GET", "/metrics", headers={"Accept": accept})
    assert got.status == 200
    assert not (got.header("content-type") or "").startswith("application/json")
    lines = [line for line in got.body.decode().splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        float(line.rsplit(" ", 1)[1])


async def test_providers(stage: Stage) -> None:
    """`/providers` tells which are configured and where they are, without secrets."""
    body = (await stage.router.ask("GET", "/providers")).json()
    assert body["default_provider"] == "openrouter"
    assert body["providers"]["a"] == body["providers"]["a"] | {
        "base_url": f"http://127.0.0.1:{stage.a.port}/v1",
        "configured": True,
    }
    assert body["providers"]["openai"]["configured"] is False
    assert body["providers"]["ollama"]["configured"] is True


async def test_config(stage: Stage) -> None:
    """`/config` is the effective configuration; `model_mappings` holds every category's chain."""
    body = (await stage.router.ask("GET", "/config")).json()
    assert body["model_mappings"]["ab"] == ["a/m1", "b/m2"]
    assert set(body["model_mappings"]) >= BUILT_IN
    assert set(body) >= {"model_mappings", "keywords", "custom_categories", "routing_mode"}
    assert "sk-test" not in json.dumps(body)


async def test_explain(stage: Stage) -> None:
    """`/v1/explain` says what would be chosen, calls nobody and leaves no trace."""
    before = (await stage.metrics())["requests"]
    got = await stage.router.ask("POST", "/v1/explain", chat_body("router", content="write a python function"))
    body = got.json()
    assert got.status == 200
    assert set(body) >= {"category", "confidence", "mode", "scores", "evidence", "candidates", "skipped"}
    assert [candidate["model"] for candidate in body["candidates"]] == ["a/m1", "b/m2"]
    assert set(body["candidates"][0]) >= {"model", "estimated_tokens", "estimated_cost_usd"}
    assert body["candidates"][0]["estimated_cost_usd"] is None, "an unknown price is null, never 0"
    await asyncio.sleep(0.2)
    assert (await stage.metrics())["requests"] == before
    assert not stage.a.connections


async def test_explain_shows_who_is_skipped(stage: Stage) -> None:
    """Skipped candidates come with their reasons, 200 also when everyone is skipped."""
    stage.a.script = stage.b.script = reply(500, b"")
    for _ in range(3):
        await stage.chat("router/ab")
    got = await stage.router.ask("POST", "/v1/explain", chat_body("router/ab"))
    assert got.status == 200
    body = got.json()
    assert {item["model"] for item in body["skipped"]} == {"a/m1", "b/m2"}
    assert all(item["reason"] for item in body["skipped"])


async def test_usage(stage: Stage) -> None:
    """`/v1/usage` reports by model, provider, category, client and day."""
    await stage.record(await stage.chat("router/ab"))
    for by in ("model", "provider", "category", "client", "day"):
        got = await stage.router.ask("GET", f"/v1/usage?by={by}&since=7d")
        assert got.status == 200, got.raw
        got.json()
    assert "a/m1" in (await stage.router.ask("GET", "/v1/usage?by=model")).body.decode()


async def test_a_record(stage: Stage) -> None:
    """A request's record names what happened: model, category, tokens, cost (null where the price is unknown)."""
    record = await stage.record(await stage.chat("router/ab"))
    flat = json.dumps(record)
    assert "a/m1" in flat
    assert '"ab"' in flat
    assert "Say hello" not in flat


async def test_the_front_page(stage: Stage) -> None:
    """`/` says what this is."""
    got = await stage.router.ask("GET", "/")
    assert got.status == 200
    assert "router" in got.body.decode().lower()


async def test_openapi_names_every_route(stage: Stage) -> None:
    """`/openapi.json` describes every route of the contract."""
    body = (await stage.router.ask("GET", "/openapi.json")).json()
    assert body["openapi"].startswith("3.")
    paths = {path.replace("{", "<").replace("}", ">"): set(item) for path, item in body["paths"].items()}
    for path, method in (
        ("/v1/chat/completions", "post"),
        ("/chat/completions", "post"),
        ("/v1/models", "get"),
        ("/models", "get"),
        ("/health", "get"),
        ("/ready", "get"),
        ("/metrics", "get"),
        ("/providers", "get"),
        ("/config", "get"),
        ("/config/category", "post"),
        ("/config/model-mapping", "post"),
        ("/config/reload", "post"),
        ("/circuit-breaker", "get"),
        ("/circuit-breaker/reset-all", "post"),
        ("/v1/explain", "post"),
        ("/v1/usage", "get"),
    ):
        assert method in paths.get(path, set()), path
    assert any(path.startswith("/config/category/<") and "delete" in found for path, found in paths.items())
    assert any(path.startswith("/circuit-breaker/reset/<") and "post" in found for path, found in paths.items())
    assert any(path.startswith("/v1/requests/<") and "get" in found for path, found in paths.items())


@pytest.mark.parametrize("name", ["router", "auto"])
async def test_router_classifies(stage: Stage, name: str) -> None:
    """`router` and `auto` choose a category; tools in the request are category `tools`."""
    got = await stage.chat(name, content="hello there")
    assert (got.status, got.header("x-router-category")) == (200, "conversation")
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    got = await stage.chat(name, tools=[tool])
    assert got.header("x-router-category") == "tools"
    got = await stage.chat(name, tools=[])
    assert got.header("x-router-category") != "tools"


async def test_explicit_models_are_never_replaced(stage: Stage) -> None:
    """`provider/model` goes there and nowhere else, with slashes, unlisted, and when it fails."""
    for model in ("b/m2", "b/deep/name", "b/never-configured:free"):
        got = await stage.chat(model)
        assert got.header("x-router-model") == model
        assert stage.b.last.request.json()["model"] == model.removeprefix("b/")
    stage.b.script = reply(500, b"")
    got = await stage.chat("b/m2")
    assert (got.status, stage.a.count, stage.c.count) == (503, 0, 0)


async def test_a_list_of_models_is_the_chain(stage: Stage) -> None:
    """With `model: "router"` a `models` list is the chain, in our ids."""
    stage.c.script = reply(500, b"")
    got = await stage.chat("router", models=["c/m3", "b/m2"])
    assert got.header("x-router-model") == "b/m2"
    assert (stage.a.count, stage.b.count, stage.c.count) == (0, 1, 1)
    got = await stage.chat("router", models=["nosuch/x", "b/m2"])
    assert (got.status, got.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("model", ["b/../x", "b/x/..", "b/models/../../x", "b/..\\x", "b/./x", ".."])
async def test_a_name_that_leads_elsewhere_is_no_models(stage: Stage, model: str) -> None:
    """Some providers have the model's name in the path, and some servers resolve escaped dots: nobody is asked."""
    for got in (await stage.chat(model), await stage.chat("router", models=[model])):
        assert (got.status, got.error["code"]) == (404, "model_not_found")
    got = await stage.chat("b/qwen2.5..x:7b")
    assert (got.status, stage.a.count, stage.b.count) == (200, 0, 1)


async def test_an_id_without_a_slash(own: Own) -> None:
    """An id without a slash belongs to DEFAULT_PROVIDER."""
    stage = await own(env={"DEFAULT_PROVIDER": "b", "DEFAULT_MODEL": "m2"})
    got = await stage.chat("whatever")
    assert got.header("x-router-model") == "b/whatever"


async def test_openai_like_the_documentation_says(own: Own) -> None:
    """OPENAI_API_KEY and OPENAI_BASE_URL alone make a working router: the first model of the key's provider."""
    stage = await own()
    await asyncio.to_thread(stage.router.kill)
    stage.router.env |= {
        "OPENAI_API_KEY": "sk-test-openai-0000",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{stage.a.port}/v1",
    }
    del stage.router.env["ROUTER_CONFIG_FILE"]
    await asyncio.to_thread(stage.router.start)
    got = await stage.chat("router", content="hello")
    assert got.status == 200
    assert (got.header("x-router-model") or "").startswith("openai/")
    assert stage.a.last.request.header("authorization") == "Bearer sk-test-openai-0000"
    got = await stage.chat("openai/gpt-4o")
    assert stage.a.last.request.json()["model"] == "gpt-4o"
    record: dict[str, Any] = await stage.record(got)
    assert "gpt-4o" in json.dumps(record)


async def test_unknown_routes(stage: Stage) -> None:
    """An unknown route is a JSON 404 in OpenAI's shape."""
    got = await stage.router.ask("GET", "/nosuch")
    assert got.status == 404
    assert set(got.error) >= {"message", "type", "param", "code"}
    assert got.body.endswith(b"\n")
