"""The pure parts around the load: base URLs, model ids, default chains, timeouts, advice, reports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_router import shipped
from llm_router.config.advice import advice, unguarded
from llm_router.config.defaults import SHIPPED_KEYWORDS, default_chain
from llm_router.config.loading import load
from llm_router.config.models import full_model_id
from llm_router.config.report import effective, mask, missing_variables, setting_rows
from llm_router.config.timeouts import effective_timeouts
from llm_router.config.urls import base_url
from llm_router.config.values import BUILTIN_CATEGORIES, BUILTIN_PROVIDERS, Provider, Snapshot, Timeouts

PRICES = json.loads(shipped.prices())


def read(content: Any = None, **environ: str) -> Snapshot:
    """A load of JSON-able content and variables."""
    data = None if content is None else json.dumps(content).encode()
    return load({"HOME": "/home/u", **environ}, {}, data, "router_config.json")


@pytest.mark.parametrize(
    ("dialect", "text", "normal"),
    [
        ("openai", "https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
        ("openai", "HTTPS://API.OpenAI.com//v1//", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1"),
        ("openai", "https://openrouter.ai", "https://openrouter.ai/api/v1"),
        ("openai", "https://api.groq.com/openai/v1", "https://api.groq.com/openai/v1"),
        ("openai", "http://[::1]:8000/x", "http://[::1]:8000/x"),
        ("anthropic", "https://api.anthropic.com", "https://api.anthropic.com"),
        ("anthropic", "https://api.anthropic.com/v1/messages", "https://api.anthropic.com"),
        ("google", "https://generativelanguage.googleapis.com", "https://generativelanguage.googleapis.com/v1beta"),
        ("google", "https://g.example/v1beta/openai/", "https://g.example/v1beta"),
        ("google", "https://g.example/v1beta/openai/chat/completions", "https://g.example/v1beta"),
        ("google", "https://g.example/v1beta/models/", "https://g.example/v1beta"),
        ("ollama", "http://localhost:11434/", "http://localhost:11434"),
        ("ollama", "http://localhost:11434/v1", "http://localhost:11434"),
        ("ollama", "http://localhost:11434/api", "http://localhost:11434"),
        ("ollama", "http://localhost:11434/api/", "http://localhost:11434"),
        ("openai", "https://gateway.example/api", "https://gateway.example/api"),
        ("ollama", "http://localhost:11434/api/chat", "http://localhost:11434"),
    ],
)
def test_base_urls_are_brought_to_one_form(dialect: str, text: str, normal: str) -> None:
    """With or without version, trailing slash or endpoint: the same base comes out, and never a double slash."""
    assert base_url(text, dialect) == normal
    assert base_url(normal, dialect) == normal


@pytest.mark.parametrize(
    "text",
    [
        "", "api.openai.com", "ftp://x/v1", "http://", "http:///v1", "https://u:p@/v1", "http://x/?k=1",
        "http://x/v1#a", "http://x/v1?", "http://x/../v1", "http://x/a b", "http://x:99999/", "http://x:0/",
        "http://[::1/v1", "http://x/\u2028", "http://bücher.example/v1", "javascript:alert(1)", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_odd_base_urls_are_refused(text: str) -> None:
    """Other schemes, queries, dots, control characters and broken hosts are no base URL."""
    with pytest.raises(ValueError, match=r"must|is not|names port"):
        base_url(text, "openai")


def test_credentials_in_a_base_url_are_kept_and_never_shown() -> None:
    """`user:password@` is for the wire alone, as it was written; what is shown has stars in its place."""
    url = base_url("HTTPS://Me:PassWord@API.Example.org/v1/", "openai")
    assert url == "https://Me:PassWord@api.example.org/v1"
    provider = Provider("openai", url)
    assert provider.shown_url == "https://***@api.example.org/v1"
    assert "PassWord" not in repr(provider)
    assert Provider("openai", "https://api.example.org/v1").shown_url == "https://api.example.org/v1"


@pytest.mark.parametrize(
    "text",
    ["", " ", "openai/", "openai//x", "openai/x/", "nosuch/x", "/x", "a b", "x" * 257, "a\n", "openai/../x", ".."],
)
def test_odd_model_ids_are_refused(text: str) -> None:
    """An id without a model, with white space or of an unknown provider is refused, with the remedy."""
    if text == "a\n":
        assert full_model_id(text, "openai", ["openai"]) == "openai/a"
        return
    with pytest.raises(ValueError, match=r"model|provider"):
        full_model_id(text, "openai", BUILTIN_PROVIDERS)


def test_every_curated_model_is_current_and_able() -> None:
    """Default chains name models that the price table has, that are not withdrawn before 2027 and fit the task."""
    chains = [default_chain(category, BUILTIN_PROVIDERS, "x/y") for category in BUILTIN_CATEGORIES]
    for model in {model for chain in chains for model in chain[:-1]}:
        row = PRICES[model]
        assert row.get("deprecated") is None or row["deprecated"] >= "2027-01-01", model
        assert row["tools"] is True, model
        assert row["input"] is not None, model
        assert row["output"] is not None, model
    for model in chains[BUILTIN_CATEGORIES.index("reasoning")][:-1]:
        assert PRICES[model]["reasoning"] is True, model


@pytest.mark.parametrize("category", [*BUILTIN_CATEGORIES, "creative"])
def test_default_chains(category: str) -> None:
    """A chain holds models of the providers whose keys are set, Ollama last; without any, the default model first."""
    chain = read(OPENAI_API_KEY="k", ANTHROPIC_API_KEY="k").categories["code"].models
    assert {model.partition("/")[0] for model in chain} == {"openai", "anthropic", "ollama"}
    alone = default_chain(category, [], "openrouter/z-ai/glm-5")
    assert alone[0] == "openrouter/z-ai/glm-5"
    assert [model.partition("/")[0] for model in alone[1:]] == ["ollama"]
    every = default_chain(category, BUILTIN_PROVIDERS, "x/y")
    assert len(set(every)) == len(every)
    assert every[-1].startswith("ollama/")
    assert len({model.partition("/")[0] for model in every[:4]}) == 4


def test_shipped_keywords_are_whole_and_distinct() -> None:
    """No shipped keyword is blank, repeated, or claimed by two categories."""
    words = [word for category in SHIPPED_KEYWORDS.values() for word in category]
    assert len({word.casefold() for word in words}) == len(words)
    assert all(word == word.strip() and word for word in words)


@pytest.mark.parametrize(
    ("content", "provider", "category", "facts", "first_byte"),
    [
        ({}, "openai", "code", "stream", 60),
        ({}, "openai", "code", "", 600),
        ({}, "openai", "code", "stream thinks", 300),
        ({}, "ollama", "code", "stream", 300),
        ({}, "ollama", "code", "", 600),
        ({"timeouts": {"first_byte": 7}}, "ollama", "code", "", 7),
        ({"timeouts": {"first_byte": 7}}, "openai", "code", "stream thinks", 7),
        ({"timeouts": {"first_byte": 7}, "categories": {"code": {"timeouts": {"first_byte": 8}}}}, "openai", "code",
         "stream", 8),
        ({"categories": {"code": {"timeouts": {"first_byte": 8}}}}, "openai", "tools", "stream", 60),
        ({"categories": {"code": {"timeouts": {"first_byte": 8}}}}, "openai", None, "stream", 60),
        ({"categories": {"code": {"timeouts": {"first_byte": 8}}},
          "providers": {"openai": {"timeouts": {"first_byte": 9}}}}, "openai", "code", "stream", 9),
        ({"providers": {"openai": {"timeouts": {"first_byte": 9}, "models": {"m": {"timeouts": {"first_byte": 10}}}}}},
         "openai", "code", "stream", 10),
        ({"providers": {"openai": {"models": {"m": {"timeouts": {"idle": 10}}}}}}, "openai", "code", "stream", 60),
    ],
)  # fmt: skip
def test_the_most_specific_timeout_wins(
    content: Any, provider: str, category: str | None, facts: str, first_byte: float
) -> None:
    """Model before provider before category before global before the default for the kind of request."""
    snapshot = read(content)
    limits = effective_timeouts(
        snapshot,
        snapshot.providers[provider],
        snapshot.categories[category] if category else None,
        "m",
        stream="stream" in facts,
        thinks="thinks" in facts,
    )
    assert limits.first_byte == first_byte
    assert limits.connect == 5.0


def test_timeouts_are_chosen_field_by_field() -> None:
    """A level that names one clock leaves the others to the wider levels."""
    content = {"providers": {"openai": {"timeouts": {"idle": 1}, "models": {"m": {"timeouts": {"connect": 2}}}}}}
    snapshot = read(content, ROUTER_FIRST_BYTE_TIMEOUT="3")
    limits = effective_timeouts(snapshot, snapshot.providers["openai"], None, "m", stream=True, thinks=False)
    assert limits == Timeouts(connect=2.0, first_byte=3.0, idle=1.0)


@pytest.mark.parametrize(
    ("provider", "first_byte"),
    [
        ({"timeouts": {"total": 7}}, 7),
        ({"timeouts": {"total": 7}, "models": {"m": {"timeouts": {"total": 8}}}}, 8),
        ({"timeouts": {"total": 90}}, 60),
    ],
)
def test_a_total_of_a_provider_bounds_the_first_byte(provider: Any, first_byte: float) -> None:
    """A provider's or model's total is all that it is given up to its first meaning; the chain's is none of it."""
    content = {"providers": {"openai": provider}, "categories": {"code": {"timeouts": {"total": 5}}}}
    snapshot = read(content, ROUTER_TOTAL_TIMEOUT="3")
    limits = effective_timeouts(
        snapshot,
        snapshot.providers["openai"],
        snapshot.categories["code"],
        "m",
        stream=True,
        thinks=False,
    )
    assert limits.first_byte == first_byte


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OPENAI_API_KEY": '"sk-0123456789abcdef"'}, "OPENAI_API_KEY begins or ends with a quotation mark"),
        ({"OPENAI_API_KEY": "'sk-0123456789abcdef'"}, "OPENAI_API_KEY begins or ends with a quotation mark"),
        ({"OPENAI_API_KEY": "sk-your-openai-key"}, "looks like a placeholder"),
        ({"OPENAI_API_KEY": "${OPENAI_KEY}"}, "looks like a placeholder"),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://api.example.org/v1"}, "travels unencrypted"),
        ({"ROUTER_API_KEY": '"abc"'}, "remove the quotes"),
        (
            {"ROUTER_API_KEY": "k,0123456789ab", "ROUTER_ADMIN_KEY": "0123456789ab"},
            "ADMIN_KEY is one of ROUTER_API_KEY",
        ),
        ({"ROUTER_API_KEY": "01234567890", "ROUTER_HOST": "0.0.0.0"}, "0.0.0.0 can be reached by those who guess"),
        ({}, "no provider key is set"),
        ({"OPENAI_API_KEY": "OPENAI_API_KEY=sk-0123456789"}, "OPENAI_API_KEY holds its own name"),
        (
            {"OPENAI_API_KEY": "sk-or-v1-0123456789"},
            "looks like a key of openrouter, but it is sent to https://api.open",
        ),
        ({"OPENROUTER_API_KEY": "sk-ant-0123456789"}, "looks like a key of anthropic"),
        ({"ROUTER_HOST": "10.0.0.1", "ROUTER_ALLOW_UNAUTHENTICATED": "1"}, "serving 10.0.0.1 without a key"),
        ({"ROUTER_PROT": "0123456789"}, "ROUTER_PROT is set, but nothing reads it; did you mean ROUTER_PORT?"),
        ({"ROUTER_API_KEYS": "0123456789"}, "did you mean ROUTER_API_KEY?"),
        ({"ROUTER_ROUTING_MODE": "local"}, "did you mean ROUTING_MODE?"),
        ({"LLM_ROUTER_PORT": "1"}, "did you mean ROUTER_PORT?"),
        ({"OPENROUTER_KEY": "sk-0123456789"}, "did you mean OPENROUTER_API_KEY?"),
        ({"OPENAI_API_BASE": "http://x"}, "did you mean OPENAI_BASE_URL?"),
    ],
)
def test_likely_mistakes_are_told(environ: dict[str, str], words: str) -> None:
    """What is valid and yet looks wrong is told without the secret in it."""
    found = " ".join(advice(read(None, **environ)))
    assert words in found
    assert "0123456789" not in found


def test_nothing_is_told_where_nothing_looks_wrong() -> None:
    """A plain working configuration, a local server without TLS and a short key for loopback included."""
    short = {"OPENAI_API_KEY": "sk-proj-4f9a", "ROUTER_API_KEY": "k1,k2", "ROUTER_ADMIN_KEY": "k3"}
    assert advice(read(None, **short)) == []
    assert (
        advice(read(None, OPENAI_API_KEY="sk-proj-4f9a", OLLAMA_API_KEY="o", OLLAMA_BASE_URL="http://10.0.0.2:1")) == []
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model_mappings": {"coding": ["openai/x"]}}, "only its name speaks for it; did you mean code?"),
        ({"custom_categories": {"zzz": {}}}, "the category zzz has no description, examples or keywords"),
        (
            {"routing_mode": "keywords", "custom_categories": {"zzz": {"description": "d"}}},
            "the category zzz has no keywords: only router/zzz leads to it",
        ),
        (
            {"providers": {"ollama": {"options": {"num_ctx": 8192}}}},
            'options.num_ctx has no effect: ollama is spoken to as openai-completions; write "api": "ollama"',
        ),
        ({"server": {"api_key_env": ["A", "B"]}}, "server.api_key_env names A and B, but nothing is set there"),
    ],
)
def test_likely_mistakes_of_the_file_are_told(content: dict[str, Any], words: str) -> None:
    """What the file says validly and without the effect that its author had in mind is told with its name."""
    (told,) = advice(read(content, OPENAI_API_KEY="sk-proj-4f9a"))
    assert words in told


def test_what_other_programs_read_is_no_slip() -> None:
    """Variables of other programs, and those that the file itself names, are not taken for misspelt ones of ours."""
    foreign = ("OPENAI_ORG_ID", "OLLAMA_HOST", "OLLAMA_MODELS", "ANTHROPIC_MODEL", "GOOGLE_APPLICATION_CREDENTIALS",
               "ROUTER_SERVICE_HOST", "ROUTER_PORT_3456_TCP", "DEFAULT_TIMEOUT")  # fmt: skip
    content = {"providers": {"openai": {"api_key_env": ["OPENAI_API_KEY", "OPENAI_API_KEY_2"]}}}
    environ = dict.fromkeys(foreign, "x") | {"OPENAI_API_KEY": "sk-proj-1", "OPENAI_API_KEY_2": "sk-proj-2"}
    assert advice(read(content, **environ)) == []


@pytest.mark.parametrize(
    ("environ", "refused"),
    [
        ({"ROUTER_HOST": "0.0.0.0"}, True),
        ({"ROUTER_HOST": "router.example.org"}, True),
        ({"ROUTER_HOST": "::"}, True),
        ({"ROUTER_HOST": "0.0.0.0", "ROUTER_API_KEY": "k"}, False),
        ({"ROUTER_HOST": "0.0.0.0", "ROUTER_ALLOW_UNAUTHENTICATED": "1"}, False),
        ({"ROUTER_HOST": "::1"}, False),
        ({"ROUTER_HOST": "localhost"}, False),
    ],
)
def test_an_open_address_is_refused_without_a_key(environ: dict[str, str], refused: bool) -> None:
    """Beyond loopback either a key is asked for or the user said that none shall be."""
    problem = unguarded(read(None, **environ))
    assert (problem is not None) == refused
    assert problem is None or "set ROUTER_API_KEY" in problem


def test_a_chain_that_cannot_answer_is_told() -> None:
    """A category whose providers all lack their key names the variables."""
    found = advice(read({"model_mappings": {"code": ["openai/x", "anthropic/y"]}}, OPENROUTER_API_KEY="sk-or-1"))
    assert found == ["no model of the category code can answer: set OPENAI_API_KEY or ANTHROPIC_API_KEY"]


def test_effective_configuration_is_json_without_secrets() -> None:
    """GET /config shows what is in force; no key, no header value, no credential is in it."""
    content = {
        "model_mappings": {"c": ["groq/m"]},
        "custom_categories": {"c": {"keywords": ["k"], "description": "d"}},
        "providers": {"groq": {"base_url": "http://g/v1", "api_key_env": "G", "headers": {"x-team": "private"}}},
        "categories": {"c": {"order": "price", "timeouts": {"idle": 3}, "max_price": 1, "hedge": {"after": "p95"}}},
        "prices": {"groq/m": {"input": 1}},
    }
    secrets = {
        "G": "gsk-secret",
        "OPENAI_API_KEY": "sk-secret",
        "ROUTER_API_KEY": "rk-secret",
        "ROUTER_ADMIN_KEY": "ak-secret",
    }
    shown = effective(read(content, **secrets))
    text = json.dumps(shown)
    assert "secret" not in text
    assert "private" not in text
    assert set(shown["model_mappings"]) == {*BUILTIN_CATEGORIES, "c"}
    assert shown["model_mappings"]["c"] == ["groq/m"]
    assert shown["custom_categories"] == {
        "c": {"description": "d", "models": ["groq/m"], "keywords": ["k"], "examples": []}
    }
    assert shown["keywords"] == {"c": ["k"]}
    assert shown["routing_mode"] == "local"
    assert shown["categories"]["c"] == {
        "order": "price", "timeouts": {"idle": 3.0}, "hedge": {"after": "p95", "budget": 0.05}, "max_price": 1.0,
    }  # fmt: skip
    assert shown["server"]["api_keys"] == 1
    assert effective(read(None, ROUTING_MODE="keywords"))["keywords"]["code"]


def test_rows_show_every_setting_with_source_and_masked_secrets() -> None:
    """`check` can print every setting; of a key at most its last four characters."""
    ollama = {
        "options": {"num_ctx": 8192},
        "max_concurrency": 2,
        "timeouts": {"idle": 7},
        "models": {"m": {"timeouts": {"connect": 0.5}}},
        "headers": {"x-team": "private"},
    }
    code = {"order": "price", "timeouts": {"idle": 3}, "hedge": {"after": "p95"}}
    content = {"providers": {"ollama": ollama}, "categories": {"code": code}}
    snapshot = read(content, OPENAI_API_KEY="sk-0123456789abcdef")
    rows = {row.key: row for row in setting_rows(snapshot)}
    assert rows["providers.openai.api_key_env"].value == "OPENAI_API_KEY=****cdef"
    assert rows["providers.openai.api_key_env"].source == "environment"
    assert rows["providers.ollama.options.num_ctx"].value == "8192"
    assert rows["providers.ollama.max_concurrency"].value == "2"
    assert rows["providers.ollama.timeouts.idle"].value == "7"
    assert rows["providers.ollama.models.m.timeouts.connect"].value == "0.5"
    assert rows["providers.ollama.headers"].value == "x-team"
    assert rows["categories.code.order"].value == "price"
    assert rows["categories.code.timeouts.idle"].value == "3"
    assert rows["categories.code.hedge.budget"].value == "0.05"
    assert rows["timeouts.first_byte"].value == "60 (slow kinds 300, not streamed 600)"
    assert rows["server.port"].value == "3456"
    assert all(row.source in ("flag", "environment", ".env", "file", "default") for row in rows.values())


@pytest.mark.parametrize(
    ("secret", "masked"),
    [("", "****"), ("short", "****"), ("x" * 11, "****"), ("x" * 12, "****xxxx"), ("sk-0123456789", "****6789")],
)
def test_masking(secret: str, masked: str) -> None:
    """A short secret is hidden whole: four characters of it would be too many."""
    assert mask(secret) == masked


def test_missing_variables() -> None:
    """The variables of a model's provider are named where its key is not set."""
    assert missing_variables(read(), "google/x") == ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    assert missing_variables(read(), "ollama/x") == ()
    assert missing_variables(read(None, OPENAI_API_KEY="k"), "openai/x") == ()


@pytest.mark.parametrize(("mode", "told"), [("local", False), ("ollama", False), ("api", True), ("hybrid", True)])
def test_a_classifier_that_cannot_be_asked_is_told(mode: str, told: bool) -> None:
    """Where a model is to find the category and its provider has no key, the variable is named."""
    found = advice(read(None, OPENAI_API_KEY="sk-proj-4f9a", ROUTING_MODE=mode))
    words = f"openrouter/qwen/qwen3-1.7b cannot be asked for the category (mode {mode}): set OPENROUTER_API_KEY"
    assert found == ([words] if told else [])
    assert advice(read(None, OPENROUTER_API_KEY="sk-or-1", ROUTING_MODE=mode)) == []
