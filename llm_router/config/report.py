"""What a configuration looks like from outside: JSON for `GET /config`, rows for `llm-router check`. No secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from llm_router.config.providers import BUILTINS
from llm_router.config.settings import SETTINGS
from llm_router.config.values import Category, Provider, Snapshot, Timeouts, split_model

CONFIG_FILE = "(configuration file)"
_SHORT_KEY = 12


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One line of `check`: the file key, the variable (may be empty), the value as shown, and its source."""

    key: str
    variable: str
    value: str
    source: str


def mask(secret: str) -> str:
    """A secret as it may be shown: its last four characters at most, none of a short one."""
    return "****" + secret[-4:] if len(secret) >= _SHORT_KEY else "****"


def effective(snapshot: Snapshot) -> dict[str, Any]:
    """The configuration in force as JSON, for `GET /config`; without keys, header values and credentials."""
    keywords_mode = snapshot.routing_mode == "keywords"
    categories = snapshot.categories.values()
    return {
        "model_mappings": {category.name: list(category.models) for category in categories},
        "keywords": {
            category.name: list(words)
            for category in categories
            if (words := category.keywords or (category.shipped_keywords if keywords_mode else ()))
        },
        "custom_categories": {
            category.name: _described(category)
            for category in categories
            if category.custom or category.description or category.examples
        },
        "categories": {category.name: options for category in categories if (options := _options(category))},
        "routing_mode": snapshot.routing_mode,
        "default_provider": snapshot.default_provider,
        "default_model": snapshot.default_model,
        "tools_routing": snapshot.tools_routing,
        "max_price": snapshot.max_price,
        "classifier": asdict(snapshot.classifier),
        "circuit_breaker": asdict(snapshot.breaker),
        "timeouts": asdict(snapshot.timeouts),
        "accounting": {"count": snapshot.count},
        "providers": {name: _provider(provider) for name, provider in snapshot.providers.items()},
        "prices": {model: dict(row) for model, row in snapshot.prices.items()},
        "attribution": {"name": snapshot.router_name, "url": snapshot.router_url},
        "server": _server(snapshot),
        "log": {"level": snapshot.log_level, "format": snapshot.log_format},
        "state_dir": snapshot.state_dir,
        "config_file": snapshot.config_file or None,
    }


def setting_rows(snapshot: Snapshot) -> list[SettingRow]:
    """Every setting with its value and source, secrets masked."""
    shown = effective(snapshot)
    rows = [
        SettingRow(
            setting.key,
            setting.variable,
            _words(_at(shown, setting.key)) if setting.key != "timeouts.first_byte" else _first_byte(snapshot),
            snapshot.sources[setting.key],
        )
        for setting in SETTINGS
    ]
    file_source = snapshot.sources.get("config_file", "default")
    rows.append(SettingRow(CONFIG_FILE, "ROUTER_CONFIG_FILE", snapshot.config_file or "-", file_source))
    access = snapshot.access
    for key, variable, secrets in (
        ("server.api_key_env", "ROUTER_API_KEY", access.api_keys),
        ("server.admin_key_env", "ROUTER_ADMIN_KEY", (access.admin_key,) if access.admin_key else ()),
    ):
        source = snapshot.sources[key.removesuffix("_env")]
        rows.append(SettingRow(key, variable, ", ".join(mask(secret) for secret in secrets) or "-", source))
    for provider in snapshot.providers.values():
        rows.extend(_provider_rows(provider, snapshot))
    for category in snapshot.categories.values():
        rows.extend(_category_rows(category))
    return rows


def missing_variables(snapshot: Snapshot, model: str) -> tuple[str, ...]:
    """The variables that would give the provider of a full model id its key; empty if it is configured."""
    provider = snapshot.providers.get(split_model(model)[0])
    return () if provider is None or provider.configured else provider.key_variables


def _described(category: Category) -> dict[str, Any]:
    return {
        "description": category.description,
        "models": list(category.models),
        "keywords": list(category.keywords),
        "examples": list(category.examples),
    }


def _options(category: Category) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if category.order != "chain":
        options["order"] = category.order
    if category.timeouts != Timeouts():
        options["timeouts"] = _set(category.timeouts)
    if category.hedge is not None:
        options["hedge"] = asdict(category.hedge)
    if category.max_price is not None:
        options["max_price"] = category.max_price
    return options


def _provider(provider: Provider) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "base_url": provider.shown_url,
        "configured": provider.configured,
        "api": provider.api,
        "api_key_env": list(provider.key_variables),
        "max_concurrency": provider.max_concurrency,
        "headers": sorted(provider.headers),
        "timeouts": _set(provider.timeouts),
        "options": dict(provider.options),
    }
    if provider.model_timeouts:
        shown["models"] = {model: {"timeouts": _set(value)} for model, value in provider.model_timeouts.items()}
    return shown


def _server(snapshot: Snapshot) -> dict[str, Any]:
    access = snapshot.access
    return {
        "host": snapshot.host,
        "port": snapshot.port,
        "workers": snapshot.workers,
        "api_keys": len(access.api_keys),
        "admin_key": access.admin_key is not None,
        "allow_unauthenticated": access.allow_unauthenticated,
        "allowed_hosts": list(access.allowed_hosts),
        "allowed_origins": list(access.allowed_origins),
        "drain_timeout": snapshot.drain_timeout,
        "header_timeout": snapshot.header_timeout,
        "max_body_bytes": snapshot.max_body_bytes,
    }


def _set(timeouts: Timeouts) -> dict[str, float]:
    return {name: value for name, value in asdict(timeouts).items() if value is not None}


def _provider_rows(provider: Provider, snapshot: Snapshot) -> Iterator[SettingRow]:
    path = f"providers.{provider.name}"
    keys = ", ".join(f"{key.variable}={mask(key.value)}" for key in provider.keys) or "-"
    builtin = BUILTINS[provider.name].key_variables if provider.name in BUILTINS else ()
    variables = ", ".join(provider.key_variables or builtin)
    key_source = snapshot.sources.get(f"{path}.api_key", "default")
    base_variable = f"{provider.name.upper()}_BASE_URL" if provider.builtin else ""
    yield SettingRow(f"{path}.api_key_env", variables, keys, key_source)
    yield SettingRow(f"{path}.base_url", base_variable, provider.shown_url, snapshot.sources[f"{path}.base_url"])
    yield SettingRow(f"{path}.api", "", provider.api, snapshot.sources[f"{path}.api"])
    for name, value in (("max_concurrency", provider.max_concurrency), ("headers", sorted(provider.headers))):
        if value:
            yield SettingRow(f"{path}.{name}", "", _words(value), snapshot.sources[f"{path}.{name}"])
    for name, limit in _set(provider.timeouts).items():
        yield SettingRow(f"{path}.timeouts.{name}", "", _words(limit), "file")
    for model, limits in provider.model_timeouts.items():
        for name, limit in _set(limits).items():
            yield SettingRow(f"{path}.models.{model}.timeouts.{name}", "", _words(limit), "file")
    for name, option in provider.options.items():
        yield SettingRow(f"{path}.options.{name}", "", _words(option), "file")


def _category_rows(category: Category) -> Iterator[SettingRow]:
    for name, option in _options(category).items():
        path = f"categories.{category.name}.{name}"
        parts = (
            {f"{path}.{key}": value for key, value in option.items()} if isinstance(option, dict) else {path: option}
        )
        for key, value in parts.items():
            yield SettingRow(key, "", _words(value), "file")


def _first_byte(snapshot: Snapshot) -> str:
    limit = snapshot.timeouts.first_byte
    return _words(limit) if limit is not None else "60 (slow kinds 300, not streamed 600)"


def _at(tree: dict[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = value[part]
    return value


def _words(value: Any) -> str:
    if value is None or value in ("", [], ()):
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)
