"""The command line: what is understood, what is not, and that no secret is taken."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from llm_router import __version__
from llm_router.cli import make_parser
from llm_router.commands import serve
from tests.commands.conftest import Run


@pytest.mark.parametrize("command", ["", "serve", "check", "explain", "usage", "init", "evaluate"])
def test_help_fits_the_terminal(run: Run, command: str) -> None:
    """Eighty columns hold every line of the help, and wide terminals get wide paragraphs."""
    shown = run(*filter(None, [command]), "--help", COLUMNS="80")[1]
    assert max(map(len, shown.splitlines())) <= 80
    assert max(map(len, run(*filter(None, [command]), "--help", COLUMNS="120")[1].splitlines())) > 80


def test_help_and_version_are_quick_and_light() -> None:
    """`--version` and `--help` import nothing heavy."""
    script = (
        "import sys\nfrom llm_router.cli import main\n"
        "try:\n main([sys.argv[1]])\nexcept SystemExit as stop:\n assert not stop.code\n"
        "heavy = {'aiohttp', 'tiktoken', 'orjson', 'prometheus_client', 'tabulate', 'asyncio', 'sqlite3'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    for flag in ("--version", "--help"):
        done = subprocess.run([sys.executable, "-c", script, flag], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert __version__ in done.stdout or "first steps" in done.stdout


def test_python_dash_m_is_the_same_program() -> None:
    """`python -m llm_router` has the same name and version."""
    done = subprocess.run([sys.executable, "-m", "llm_router", "--version"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"llm-router {__version__}\n")


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        ([], {}),
        (["serve"], {}),
        (["--port", "4000"], {"port": 4000}),
        (["serve", "--host", "::1", "--config", "x.json"], {"host": "::1", "config": "x.json"}),
        (["--demo", "--log-format", "json"], {"demo": True, "log_format": "json"}),
        (["--allow-unauthenticated", "--log-level", "debug"], {"allow_unauthenticated": True, "log_level": "debug"}),
        (["--log-level", "WARN"], {"log_level": "warning"}),
    ],
)
def test_without_a_command_it_serves(
    run: Run, monkeypatch: pytest.MonkeyPatch, argv: list[str], flags: dict[str, Any]
) -> None:
    """Serve's options stand with or without the word; what is not given is not set."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("llm_router.server.app.run", lambda given: seen.append(given) or 69)
    assert run(*argv)[0] == 69
    nothing = dict.fromkeys(serve._FLAGS, None)
    assert seen == [{**nothing, "demo": False, **flags}]


@pytest.mark.parametrize("argv", [["nosuch"], ["serve", "--prot", "1"], ["usage", "--by", "moon"], ["check", "extra"]])
def test_a_command_line_that_is_not_understood(run: Run, argv: list[str]) -> None:
    """It ends with 2 and a message that names what was wrong."""
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert argv[-1].split("=")[0] in err or argv[-2] in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--port", "abc"], "--port: must be a whole number"),
        (["serve", "--port", "65536"], "--port: must be a whole number from 0 to 65535"),
        (["serve", "--workers", "0"], "--workers: must be a whole number from 1 to 64"),
        (["serve", "--host", "http://here"], "--host: must be an address"),
        (["serve", "--log-level", "loud"], "--log-level: must be one of debug"),
    ],
)
def test_a_flag_that_cannot_be_used_is_a_mistake_of_the_command_line(run: Run, argv: list[str], words: str) -> None:
    """A bad flag is 2 with the remedy, while a bad variable is 78."""
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert words in err
    assert run("serve", ROUTER_PORT="abc")[0] == 78


def test_no_option_takes_a_secret() -> None:
    """Keys never come by the command line, where every user of the machine can read them."""
    commands = next(action for action in make_parser()._actions if action.dest == "command")
    options = [option for parser in commands.choices.values() for option in parser._option_string_actions]
    assert options
    assert not [option for option in options if "key" in option or "token" in option or "secret" in option]
