"""The values of a configuration: frozen, checked, ready to be shared by every request that started with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llm_router.config.urls import without_credentials

BUILTIN_CATEGORIES = ("tools", "code", "reasoning", "conversation")
BUILTIN_PROVIDERS = ("openrouter", "openai", "anthropic", "google", "ollama")
RoutingMode = Literal["local", "keywords", "ollama", "api", "hybrid"]
Api = Literal["openai-completions", "anthropic-messages", "google-generative-ai", "ollama"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; None means not set at this level (the next wider level or the default decides)."""

    connect: float | None = None
    first_byte: float | None = None
    idle: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A provider's key and the variable that it came from. Its repr never shows the value."""

    value: str = field(repr=False)
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """An upstream and how to talk to it.

    `api` is the dialect; `base_url` is in normal form (config.urls) and may hold credentials, `shown_url` never does;
    `keys` may hold several keys, tried in turn;
    `key_variables` are the names to mention when none is set (empty: no key is needed). `headers` go onto every call,
    OpenRouter's attribution included. `options` holds dialect settings (num_ctx, keep_alive, cache, ...).
    """

    name: str
    base_url: str = field(repr=False)
    api: Api = "openai-completions"
    keys: tuple[ApiKey, ...] = ()
    key_variables: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    max_concurrency: int | None = None
    timeouts: Timeouts = Timeouts()
    model_timeouts: Mapping[str, Timeouts] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    builtin: bool = True

    @property
    def configured(self) -> bool:
        """Whether a request could be sent: a key is set, or none is needed."""
        return bool(self.keys) or not self.key_variables

    @property
    def shown_url(self) -> str:
        """The base URL without credentials, for people and answers."""
        return without_credentials(self.base_url)


@dataclass(frozen=True, slots=True)
class Hedge:
    """When to start a second candidate beside a silent first one; `after` is seconds, or the model's own "p95"."""

    after: float | Literal["p95"]
    budget: float = 0.05


@dataclass(frozen=True, slots=True)
class Category:
    """A task category: its effective chain of `provider/model` ids and what is known about it.

    `keywords` are the user's own. `shipped_keywords` stand in for them in `keywords` mode, and are empty wherever the
    file has a list, even an empty one.
    """

    name: str
    models: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    shipped_keywords: tuple[str, ...] = ()
    description: str = ""
    examples: tuple[str, ...] = ()
    custom: bool = False
    order: Literal["chain", "price", "latency"] = "chain"
    timeouts: Timeouts = Timeouts()
    hedge: Hedge | None = None
    max_price: float | None = None  # USD for the whole request, as estimated


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """The LLM modes of routing: models as full ids, the budget of one call, and when hybrid asks at all."""

    ollama_model: str = "ollama/qwen2.5:0.5b"
    api_model: str = "openrouter/qwen/qwen3-1.7b"
    timeout_ms: int = 800
    confidence: float = 0.5


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Failures in a row that open a circuit, and seconds until it may be probed."""

    failure_threshold: int = 3
    recovery_timeout_sec: float = 300.0


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask. Values are secrets: their repr is hidden."""

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    admin_key: str | None = field(default=None, repr=False)
    allow_unauthenticated: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One whole configuration. A request keeps the snapshot that it started with.

    `providers` holds every known provider by name; `categories` every category by name, each with its effective
    chain (never empty). `prices` are the file's overrides by full model id, in USD per million tokens. `sources`
    says for each file key where its value came from ("flag", "environment", ".env", "file", "default"). `warnings`
    are sentences about settings that were set aside or look like a mistake; they hold no secrets.
    `file` is the parsed configuration file as it stands, notes included.
    """

    providers: Mapping[str, Provider]
    categories: Mapping[str, Category]
    routing_mode: RoutingMode = "local"
    default_provider: str = "openrouter"
    default_model: str = "z-ai/glm-5"
    classifier: ClassifierSettings = ClassifierSettings()
    tools_routing: Literal["always", "by_task"] = "always"
    breaker: BreakerSettings = BreakerSettings()
    timeouts: Timeouts = Timeouts(connect=5.0, first_byte=None, idle=120.0, total=900.0)
    prices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_price: float | None = None
    count: Literal["always", "when_missing"] = "always"
    access: Access = Access()
    host: str = "127.0.0.1"
    port: int = 3456
    workers: int = 1
    log_level: str = "info"
    log_format: Literal["text", "json"] = "text"
    state_dir: str = ""
    drain_timeout: float = 30.0
    header_timeout: float = 10.0
    max_body_bytes: int = 33_554_432
    router_name: str = ""
    router_url: str = ""
    config_file: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    file: Mapping[str, Any] = field(default_factory=dict)


def split_model(model: str) -> tuple[str, str]:
    """A full id `provider/model`, split at the first slash; the provider is empty where there is no slash."""
    provider, slash, name = model.partition("/")
    return (provider, name) if slash else ("", model)
