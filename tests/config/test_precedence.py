"""Where values come from: the documented defaults, and what goes before what."""

from __future__ import annotations

import pytest

from llm_router.config.report import SettingRow, setting_rows
from llm_router.config.settings import SETTINGS, Setting
from llm_router.config.values import Snapshot, Timeouts
from tests.config.reading import read


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
