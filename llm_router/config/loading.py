"""From variables, `.env` and the file's bytes to one frozen snapshot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llm_router.config import fields
from llm_router.config.categories import ModelIds, read_categories
from llm_router.config.fields import FileKeyError, KeyProblem, join
from llm_router.config.jsonfile import parse_file
from llm_router.config.misspelt import misspelt
from llm_router.config.models import full_model_id
from llm_router.config.pricelist import read_prices
from llm_router.config.providers import BUILTINS, TIMEOUT_KEYS, check_key, read_providers
from llm_router.config.settings import SETTINGS, Environment, Resolved, is_variable, resolve, sections
from llm_router.config.values import Access, BreakerSettings, ClassifierSettings, Provider, Snapshot, Timeouts
from llm_router.errors import ConfigError

_SECTIONS = ("model_mappings", "keywords", "custom_categories", "categories", "providers", "prices", "hedge")
_SERVER_SECRETS = {"api_key_env": "ROUTER_API_KEY", "admin_key_env": "ROUTER_ADMIN_KEY"}
_VARIABLES_OF_THE_PROCESS = ("ROUTER_CONFIG_FILE", "LLM_ROUTER_IMAGE")
_LITERAL_KEY = re.compile(r"(?:.*[_-])?(?:api|admin)[_-]?keys?", re.IGNORECASE | re.DOTALL)


def load(
    environ: Mapping[str, str],
    dotenv: Mapping[str, str],
    file: bytes | None,
    file_name: str,
    flags: Mapping[str, object] | None = None,
) -> Snapshot:
    """One checked configuration. Raises ConfigError that names the variable, the flag, or the file and the place.

    `file` are the bytes of the configuration file (None: there is none), `file_name` is what messages call it. `flags`
    hold the command line's `host`, `port`, `log_level`, `log_format`, `allow_unauthenticated`; None means not given.
    """
    raw: dict[str, Any] = {}
    try:
        if file is not None:
            raw = parse_file(file, file_name)
        return _Loader(Environment(environ, dotenv), raw, flags or {}).snapshot(file_name if file is not None else "")
    except KeyProblem as problem:
        raise FileKeyError(file_name, problem) from None


class _Loader:
    """The steps of one load; raises KeyProblem for the file's keys and ConfigError for all else."""

    def __init__(self, environment: Environment, raw: dict[str, Any], flags: Mapping[str, object]) -> None:
        self._environment = environment
        self._raw = raw
        self._content = fields.obj(raw, "")
        self._flags = flags
        self._warnings: list[str] = []

    def snapshot(self, file_name: str) -> Snapshot:
        self._refuse_unknown_keys()
        settings = resolve(self._environment, self._content, self._flags)
        values = settings.values
        providers, provider_sources, warnings = read_providers(
            self._content, self._environment, _attribution(values["attribution.name"], values["attribution.url"])
        )
        ids = self._model_ids(settings, providers)
        categories, category_sources = read_categories(self._content, ids)
        access, access_sources = self._access(values)
        return Snapshot(
            providers=providers,
            categories=categories,
            routing_mode=values["routing_mode"],
            default_provider=ids.default_provider,
            default_model=ids.default_model.partition("/")[2],
            classifier=self._classifier(settings, ids),
            tools_routing=values["tools_routing"],
            breaker=BreakerSettings(
                values["circuit_breaker.failure_threshold"], values["circuit_breaker.recovery_timeout_sec"]
            ),
            timeouts=Timeouts(**{key: values[f"timeouts.{key}"] for key in TIMEOUT_KEYS}),
            prices=read_prices(self._content, ids),
            max_price=values["max_price"],
            count=values["accounting.count"],
            access=access,
            host=values["server.host"],
            port=values["server.port"],
            workers=values["server.workers"],
            log_level=values["log.level"],
            log_format=values["log.format"],
            state_dir=self._state_dir(values["state_dir"]),
            drain_timeout=values["server.drain_timeout"],
            header_timeout=values["server.header_timeout"],
            max_body_bytes=values["server.max_body_bytes"],
            router_name=values["attribution.name"],
            router_url=values["attribution.url"],
            config_file=file_name,
            sources={**settings.sources, **access_sources, **provider_sources, **category_sources},
            warnings=(*warnings, *self._warnings, *misspelt(self._environment, self._variables(providers))),
            file=self._raw,
        )

    def _refuse_unknown_keys(self) -> None:
        known = sections()
        known["server"] = [*known["server"], *_SERVER_SECRETS]
        top = (*known[""], *(name for name in known if name), *_SECTIONS)
        for key in self._content:
            if key not in top:
                _refuse_misplaced(key, known)
        fields.only(self._content, "", top)
        for name, keys in known.items():
            if name:
                section = fields.section(self._content, name)
                _refuse_literal_secrets(section, name)
                fields.only(section, name, keys)

    def _model_ids(self, settings: Resolved, providers: Mapping[str, Provider]) -> ModelIds:
        default = settings.values["default_provider"]
        if default not in providers:
            known = list(providers)
            problem = f"{fields.shown(default)} is no built-in or configured provider; "
            raise self._misplaced("default_provider", settings, problem + fields.suggestion(default, known))
        model = settings.values["default_model"]
        prefix = f"{default}/"
        # "openrouter/auto" is a model of OpenRouter's own; with a second slash the first part is the provider again.
        if model.startswith(prefix) and (default != "openrouter" or "/" in model[len(prefix) :]):
            model = model[len(prefix) :]
        return ModelIds(
            default_provider=default,
            default_model=prefix + model,
            providers=tuple(providers),
            configured=tuple(name for name, provider in providers.items() if provider.keys),
        )

    def _classifier(self, settings: Resolved, ids: ModelIds) -> ClassifierSettings:
        values = settings.values
        ollama = values["classifier.ollama_model"]
        try:
            api = full_model_id(values["classifier.api_model"], ids.default_provider, ids.providers)
        except ValueError as error:
            raise self._misplaced("classifier.api_model", settings, str(error)) from None
        return ClassifierSettings(
            ollama_model=ollama if ollama.startswith("ollama/") else f"ollama/{ollama}",
            api_model=api,
            timeout_ms=values["classifier.timeout_ms"],
            confidence=values["classifier.confidence"],
        )

    def _misplaced(self, key: str, settings: Resolved, problem: str) -> Exception:
        """The error for a setting that is well-formed but does not fit the rest, named where it was set."""
        if settings.sources[key] == "file":
            return KeyProblem(key, problem)
        return ConfigError(next(setting.variable for setting in SETTINGS if setting.key == key), problem)

    def _access(self, values: Mapping[str, Any]) -> tuple[Access, dict[str, str]]:
        section = fields.section(self._content, "server")
        sources: dict[str, str] = {}
        found: dict[str, list[str]] = {}
        for key, variable in _SERVER_SECRETS.items():
            names = self._secret_variables(section, key, variable)
            found[key] = []
            sources[f"server.{key.removesuffix('_env')}"] = "default"
            for name in names:
                value, source = self._environment.get(name)
                parts = [part.strip() for part in value.split(",")] if key == "api_key_env" else [value]
                if value and not any(parts):
                    raise ConfigError(name, "holds commas and no key; set a key, or unset it to ask for none")
                for part in filter(None, parts):
                    check_key(part, name)
                    found[key].append(part)
                    sources[f"server.{key.removesuffix('_env')}"] = source
            if key in section and not found[key]:
                unset = " and ".join(names)
                self._warnings.append(f"server.{key} names {unset}, but nothing is set there: no such key is asked for")
        access = Access(
            api_keys=tuple(dict.fromkeys(found["api_key_env"])),
            admin_key=next(iter(found["admin_key_env"]), None),
            allow_unauthenticated=values["server.allow_unauthenticated"],
            allowed_hosts=values["server.allowed_hosts"],
            allowed_origins=values["server.allowed_origins"],
        )
        return access, sources

    def _secret_variables(self, section: Mapping[str, Any], key: str, default: str) -> tuple[str, ...]:
        if key not in section:
            return (default,)
        path = join("server", key)
        names = (
            fields.texts(section[key], path) if isinstance(section[key], list) else (fields.text(section[key], path),)
        )
        for name in names:
            if not is_variable(name):
                raise KeyProblem(path, f'must be the name of an environment variable, such as "{default}", not a key')
        return names

    def _variables(self, providers: Mapping[str, Provider]) -> set[str]:
        """Every variable that is read, with this file."""
        section = fields.section(self._content, "server")
        return {
            *(setting.variable for setting in SETTINGS if setting.variable),
            *(name for key, usual in _SERVER_SECRETS.items() for name in self._secret_variables(section, key, usual)),
            *(name for provider in providers.values() for name in provider.key_variables),
            *(name for builtin in BUILTINS.values() for name in builtin.key_variables),
            *(f"{name.upper()}_BASE_URL" for name in BUILTINS),
            *_VARIABLES_OF_THE_PROCESS,
        }

    def _state_dir(self, stated: str | None) -> str:
        home = self._environment.process.get("HOME", "").rstrip("/")
        if stated:  # no shell has looked at what stands in the file, in .env or behind `Environment=`
            return home + stated[1:] or "/" if stated == "~" or stated.startswith("~/") else stated
        systemd = self._environment.process.get("STATE_DIRECTORY", "").split(":")[0]
        if systemd:
            return systemd
        xdg = self._environment.process.get("XDG_STATE_HOME", "")
        return f"{xdg if xdg.startswith('/') else f'{home}/.local/state'}/llm-router"


def _attribution(name: str, url: str) -> dict[str, str]:
    """OpenRouter's attribution headers; the title under its present and its former name."""
    headers = {"HTTP-Referer": url, "X-OpenRouter-Title": name, "X-Title": name}
    return {header: value for header, value in headers.items() if value}


def _refuse_literal_secrets(section: Mapping[str, Any], name: str) -> None:
    for key in section:
        if key in ("api_key", "api_keys", "admin_key"):
            variable = "ROUTER_ADMIN_KEY" if key == "admin_key" else "ROUTER_API_KEY"
            raise KeyProblem(join(name, key), f"keys do not belong into this file; set the variable {variable}")


def _refuse_misplaced(key: str, known: Mapping[str, list[str]]) -> None:
    """Two mistakes at the top of the file that the list of what is known there would not explain."""
    if _LITERAL_KEY.fullmatch(key):
        variable = key.upper() if "_" in key and key.isupper() else "OPENROUTER_API_KEY"
        raise KeyProblem(join("", key), f"keys do not belong into this file; set a variable such as {variable}")
    place = next((join(head, key) for head, keys in known.items() if head and key in keys), None)
    if place:
        raise KeyProblem(join("", key), f"unknown key; did you mean {fields.shown(place)}?")
