"""Loading: order of precedence, what each section of the file means, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from llm_router.config.fields import FileKeyError
from llm_router.config.loading import load
from llm_router.config.report import SettingRow, setting_rows
from llm_router.config.settings import SETTINGS, Setting
from llm_router.config.values import BUILTIN_CATEGORIES, Hedge, Snapshot, Timeouts
from llm_router.errors import ConfigError

NAME = "/etc/router_config.json"


def read(
    content: Any = None,
    environ: Mapping[str, str] | None = None,
    dotenv: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Snapshot:
    """A load of JSON-able content (None: no file) or raw bytes."""
    data = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
    return load({"HOME": "/home/u", **(environ or {})}, dotenv or {}, data, NAME, flags or {})


def test_without_anything_the_defaults_of_the_contract_hold() -> None:
    """No file, no variable: every default is the documented one."""
    snapshot = read()
    assert (snapshot.host, snapshot.port, snapshot.routing_mode) == ("127.0.0.1", 3456, "local")
    assert (snapshot.default_provider, snapshot.default_model) == ("openrouter", "z-ai/glm-5")
    assert snapshot.timeouts == Timeouts(connect=5.0, first_byte=None, idle=120.0, total=900.0)
    assert (snapshot.breaker.failure_threshold, snapshot.breaker.recovery_timeout_sec) == (3, 300.0)
    assert (snapshot.drain_timeout, snapshot.header_timeout, snapshot.max_body_bytes) == (30.0, 10.0, 33_554_432)
    assert (snapshot.log_level, snapshot.log_format) == ("info", "text")
    assert snapshot.classifier.ollama_model == "ollama/qwen2.5:0.5b"
    assert snapshot.classifier.api_model == "openrouter/qwen/qwen3-1.7b"
    assert snapshot.state_dir == "/home/u/.local/state/llm-router"
    assert {name: provider.base_url for name, provider in snapshot.providers.items()} == {
        "openrouter": "https://openrouter.ai/api/v1",
        "openai": "https://api.openai.com/v1",
        "anthropic": "https://api.anthropic.com/v1",
        "google": "https://generativelanguage.googleapis.com/v1beta",
        "ollama": "http://localhost:11434",
    }
    assert [name for name, provider in snapshot.providers.items() if provider.configured] == ["ollama"]
    assert set(snapshot.sources.values()) == {"default"}
    assert snapshot.config_file == ""


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting.variable], ids=lambda each: each.key)
def test_order_of_precedence(setting: Setting) -> None:
    """Environment beats .env beats file beats default, for every setting that has a variable."""
    process, dotenv, file = _three_values(setting.key)
    head, _, name = setting.key.rpartition(".")
    in_file = setting.parse(file)
    content = {head: {name: in_file}} if head else {name: in_file}
    assert shown(setting.key, read()).source == "default"
    assert shown(setting.key, read(content)) == expected(setting, file, "file")
    assert shown(setting.key, read(content, dotenv={setting.variable: dotenv})) == expected(setting, dotenv, ".env")
    both = read(content, {setting.variable: process}, {setting.variable: dotenv})
    assert shown(setting.key, both) == expected(setting, process, "environment")
    empty = read(content, {setting.variable: "  "}, {setting.variable: ""})
    assert shown(setting.key, empty) == expected(setting, file, "file")


def shown(key: str, snapshot: Snapshot) -> SettingRow:
    """The row of `llm-router check` for a setting."""
    return next(row for row in setting_rows(snapshot) if row.key == key)


def expected(setting: Setting, word: str, source: str) -> SettingRow:
    """The row that a variable's text should lead to."""
    value = {"1": "true", "no": "false"}.get(word, word.replace(",", ", "))
    if setting.key == "classifier.ollama_model":
        value = f"ollama/{word}"
    return SettingRow(setting.key, setting.variable, value, source)


def _three_values(key: str) -> tuple[str, str, str]:
    special = {
        "routing_mode": ("api", "hybrid", "keywords"),
        "default_provider": ("openai", "google", "anthropic"),
        "classifier.api_model": ("openai/a", "openai/b", "openai/c"),
        "server.host": ("127.0.0.2", "127.0.0.3", "127.0.0.4"),
        "server.allow_unauthenticated": ("1", "no", "true"),
        "server.max_body_bytes": ("2048", "4096", "8192"),
        "server.allowed_hosts": ("a.example", "b.example,c.example", "d.example"),
        "server.allowed_origins": ("http://a.example", "http://b.example", "http://c.example"),
        "log.level": ("debug", "error", "warning"),
        "log.format": ("json", "text", "json"),
        "attribution.url": ("http://a", "http://b", "http://c"),
    }
    numbers = ("7", "8", "9")
    words = ("one", "two", "three")
    kind = next(setting.parse for setting in SETTINGS if setting.key == key)
    return special.get(key, words if kind is str else numbers)


def test_flags_come_first() -> None:
    """A flag of the command line beats everything else."""
    flags = {"host": "::1", "port": "0", "log_level": "debug", "log_format": "json", "allow_unauthenticated": True}
    snapshot = read({"server": {"port": 1}}, {"ROUTER_PORT": "2", "ROUTER_HOST": "10.0.0.1"}, None, flags)
    assert (snapshot.host, snapshot.port, snapshot.log_level, snapshot.log_format) == ("::1", 0, "debug", "json")
    assert snapshot.access.allow_unauthenticated is True
    assert snapshot.sources["server.port"] == "flag"


def test_an_ipv6_address_may_stand_in_brackets() -> None:
    """As it does in URLs; sockets want it bare."""
    assert read({}, {"ROUTER_HOST": "[::1]"}).host == "::1"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ROUTER_PORT", "abc", "whole number"),
        ("ROUTER_PORT", "70000", "from 0 to 65535"),
        ("ROUTER_PORT", "80.5", "whole number"),
        ("ROUTER_IDLE_TIMEOUT", "nan", "a number of seconds"),
        ("ROUTER_IDLE_TIMEOUT", "0", "greater than 0"),
        ("ROUTER_TOTAL_TIMEOUT", "1e999", "a number"),
        ("ROUTER_CIRCUIT_THRESHOLD", "0", "from 1 to"),
        ("ROUTER_LOG_LEVEL", "loud", "one of debug"),
        ("ROUTER_LOG_FORMAT", "xml", "one of text, json"),
        ("ROUTER_ALLOW_UNAUTHENTICATED", "maybe", "1 or 0"),
        ("ROUTER_ALLOWED_HOSTS", "a.example, http://x/", "item 2 must be a host name"),
        ("ROUTER_ALLOWED_ORIGINS", "example.org", "must be an origin"),
        ("ROUTER_ALLOWED_HOSTS", "*.example.org", "write each one"),
        ("ROUTER_ALLOWED_HOSTS", "[::1], a.example:8443", "item 2 must be a host name"),
        ("ROUTER_HOST", "127.0.0.1:80", "without scheme, port or path"),
        ("ROUTER_HOST", "[::1]:80", "without scheme, port or path"),
        ("ROUTER_ALLOWED_ORIGINS", "https://*.example.org", "write each one"),
        ("ROUTER_CIRCUIT_RECOVERY", "100000000", "at most 2592000, not 100000000"),
        ("ROUTER_MAX_BODY_BYTES", "0", "from 1 to"),
        ("ROUTER_HOST", "http://0.0.0.0", "must be an address"),
        ("ROUTER_NAME", "tea\nroom", "printable ASCII"),
        ("ROUTING_MODE", "locl", 'did you mean "local"'),
        ("DEFAULT_PROVIDER", "openroutr", 'did you mean "openrouter"'),
        ("ROUTER_API_MODEL", "qwen/qwen3-1.7b", "openrouter/qwen/qwen3-1.7b"),
        ("OPENAI_BASE_URL", "api.openai.com/v1", "must begin with http"),
        ("OPENAI_API_KEY", "sk-abc\r\nX-Evil: 1", "copy it again"),
        ("ROUTER_API_KEY", "a,b c", "copy it again"),
    ],
)
def test_a_bad_variable_is_named_with_the_remedy(variable: str, value: str, words: str) -> None:
    """A variable that cannot be used stops the load; the message names it, and repeats no secret."""
    with pytest.raises(ConfigError) as caught:
        read(None, {variable: value})
    assert caught.value.place == variable
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "sk-abc" not in str(caught.value)


def test_a_bad_variable_in_dotenv_says_so() -> None:
    """The message tells .env apart from the environment."""
    with pytest.raises(ConfigError, match=r"ROUTER_PORT \(in \.env\)"):
        read(None, None, {"ROUTER_PORT": "x"})


def test_a_bad_flag_is_named() -> None:
    """A flag that cannot be used is named as it was typed."""
    with pytest.raises(ConfigError, match=r"^--port: must be a whole number"):
        read(None, None, None, {"port": "http"})


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


@pytest.mark.parametrize(
    ("content", "key", "words"), BAD_FILES, ids=[row[1] + str(n) for n, row in enumerate(BAD_FILES)]
)
def test_a_bad_key_is_refused_with_its_path(content: Any, key: str, words: str) -> None:
    """What the file has wrong is refused with file, key path and remedy; a key that stands in it is not repeated."""
    with pytest.raises(FileKeyError) as caught:
        read(content)
    assert caught.value.key == key
    assert caught.value.place == f"{NAME}: {key}"
    assert words in str(caught.value)
    assert "sk-1" not in str(caught.value)
    assert "sk-live" not in str(caught.value)
    assert "gsk_" not in str(caught.value)


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


def test_keys_come_from_named_variables() -> None:
    """A provider may name several variables; those that are set give its keys, in that order."""
    content = {"providers": {"openai": {"api_key_env": ["KEY_B", "KEY_A", "KEY_C"]}}}
    snapshot = read(content, {"KEY_A": "aaa", "KEY_B": "bbb", "OPENAI_API_KEY": "zzz"})
    openai = snapshot.providers["openai"]
    assert [key.value for key in openai.keys] == ["bbb", "aaa"]
    assert openai.key_variables == ("KEY_B", "KEY_A", "KEY_C")
    assert "aaa" not in repr(snapshot)


def test_google_takes_either_variable() -> None:
    """GEMINI_API_KEY stands in for GOOGLE_API_KEY, which wins where both are set."""
    assert [key.variable for key in read(None, {"GEMINI_API_KEY": "g"}).providers["google"].keys] == ["GEMINI_API_KEY"]
    both = read(None, {"GEMINI_API_KEY": "g", "GOOGLE_API_KEY": "h"}).providers["google"]
    assert [key.value for key in both.keys] == ["h"]


def test_ollama_needs_no_key_and_takes_one() -> None:
    """Ollama always counts as configured; OLLAMA_API_KEY is used where it is set."""
    assert read().providers["ollama"].configured
    assert [key.value for key in read(None, {"OLLAMA_API_KEY": "o"}).providers["ollama"].keys] == ["o"]


def test_a_custom_provider_without_key_variable_needs_none() -> None:
    """A local server is configured as soon as it has an address; one with a variable waits for its key."""
    content = {"providers": {"vllm": {"base_url": "http://127.0.0.1:8000"}}}
    assert read(content).providers["vllm"].configured
    content["providers"]["vllm"]["api_key_env"] = "VLLM_KEY"
    assert not read(content).providers["vllm"].configured


def test_dotenv_may_not_redirect_a_foreign_key() -> None:
    """A base URL from .env is set aside, with a warning, where the key does not come from .env too."""
    dotenv = {"OPENAI_BASE_URL": "http://evil.example/v1"}
    guarded = read(None, {"OPENAI_API_KEY": "sk-own"}, dotenv)
    assert guarded.providers["openai"].base_url == "https://api.openai.com/v1"
    assert "OPENAI_BASE_URL in .env is set aside" in guarded.warnings[0]
    assert "sk-own" not in guarded.warnings[0]
    own = read(None, None, {**dotenv, "OPENAI_API_KEY": "sk-own"})
    assert own.providers["openai"].base_url == "http://evil.example/v1"
    assert own.warnings == ()
    stated = read(None, {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://mine/v1"}, dotenv)
    assert (stated.providers["openai"].base_url, stated.warnings) == ("http://mine/v1", ())
    same = read(None, {"OPENAI_API_KEY": "k"}, {"OPENAI_BASE_URL": "https://api.openai.com/v1/"})
    assert same.warnings == ()


def test_dotenv_may_not_redirect_where_one_of_several_keys_is_foreign() -> None:
    """One key from elsewhere is enough to keep .env from moving the provider."""
    content = {"providers": {"openai": {"api_key_env": ["A", "B"], "base_url": "http://file/v1"}}}
    snapshot = read(content, {"A": "a"}, {"B": "b", "OPENAI_BASE_URL": "http://evil/v1"})
    assert snapshot.providers["openai"].base_url == "http://file/v1"


def test_attribution_travels_with_openrouter_alone() -> None:
    """ROUTER_NAME and ROUTER_URL become OpenRouter's headers and nobody else's."""
    snapshot = read(None, {"ROUTER_NAME": "My Router", "ROUTER_URL": "https://r.example"})
    assert snapshot.providers["openrouter"].headers == {
        "HTTP-Referer": "https://r.example",
        "X-OpenRouter-Title": "My Router",
        "X-Title": "My Router",
    }
    assert snapshot.providers["openai"].headers == {}


def test_access_keys_come_from_variables() -> None:
    """ROUTER_API_KEY is a comma list; the file may name other variables."""
    snapshot = read(None, {"ROUTER_API_KEY": " a1 , b2,,a1", "ROUTER_ADMIN_KEY": "zzz9"})
    assert (snapshot.access.api_keys, snapshot.access.admin_key) == (("a1", "b2"), "zzz9")
    other = read({"server": {"api_key_env": ["K1", "K2"]}}, {"K1": "x", "K2": "y", "ROUTER_API_KEY": "z"})
    assert other.access.api_keys == ("x", "y")
    assert "a1" not in repr(snapshot)
    assert "zzz9" not in repr(snapshot)


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
    """`hedge` of the file holds for every category that has none of its own; null turns it off."""
    content = {
        "hedge": {"after": "p95"},
        "categories": {"code": {"hedge": {"after": 2, "budget": 0.1}}, "tools": {"hedge": None}},
    }
    categories = read(content).categories
    assert categories["reasoning"].hedge == Hedge("p95", 0.05)
    assert categories["code"].hedge == Hedge(2.0, 0.1)
    assert categories["tools"].hedge is None


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


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"cache": "2h"}, "cache"),
        ({"num_ctx": 0}, "num_ctx"),
        ({"num_ctx": True}, "num_ctx"),
        ({"keep_alive": -2}, "keep_alive"),
        ({"keep_alive": ""}, "keep_alive"),
        ({"keep_alive": "10 minutes"}, "keep_alive"),
        ({"keep_alive": "300"}, "keep_alive"),
        ({"think": "very"}, "think"),
        ({"safety_settings": {}}, "safety_settings"),
        ({"safety_settings": [{"categories": "x"}]}, "safety_settings[0].categories"),
    ],
)
def test_options_that_no_dialect_has(options: Any, key: str) -> None:
    """A dialect setting with a wrong value is refused with its path."""
    with pytest.raises(FileKeyError) as caught:
        read({"providers": {"ollama": {"options": options}}})
    assert caught.value.key == f"providers.ollama.options.{key}"
