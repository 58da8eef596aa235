"""The table of scalar settings: file key, variable, flag, default and how a value is read, in one place for all.

Order of precedence: flag, environment, `.env`, file, default. An empty variable counts as unset.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_router.config import fields
from llm_router.config.fields import KeyProblem
from llm_router.errors import ConfigError

Read = Callable[[Any, str], Any]
_DAY = 86_400.0
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting; docs/CONFIGURATION.md says what it is for.

    `read` checks a JSON value, `parse` turns a variable's or flag's text into one.
    """

    key: str
    read: Read
    default: Any
    variable: str = ""
    flag: str = ""
    parse: Callable[[str], Any] = str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where variables come from: the process's environment first, then `.env`."""

    process: Mapping[str, str]
    dotenv: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> tuple[str, str]:
        """A variable's value without surrounding white space and its source; two empty strings if it is unset."""
        for source, values in (("environment", self.process), (".env", self.dotenv)):
            value = (values.get(name) or "").strip()
            if value:
                return value, source
        return "", ""


def is_variable(name: str) -> bool:
    """Whether a word may be the name of an environment variable."""
    return _VARIABLE.fullmatch(name) is not None


def seconds(value: Any, path: str) -> float:
    """A duration above zero, one day at most."""
    return fields.number(value, path, above=0.0, maximum=_DAY)


def _seconds_or_zero(value: Any, path: str) -> float:
    return fields.number(value, path, maximum=_DAY)


def _recovery(value: Any, path: str) -> float:
    return fields.number(value, path, maximum=30 * _DAY)


def _whole(minimum: int, maximum: int | None = None) -> Read:
    return lambda value, path: fields.integer(value, path, minimum=minimum, maximum=maximum)


def _one_of(*names: str, **aliases: str) -> Read:
    def read(value: Any, path: str) -> str:
        word = value.strip().lower() if isinstance(value, str) else value
        return fields.choice(aliases.get(word, word) if isinstance(word, str) else word, path, names)

    return read


def _fraction(value: Any, path: str) -> float:
    return fields.number(value, path, maximum=1.0)


def usd(value: Any, path: str) -> float | None:
    """A price limit in USD; null means no limit."""
    return None if value is None else fields.number(value, path)


def _header_text(value: Any, path: str) -> str:
    word = fields.text(value, path, empty=True)
    if not all(" " <= char <= "~" for char in word):
        raise KeyProblem(path, "travels as an HTTP header: use printable ASCII characters only")
    return word


def _hosts(value: Any, path: str) -> tuple[str, ...]:
    hosts = fields.texts(value, path)
    for index, host in enumerate(hosts):
        if "/" in host or any(char.isspace() for char in host) or _has_port(host):
            raise KeyProblem(
                f"{path}[{index}]", "must be a host name such as router.example.org, without scheme, port or path"
            )
        _refuse_pattern(host, f"{path}[{index}]")
    return tuple(host.lower() for host in hosts)


def _has_port(host: str) -> bool:
    """Whether a port stands behind a name or an address; the colons of an IPv6 address are none."""
    return host.rpartition("]")[2].startswith(":") if host.startswith("[") else host.count(":") == 1


def _refuse_pattern(name: str, path: str) -> None:
    """Names are compared whole: a pattern would match nothing, and its user would wonder why."""
    if "*" in name and name != "*":
        raise KeyProblem(path, 'must be a whole name, since a pattern matches nothing: write each one, or "*" for all')


def _origins(value: Any, path: str) -> tuple[str, ...]:
    origins = fields.texts(value, path)
    for index, origin in enumerate(origins):
        scheme, found, rest = origin.rstrip("/").partition("://")
        if origin in ("*", "null"):
            continue
        if not found or not scheme or not rest or "/" in rest or any(char.isspace() for char in origin):
            raise KeyProblem(f"{path}[{index}]", "must be an origin such as https://app.example.org:8443, without path")
        _refuse_pattern(origin, f"{path}[{index}]")
    return tuple(origin.rstrip("/").lower() for origin in origins)


def _host(value: Any, path: str) -> str:
    host = fields.text(value, path)
    if "/" in host or any(char.isspace() for char in host) or _has_port(host):
        raise KeyProblem(path, "must be an address or host name such as 127.0.0.1, without scheme, port or path")
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def switch(text: str) -> bool:
    """Whether a word says yes or no. Raises ValueError for any other."""
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


def _comma_list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


SETTINGS: tuple[Setting, ...] = (
    Setting("routing_mode", _one_of("local", "keywords", "ollama", "api", "hybrid"), "local", "ROUTING_MODE"),
    Setting("default_provider", fields.text, "openrouter", "DEFAULT_PROVIDER"),
    Setting("default_model", fields.text, "z-ai/glm-5", "DEFAULT_MODEL"),
    Setting("tools_routing", _one_of("always", "by_task"), "always"),
    Setting("max_price", usd, None, unit="USD"),
    Setting("classifier.ollama_model", fields.text, "qwen2.5:0.5b", "OLLAMA_ROUTER_MODEL"),
    Setting("classifier.api_model", fields.text, "openrouter/qwen/qwen3-1.7b", "ROUTER_API_MODEL"),
    Setting("classifier.timeout_ms", _whole(1, 60_000), 800, unit="milliseconds"),
    Setting("classifier.confidence", _fraction, 0.5),
    Setting("circuit_breaker.failure_threshold", _whole(1, 1_000_000), 3, "ROUTER_CIRCUIT_THRESHOLD", parse=int),
    Setting("circuit_breaker.recovery_timeout_sec", _recovery, 300.0,
            "ROUTER_CIRCUIT_RECOVERY", parse=_real, unit="seconds"),
    Setting("timeouts.connect", seconds, 5.0, "ROUTER_CONNECT_TIMEOUT", parse=_real, unit="seconds"),
    Setting("timeouts.first_byte", seconds, None, "ROUTER_FIRST_BYTE_TIMEOUT", parse=_real, unit="seconds"),
    Setting("timeouts.idle", seconds, 120.0, "ROUTER_IDLE_TIMEOUT", parse=_real, unit="seconds"),
    Setting("timeouts.total", seconds, 900.0, "ROUTER_TOTAL_TIMEOUT", parse=_real, unit="seconds"),
    Setting("accounting.count", _one_of("always", "when_missing"), "always"),
    Setting("attribution.name", _header_text, "", "ROUTER_NAME"),
    Setting("attribution.url", _header_text, "", "ROUTER_URL"),
    Setting("server.host", _host, "127.0.0.1", "ROUTER_HOST", "host"),
    Setting("server.port", _whole(0, 65_535), 3456, "ROUTER_PORT", "port", parse=int),
    Setting("server.workers", _whole(1, 64), 1, "ROUTER_WORKERS", "workers", parse=int),
    Setting("server.allow_unauthenticated", fields.boolean, False,
            "ROUTER_ALLOW_UNAUTHENTICATED", "allow_unauthenticated", parse=switch),
    Setting("server.allowed_hosts", _hosts, (), "ROUTER_ALLOWED_HOSTS", parse=_comma_list),
    Setting("server.allowed_origins", _origins, (), "ROUTER_ALLOWED_ORIGINS", parse=_comma_list),
    Setting("server.drain_timeout", _seconds_or_zero, 30.0, "ROUTER_DRAIN_TIMEOUT", parse=_real, unit="seconds"),
    Setting("server.header_timeout", seconds, 10.0, "ROUTER_HEADER_TIMEOUT", parse=_real, unit="seconds"),
    Setting("server.max_body_bytes", _whole(1, 2**31), 33_554_432, "ROUTER_MAX_BODY_BYTES", parse=int, unit="bytes"),
    Setting("log.level", _one_of("debug", "info", "warning", "error", "critical", warn="warning"), "info",
            "ROUTER_LOG_LEVEL", "log_level"),
    Setting("log.format", _one_of("text", "json"), "text", "ROUTER_LOG_FORMAT", "log_format"),
    Setting("state_dir", fields.text, None, "ROUTER_STATE_DIR"),
)  # fmt: skip


@dataclass(slots=True)
class Resolved:
    """Values of all scalar settings by file key, and where each came from."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


def resolve(environment: Environment, content: Mapping[str, Any], flags: Mapping[str, object]) -> Resolved:
    """Values and sources of all settings. Raises ConfigError for a variable or flag, KeyProblem for a file key."""
    resolved = Resolved()
    for setting in SETTINGS:
        value, source = _resolve_one(setting, environment, content, flags)
        resolved.values[setting.key] = value
        resolved.sources[setting.key] = source
    return resolved


def flag_value(flag: str, text: str) -> Any:
    """What the text of a flag (without its dashes) means. Raises ConfigError."""
    setting = next(setting for setting in SETTINGS if setting.flag == flag)
    return _from_words(setting, text, f"--{flag}")


def sections() -> dict[str, list[str]]:
    """The names of settings inside each section of the file; top-level settings are under the empty name."""
    names: dict[str, list[str]] = {}
    for setting in SETTINGS:
        head, _, name = setting.key.rpartition(".")
        names.setdefault(head, []).append(name)
    return names


def _resolve_one(
    setting: Setting, environment: Environment, content: Mapping[str, Any], flags: Mapping[str, object]
) -> tuple[Any, str]:
    in_file, from_file = _from_file(setting, content)
    flag = flags.get(setting.flag) if setting.flag else None
    if flag is not None:
        return _from_words(setting, flag, f"--{setting.flag.replace('_', '-')}"), "flag"
    if setting.variable:
        text, source = environment.get(setting.variable)
        if text:
            place = setting.variable if source == "environment" else f"{setting.variable} (in .env)"
            return _from_words(setting, text, place), source
    return (from_file, "file") if in_file else (setting.default, "default")


def _from_file(setting: Setting, content: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether the file has the setting, and its value; checked also where something stronger overrides it."""
    head, _, name = setting.key.rpartition(".")
    parent = fields.section(content, head) if head else content
    if name not in parent:
        return False, None
    return True, setting.read(parent[name], setting.key)


def _from_words(setting: Setting, words: object, place: str) -> Any:
    value = words
    if isinstance(words, str):
        try:
            value = setting.parse(words.strip())
        except ValueError:
            kinds = {int: "a whole number", _real: "a number", switch: "1 or 0 (true or false)"}
            kind = kinds.get(setting.parse, "written differently")
            unit = f" of {setting.unit}" if setting.unit else ""
            raise ConfigError(place, f"must be {kind}{unit}, not {fields.shown(words)}") from None
    try:
        return setting.read(value, "")
    except KeyProblem as problem:
        item = f"item {int(problem.path[1:-1]) + 1} " if problem.path.startswith("[") else ""
        raise ConfigError(place, item + problem.problem) from None
