"""What an answer cost: where usage may stand, whose figure is believed, what has no price."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import Desk
from tests.support.chunks import DONE, chunk, completion, event, finish, role, text
from tests.support.upstream import Script, reply, stream

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
CACHED = {**USAGE, "prompt_tokens_details": {"cached_tokens": 400}}


def with_usage(usage: Any) -> dict[str, Script]:
    """The places where providers put their usage, streamed and not."""
    in_choice = chunk({}, "stop")
    in_choice["choices"][0]["usage"] = usage
    no_choices = chunk(usage=usage)
    del no_choices["choices"]
    words = [role(), text("Hello"), text(" there")]
    return {
        "after the finish": stream([*words, finish(), event(chunk(choices=[], usage=usage)), DONE]),
        "with the finish": stream([*words, event(chunk({}, "stop", usage=usage)), DONE]),
        "inside the choice": stream([*words, event(in_choice), DONE]),
        "with an empty delta": stream([*words, finish(), event(chunk({"content": ""}, usage=usage)), DONE]),
        "without choices": stream([*words, finish(), event(no_choices), DONE]),
        "null before": stream(
            [
                event(chunk({"content": "Hello there"}, usage=None)),
                event(chunk({}, "stop", usage=None)),
                event(chunk(choices=[], usage=usage)),
                DONE,
            ]
        ),
        "whole though a stream was asked for": reply(200, {**completion("Hello there"), "usage": usage}),
        "not streamed": reply(200, {**completion("Hello there"), "usage": usage}),
    }


@pytest.mark.parametrize("place", with_usage(USAGE))
async def test_usage_is_found_wherever_it_stands(desk: Desk, place: str) -> None:
    """Reported usage is billed, cached tokens once and at their own price, and the count stands beside it."""
    desk.up["groq"].script = with_usage(CACHED)[place]
    record = await desk.record(await desk.chat("groq/priced", place != "not streamed"))
    assert record["cost_usd"] == pytest.approx((600 * 1.0 + 400 * 0.1 + 100 * 2.0) / 1e6)
    assert record["cost_source"] == "provider_usage"
    assert (record["input_tokens"], record["output_tokens"]) == (1000, 100)
    assert record["counted_input"] > 0
    assert record["counted_output"] == 2


async def test_without_usage_the_count_is_billed(desk: Desk) -> None:
    """Where the provider reports nothing the tokens are counted: `tiktoken`, calibrated once something was learned."""
    desk.up["groq"].script = stream([role(), text("Hello"), text(" there"), finish(), DONE])
    record = await desk.record(await desk.chat("groq/priced", True))
    assert record["cost_source"] in ("tiktoken", "tiktoken_calibrated")
    assert record["cost_usd"] == pytest.approx((record["input_tokens"] + 2 * record["output_tokens"]) / 1e6)
    assert record["reported_output"] is None


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("model", "extra", "cost", "source"),
    [
        ("openrouter/z-ai/glm-5", {"cost": 0.0123}, 0.0123, "provider_cost"),
        ("openrouter/z-ai/glm-5", {"cost": 0}, 0.0, "provider_cost"),
        ("openrouter/nobody/knows", {"cost": 0.0123}, 0.0123, "provider_cost"),
        ("openrouter/nobody/knows", {}, None, None),
        (
            "openrouter/z-ai/glm-5",
            {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.05}},
            0.05,
            "provider_cost",
        ),
        ("groq/unpriced", {}, None, None),
        ("openai/gpt-4o", {}, 0.0035, "provider_usage"),
        ("ollama/llama3.1", {}, 0.0, "provider_usage"),
    ],
)
async def test_whose_figure_is_believed(
    desk: Desk, streamed: bool, model: str, extra: dict[str, Any], cost: float | None, source: str | None
) -> None:
    """OpenRouter's own cost over usage times price; what runs at home is free; an unknown price is null, never 0."""
    places = with_usage({**USAGE, **extra})
    desk.up[model.partition("/")[0]].script = places["after the finish" if streamed else "not streamed"]
    record = await desk.record(await desk.chat(model, streamed))
    assert record["cost_usd"] == (cost if cost is None else pytest.approx(cost))
    assert record["cost_source"] == source


async def test_the_figures_agree(desk: Desk) -> None:
    """Metrics: the total is the sum at every look, distributions hold full names, and no name is empty."""
    before = (await desk.ask("GET", "/metrics")).json()
    await desk.chat("groq/priced")
    await desk.chat("router/nosuch")
    last = await desk.chat("groq/priced", True)
    await desk.record(last)
    now = before
    for _ in range(100):
        now = (await desk.ask("GET", "/metrics")).json()
        count = now["requests"]
        assert count["total"] == count["success"] + count["failed"] + count["cancelled"]
        assert sum(now["model_distribution"].values()) == sum(now["provider_distribution"].values())
        if now["model_distribution"].get("groq/priced", 0) == before["model_distribution"].get("groq/priced", 0) + 2:
            break
    else:
        pytest.fail("the figures did not arrive")
    for name in ("model_distribution", "category_distribution", "provider_distribution"):
        assert "" not in now[name]
