"""What each section of the file means."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router.config.values import BUILTIN_CATEGORIES, Hedge, Timeouts
from tests.config.reading import read

BAD_FILES: list[tuple[Any, str, str]] = [
    ({"model_mapings": {}}, "model_mapings", 'did you mean "model_mappings"'),
    ({"port": 3456}, "port", 'did you mean "server.port"'),
    ({"OPENAI_API_KEY": "sk-live-0123456789"}, "OPENAI_API_KEY", "set a variable such as OPENAI_API_KEY"),
    ({"api_key": "sk-live-0123456789"}, "api_key", "set a variable such as OPENROUTER_API_KEY"),
    ({"circuit_breaker": {"treshold": 3}}, "circuit_breaker.treshold", "failure_threshold"),
    ({"model_mappings": []}, "model_mappings", "must be an object, not a list"),
    ({"model_mappings": {"code": "openai/gpt-4o"}}, "model_mappings.code", "must be a list of model ids, not a string"),
    ({"model_mappings": {"code": []}}, "model_mappings.code", "at least one model"),
    ({"model_mappings": {"code": ["openai/gpt-4o", 7]}}, "model_mappings.code[1]", "must be a string, not a number"),
    ({"model_mappings": {"code": [""]}}, "model_mappings.code[0]", "must not be empty"),
    ({"model_mappings": {"code": ["openai/"]}}, "model_mappings.code[0]", "names no model"),
    ({"model_mappings": {"code": ["z-ai/glm-5"]}}, "model_mappings.code[0]", "openrouter/z-ai/glm-5"),
    ({"model_mappings": {"code": ["a model/x"]}}, "model_mappings.code[0]", "no white space"),
    ({"model_mappings": {"a b": ["openai/x"]}}, 'model_mappings."a b"', "1 to 64 letters"),
    ({"custom_categories": {"x" * 65: {}}}, f"custom_categories.{'x' * 65}", "1 to 64 letters"),
    ({"custom_categories": {"x": []}}, "custom_categories.x", "must be an object"),
    ({"custom_categories": {"x": {"models": []}}}, "custom_categories.x.models", "at least one model"),
    ({"custom_categories": {"x": {"model": []}}}, "custom_categories.x.model", 'did you mean "models"'),
    ({"custom_categories": {"x": {"examples": "one"}}}, "custom_categories.x.examples", "list of strings"),
    ({"custom_categories": {"x": {"description": 1}}}, "custom_categories.x.description", "must be a string"),
    ({"keywords": {"code": "python"}}, "keywords.code", "must be a list of strings"),
    ({"keywords": {"code": ["a", " "]}}, "keywords.code[1]", "must not be empty"),
    ({"categories": {"cod": {}}}, "categories.cod", 'did you mean "code"'),
    ({"categories": {"code": {"order": "cheap"}}}, "categories.code.order", "one of chain, price, latency"),
    ({"categories": {"code": {"hedge": {}}}}, "categories.code.hedge.after", "p95"),
    ({"categories": {"code": {"hedge": {"after": "p99"}}}}, "categories.code.hedge.after", "p95"),
    ({"categories": {"code": {"hedge": {"after": 1, "budget": 2}}}}, "categories.code.hedge.budget", "at most 1"),
    ({"categories": {"code": {"timeouts": {"firstbyte": 1}}}}, "categories.code.timeouts.firstbyte", "first_byte"),
    ({"categories": {"code": {"max_price": "1"}}}, "categories.code.max_price", "must be a number"),
    ({"timeouts": {"idle": True}}, "timeouts.idle", "must be a number, not true"),
    ({"timeouts": {"idle": -1}}, "timeouts.idle", "not -1"),
    ({"circuit_breaker": {"failure_threshold": True}}, "circuit_breaker.failure_threshold", "whole number, not true"),
    ({"circuit_breaker": {"failure_threshold": 3.0}}, "circuit_breaker.failure_threshold", "whole number"),
    ({"routing_mode": None}, "routing_mode", "must be a string, not null"),
    ({"server": {"port": "3456"}}, "server.port", "must be a whole number, not a string"),
    ({"server": {"api_key": "sk-live-0123456789"}}, "server.api_key", "ROUTER_API_KEY"),
    ({"server": {"api_key_env": "sk-live-0123456789"}}, "server.api_key_env", "name of an environment variable"),
    ({"prices": {"openai/x": {"input": 1e308}}}, "prices.openai/x.input", "at most 1000000000"),
    ({"prices": {"openai/x": {"above": {"threshold": 1, "output": 1e10}}}}, "prices.openai/x.above.output", "at most"),
    ({"accounting": {"count": "never"}}, "accounting.count", "always, when_missing"),
    ({"providers": {"groq": {}}}, "providers.groq.base_url", "is missing"),
    ({"providers": {"router": {"base_url": "http://x"}}}, "providers.router", "not 'router'"),
    ({"providers": {"a/b": {"base_url": "http://x"}}}, "providers.a/b", "1 to 64"),
    ({"providers": {"x": {"base_url": "ftp://x"}}}, "providers.x.base_url", "http://"),
    ({"providers": {"x": {"base_url": "http://x", "api": "soap"}}}, "providers.x.api", "openai-completions"),
    ({"providers": {"x": {"base_url": "http://x", "api_key": "sk-1"}}}, "providers.x.api_key", '"X_API_KEY"'),
    ({"providers": {"openai": {"apiKey": "sk-1"}}}, "providers.openai.apiKey", '"OPENAI_API_KEY"'),
    ({"providers": {"openai": {"api_key_env": "sk-live-1"}}}, "providers.openai.api_key_env", "not a key itself"),
    ({"providers": {"x": {"base_url": "http://x", "api_key_env": ["A", "gsk_abcdefghij0123456789"]}}},
     "providers.x.api_key_env[1]", "not a key itself"),
    ({"providers": {"openai": {"api_key_env": []}}}, "providers.openai.api_key_env", "at least one"),
    ({"providers": {"openai": {"headers": {"Authorization": "Bearer sk-1"}}}},
     "providers.openai.headers.Authorization", "api_key_env"),
    ({"providers": {"openai": {"headers": {"Host": "x"}}}}, "providers.openai.headers.Host", "by the router itself"),
    ({"providers": {"openai": {"headers": {"x y": "1"}}}}, 'providers.openai.headers."x y"', "header name"),
    ({"providers": {"openai": {"headers": {"x-a": "1\n2"}}}}, "providers.openai.headers.x-a", "printable ASCII"),
    ({"providers": {"ollama": {"max_concurrency": 0}}}, "providers.ollama.max_concurrency", "at least 1"),
    ({"providers": {"ollama": {"options": {"numctx": 1}}}}, "providers.ollama.options.numctx", 'mean "num_ctx"'),
    ({"providers": {"ollama": {"models": {"m": {"timeout": {}}}}}}, "providers.ollama.models.m.timeout", "timeouts"),
    ({"prices": {"openai/x": {"input": "cheap"}}}, "prices.openai/x.input", "must be a number"),
    ({"prices": {"openai/x": {"inptu": 1}}}, "prices.openai/x.inptu", 'did you mean "input"'),
    ({"prices": {"openai/x": {"deprecated": "soon"}}}, "prices.openai/x.deprecated", "2027-04-01"),
    ({"prices": {"nosuch/x": {"input": 1}}}, "prices.nosuch/x", "no built-in or configured provider"),
    ({"prices": {"openai/x": {"above": {"input": 1}}}}, "prices.openai/x.above.threshold", "is missing"),
    ({"default_provider": "nosuch"}, "default_provider", "no built-in or configured provider"),
    ({"classifier": {"api_model": "nosuch/x"}}, "classifier.api_model", "no built-in or configured provider"),
]  # fmt: skip


def test_the_example_of_the_contract_loads() -> None:
    """The file that DESIGN.md shows is taken as it is."""
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
