"""The plan: who is tried, who is not, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.accounting.pricing import ModelInfo
from llm_router.config.values import ApiKey, Provider
from llm_router.routing.breaker import Block
from llm_router.routing.plan import Needs, Obstacle, Plan, World, larger_window, make_plan, needs_of
from llm_router.wire.chat import ChatRequest, parse_chat

PROVIDERS = {
    "p": Provider("p", "http://p", keys=(ApiKey("k", "P_KEY"),), key_variables=("P_KEY",)),
    "q": Provider("q", "http://q", key_variables=("Q_KEY", "Q_OTHER")),
    "free": Provider("free", "http://f"),
}
INFO = {
    "p/blind": ModelInfo(tools=False, vision=False, json_schema=False, context=1000),
    "p/able": ModelInfo(tools=True, vision=True, json_schema=True, context=100_000),
}
COST = {"p/able": 0.5, "p/blind": 0.001}
LATENCY = {"p/able": 0.2, "p/blind": 0.9}
BLOCKS = {
    "p/open": Block("open", 99.0, "the circuit is open", "server_error", by_failures=True),
    "p/cool": Block("cooldown", 7.0, "w", "rate_limited"),
}
WORLD = World(
    providers=PROVIDERS,
    info=INFO.get,
    accounts=lambda provider: (provider.name,),
    block=lambda model, accounts: BLOCKS.get(model),
    misfit=lambda chat, candidate: ("messages", "no audio") if "audio" in candidate.model else None,
    cost=lambda info, tokens, output: next((COST[m] for m, known in INFO.items() if known is info), None),
    first_token_s=LATENCY.get,
)


def chat(**fields: Any) -> ChatRequest:
    """A request with `fields`."""
    return parse_chat(orjson.dumps({"model": "router", "messages": [{"role": "user", "content": "x"}], **fields}))


def plan(*chain: str, request: ChatRequest | None = None, **options: Any) -> Plan:
    """A plan over `chain`."""
    request = request or chat()
    return make_plan(request, chain, WORLD, **options)


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]


@pytest.mark.parametrize(
    ("model", "fields", "obstacle"),
    [
        ("q/m", {}, Obstacle.NO_KEY),
        ("p/open", {}, Obstacle.CIRCUIT),
        ("p/cool", {}, Obstacle.COOLDOWN),
        ("p/blind", {"tools": [{}]}, Obstacle.TOOLS),
        ("p/blind", {"messages": IMAGE}, Obstacle.VISION),
        ("p/blind", {"response_format": {"type": "json_schema"}}, Obstacle.JSON_SCHEMA),
        ("p/blind", {"max_tokens": 2000}, Obstacle.CONTEXT),
        ("p/blind", {"messages": [{"role": "user", "content": "x" * 8000}]}, Obstacle.CONTEXT),
        ("p/audio", {}, Obstacle.MISFIT),
    ],
)
def test_each_obstacle_is_found_and_explained(model: str, fields: dict[str, Any], obstacle: Obstacle) -> None:
    """A model that cannot serve is skipped with its reason, and the next one is the candidate."""
    made = plan(model, "p/able", request=chat(**fields))
    assert [candidate.model for candidate in made.candidates] == ["p/able"]
    assert [entry.obstacle for entry in made.skipped] == [obstacle]
    assert made.skipped[0].reason


@pytest.mark.parametrize("fields", [{"tools": [{}]}, {"messages": IMAGE}, {"response_format": {"type": "json_schema"}}])
def test_a_model_that_is_alone_is_looked_at_too(fields: dict[str, Any]) -> None:
    """Where no model of a chain can serve none is asked, though no other one can either."""
    for world in (WORLD, replace(CALM, chains={})):
        assert make_plan(chat(**fields), ("p/blind",), world).candidates == ()


def test_a_window_that_the_table_does_not_know_holds_anything() -> None:
    """A row may tell what a model can do and not how much it reads: then the provider judges."""
    world = replace(WORLD, info={"p/unsized": ModelInfo(tools=True)}.get, chains={})
    request = chat(messages=[{"role": "user", "content": "x" * 100_000}], max_tokens=10**6)
    assert make_plan(request, ("p/unsized",), world).candidates


def test_what_costs_as_much_as_allowed_is_allowed() -> None:
    """A ceiling keeps out what is over it."""
    assert len(plan("p/able", max_price=0.5).candidates) == 1
    assert plan("p/able", max_price=0.49).candidates == ()


def test_the_missing_variables_are_named() -> None:
    """A missing key says which variables would set it."""
    assert "Q_KEY or Q_OTHER" in plan("q/m").skipped[0].reason


@pytest.mark.parametrize("fields", [{"tools": [{}]}, {"messages": IMAGE}, {"max_tokens": 10**9}])
def test_an_explicit_model_is_left_to_its_provider(fields: dict[str, Any]) -> None:
    """Capability, window and estimate never refuse an explicit model; key and circuit do."""
    assert plan("p/blind", request=chat(**fields), explicit=True).candidates
    assert not plan("p/open", explicit=True).candidates
    assert not plan("q/m", explicit=True).candidates


def test_what_the_table_does_not_know_counts_as_able() -> None:
    """Unknown models are tried."""
    assert plan("free/new", request=chat(tools=[{}], messages=IMAGE, max_tokens=10**6)).candidates


def test_the_price_ceiling() -> None:
    """Above the ceiling, and at an unknown price, a model is skipped."""
    made = plan("p/able", "p/blind", "free/new", max_price=0.01)
    assert [candidate.model for candidate in made.candidates] == ["p/blind"]
    assert {entry.obstacle for entry in made.skipped} == {Obstacle.PRICE}


@pytest.mark.parametrize(
    ("order", "models"),
    [
        ("chain", ["p/able", "free/new", "p/blind"]),
        ("price", ["p/blind", "p/able", "free/new"]),
        ("latency", ["free/new", "p/able", "p/blind"]),
    ],
)
def test_the_order(order: str, models: list[str]) -> None:
    """The chain's order, or the cheapest first, or the quickest as observed."""
    made = plan("p/able", "free/new", "p/blind", order=order)
    assert [candidate.model for candidate in made.candidates] == models


CALM = replace(
    WORLD, easy=frozenset({"p", "q", "free"}), misfit=lambda chat, candidate: None, quiet=lambda: True, chains={}
)


def test_requests_that_ask_for_nothing_special_share_one_plan() -> None:
    """The usual request costs no plan of its own."""
    chain = ("p/able", "q/m", "free/new")
    assert make_plan(chat(), chain, CALM) is make_plan(chat(max_tokens=9), chain, CALM)


@pytest.mark.parametrize(
    ("fields", "obstacle"),
    [
        ({"tools": [{}]}, Obstacle.TOOLS),
        ({"messages": IMAGE}, Obstacle.VISION),
        ({"response_format": {"type": "json_schema"}}, Obstacle.JSON_SCHEMA),
        ({"messages": [{"role": "user", "content": "x" * 5600}]}, Obstacle.CONTEXT),
        ({"max_tokens": 990}, Obstacle.CONTEXT),
    ],
)
def test_each_thing_that_is_asked_for_is_looked_at(fields: dict[str, Any], obstacle: Obstacle) -> None:
    """A request that asks for one thing alone that a model of the chain lacks shares no plan with those that do not."""
    chain, world = ("p/blind", "p/able"), replace(CALM, chains={})
    assert len(make_plan(chat(), chain, world).candidates) == 2
    made = make_plan(chat(**fields), chain, world)
    assert [candidate.model for candidate in made.candidates] == ["p/able"]
    assert [entry.obstacle for entry in made.skipped] == [obstacle]


def test_an_order_and_a_ceiling_are_no_usual_request() -> None:
    """They hold for a chain whose shared plan is known already."""
    chain, world = ("p/able", "p/blind"), replace(CALM, chains={})
    assert [candidate.model for candidate in make_plan(chat(), chain, world).candidates] == ["p/able", "p/blind"]
    assert make_plan(chat(), chain, world, order="price").candidates[0].model == "p/blind"
    assert len(make_plan(chat(), chain, world, max_price=0.01).candidates) == 1


def test_a_dialect_that_must_be_asked_is_asked() -> None:
    """One candidate whose dialect may not carry a request is enough for a close look, also at an explicit model."""
    world = replace(WORLD, easy=frozenset({"q", "free"}), chains={})
    for explicit in (True, False):
        made = make_plan(chat(), ("free/new", "p/audio"), world, explicit=explicit)
        assert [entry.obstacle for entry in made.skipped] == [Obstacle.MISFIT]


@pytest.mark.parametrize("quick", [True, False])
def test_an_estimate_must_be_well_over_the_window(quick: bool) -> None:
    """A model of 1000 tokens is asked with about 1300, which may be fewer, and not with about 1400."""
    world = replace(CALM, chains={}) if quick else WORLD
    short, long = ([{"role": "user", "content": "x" * size}] for size in (1300 * 4 - 200, 1400 * 4))
    assert make_plan(chat(messages=short), ("p/blind",), world).candidates
    assert not make_plan(chat(messages=long), ("p/blind",), world).candidates


def test_chains_of_clients_are_not_all_remembered() -> None:
    """Whoever sends ever new chains fills no memory."""
    world = replace(CALM, chains={})
    for number in range(3000):
        make_plan(chat(), ("p/able", f"free/m{number}"), world)
    assert len(world.chains) <= 1024


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.sampled_from([[], [{}]]),
        "messages": st.sampled_from([IMAGE, [{"role": "user", "content": "x" * 5000}]]),
        "response_format": st.sampled_from([{"type": "json_schema"}, {"type": "text"}]),
        "max_tokens": st.sampled_from([-5, 0, 900, 99_000, 10**7]),
    },
)


@given(
    FIELDS,
    st.lists(st.sampled_from(["p/able", "p/blind", "q/m", "free/new", "p/open", "p/cool"]), min_size=1),
    st.booleans(),
)
def test_a_shared_plan_is_the_one_that_would_have_been_made(
    fields: dict[str, Any], chain: list[str], explicit: bool
) -> None:
    """Sharing skips work, never a check."""
    request, noisy = chat(**fields), replace(CALM, quiet=lambda: False)
    shared = make_plan(request, tuple(chain), noisy, explicit=explicit)
    own = make_plan(request, tuple(chain), replace(noisy, easy=frozenset(), chains={}), explicit=explicit)
    assert shared.candidates == own.candidates
    assert shared.skipped == own.skipped


def test_doubles_are_tried_once() -> None:
    """A model that stands twice in a chain is one candidate."""
    assert len(plan("p/able", "p/able").candidates) == 1


def test_a_large_image_is_not_a_long_prompt() -> None:
    """Bytes of image data are not estimated as text."""
    image = "data:image/png;base64," + "A" * 400_000
    content = [{"type": "image_url", "image_url": {"url": image}}]
    needs = needs_of(chat(messages=[{"role": "user", "content": content}]))
    assert needs == Needs(tools=False, images=True, json_schema=False, tokens=needs.tokens, output=0)
    assert needs.tokens < 200


def test_a_limit_below_zero_makes_no_room() -> None:
    """What a client asks for may be nonsense, and is none of the window's business then."""
    assert needs_of(chat(max_tokens=-5)).output == 0
    assert needs_of(chat(max_tokens=9)).output == 9


def test_larger_windows() -> None:
    """Only a larger or unknown window is worth a try after an overflow."""
    small, large, unknown = (plan(m).candidates[0] for m in ("p/blind", "p/able", "free/new"))
    assert larger_window(small, large)
    assert larger_window(small, unknown)
    assert larger_window(unknown, small)
    assert not larger_window(large, small)
    assert not larger_window(small, small)
