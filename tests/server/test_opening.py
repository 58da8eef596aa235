"""What the log says when the router starts."""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_router.server.opening import JournalLines, JsonLines, TextLines, listen
from llm_router.standard_error import goes_to_journal
from tests.support.router import RouterProcess, free_port
from tests.support.waiting import PATIENCE


def test_lines_begin_with_the_time_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's own lines and those of requests can be sorted together, whatever the machine's zone."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        record = logging.makeLogRecord({"msg": "ready", "levelname": "INFO", "created": 1_800_000_000.25})
        assert TextLines().format(record) == "2027-01-15T08:00:00.250Z INFO ready"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_journal_learns_how_grave_a_line_is(tmp_path: Path) -> None:
    """`journalctl -p warning` shows outages and mistakes alone; the mark stands before each line, and only there."""
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        name = f"{found.st_dev}:{found.st_ino}"
        assert goes_to_journal({"JOURNAL_STREAM": name}, stream.fileno())
        assert not goes_to_journal({"JOURNAL_STREAM": f"{name}0"}, stream.fileno())
        assert not goes_to_journal({}, stream.fileno())
    marks = {}
    for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        record = logging.makeLogRecord({"msg": "one\ntwo", "levelname": level, "levelno": getattr(logging, level)})
        for lines in (TextLines(), JsonLines()):
            first, *rest = JournalLines(lines).format(record).splitlines()
            marks[level] = first[:3]
            assert JournalLines(lines).format(record).replace(first[:3], "") == lines.format(record)
            assert all(line.startswith(first[:3]) for line in rest)
    assert marks == {"DEBUG": "<7>", "INFO": "<6>", "WARNING": "<4>", "ERROR": "<3>", "CRITICAL": "<2>"}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["serve", "--config", "/nowhere/there.json"], "/nowhere/there.json: does not exist"),
        (["serve", "--host", "192.0.2.1"], "refusing to bind 192.0.2.1"),
        (["check", "--config", "/nowhere/there.json"], "/nowhere/there.json: does not exist"),
    ],
)
def test_the_journal_learns_why_a_start_was_refused(tmp_path: Path, argv: list[str], words: str) -> None:
    """`journalctl -p warning` shows it; a terminal or a file gets the line without the mark."""
    for stream, mark in (("here", "<3>"), ("elsewhere", "")):
        with (tmp_path / "stderr").open("w") as stderr:
            found = os.fstat(stderr.fileno())
            name = f"{found.st_dev}:{found.st_ino}" if stream == "here" else "0:0"
            command = [sys.executable, "-m", "llm_router", *argv]
            environ = {"HOME": str(tmp_path), "JOURNAL_STREAM": name}
            done = subprocess.run(command, env=environ, cwd=tmp_path, stderr=stderr, timeout=50)
        assert done.returncode == 78
        assert (tmp_path / "stderr").read_text().splitlines()[-1].startswith(f"{mark}llm-router: {words}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_refusal_that_nobody_can_read_has_its_exit_code(tmp_path: Path) -> None:
    """A log on a full disk does not turn a mistake in the settings into a failure that a service manager retries."""
    command = [sys.executable, "-m", "llm_router", "serve", "--config", "/nowhere/there.json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env={"HOME": str(tmp_path)}, cwd=tmp_path, stderr=full, timeout=50)
    assert done.returncode == 78


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_log_that_nobody_reads_holds_up_nothing(tmp_path: Path, workers: str) -> None:
    """With standard error a full pipe, as a halted terminal leaves it, the router starts, answers, and ends as told."""
    port = free_port()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(4096)):
            pass
    os.set_blocking(writer, True)
    command = [sys.executable, "-m", "llm_router", "serve", "--port", str(port), "--workers", workers]
    process = subprocess.Popen(command, env={"HOME": str(tmp_path)}, cwd=tmp_path, stderr=writer)
    os.close(writer)
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)


def answers(port: int) -> bool:
    """Whether a router says that it is healthy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "a" * 70])
def test_a_host_that_is_none_is_told(tmp_path: Path, host: str) -> None:
    """A name that nobody knows, or that is none, is one line with the remedy and the exit status of the address."""
    command = [sys.executable, "-m", "llm_router", "serve", "--port", "0", "--host", host]
    environ = {"HOME": str(tmp_path), "ROUTER_API_KEY": "local-0123456789"}
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert done.returncode == 69
    said = [line for line in done.stderr.splitlines() if " WARNING " not in line]
    assert len(said) == 1, done.stderr
    assert said[0].startswith(f"llm-router: cannot listen on {host}:0: ")
    assert said[0].endswith("; --host takes an address or a name of this machine")


@pytest.mark.parametrize("patience", [0.0, 0.2])
def test_a_port_in_use_is_told_when_patience_ends(patience: float) -> None:
    """Another program's port is waited for as long as was asked for, and is an error then; a free one is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        began = time.monotonic()
        with pytest.raises(OSError, match=f"Errno {errno.EADDRINUSE}"):
            listen("127.0.0.1", taken.getsockname()[1], patience)
        assert time.monotonic() - began >= patience
    with listen("127.0.0.1", 0, patience) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_router_under_systemd_marks_its_lines(tmp_path: Path) -> None:
    """Where the journal reads the log its lines are marked; where a service writes elsewhere they are not."""
    code = (
        "import os\nfound = os.fstat(2)\nos.environ['JOURNAL_STREAM'] = f'{found.st_dev}:{found.st_ino + MORE}'\n"
        "from llm_router.cli import main\nmain(['serve', '--host', '192.0.2.1', '--allow-unauthenticated'])"
    )
    for more, mark in ((0, "<4>"), (1, "")):
        script = code.replace("MORE", str(more))
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env={"HOME": str(tmp_path)}, capture_output=True, text=True
        )
        (line,) = (line for line in done.stderr.splitlines() if "WARNING no provider key" in line)
        assert line.startswith(f"{mark}2")


def test_the_log_says_where_files_are(tmp_path: Path) -> None:
    """Whoever wonders which file was read, and where the ledger is, finds both in one line of the start."""
    with RouterProcess(tmp_path / "bare") as bare:
        assert f"INFO configuration file: none; state folder: {bare.state}\n" in bare.log()
    with RouterProcess(tmp_path / "some", {"timeouts": {"idle": 5}}) as some:
        assert f"INFO configuration file: {some.config_file}; state folder: {some.state}\n" in some.log()


def test_what_looks_like_a_mistake_is_in_the_log(tmp_path: Path) -> None:
    """A start tells what `check` would: a newcomer without a key, or with quotes around it, need not guess."""
    with RouterProcess(tmp_path / "bare") as bare:
        assert "no provider key is set" in bare.log()
    with RouterProcess(tmp_path / "quoted", env={"OPENAI_API_KEY": "'sk-quoted-1'"}) as quoted:
        assert "OPENAI_API_KEY begins or ends with a quotation mark" in quoted.log()
        assert "sk-quoted" not in quoted.log()
    with RouterProcess(tmp_path / "fine", env={"OPENAI_API_KEY": "sk-fine-1"}) as fine:
        assert "WARNING" not in fine.log()
