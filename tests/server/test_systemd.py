"""What systemd is told, on real sockets of its kinds."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_router.server.systemd import Notifier, address, message, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A listening socket and its name in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@llm-router-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1))
        listener.settimeout(2)
        yield listener, name


def test_life_of_a_service(systemd: tuple[socket.socket, str]) -> None:
    """Ready, reloading with the monotonic clock, and stopping arrive, at a path or an abstract name."""
    listener, name = systemd
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name})
    notifier.ready()
    assert b"READY=1" in listener.recv(500).split(b"\n")
    notifier.reloading()
    fields = dict(line.split(b"=", 1) for line in listener.recv(500).split(b"\n"))
    assert fields[b"RELOADING"] == b"1"
    assert int(fields[b"MONOTONIC_USEC"]) > 0
    notifier.stopping()
    assert b"STOPPING=1" in listener.recv(500).split(b"\n")


async def test_watchdog_is_fed(systemd: tuple[socket.socket, str]) -> None:
    """The watchdog hears from the event loop twice within its limit, until the notifier is closed."""
    listener, name = systemd
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"})
    began = loop.time()
    notifier.start_watchdog()
    for _ in range(4):
        async with asyncio.timeout(20):
            assert await loop.sock_recv(listener, 500) == b"WATCHDOG=1"
    assert loop.time() - began > 0.14
    notifier.close()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.15):
            await loop.sock_recv(listener, 500)


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    """Half the limit; nothing for another process's watchdog or for what is no number."""
    assert watchdog_interval(environ, 42) == seconds


def test_addresses() -> None:
    """An @ means the abstract namespace; what is neither that nor a path (vsock) is left alone."""
    assert address("/run/systemd/notify") == "/run/systemd/notify"
    assert address("@abc") == "\0abc"
    assert address("vsock:2:1234") is None
    assert address("") is None


def test_message_lines() -> None:
    """One field a line, in order."""
    assert message(READY=1, STATUS="serving") == b"READY=1\nSTATUS=serving"


async def test_without_systemd_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    """Outside of systemd every report is silence, and the watchdog is not started for nobody."""
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid())})
    notifier.ready()
    notifier.start_watchdog()
    await asyncio.sleep(0.01)
    notifier.stopping()
    notifier.close()
    assert not caplog.records


def test_a_dead_socket_is_told_and_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A socket that nobody listens on costs a line in the log, not the service."""
    Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
