"""What each section of the file means."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router.config.values import BUILTIN_CATEGORIES, Hedge, Timeouts
from tests.config.reading import read


def test_the_example_of_the_contract_loads() -> None:
    """A file with a key of every kind is taken as it is."""
    content = {
        "model_mappings": {
            "tools": ["openrouter/moonshotai/kimi-k2.5", "openai/gpt-4o"],
            "conversation": ["openrouter/z-ai/glm-5", "ollama/llama3.1"],
        },
        "keywords": {"code": ["python", "traceback"]},
        "custom_categories": {
            "creative": {
                "description": "stories and poems",
                "models": ["openrouter/moonshotai/kimi-k2.5"],
                "keywords": ["story", "poem"],
                "examples": ["write a limerick about ..."],
            }
        },
        "categories": {"tools": {"timeouts": {"first_byte": 90}, "order": "chain"}},
        "circuit_breaker": {"failure_threshold": 3, "recovery_timeout_sec": 300},
        "providers": {
            "groq": {
                "base_url": "https://api.groq.com/openai/v1",
                "api_key_env": "GROQ_API_KEY",
                "api": "openai-completions",
            }
        },
        "prices": {"groq/llama-3.3-70b": {"input": 0.59, "output": 0.79}},
        "timeouts": {"idle": 120},
    }
    snapshot = read(content, {"GROQ_API_KEY": "gsk_1"})
    assert snapshot.categories["tools"].models == ("openrouter/moonshotai/kimi-k2.5", "openai/gpt-4o")
    assert snapshot.categories["tools"].timeouts == Timeouts(first_byte=90.0)
    creative = snapshot.categories["creative"]
    assert (creative.custom, creative.keywords, creative.description) == (True, ("story", "poem"), "stories and poems")
    groq = snapshot.providers["groq"]
    assert (groq.base_url, groq.builtin, groq.configured) == ("https://api.groq.com/openai/v1", False, True)
    assert [(key.value, key.variable) for key in groq.keys] == [("gsk_1", "GROQ_API_KEY")]
    assert snapshot.prices == {"groq/llama-3.3-70b": {"input": 0.59, "output": 0.79}}
    assert snapshot.file == content


def test_notes_are_ignored_and_kept_at_every_level() -> None:
    """Keys that begin with _ or $ mean nothing anywhere and stay in the parsed file."""
    content = {
        "$schema": 7,
        "_a": None,
        "model_mappings": {"_why": {"x": 1}, "code": ["openai/x"]},
        "keywords": {"_": [], "code": ["k"]},
        "custom_categories": {"_n": 1, "c": {"_n": 2, "models": ["openai/x"]}},
        "categories": {"$n": 1, "code": {"_n": 1, "timeouts": {"_n": 1, "idle": 5}}},
        "circuit_breaker": {"_n": 1},
        "providers": {"_n": 1, "openai": {"_n": 1, "headers": {"_n": 1}, "models": {"_n": 1, "m": {"$n": 1}}}},
        "prices": {"_n": 1, "openai/x": {"_n": 1, "input": 1, "above": {"_n": 1, "threshold": 5}}},
        "server": {"_n": 1},
        "hedge": {"_n": 1, "after": 1},
    }
    snapshot = read(content)
    assert snapshot.file == content
    assert set(snapshot.categories) == {*BUILTIN_CATEGORIES, "c"}
    assert snapshot.providers["openai"].headers == {}
    assert snapshot.prices == {"openai/x": {"input": 1.0, "above": {"threshold": 5}}}


def test_model_mappings_wins_over_custom_categories() -> None:
    """Where both name models the chain is that of model_mappings."""
    content = {"model_mappings": {"c": ["openai/a"]}, "custom_categories": {"c": {"models": ["openai/b"]}}}
    assert read(content).categories["c"].models == ("openai/a",)
    content["model_mappings"] = {}
    assert read(content).categories["c"].models == ("openai/b",)


def test_ids_without_a_slash_belong_to_the_default_provider() -> None:
    """`gpt-4o` is `openai/gpt-4o` where DEFAULT_PROVIDER says openai; an id is split at its first slash."""
    content = {"model_mappings": {"code": ["gpt-4o", "openrouter/z-ai/glm-5"]}, "prices": {"gpt-4o": {"input": 1}}}
    snapshot = read(content, {"DEFAULT_PROVIDER": "openai"})
    assert snapshot.categories["code"].models == ("openai/gpt-4o", "openrouter/z-ai/glm-5")
    assert list(snapshot.prices) == ["openai/gpt-4o"]


@pytest.mark.parametrize(
    ("provider", "model", "result"),
    [
        ("openrouter", "z-ai/glm-5", "z-ai/glm-5"),
        ("openrouter", "openrouter/z-ai/glm-5", "z-ai/glm-5"),
        ("openrouter", "openrouter/auto", "openrouter/auto"),
        ("openai", "openai/gpt-4o", "gpt-4o"),
        ("openrouter", "glm-5", "glm-5"),
    ],
)
def test_the_default_model_may_repeat_its_provider(provider: str, model: str, result: str) -> None:
    """DEFAULT_MODEL is the provider's own id, and a full id is understood as well."""
    assert read(None, {"DEFAULT_PROVIDER": provider, "DEFAULT_MODEL": model}).default_model == result


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"ROUTER_STATE_DIR": "/var/x", "STATE_DIRECTORY": "/var/lib/r"}, "/var/x"),
        ({"STATE_DIRECTORY": "/var/lib/r:/var/lib/s"}, "/var/lib/r"),
        ({"ROUTER_STATE_DIR": "~/state"}, "/home/u/state"),
        ({"ROUTER_STATE_DIR": "~"}, "/home/u"),
        ({"ROUTER_STATE_DIR": "~other/x"}, "~other/x"),
        ({"XDG_STATE_HOME": "/xdg"}, "/xdg/llm-router"),
        ({"XDG_STATE_HOME": "relative"}, "/home/u/.local/state/llm-router"),
        ({"HOME": "/"}, "/.local/state/llm-router"),
        ({"HOME": "/", "ROUTER_STATE_DIR": "~/state"}, "/state"),
        ({"HOME": "/", "ROUTER_STATE_DIR": "~"}, "/"),
    ],
)
def test_the_state_folder(environ: dict[str, str], folder: str) -> None:
    """ROUTER_STATE_DIR, its ~ being the home, else systemd's folder, else the XDG one, which must be absolute."""
    assert read(None, environ).state_dir == folder


def test_hedges_are_per_category_over_a_common_one() -> None:
    """`hedge` of the file holds for every category that has none of its own; null or a budget of 0 turns it off."""
    content = {
        "hedge": {"after": "p95"},
        "categories": {
            "code": {"hedge": {"after": 2, "budget": 0.1}},
            "tools": {"hedge": None},
            "conversation": {"hedge": {"after": 2, "budget": 0}},
        },
    }
    categories = read(content).categories
    assert categories["reasoning"].hedge == Hedge("p95", 0.05)
    assert categories["code"].hedge == Hedge(2.0, 0.1)
    assert categories["tools"].hedge is None
    assert categories["conversation"].hedge is None


def test_keywords_of_both_places_are_joined() -> None:
    """A category's keywords are those of `keywords` and of `custom_categories`, once each; blanks are trimmed."""
    content = {"keywords": {"c": ["def ", "poem"]}, "custom_categories": {"c": {"keywords": ["poem", "ode"]}}}
    assert read(content).categories["c"].keywords == ("def", "poem", "ode")


def test_shipped_keywords_stand_in_where_the_file_has_none() -> None:
    """The file's list replaces the shipped one of that category, even an empty list."""
    categories = read({"keywords": {"code": ["zebra"], "reasoning": []}}).categories
    assert (categories["code"].keywords, categories["code"].shipped_keywords) == (("zebra",), ())
    assert (categories["reasoning"].keywords, categories["reasoning"].shipped_keywords) == ((), ())
    assert "python" in read().categories["code"].shipped_keywords
    assert read().categories["code"].keywords == ()


def test_prices_take_every_field_of_the_table() -> None:
    """A row of the shipped price table can stand in the file as it is; null says unknown, not zero."""
    row = {
        "input": 1, "output": None, "cached_input": 0.1, "cache_write": 2, "cache_write_1h": 3, "context": 1000,
        "max_output": None, "tools": True, "vision": None, "reasoning": False, "tiktoken": "cl100k_base", "above": None,
        "deprecated": "2027-04-01",
    }  # fmt: skip
    assert read({"prices": {"openai/x": row}}).prices["openai/x"] == row


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"cache": False}, {"cache": False}),
        ({"cache": "1h"}, {"cache": "1h"}),
        ({"num_ctx": 8192, "context": 32768}, {"num_ctx": 8192, "context": 32768}),
        ({"keep_alive": "10m"}, {"keep_alive": "10m"}),
        ({"keep_alive": "1h30m"}, {"keep_alive": "1h30m"}),
        ({"keep_alive": "-1m"}, {"keep_alive": "-1m"}),
        ({"keep_alive": -1}, {"keep_alive": -1.0}),
        ({"think": True}, {"think": True}),
        ({"think": "low"}, {"think": "low"}),
        (
            {"safety_settings": [{"category": "HARM", "threshold": "OFF"}]},
            {"safety_settings": [{"category": "HARM", "threshold": "OFF"}]},
        ),
    ],
)
def test_options_of_a_dialect(options: Any, taken: Any) -> None:
    """A provider's dialect settings reach its adapter, checked."""
    assert read({"providers": {"ollama": {"options": options}}}).providers["ollama"].options == taken
