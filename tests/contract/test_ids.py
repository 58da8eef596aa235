"""Model ids in requests: who is asked, what travels, who is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import Desk


@pytest.mark.parametrize(
    ("model", "asked", "told"),
    [
        ("gpt-4o", "openrouter", "openrouter/gpt-4o"),
        ("openrouter/z-ai/glm-5", "openrouter", "openrouter/z-ai/glm-5"),
        ("openai/ft:gpt-4o:me", "openai", "openai/ft:gpt-4o:me"),
        ("groq/meta/llama", "groq", "groq/meta/llama"),
        ("router/code", "groq", "groq/code"),
        ("Router", "openrouter", "openrouter/Router"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_id_is_split_at_its_first_slash(desk: Desk, model: str, asked: str, told: str, streamed: bool) -> None:
    """The provider gets what stands behind the first slash; an id without one belongs to DEFAULT_PROVIDER."""
    got = await desk.chat(model, streamed)
    assert (got.status, got.header("x-router-model"), got.header("x-router-provider")) == (200, told, asked)
    assert desk.up[asked].last.request.json()["model"] == told.partition("/")[2]
    assert sum(upstream.count for upstream in desk.up.values()) == 1


@pytest.mark.parametrize("model", ["nosuch/x", "OpenAI/x", "openai/", "/x", "router/", "router/nosuch", "router/Code"])
async def test_unknown_names_are_404(desk: Desk, model: str) -> None:
    """Unknown categories and providers are `model_not_found`, and nobody is asked."""
    got = await desk.chat(model)
    assert (got.status, got.error["code"], got.error["param"]) == (404, "model_not_found", "model")
    assert not any(upstream.connections for upstream in desk.up.values())


@pytest.mark.parametrize("model", ["router", "auto"])
async def test_a_list_of_models_is_the_chain(desk: Desk, model: str) -> None:
    """With `router` or `auto` a `models` list is the chain, in our ids, and does not travel."""
    got = await desk.chat(model, models=["groq/y", "gpt-4o"])
    assert got.header("x-router-model") == "groq/y"
    assert "models" not in desk.up["groq"].last.request.json()
    got = await desk.chat(model, models=["gpt-4o"])
    assert got.header("x-router-model") == "openrouter/gpt-4o"


async def test_openrouters_own_list_travels(desk: Desk) -> None:
    """Behind an explicit OpenRouter model the list is OpenRouter's, whatever stands in it."""
    names = ["anthropic/claude-sonnet-4.5", "nosuch/x"]
    got = await desk.chat("openrouter/z-ai/glm-5", models=names)
    assert got.status == 200
    assert desk.up["openrouter"].last.request.json()["models"] == names
    assert got.header("x-router-attempts") == "1"


@pytest.mark.parametrize(
    ("models", "status", "param"),
    [
        (["nosuch/x"], 404, "models[0]"),
        (["groq/a", "router/code"], 404, "models[1]"),
        ("groq/a", 400, "models"),
        ([1], 400, "models[0]"),
        ([""], 400, "models[0]"),
        ([], 400, "models"),
        (["groq/a"] * 65, 400, "models"),
        (["groq/a\nb"], 400, "models[0]"),
    ],
)
async def test_a_bad_list_is_refused_by_its_place(desk: Desk, models: Any, status: int, param: str) -> None:
    """What is wrong in `models` is named."""
    got = await desk.chat("router", models=models)
    assert (got.status, got.error["param"]) == (status, param)


@pytest.mark.parametrize(
    "name", ["groq/code", "groq%2Fcode", "openrouter/z-ai/glm-5", "openrouter%2Fz-ai%2Fglm-5", "never/seen", "short"]
)
async def test_resets_take_any_id(desk: Desk, name: str) -> None:
    """A reset takes the id raw or percent-encoded, and is 200 also for a model that has no circuit."""
    got = await desk.ask("POST", f"/circuit-breaker/reset/{name}")
    assert got.status == 200
    assert got.body.endswith(b"}\n")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abc", True),
        ("a.b_c-d:1", True),
        ("1", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("has space", False),
        ('"quoted"', False),
        ("a,b", False),
        ("", False),
    ],
)
async def test_the_clients_request_id(desk: Desk, sent: str, kept: bool) -> None:
    """The client's own request id is used if it is a sane token, else one of ours is made."""
    for path, body in (("/v1/chat/completions", {}), ("/health", None)):
        got = await desk.ask("POST" if body is not None else "GET", path, body, headers={"x-request-id": sent})
        named = got.header("x-request-id")
        assert named
        assert (named == sent) is kept
