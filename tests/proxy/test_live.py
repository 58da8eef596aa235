"""What follows from a configuration before its first request."""

from __future__ import annotations

import json

import pytest

from llm_router import shipped
from llm_router.accounting.pricing import ModelInfo
from llm_router.config.loading import load
from llm_router.config.values import BUILTIN_CATEGORIES
from llm_router.proxy.live import Live, go_live
from llm_router.routing.plan import Candidate


@pytest.fixture
def live() -> Live:
    """A configuration whose providers have secrets in their addresses and headers."""
    content = {
        "providers": {
            "a": {"base_url": "https://usr:pw%2B9secret@127.0.0.1/v1"},
            "b": {"base_url": "https://tok.55667@127.0.0.1/v1", "headers": {"x-auth-token": "abc.1234"}},
        },
        "model_mappings": {category: ["a/m"] for category in BUILTIN_CATEGORIES},
    }
    snapshot = load({"HOME": "/home/u"}, {}, json.dumps(content).encode(), "router_config.json")
    return go_live(snapshot, shipped.prices(), shipped.brain())


@pytest.mark.parametrize("form", ["pw%2B9secret", "pw+9secret", "dXNyOnB3KzlzZWNyZXQ="])
def test_the_password_of_an_address_is_masked(live: Live, form: str) -> None:
    """A provider may echo it as it stands in the address, as it is meant, or as it was sent."""
    assert live.mask(f"denied: Basic {form} is wrong") == "denied: Basic *** is wrong"


@pytest.mark.parametrize("form", ["tok.55667", "dG9rLjU1NjY3Og==", "abc.1234"])
def test_a_token_in_an_address_or_a_header_is_masked(live: Live, form: str) -> None:
    """A user without a password is the secret itself; and some put keys into headers of a provider."""
    assert live.mask(f"denied: {form} is wrong") == "denied: *** is wrong"


def test_secrets_that_no_configuration_holds_are_masked(live: Live) -> None:
    """What the environment has for proxies is handed in."""
    assert go_live(live.snapshot, shipped.prices(), live.brain, live, ["proxypass"]).mask("no: proxypass") == "no: ***"


@pytest.mark.parametrize(
    ("reasoning", "effort", "seconds"), [(None, False, 60), (False, False, 60), (True, False, 300), (None, True, 300)]
)
def test_who_thinks_has_more_time_for_the_first_word(
    live: Live, reasoning: bool | None, effort: bool, seconds: float
) -> None:
    """A model that the price table marks as reasoning does, and a request that asks for an effort."""
    candidate = Candidate("a/m", live.snapshot.providers["a"], "m", ModelInfo(reasoning=reasoning), live.accounts["a"])
    way = live.way(candidate, live.accounts["a"][0], "code", True, effort)
    assert (way.first_byte, way.connect, way.idle) == (seconds, 5.0, 120.0)


@pytest.mark.parametrize(
    ("address", "price"),
    [
        ("http://gpu.example:11434", 0.0),
        ("https://ollama.com", None),
        ("https://eu.ollama.com", None),
        ("https://myollama.com", 0.0),
    ],
)
def test_an_ollama_of_ones_own_costs_nothing(address: str, price: float | None) -> None:
    """The hosted one has prices that nobody knows here; a machine of the user's own has none."""
    snapshot = load({"HOME": "/home/u", "OLLAMA_BASE_URL": address}, {}, None, "router_config.json")
    info = go_live(snapshot, shipped.prices(), shipped.brain()).prices.info("ollama/nobody-knows-it")
    assert (info.prices.input if info is not None else None) == price
