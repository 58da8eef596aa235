"""The decision of a request: by the model's name, by structure, by words, or by the client's own chain."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from llm_router.config.loading import load
from llm_router.config.values import Snapshot
from llm_router.errors import ApiError
from llm_router.routing.classify import Classification
from llm_router.routing.decision import CHAIN_MOST, Decision, decide
from llm_router.routing.turns import Turns
from llm_router.wire.chat import parse_chat

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
LOOP = [
    {"role": "user", "content": "prove it"},
    {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "c", "content": "done"},
]


def snapshot(**content: Any) -> Snapshot:
    """Chains of one model each, named after their category."""
    chains = {name: [f"openai/{name}"] for name in ("tools", "code", "reasoning", "conversation")}
    content = {"model_mappings": chains, "default_provider": "openrouter", **content}
    return load({"HOME": "/home/u"}, {}, json.dumps(content).encode(), "router_config.json")


def classify(turns: Turns) -> Classification:
    """Takes everything for reasoning, with the words as its reason."""
    return Classification("reasoning", 0.75, "local", {"reasoning": 0.75}, (turns.latest,))


def decided(model: str = "router", of: Snapshot | None = None, **fields: Any) -> Decision:
    """What becomes of a request with `fields`."""
    body = {"model": model, "messages": [{"role": "user", "content": "prove it"}], **fields}
    return decide(parse_chat(orjson.dumps(body)), of or snapshot(), classify)


@pytest.mark.parametrize("model", ["router", "auto"])
def test_words_decide_where_nothing_else_does(model: str) -> None:
    """The category, its chain, and how sure the classifier is; a model may still be asked for its opinion."""
    found = decided(model)
    assert (found.category, found.mode, found.chain) == ("reasoning", "local", ("openai/reasoning",))
    assert (found.confidence, found.decided, found.explicit) == (0.75, False, False)
    assert list(found.evidence) == ["prove it"]
    assert found.turns is not None


@pytest.mark.parametrize(
    ("routing", "fields", "category", "mode"),
    [
        ("always", {"tools": [TOOL]}, "tools", "structure"),
        ("always", {"tools": [TOOL], "messages": LOOP}, "tools", "structure"),
        ("always", {"messages": LOOP}, "reasoning", "local"),
        ("always", {"tools": []}, "reasoning", "local"),
        ("by_task", {"tools": [TOOL]}, "reasoning", "local"),
        ("by_task", {"tools": [TOOL], "messages": LOOP}, "tools", "structure"),
    ],
)
def test_tools_decide_as_the_configuration_says(routing: str, fields: dict[str, Any], category: str, mode: str) -> None:
    """`always` sends every request with tools to `tools`, `by_task` those that are in the middle of a tool loop."""
    found = decided(of=snapshot(tools_routing=routing), **fields)
    assert (found.category, found.mode, found.decided) == (category, mode, mode == "structure")
    assert found.chain == (f"openai/{category}",)


def test_a_forced_category_is_not_judged() -> None:
    """`router/<category>` is the client's word; a category that is none is 404 and names those that there are."""
    found = decided("router/code", tools=[TOOL])
    assert (found.category, found.mode, found.chain, found.decided) == ("code", "forced", ("openai/code",), True)
    with pytest.raises(ApiError, match="conversation") as caught:
        decided("router/nonsense")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("model", "full"),
    [("openai/gpt-5", "openai/gpt-5"), ("gpt-5", "openrouter/gpt-5"), ("openrouter/a/b", "openrouter/a/b")],
)
def test_a_model_that_is_named_is_the_one(model: str, full: str) -> None:
    """Nothing takes its place; without a slash it is the default provider's."""
    found = decided(model, tools=[TOOL], models=["openai/other"])
    assert (found.category, found.mode, found.chain, found.explicit) == ("explicit", "explicit", (full,), True)


@pytest.mark.parametrize("model", ["nobody/m", "openai/", "/m", "openai/../m", "a/../b"])
def test_a_model_of_nobody_is_not_found(model: str) -> None:
    """An unknown provider, no name, no provider, a name that leads elsewhere."""
    with pytest.raises(ApiError) as caught:
        decided(model)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


@pytest.mark.parametrize("fields", [{}, {"tools": [TOOL]}])
def test_a_clients_own_chain_replaces_the_categorys(fields: dict[str, Any]) -> None:
    """The category is found all the same, for its options and the books."""
    found = decided(models=["openai/a", "b"], **fields)
    assert (found.mode, found.chain, found.decided) == ("models", ("openai/a", "openrouter/b"), True)
    assert found.category == ("tools" if fields else "reasoning")
    assert decided(models=None).mode == "local"
    assert len(decided(models=[f"openai/{number}" for number in range(CHAIN_MOST)]).chain) == CHAIN_MOST


@pytest.mark.parametrize(
    ("models", "status", "param"),
    [
        ("openai/a", 400, "models"),
        ([], 400, "models"),
        (["openai/a"] * (CHAIN_MOST + 1), 400, "models"),
        (["openai/a", 5], 400, "models[1]"),
        (["openai/a", "  "], 400, "models[1]"),
        (["openai/a\n"], 400, "models[0]"),
        (["openai/" + "a" * 300], 400, "models[0]"),
        (["openai/a", "nobody/m"], 404, "models[1]"),
    ],
)
def test_a_chain_that_is_none_is_refused_by_name(models: Any, status: int, param: str) -> None:
    """The entry that cannot be used is named."""
    with pytest.raises(ApiError) as caught:
        decided(models=models)
    assert (caught.value.status, caught.value.param) == (status, param)
