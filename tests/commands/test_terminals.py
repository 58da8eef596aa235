"""Amounts, readers that leave, closed streams, locales."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_router.commands.common import dollars
from tests.commands.conftest import Run


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (None, "?"),
        (0.0, "0.00"),
        (2.5, "2.50"),
        (1234.5, "1,234.50"),
        (0.105, "0.105"),
        (0.15, "0.15"),
        (3.5e-5, "0.000035"),
        (4e-9, "4e-09"),
    ],
)
def test_dollars(amount: float | None, words: str) -> None:
    """Amounts show the digits that matter; an unknown one is no zero."""
    assert dollars(amount) == words


@pytest.mark.parametrize("argv", [["explain", "a \x1b]0;x\x07 z"], ["init"]])
def test_keywords_do_not_drive_the_terminal(run: Run, argv: list[str]) -> None:
    """Who may change the configuration must not write to the terminal of who reads it."""
    words = json.dumps(["\x1b]0;x\x07", "\x9b31m", "\u202e"])
    Path("router_config.json").write_text(f'{{"keywords": {{"code": {words}}}, "routing_mode": "keywords"}}')
    code, out, _ = run(*argv)
    assert code == 0
    assert "code" in out
    assert not any(sign in out for sign in "\x1b\x07\x9b\u202e")


def test_a_reader_that_leaves_is_no_error() -> None:
    """`llm-router check | true` ends without a stack trace, as a program that the signal ends would."""
    command = f"set -o pipefail; {{ sleep 0.2; {sys.executable} -m llm_router check; }} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(streams: str) -> None:
    """A caller that closed the standard streams gets the exit code all the same."""
    done = subprocess.run(
        f"{sys.executable} -m llm_router explain hello {streams}",
        shell=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["check", "explain hello", "usage --format json"])
def test_output_that_cannot_be_written_is_said(tmp_path: Path, command: str, unbuffered: str) -> None:
    """A report on a full disk ends with one line that says so, and with a failure, however Python buffers."""
    done = subprocess.run(
        f"{sys.executable} -m llm_router {command} >/dev/full",
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "ROUTER_STATE_DIR": str(tmp_path)},
        shell=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "llm-router: the output: No space left on device"
    assert "Traceback" not in done.stderr


def test_a_locale_without_the_letters_is_no_failure(tmp_path: Path) -> None:
    """A configuration in any language can be checked on a terminal that knows ASCII alone."""
    file = tmp_path / "c.json"
    file.write_text('{"model_mappings": {"code": ["ollama/schlüssel"]}}', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "llm_router", "check", "--config", str(file)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "schl\\xfcssel" in done.stdout


@pytest.mark.parametrize("command", ["serve", "check", "init", "usage"])
def test_a_working_directory_that_was_removed(tmp_path: Path, command: str) -> None:
    """Who stands in a folder that was removed is told so, and not that something is wrong with the output."""
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = 'cd "$1" && rmdir "$1" && exec "$2" -m llm_router "$3"'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", str(gone), sys.executable, command],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "ROUTER_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "llm-router: the working directory: No such file or directory\n"
