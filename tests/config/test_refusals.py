"""What is refused, and how the place and the remedy are told."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router.config.fields import FileKeyError
from llm_router.errors import ConfigError
from tests.config.reading import NAME, read


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
        ("ROUTER_API_KEY", " , ", "commas and no key"),
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
    ({"hedge": 0.0}, "hedge", "must be an object, not a number"),
    ({"categories": {"code": {"hedge": 0}}}, "categories.code.hedge", "must be an object, not a number"),
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
