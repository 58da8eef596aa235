"""The routes that change configuration and circuits, served by the real router over a real file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_router.errors import Failure, FailureKind
from tests.server.conftest import CONFIG, Served, StartRouter

CHAT = {"model": "router", "messages": [{"role": "user", "content": "hello"}]}


async def test_config_shows_no_secret(serve: StartRouter) -> None:
    """GET /config shows every chain and no key."""
    answer = await (await serve()).ask("GET", "/config")
    body = answer.json()
    assert body["model_mappings"]["creative"] == ["a/vendor/m3"]
    assert body["custom_categories"]["creative"]["description"] == "stories"
    assert body["routing_mode"] == "local"
    assert b"sk-secret" not in answer.raw


async def test_category_is_added(serve: StartRouter) -> None:
    """A new category is in force at once, its chain under model_mappings, and the user's notes stay."""
    served = await serve()
    body = {"name": "poems", "models": ["a/m9"], "keywords": ["ode"], "description": "verse"}
    answer = await served.ask("POST", "/config/category", body)
    assert (answer.status, answer.json()) == (200, {"status": "ok", "category": "poems", "models": ["a/m9"]})
    assert (await served.ask("GET", "/config")).json()["model_mappings"]["poems"] == ["a/m9"]
    file = served.file()
    assert file["model_mappings"]["poems"] == ["a/m9"]
    assert file["custom_categories"]["poems"] == {"keywords": ["ode"], "description": "verse"}
    assert file["_note"] == "kept"


async def test_a_default_model_gets_its_provider(serve: StartRouter) -> None:
    """An id without a slash belongs to the default provider."""
    served = await serve()
    answer = await served.ask("POST", "/config/model-mapping", {"category": "code", "models": ["glm-5"]})
    assert answer.json()["models"] == ["openrouter/glm-5"]


async def test_mapping_is_changed(serve: StartRouter) -> None:
    """A category gets another chain; an unknown category is 404 and changes nothing."""
    served = await serve()
    answer = await served.ask("POST", "/config/model-mapping", {"category": "code", "models": ["a/m7", "a/m8"]})
    assert (answer.status, answer.json()["models"]) == (200, ["a/m7", "a/m8"])
    assert served.file()["model_mappings"]["code"] == ["a/m7", "a/m8"]
    before = served.file()
    assert (await served.ask("POST", "/config/model-mapping", {"category": "nope", "models": ["a/m7"]})).status == 404
    assert served.file() == before


async def test_category_is_removed(serve: StartRouter) -> None:
    """DELETE removes a custom category; a built-in one is 400, an unknown one 404."""
    served = await serve()
    assert (await served.ask("DELETE", "/config/category/creative")).json() == {"status": "ok", "deleted": "creative"}
    assert "creative" not in (await served.ask("GET", "/config")).json()["model_mappings"]
    assert "creative" not in served.file()["custom_categories"]
    statuses = [
        (await served.ask("DELETE", f"/config/category/{name}")).status for name in ("code", "creative", "..%2f")
    ]
    assert statuses == [400, 404, 404]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/config/category", {"models": ["a/m1"]}, "name"),
        ("/config/category", {"name": "x"}, "models"),
        ("/config/category", {"name": "x", "models": []}, "models"),
        ("/config/category", {"name": "x y", "models": ["a/m1"]}, "name"),
        ("/config/category", {"name": "x", "models": ["nobody/m1"]}, "models[0]"),
        ("/config/category", {"name": "x", "models": "a/m1"}, "models"),
        ("/config/category", {"name": "x", "models": ["a/m1"], "colour": "red"}, "colour"),
        ("/config/model-mapping", {"category": "code"}, "models"),
        ("/config/model-mapping", {"models": ["a/m1"]}, "category"),
        ("/config/category", b'{"half \\ud83d": 1}', "half ?"),
        ("/config/model-mapping", b'{"\\udc00": 1}', "?"),
        ("/config/model-mapping", [], None),
        ("/config/model-mapping", b"{", None),
        ("/config/model-mapping", b"", None),
    ],
)
async def test_bad_changes(serve: StartRouter, path: str, body: Any, param: str | None) -> None:
    """A change that makes no sense is 400, names the field, and leaves file and configuration alone."""
    served = await serve()
    answer = await served.ask("POST", path, body)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert served.file() == CONFIG


async def test_changes_have_a_size(serve: StartRouter) -> None:
    """No change of the configuration needs more than a megabyte."""
    served = await serve()
    answer = await served.ask("POST", "/config/category", b" " * (1 << 20) + b"{}")
    assert answer.status == 413


async def test_reload(serve: StartRouter) -> None:
    """A file changed by hand is in force after a reload; a broken one is refused and the old configuration stays."""
    served = await serve()
    path = served.folder / "router_config.json"
    path.write_text(json.dumps({**CONFIG, "model_mappings": {**CONFIG["model_mappings"], "code": ["a/new"]}}))
    answer = await served.ask("POST", "/config/reload")
    assert (answer.status, answer.json()["status"]) == (200, "ok")
    assert (await served.ask("GET", "/config")).json()["model_mappings"]["code"] == ["a/new"]
    path.write_text('{"model_mappings": ')
    answer = await served.ask("POST", "/config/reload")
    assert 400 <= answer.status < 600
    assert "router_config.json" in answer.error["message"]
    assert (await served.ask("GET", "/config")).json()["model_mappings"]["code"] == ["a/new"]


def open_circuit(served: Served, model: str) -> None:
    """Three failures in a row."""
    circuits = served.router.circuits
    for _ in range(3):
        permit = circuits.admit(model, ("account",), served.router.clock())
        assert permit is not None
        circuits.failed(permit, Failure(FailureKind.SERVER_ERROR, "500"), served.router.clock())


@pytest.mark.parametrize("path", ["a/vendor/m2", "a%2Fvendor%2Fm2", "a%2fvendor/m2"])
async def test_circuits_are_shown_and_reset(serve: StartRouter, path: str) -> None:
    """An open circuit is listed, and closes by its id with its slashes raw or percent-encoded."""
    served = await serve()
    open_circuit(served, "a/vendor/m2")
    shown = (await served.ask("GET", "/circuit-breaker")).json()
    assert shown["open_circuits"] == ["a/vendor/m2"]
    assert shown["circuits"]["a/vendor/m2"]["state"] == "open"
    assert (await served.ask("GET", "/metrics")).json()["circuit_breaker"]["open_circuits"] == ["a/vendor/m2"]
    answer = await served.ask("POST", f"/circuit-breaker/reset/{path}")
    assert (answer.status, answer.json()) == (200, {"status": "ok", "model": "a/vendor/m2"})
    assert (await served.ask("GET", "/circuit-breaker")).json()["open_circuits"] == []


async def test_reset_of_what_has_no_circuit(serve: StartRouter) -> None:
    """Resetting a model that never failed, or that nobody knows, is 200."""
    served = await serve()
    for name in ("a/m1", "nobody/nothing", "glm-5", "reset-all"):
        answer = await served.ask("POST", f"/circuit-breaker/reset/{name}")
        assert (answer.status, answer.json()["status"]) == (200, "ok")
    assert answer.json()["model"] == "openrouter/reset-all"


async def test_reset_all(serve: StartRouter) -> None:
    """All circuits close at once."""
    served = await serve()
    open_circuit(served, "a/m1")
    open_circuit(served, "a/vendor/m2")
    assert (await served.ask("POST", "/circuit-breaker/reset-all")).json() == {"status": "ok"}
    assert (await served.ask("GET", "/circuit-breaker")).json()["open_circuits"] == []


async def test_explain(serve: StartRouter) -> None:
    """POST /v1/explain tells category, candidates and what is skipped, asks nobody and books nothing."""
    served = await serve()
    answer = await served.ask("POST", "/v1/explain", {**CHAT, "tools": [{"type": "function"}]})
    body = answer.json()
    assert answer.status == 200
    assert body.keys() >= {"category", "confidence", "mode", "scores", "evidence", "candidates", "skipped"}
    assert body["category"] == "tools"
    assert [candidate["model"] for candidate in body["candidates"]] == ["a/m1"]
    assert (await served.ask("GET", "/metrics")).json()["requests"]["total"] == 0
    assert served.router.bookkeeper.in_flight == 0


async def test_explain_with_nobody_able(serve: StartRouter) -> None:
    """When every candidate is skipped the answer is still 200, with the reasons."""
    served = await serve()
    open_circuit(served, "a/m1")
    body = {**CHAT, "model": "router/tools"}
    answer = await served.ask("POST", "/v1/explain", body)
    assert answer.status == 200
    assert (answer.json()["candidates"], answer.json()["skipped"][0]["model"]) == ([], "a/m1")


@pytest.mark.parametrize(
    ("body", "headers", "status", "param"),
    [
        ({"model": "router"}, {}, 400, "messages"),
        ({**CHAT, "model": "router/nope"}, {}, 404, "model"),
        (CHAT, {"x-router-max-price": "cheap"}, 400, "x-router-max-price"),
    ],
)
async def test_explain_of_bad_requests(
    serve: StartRouter, body: Any, headers: dict[str, str], status: int, param: str
) -> None:
    """What a chat would be refused for, explain refuses too."""
    answer = await (await serve()).ask("POST", "/v1/explain", body, headers=headers)
    assert (answer.status, answer.error["param"]) == (status, param)


async def test_changes_want_the_admin_key(serve: StartRouter) -> None:
    """A client's key reads the configuration but does not change it."""
    served = await serve(api_keys=("alpha",), admin_key="root")
    change = ("POST", "/config/model-mapping", {"category": "code", "models": ["a/m7"]})
    alpha, root = ({"Authorization": f"Bearer {key}"} for key in ("alpha", "root"))
    assert (await served.ask("GET", "/config", headers=alpha)).status == 200
    assert (await served.ask(*change)).status == 401
    assert (await served.ask(*change, headers=alpha)).status == 403
    assert served.file() == CONFIG
    assert (await served.ask(*change, headers=root)).status == 200
