"""Providers: the built-in ones, what variables and the file say about them, and the file's own ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from llm_router.config import fields
from llm_router.config.fields import KeyProblem, join
from llm_router.config.options import read_options
from llm_router.config.settings import Environment, is_variable, seconds
from llm_router.config.urls import base_url
from llm_router.config.values import BUILTIN_PROVIDERS, Api, ApiKey, Provider, Timeouts
from llm_router.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Builtin:
    """What is known of a built-in provider; the first of `key_variables` that is set gives the key."""

    base_url: str
    key_variables: tuple[str, ...]
    api: Api = "openai-completions"
    key_needed: bool = True


BUILTINS: Mapping[str, Builtin] = {
    "openrouter": Builtin("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    "openai": Builtin("https://api.openai.com/v1", ("OPENAI_API_KEY",)),
    "anthropic": Builtin("https://api.anthropic.com/v1", ("ANTHROPIC_API_KEY",), "anthropic-messages"),
    "google": Builtin("https://generativelanguage.googleapis.com/v1beta", ("GOOGLE_API_KEY", "GEMINI_API_KEY")),
    "ollama": Builtin("http://localhost:11434", ("OLLAMA_API_KEY",), key_needed=False),
}
# How a base URL is read; built-in providers by their name, whatever dialect they are told to speak.
_DIALECTS = {
    "openai-completions": "openai",
    "anthropic-messages": "anthropic",
    "google-generative-ai": "google",
    "ollama": "ollama",
}
TIMEOUT_KEYS = ("connect", "first_byte", "idle", "total")
_PROVIDER_KEYS = (
    "base_url", "api_key_env", "api", "headers", "max_concurrency", "timeouts", "models", "options",
)  # fmt: skip
_MODEL_KEYS = ("timeouts",)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("router", "auto")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_LITERAL_KEYS = ("api_key", "apikey", "key", "token", "secret", "password", "api_keys", "keys")
_KEY_HEADERS = ("authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie")
_FRAMING_HEADERS = (
    "host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding", "expect",
    "keep-alive", "te", "trailer", "upgrade",
)  # fmt: skip


def read_providers(
    content: Mapping[str, Any], environment: Environment, attribution: Mapping[str, str]
) -> tuple[dict[str, Provider], dict[str, str], list[str]]:
    """All providers by name, the sources of their settings by file key, and warnings."""
    described = fields.section(content, "providers")
    sources: dict[str, str] = {}
    warnings: list[str] = []
    providers = {}
    for name in (*BUILTIN_PROVIDERS, *(name for name in described if name not in BUILTINS)):
        path = f"providers.{name}"
        if name not in BUILTINS and (not _NAME.fullmatch(name) or name in _RESERVED):
            problem = "a provider's name is 1 to 64 letters, digits, '.', '_', '-', and not 'router' or 'auto'"
            raise KeyProblem(join("providers", name), problem)
        entry = _Entry(name, path, _checked(described, name), environment, sources, warnings)
        providers[name] = entry.provider(attribution if name == "openrouter" else {})
    return providers, sources, warnings


def read_timeouts(parent: Mapping[str, Any], path: str) -> Timeouts:
    """The object `timeouts` inside `parent`; what it does not name stays None."""
    values = fields.section(parent, "timeouts", path, TIMEOUT_KEYS)
    place = join(path, "timeouts")
    return Timeouts(**{key: seconds(value, join(place, key)) for key, value in values.items()})


def _checked(described: Mapping[str, Any], name: str) -> dict[str, Any]:
    path = join("providers", name)
    if name not in described:
        return {}
    entry = fields.obj(described[name], path)
    for key in entry:
        if key.lower().replace("-", "_") in _LITERAL_KEYS:
            variable = _variable_for(name)
            raise KeyProblem(
                join(path, key),
                "keys do not belong into this file: put it into an environment variable "
                f'and name that, as in "api_key_env": "{variable}"',
            )
    fields.only(entry, path, _PROVIDER_KEYS)
    return entry


def _variable_for(name: str) -> str:
    if name in BUILTINS:
        return BUILTINS[name].key_variables[0]
    return f"{re.sub(r'[^A-Z0-9]', '_', name.upper())}_API_KEY"


@dataclass(slots=True)
class _Entry:
    """Reads one provider: `entry` is its object in the file, already free of unknown keys."""

    name: str
    path: str
    entry: dict[str, Any]
    environment: Environment
    sources: dict[str, str]
    warnings: list[str]

    def provider(self, attribution: Mapping[str, str]) -> Provider:
        builtin = BUILTINS.get(self.name)
        api = self._api(builtin.api if builtin else "openai-completions")
        keys, variables = self._keys(builtin)
        return Provider(
            name=self.name,
            base_url=self._base_url(builtin, api, keys),
            api=api,
            keys=keys,
            key_variables=variables,
            headers={**attribution, **self._headers()},
            max_concurrency=self._max_concurrency(),
            timeouts=read_timeouts(self.entry, self.path),
            model_timeouts=self._model_timeouts(),
            options=read_options(self.entry, self.path),
            builtin=builtin is not None,
        )

    def _api(self, default: Api) -> Api:
        self._source("api", "api" in self.entry)
        if "api" not in self.entry:
            return default
        return cast(Api, fields.choice(self.entry["api"], join(self.path, "api"), get_args(Api)))

    def _keys(self, builtin: Builtin | None) -> tuple[tuple[ApiKey, ...], tuple[str, ...]]:
        named = self._named_variables()
        variables = named or (builtin.key_variables if builtin else ())
        found = []
        for variable in variables:
            value, source = self.environment.get(variable)
            if value:
                check_key(value, variable)
                self.sources.setdefault(f"{self.path}.api_key", source)
                found.append(ApiKey(value, variable))
        keys = tuple(found) if named else tuple(found[:1])
        needed = bool(named) or (builtin is not None and builtin.key_needed)
        return keys, variables if needed else ()

    def _named_variables(self) -> tuple[str, ...]:
        path = join(self.path, "api_key_env")
        value = self.entry.get("api_key_env")
        if value is None:
            return ()
        names = fields.texts(value, path) if isinstance(value, list) else (fields.text(value, path),)
        if not names:
            raise KeyProblem(path, "must name at least one environment variable")
        for index, name in enumerate(names):
            if not is_variable(name) or _looks_like_key(name):
                place = f"{path}[{index}]" if isinstance(value, list) else path
                variable = _variable_for(self.name)
                raise KeyProblem(
                    place,
                    "must be the name of an environment variable, not a key itself: "
                    f'put the key into the variable {variable} and write "{variable}" here',
                )
        return names

    def _base_url(self, builtin: Builtin | None, api: Api, keys: tuple[ApiKey, ...]) -> str:
        place = join(self.path, "base_url")
        dialect = self.name if self.name in _DIALECTS.values() else _DIALECTS[api]
        stated = self._stated_url(place, dialect) or (builtin.base_url if builtin else "")
        self._source("base_url", "base_url" in self.entry)
        variable = f"{self.name.upper()}_BASE_URL"
        text, source = self.environment.get(variable) if builtin else ("", "")
        if text:
            url = _variable_url(text, variable, dialect)
            if url == stated or source != ".env" or self._keys_from_dotenv(keys):
                self.sources[place] = source
                return url
            self.warnings.append(
                f"{variable} in .env is set aside: the key in {keys[0].variable} does not come from .env, and a .env "
                f"may not send it elsewhere. Set {variable} where the key is set, or the key in .env"
            )
        if not stated:
            raise KeyProblem(place, "is missing; write where the provider listens, as in https://api.example.org/v1")
        return stated

    def _stated_url(self, place: str, dialect: str) -> str:
        if "base_url" not in self.entry:
            return ""
        try:
            return base_url(fields.text(self.entry["base_url"], place), dialect)
        except ValueError as error:
            raise KeyProblem(place, str(error)) from None

    def _keys_from_dotenv(self, keys: tuple[ApiKey, ...]) -> bool:
        return all(self.environment.get(key.variable)[1] == ".env" for key in keys)

    def _headers(self) -> dict[str, str]:
        path = join(self.path, "headers")
        headers = {}
        for name, value in fields.section(self.entry, "headers", self.path).items():
            place = join(path, name)
            if not _HEADER_NAME.fullmatch(name):
                raise KeyProblem(place, "is not a valid HTTP header name")
            if name.lower() in _KEY_HEADERS:
                raise KeyProblem(place, "keys do not belong into this file; use api_key_env")
            if name.lower() in _FRAMING_HEADERS:
                raise KeyProblem(place, "is set by the router itself; remove it here")
            word = fields.text(value, place, empty=True)
            if not all(" " <= char <= "~" for char in word):
                raise KeyProblem(place, "must be printable ASCII characters only")
            headers[name] = word
        self._source("headers", bool(headers))
        return headers

    def _max_concurrency(self) -> int | None:
        value = self.entry.get("max_concurrency")
        self._source("max_concurrency", value is not None)
        if value is None:
            return None
        return fields.integer(value, join(self.path, "max_concurrency"), minimum=1)

    def _model_timeouts(self) -> dict[str, Timeouts]:
        path = join(self.path, "models")
        result = {}
        for model, value in fields.section(self.entry, "models", self.path).items():
            place = join(path, model)
            entry = fields.obj(value, place)
            fields.only(entry, place, _MODEL_KEYS)
            result[model] = read_timeouts(entry, place)
        return result

    def _source(self, key: str, in_file: bool) -> None:
        self.sources[join(self.path, key)] = "file" if in_file else "default"


def check_key(value: str, variable: str) -> None:
    """Refuses a key that could not travel in a header. Raises ConfigError; the key itself is not shown."""
    if not all("!" <= char <= "~" for char in value):
        raise ConfigError(variable, "holds a line break, a space or another character that no key has; copy it again")


def _variable_url(text: str, variable: str, dialect: str) -> str:
    try:
        return base_url(text, dialect)
    except ValueError as error:
        raise ConfigError(variable, str(error)) from None


def _looks_like_key(name: str) -> bool:
    """Whether a "variable name" is rather a pasted key: long, with lower-case letters and digits mixed."""
    return len(name) >= 20 and any(char.islower() for char in name) and any(char.isdigit() for char in name)
