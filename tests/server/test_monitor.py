"""The routes that only look, served by the real router."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llm_router import __version__
from llm_router.accounting.booking import Booking
from llm_router.server.monitor import quality
from llm_router.server.rules import client_name
from tests.server.conftest import Served, StartRouter


async def test_health(serve: StartRouter) -> None:
    """/health has its promised fields; only providers with a key are named."""
    answer = await (await serve()).ask("GET", "/health")
    body = answer.json()
    assert answer.status == 200
    assert body.pop("uptime_s") >= 0
    assert body == {
        "status": "healthy",
        "version": __version__,
        "routing_mode": "local",
        "providers": ["ollama", "a"],
        "categories": ["tools", "code", "reasoning", "conversation", "creative"],
    }


async def test_uptime_when_the_clock_was_set(serve: StartRouter) -> None:
    """A machine that learns the time after its start has not been up for years, nor for no time at all."""
    served = await serve()
    for years in (-10, 10):
        served.router.started += years * 365 * 86_400
        assert 0 < (await served.ask("GET", "/health")).json()["uptime_s"] < 3600


async def test_ready(serve: StartRouter) -> None:
    """/ready is 200 while some chain could answer; 503 when none could, and while draining."""
    served = await serve()
    assert (await served.ask("GET", "/ready")).json() == {"status": "ready"}
    served.router.draining = True
    answer = await served.ask("GET", "/ready")
    assert (answer.status, answer.json()) == (503, {"status": "draining"})
    served.router.draining = False


async def test_not_ready_without_an_able_candidate(serve: StartRouter) -> None:
    """Chains whose providers have no key make the router not ready, though healthy."""
    chain = ["openai/gpt-4o"]
    mappings = dict.fromkeys(("tools", "code", "reasoning", "conversation"), chain)
    served = await serve({"model_mappings": mappings})
    answer = await served.ask("GET", "/ready")
    assert (answer.status, answer.json()) == (503, {"status": "no_able_candidate"})
    assert (await served.ask("GET", "/health")).status == 200


async def test_models(serve: StartRouter) -> None:
    """The list holds router, each category and each chain model once, in OpenAI's shape, on both paths."""
    served = await serve()
    answer = await served.ask("GET", "/v1/models")
    names = [model["id"] for model in answer.json()["data"]]
    assert names == [
        "router",
        *(f"router/{name}" for name in ("tools", "code", "reasoning", "conversation", "creative")),
        "a/m1",
        "a/vendor/m2",
        "a/vendor/m3",
    ]
    assert {model["object"] for model in answer.json()["data"]} == {"model"}
    assert answer.json()["data"][-1]["owned_by"] == "a"
    assert (await served.ask("GET", "/models")).json() == answer.json()


@pytest.mark.parametrize("name", ["router", "router/code", "router%2Fcode", "a/vendor/m2", "a%2Fvendor%2Fm2"])
async def test_one_model(serve: StartRouter, name: str) -> None:
    """A name behind the list's path gives its entry alone, as clients that retrieve a model expect."""
    served = await serve()
    entries = {model["id"]: model for model in (await served.ask("GET", "/v1/models")).json()["data"]}
    for path in ("/v1/models/", "/models/"):
        answer = await served.ask("GET", path + name)
        assert (answer.status, answer.json()) == (200, entries[name.replace("%2F", "/")])


@pytest.mark.parametrize("name", ["nosuch", "router/nosuch", "a/m1/", "%00", "a/m1%0a"])
async def test_a_model_that_is_not_listed(serve: StartRouter, name: str) -> None:
    """A name that the list does not hold is OpenAI's 404 `model_not_found`."""
    answer = await (await serve()).ask("GET", f"/v1/models/{name}")
    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_providers(serve: StartRouter) -> None:
    """/providers tells where each provider is and whether it has a key, and no key."""
    answer = await (await serve()).ask("GET", "/providers")
    body = answer.json()
    assert body["default_provider"] == "openrouter"
    assert body["providers"]["a"] == {"base_url": "http://127.0.0.1:9/v1", "configured": True}
    assert body["providers"]["openai"]["configured"] is False
    assert b"sk-secret" not in answer.raw


JSON_NAMES = {
    "requests", "avg_latency_ms", "total_cost_usd", "model_distribution", "category_distribution",
    "provider_distribution", "circuit_breaker", "recent_requests",
}  # fmt: skip


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("application/json, text/plain, */*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("text/plain;q=0", "json"),
        ("text/plain;q=oops", "json"),
        ("text/plain", "text"),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "text"),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "openmetrics"),
        ("text/plain, Application/OpenMetrics-Text", "openmetrics"),
        ("application/openmetrics-text;version=1.0.0;q=0.2, text/plain;q=0.9", "text"),
        ("application/openmetrics-text;q=0, text/plain", "text"),
    ],
)
async def test_metrics_by_accept(serve: StartRouter, accept: str | None, kind: str) -> None:
    """Figures are JSON unless text is asked for and wanted more than JSON; axios's Accept means JSON."""
    answer = await (await serve()).ask("GET", "/metrics", headers={"Accept": accept})
    assert answer.status == 200
    if kind == "json":
        assert answer.json().keys() >= JSON_NAMES
        assert answer.json()["requests"] == {"total": 0, "success": 0, "failed": 0, "cancelled": 0}
        assert answer.json()["circuit_breaker"]["open_circuits"] == []
    else:
        assert b"# HELP llm_router_" in answer.body
        assert (b"# EOF" in answer.body) is (kind == "openmetrics")
        wanted = "application/openmetrics-text" if kind == "openmetrics" else "text/plain"
        assert (answer.header("content-type") or "").startswith(wanted)


async def test_accept_may_come_in_several_lines(serve: StartRouter) -> None:
    """A list that is spread over headers of one name is one list, as HTTP says."""
    lines = {"Accept": "application/json;q=0.1", "accept": "text/plain"}
    answer = await (await serve()).ask("GET", "/metrics", headers=lines)
    assert (answer.header("content-type") or "").startswith("text/plain")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/html", 1.0),
        ("a/b, text/html;q=0.3", 0.3),
        ("TEXT/HTML; Q=0.5", 0.5),
        ("*/*", 0.0),
        ("text/*", 0.0),
        ("", 0.0),
    ],
)
def test_quality(accept: str, wanted: float) -> None:
    """The weight of exactly that type; wildcards do not count."""
    assert quality(accept, "text/html") == wanted


@pytest.mark.parametrize(
    "path",
    [
        "/v1/responses",
        "/v1/messages",
        "/v1/v1/messages",
        "/v1/embeddings",
        "/v1/completions",
        "/responses",
        "/api/chat",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_not_offered(serve: StartRouter, path: str, method: str) -> None:
    """Routes of other APIs are a JSON 404 that says what there is instead."""
    answer = await (await serve()).ask(method, path, {} if method == "POST" else None)
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert "not offered" in answer.error["message"]
    assert "/v1/chat/completions" in answer.error["message"]
    assert answer.body.endswith(b"}\n")


@pytest.mark.parametrize("version", ["/v1", "/v1beta"])
@pytest.mark.parametrize("name", ["router", "router/code"])
async def test_google_is_not_offered(serve: StartRouter, version: str, name: str) -> None:
    """Google's API has its verbs behind a model's name: a 404 as well, though the name alone may be asked for."""
    answer = await (await serve()).ask("POST", f"{version}/models/{name}:streamGenerateContent?alt=sse", {})
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert "not offered" in answer.error["message"]


async def test_a_slash_behind_the_list(serve: StartRouter) -> None:
    """The list of models is offered; what a slash makes of its path is not called another API."""
    answer = await (await serve()).ask("GET", "/v1/models/")
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert "not offered" not in answer.error["message"]


@pytest.mark.parametrize("base", ["/v1/chat/completions", "/api/v1", "/openai/deployments/router"])
async def test_a_wrong_base_url(serve: StartRouter, base: str) -> None:
    """A client whose base URL is not ours is told what it should be."""
    answer = await (await serve()).ask("POST", f"{base}/chat/completions", {})
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert answer.error["message"].endswith("the base URL for clients ends with /v1")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/chat/completions"), ("GET", "/models"), ("GET", "/models/router")]
)
async def test_v1_twice(serve: StartRouter, method: str, path: str) -> None:
    """The SDKs of Mistral and Google add /v1 to the base URL: one that ends with it already is wrong for them alone."""
    answer = await (await serve()).ask(method, f"/v1/v1{path}", {} if method == "POST" else None)
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert f"but at /v1{path}: the base URL for this client goes without /v1" in answer.error["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/config/category", "/v1/explain"])
async def test_wrong_methods(serve: StartRouter, path: str) -> None:
    """A route asked with another method is a JSON 405 that names the right one."""
    answer = await (await serve()).ask("GET", path)
    assert (answer.status, answer.header("allow")) == (405, "POST")
    assert answer.error["code"] == "method_not_allowed"


async def test_head(serve: StartRouter) -> None:
    """HEAD answers as GET does, without the body."""
    served = await serve()
    for path in ("/health", "/metrics", "/"):
        answer = await served.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.header("content-length") or 0) > 0


async def settle(served: Served, **fields: Any) -> None:
    """Books a request and waits until it is in the ledger."""
    served.router.bookkeeper.submit(Booking(**fields))
    assert await asyncio.to_thread(served.router.bookkeeper.flush)


async def test_ledger_record(serve: StartRouter) -> None:
    """A request is 404 before it exists, 202 while it is not settled, and its record afterwards."""
    served = await serve()
    assert (await served.ask("GET", "/v1/requests/abc")).error["code"] == "request_not_found"
    ticket = served.router.bookkeeper.enter("abc", 1.0)
    pending = await served.ask("GET", "/v1/requests/abc")
    assert (pending.status, pending.json()) == (202, {"request_id": "abc", "status": "pending"})
    assert pending.header("retry-after") == "1"
    await settle(served, request_id="abc", started=1.0, model="a/m1", provider="a", ticket=ticket)
    record = await served.ask("GET", "/v1/requests/abc")
    assert record.status == 200
    assert (record.json()["model"], record.json()["outcome"]) == ("a/m1", "completed")
    assert "client" not in record.json()


async def test_ids_that_are_odd(serve: StartRouter) -> None:
    """An id that nobody has, however strange, is a short 404."""
    served = await serve()
    for name in ("%00", "%F0%9F%98%80", "'%20OR%201=1--", "x" * 4000, "%2e%2e%2f", "..."):
        answer = await served.ask("GET", f"/v1/requests/{name}")
        assert (answer.status, answer.error["code"]) == (404, "request_not_found")
        assert len(answer.body) < 400


async def test_a_key_sees_its_own_requests(serve: StartRouter) -> None:
    """With keys, each client finds its own requests and sums alone; the admin key finds all."""
    served = await serve(api_keys=("alpha", "beta"), admin_key="root")
    for key in ("alpha", "beta"):
        fields = {"request_id": f"of-{key}", "started": 1e9, "client": client_name(key), "model": f"a/{key}"}
        await settle(served, **fields)
    served.router.bookkeeper.enter("running", 1e9, client=client_name("beta"))
    seen = {}
    for key in ("alpha", "beta", "root"):
        headers = {"Authorization": f"Bearer {key}"}
        ids = ("of-alpha", "of-beta", "running")
        statuses = [(await served.ask("GET", f"/v1/requests/{name}", headers=headers)).status for name in ids]
        usage = (await served.ask("GET", "/v1/usage", headers=headers)).json()
        seen[key] = (statuses, sorted(row["model"] for row in usage["data"]))
    assert seen == {
        "alpha": ([200, 404, 404], ["a/alpha"]),
        "beta": ([404, 200, 202], ["a/beta"]),
        "root": ([200, 200, 202], ["a/alpha", "a/beta"]),
    }


async def test_usage(serve: StartRouter) -> None:
    """Sums by the asked dimension since the asked time; the answer says what it sums."""
    served = await serve()
    await settle(served, request_id="old", started=1000.0, model="a/m1", category="code")
    await settle(served, request_id="new", started=4e9, model="a/m1", category="tools")
    by_category = (await served.ask("GET", "/v1/usage?by=category")).json()
    assert (by_category["by"], by_category["since"]) == ("category", None)
    assert {row["category"]: row["requests"] for row in by_category["data"]} == {"code": 1, "tools": 1}
    recent = (await served.ask("GET", "/v1/usage?since=2026-01-01")).json()
    assert [(row["model"], row["requests"]) for row in recent["data"]] == [("a/m1", 1)]
    assert recent["since"] == 1767225600.0


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("by=colour", "by"),
        ("by=model;drop", "by"),
        ("since=yesterday", "since"),
        ("since=-1d", "since"),
        ("since=99999999999d", "since"),
    ],
)
async def test_usage_of_what(serve: StartRouter, query: str, param: str) -> None:
    """A dimension or a span that there is not is 400 and names the parameter."""
    answer = await (await serve()).ask("GET", f"/v1/usage?{query}")
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_openapi_is_served(serve: StartRouter) -> None:
    """The description is there as JSON."""
    answer = await (await serve()).ask("GET", "/openapi.json")
    assert json.loads(answer.body)["openapi"] == "3.1.0"
