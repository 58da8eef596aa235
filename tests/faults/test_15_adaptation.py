"""How far a request is changed for its provider, and not a step further."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.chunks import DONE, answer, completion, usage
from tests.support.fixtures import Stage
from tests.support.upstream import reply, stream

Own = Callable[..., Awaitable[Stage]]
USER = {"role": "user", "content": "hi"}
OPENROUTER_ONLY: dict[str, Any] = {
    "provider": {"order": ["x"]},
    "models": ["vendor/one", "vendor/two"],
    "route": "fallback",
    "transforms": ["middle-out"],
    "plugins": [{"id": "web"}],
    "reasoning": {"effort": "low"},
    "min_p": 0.1,
    "top_a": 0.2,
    "top_k": 40,
    "repetition_penalty": 1.1,
    "session_id": "s",
}
EVERYTHING: dict[str, Any] = {
    "temperature": 0.3,
    "seed": 7,
    "user": "u",
    "x_unknown": {"a": [1, 2.5, None]},
    "metadata": {"k": "v"},
    "prompt_cache_key": "k",
}


@pytest.fixture
async def vendors(own: Own) -> Stage:
    """`a` plays OpenAI, `b` OpenRouter, `c` a custom host."""
    stage = await own()
    await asyncio.to_thread(stage.router.kill)
    stage.router.env |= {
        "OPENAI_API_KEY": "sk-test-openai-00000000",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{stage.a.port}/v1",
        "OPENROUTER_API_KEY": "sk-or-test-00000000",
        "OPENROUTER_BASE_URL": f"http://127.0.0.1:{stage.b.port}/api/v1",
        "ROUTER_NAME": "My Router",
        "ROUTER_URL": "https://router.example",
    }
    await asyncio.to_thread(stage.router.start)
    return stage


def sent(stage: Stage, name: str = "a") -> Any:
    """The body that the upstream got last."""
    return getattr(stage, name).last.request.json()


async def test_openai_gets_everything_but_what_it_refuses(vendors: Stage) -> None:
    """OpenAI gets the client's JSON with `model` changed and OpenRouter's own fields removed."""
    got = await vendors.chat("openai/gpt-4o", **EVERYTHING, **OPENROUTER_ONLY)
    assert got.status == 200
    body = sent(vendors)
    assert body == {"model": "gpt-4o", "messages": body["messages"], "stream": True, **EVERYTHING}
    assert "stream_options" not in body, "no usage or obfuscation option is added"


async def test_openrouter_gets_everything(vendors: Stage) -> None:
    """OpenRouter gets the client's JSON unchanged but for `model`; its `models` travel as they are."""
    got = await vendors.chat("openrouter/vendor/model:free", **EVERYTHING, **OPENROUTER_ONLY)
    assert got.status == 200
    body = sent(vendors, "b")
    assert body == {
        "model": "vendor/model:free",
        "messages": body["messages"],
        "stream": True,
        **EVERYTHING,
        **OPENROUTER_ONLY,
    }
    request = vendors.b.last.request
    assert request.target == "/api/v1/chat/completions"
    assert request.header("authorization") == "Bearer sk-or-test-00000000"
    assert request.header("http-referer") == "https://router.example"
    assert "My Router" in (request.header("x-openrouter-title"), request.header("x-title"))


async def test_the_other_vendors_get_no_attribution(vendors: Stage) -> None:
    """OpenRouter's attribution headers go to OpenRouter alone."""
    await vendors.chat("openai/gpt-4o")
    assert "router.example" not in str(vendors.a.last.request.headers)


@pytest.mark.parametrize("model", ["o3", "o4-mini", "gpt-5", "gpt-5-mini"])
async def test_reasoning_models_of_openai(vendors: Stage, model: str) -> None:
    """`max_tokens` becomes `max_completion_tokens` for OpenAI's reasoning models."""
    await vendors.chat(f"openai/{model}", max_tokens=100)
    body = sent(vendors)
    assert (body.get("max_completion_tokens"), "max_tokens" in body) == (100, False)


async def test_other_models_of_openai_keep_their_limit(vendors: Stage) -> None:
    """For other models of OpenAI the limit is not renamed."""
    await vendors.chat("openai/gpt-4o", max_tokens=100)
    assert sent(vendors)["max_tokens"] == 100
    await vendors.chat("openai/gpt-4o", max_completion_tokens=100)
    assert sent(vendors)["max_completion_tokens"] == 100


async def test_developer_messages(vendors: Stage) -> None:
    """`developer` stays for OpenAI and OpenRouter, and is `system` for everybody else."""
    messages = [{"role": "developer", "content": "be short"}, USER]
    await vendors.chat("openai/gpt-4o", messages=messages)
    assert sent(vendors)["messages"] == messages
    await vendors.chat("openrouter/vendor/model", messages=messages)
    assert sent(vendors, "b")["messages"] == messages
    await vendors.chat("c/m3", messages=messages)
    assert sent(vendors, "c")["messages"] == [{"role": "system", "content": "be short"}, USER]


async def test_limits_of_custom_hosts(vendors: Stage) -> None:
    """Custom hosts know only `max_tokens`."""
    await vendors.chat("c/m3", max_completion_tokens=50)
    body = sent(vendors, "c")
    assert (body["max_tokens"], "max_completion_tokens" in body) == (50, False)


async def test_failover_between_vendors_adapts_anew(vendors: Stage) -> None:
    """Each candidate gets its own form of the client's request, not what the one before was sent."""
    vendors.a.script = reply(500, b"")
    models = ["openai/o3", "c/m3", "openrouter/vendor/model"]
    messages = [{"role": "developer", "content": "be short"}, USER]
    vendors.c.script = reply(500, b"")
    got = await vendors.chat("router", models=models, messages=messages, max_tokens=9, top_k=4)
    assert got.header("x-router-model") == "openrouter/vendor/model"
    first, second, third = sent(vendors), sent(vendors, "c"), sent(vendors, "b")
    assert (first["max_completion_tokens"], "top_k" in first) == (9, False)
    assert (second["max_tokens"], second["messages"][0]["role"]) == (9, "system")
    assert (third["max_tokens"], third["top_k"], third["messages"]) == (9, 4, messages)


async def test_clients_keys_stay_here(vendors: Stage) -> None:
    """The client's own key goes to no provider."""
    for model, name in (("openai/gpt-4o", "a"), ("openrouter/x/y", "b"), ("c/m3", "c")):
        await vendors.chat(
            model, headers={"Authorization": "Bearer sk-client-own-key", "X-Api-Key": "sk-client-own-key"}
        )
        assert "sk-client" not in str(getattr(vendors, name).last.request.headers)


async def test_known_prices_are_charged(own: Own) -> None:
    """A model with a price and a reported usage costs tokens times price."""
    stage = await own(prices={"a/m1": {"input": 2.0, "output": 10.0}})
    stage.a.script = stream([*answer("Hello", done=False), usage(1000, 500), DONE])
    record = await stage.record(await stage.chat("router/ab"))
    assert record["cost_usd"] == pytest.approx((1000 * 2.0 + 500 * 10.0) / 1e6)
    assert record["cost_source"] == "provider_usage"
    stage.a.script = stream(answer("Hello"))
    record = await stage.record(await stage.chat("router/ab"))
    assert record["cost_source"] in ("tiktoken", "tiktoken_calibrated")
    assert 0 < record["cost_usd"] < 0.001
    figures = await stage.metrics()
    assert figures["total_cost_usd"] == pytest.approx(0.007 + record["cost_usd"], abs=1e-4)


async def test_unknown_prices_are_null(stage: Stage) -> None:
    """A model without a price costs null, never 0."""
    record = await stage.record(await stage.chat("router/ab"))
    assert record["cost_usd"] is None


async def test_openrouters_own_cost_wins(vendors: Stage) -> None:
    """`usage.cost` of OpenRouter is the cost, streamed and not."""
    vendors.b.script = stream([*answer("Hello", done=False), usage(1000, 500, cost=0.0123), DONE])
    record = await vendors.record(await vendors.chat("openrouter/vendor/model"))
    assert (record["cost_usd"], record["cost_source"]) == (pytest.approx(0.0123), "provider_cost")
    body = completion("x")
    body["usage"]["cost"] = 0.5
    vendors.b.script = reply(200, body)
    record = await vendors.record(await vendors.chat("openrouter/vendor/model", False))
    assert (record["cost_usd"], record["cost_source"]) == (pytest.approx(0.5), "provider_cost")


async def test_cached_tokens_are_cheaper(own: Own) -> None:
    """Cached tokens are part of the prompt and cost their own price, once."""
    stage = await own(prices={"a/m1": {"input": 10.0, "output": 10.0, "cached_input": 1.0}})
    figures = usage(1000, 100, prompt_tokens_details={"cached_tokens": 800})
    stage.a.script = stream([*answer("Hello", done=False), figures, DONE])
    record = await stage.record(await stage.chat("router/ab"))
    assert record["cost_usd"] == pytest.approx((200 * 10 + 800 * 1 + 100 * 10) / 1e6)


async def test_the_last_usage_counts(own: Own) -> None:
    """Usage that grows over the chunks is not added up: the last one counts."""
    stage = await own(prices={"a/m1": {"input": 1.0, "output": 1.0}})
    stage.a.script = stream([usage(10, 0), *answer("Hello", done=False), usage(10, 5), usage(10, 7), DONE])
    record = await stage.record(await stage.chat("router/ab"))
    assert record["cost_usd"] == pytest.approx(17 / 1e6)
