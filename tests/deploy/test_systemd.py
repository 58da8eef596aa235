"""The systemd unit: what it promises about files, shutdown and confinement, and that systemd itself is content."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llm_router.config.settings import SETTINGS

UNIT = Path(__file__).parents[2] / "deploy/systemd/llm-router.service"
ENVIRONMENT = UNIT.with_name("llm-router.env.example")

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture(scope="module")
def unit() -> dict[str, list[str]]:
    """The unit's keys with all their values, in order."""
    keys: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            keys.setdefault(key, []).append(value)
    return keys


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as it would be installed here: systemd-analyze wants its program to exist."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/llm-router/bin/llm-router", sys.executable))
    return path


def test_what_trying_again_does_not_heal_is_not_tried_again(unit: dict[str, list[str]]) -> None:
    """A mistake of the command line and one of the settings, by the statuses that the command gives them."""
    statuses = set(unit["RestartPreventExitStatus"][0].split())
    given = set()
    for arguments in (["--port", "abc"], ["--config", "/nowhere/there.json"]):
        command = [sys.executable, "-m", "llm_router", "serve", *arguments]
        given.add(str(subprocess.run(command, capture_output=True, timeout=50, cwd=UNIT.parent).returncode))
    assert given == statuses == {"2", "78"}


@needs_systemd
def test_systemd_finds_nothing_to_say(installed: Path) -> None:
    """`systemd-analyze verify` is silent; unknown keys and bad values are only warnings to it, so any word counts."""
    said = subprocess.run(["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@needs_systemd
def test_exposure_is_low(installed: Path) -> None:
    """`systemd-analyze security` rates the unit 2.0 or better."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--json=short", str(installed)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    assert json.loads(said.stdout), "no verdict at all"


def test_no_core_is_dumped(unit: dict[str, list[str]]) -> None:
    """Keys and prompts are in the memory of the process, and would be in the file that a crash leaves."""
    assert unit["LimitCORE"] == ["0"]


def test_python_does_not_compile_what_it_may_not_run(unit: dict[str, list[str]]) -> None:
    """Python 3.15 with its JIT on is ended by the system at the first thing that it compiles."""
    assert unit["MemoryDenyWriteExecute"] == ["yes"]
    assert "PYTHON_JIT=0" in unit["Environment"]


def test_shutdown_waits_for_the_drain(unit: dict[str, list[str]]) -> None:
    """systemd kills later than the router's own drain timeout ends."""
    drain = next(setting.default for setting in SETTINGS if setting.variable == "ROUTER_DRAIN_TIMEOUT")
    assert float(unit["TimeoutStopSec"][0]) > drain


def test_service_manager_is_told(unit: dict[str, list[str]]) -> None:
    """Start waits for readiness, the watchdog is on, reload sends the signal that reloads."""
    assert unit["Type"] == ["notify"]
    assert float(unit["WatchdogSec"][0]) > 0
    assert "kill -HUP $MAINPID" in unit["ExecReload"][0]


def test_configuration_is_where_the_api_can_write(unit: dict[str, list[str]]) -> None:
    """The configuration file lies in the state folder, the one place that the confined service may write to."""
    assert unit["StateDirectory"] == ["llm-router"]
    assert "ROUTER_CONFIG_FILE=%S/llm-router/router_config.json" in unit["Environment"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["DynamicUser"] == ["yes"]


def test_example_environment_names_only_real_settings() -> None:
    """Every variable of the example file is one that the router reads, and no key is given a value."""
    known = {setting.variable for setting in SETTINGS if setting.variable} | {"ROUTER_API_KEY", "ROUTER_ADMIN_KEY"}
    providers = {f"{name}_{what}" for name in _PROVIDERS for what in ("API_KEY", "BASE_URL")}
    entries = re.findall(r"^#?([A-Z][A-Z_]+)=(.*)$", ENVIRONMENT.read_text(), re.MULTILINE)
    assert len(entries) > 5
    for name, value in entries:
        assert name in known | providers, name
        assert not (name.endswith("_KEY") and value), name


_PROVIDERS = ("OPENROUTER", "OPENAI", "ANTHROPIC", "GOOGLE", "OLLAMA")
