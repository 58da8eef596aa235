"""A router with workers starts, is told to stop, and ends as one that is a single process."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from llm_router.server.worker import remote_file_system
from tests.support.crew import PATIENT, is_whole, lasting, refuses, workers
from tests.support.fixtures import Launch
from tests.support.router import RouterProcess
from tests.support.waiting import until

pytestmark = pytest.mark.slow


async def test_sigterm_drains_all_workers(crew: Any) -> None:
    """The port is closed at once, streams of both workers end whole, all is booked, and the exit status is 0."""
    both = await crew()
    end, running = await both.begin_lasting("drained")
    both.router.signal(signal.SIGTERM)
    await until(lambda: refuses(both.router.port))
    end.set()
    assert all(map(is_whole, await asyncio.gather(*running)))
    assert await asyncio.to_thread(both.router.wait, 60) == 0
    ledger = await asyncio.to_thread(
        subprocess.run,
        [*both.router.command[:3], "usage", "--format", "json"],
        env=both.router.env,
        cwd=both.router.home,
        capture_output=True,
        check=True,
    )
    assert [row["requests"] for row in json.loads(ledger.stdout)] == [2]
    log = both.router.log()
    assert log.index("INFO stopping; ") < log.index("INFO stopped\n")
    assert (log.count("INFO stopping; "), log.count("INFO stopped\n")) == (1, 1), "one speaks for all"
    left = {path.name for path in both.router.state.iterdir()}
    assert not [name for name in left if name.endswith((".board", ".sock"))]


async def test_a_second_signal_ends_the_drain_of_all_workers(crew: Any) -> None:
    """One signal to the whole group is one; the second one cuts the streams, and the exit status is 0."""
    both = await crew()
    both.stage.a.script = lasting(asyncio.Event())
    connections = [await both.begin(number, f"cut-{number}") for number in (1, 2)]
    running = [asyncio.ensure_future(connection.answer(patience=60)) for connection in connections]
    await both.stage.a.wait_for(2)
    for pid in workers(both.router).values():
        os.kill(pid, signal.SIGTERM)
    both.router.signal(signal.SIGTERM)
    await until(lambda: refuses(both.router.port))
    await asyncio.sleep(0.5)
    assert not any(stream.done() for stream in running)
    both.router.signal(signal.SIGTERM)
    # Far less than the drain may take.
    assert await asyncio.to_thread(both.router.wait, 40) == 0
    for got in await asyncio.gather(*running):
        assert not got.done


@pytest.mark.parametrize("first", ["1", "2"])
@pytest.mark.parametrize("second", ["1", "2"])
async def test_a_second_router_is_refused(launch: Launch, first: str, second: str) -> None:
    """Whether the one or the other has workers: the port is in use, and the first one does not notice."""
    router = await launch({}, args=["--workers", first])
    other = await launch({}, wait=False, folder="other", args=["--workers", second], port=router.port)
    assert await asyncio.to_thread(other.wait) == 69
    assert "Address already in use" in other.log()
    assert (await router.ask("GET", "/health")).status == 200


async def test_a_state_folder_belongs_to_one_crew(launch: Launch) -> None:
    """Workers of a second router, on another port, do not come between those of the first."""
    router = await launch({}, args=["--workers", "2"])
    env = {"ROUTER_STATE_DIR": str(router.state)}
    other = await launch({}, wait=False, folder="other", args=["--workers", "2"], env=env)
    assert await asyncio.to_thread(other.wait) == 78
    assert "ROUTER_STATE_DIR" in other.log()


async def test_a_start_that_cannot_succeed_is_given_up(launch: Launch, tmp_path: Path) -> None:
    """Workers that die before they are ready, again and again, end the router with a message and status 1."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(
        "import os\n_fork = os.fork\n\n\ndef fork():\n    pid = _fork()\n    if not pid:\n        os._exit(3)\n"
        "    return pid\n\n\nos.fork = fork\n"
    )
    env = {"PYTHONPATH": f"{tmp_path / 'broken'}:{Path(__file__).parents[2]}"}
    router = await launch({}, wait=False, args=["--workers", "2"], env=env)
    assert await asyncio.to_thread(router.wait, 60) == 1
    assert "exit status 3" in router.log()
    assert "giving up" in router.log()


async def test_a_full_disk_does_not_stop_the_start(own: Any) -> None:
    """Without room for what workers have in common each goes on alone: chat is answered."""
    stage = await own(args=("--workers", "2"), env=PATIENT, limits={resource.RLIMIT_FSIZE: 0})
    for _ in range(8):
        assert (await stage.chat("router/ab")).status == 200


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">/dev/full 2>&1"])
@pytest.mark.parametrize("number", ["1", "2"])
async def test_nobody_need_listen(tmp_path: Path, number: str, streams: str) -> None:
    """With the standard streams closed, or a log on a full disk, it serves, replaces its dead, and ends with 0."""
    router = RouterProcess(tmp_path, {}, args=["--workers", number])
    router.command = ["/bin/sh", "-c", f'exec "$@" {streams}', "sh", *router.command]
    try:
        await asyncio.to_thread(router.start)
        for process in psutil.Process(router.pid).children():
            process.kill()
        for _ in range(6):
            await until(lambda: answers(router))
        router.signal(signal.SIGTERM)
        assert await asyncio.to_thread(router.wait) == 0
    finally:
        await asyncio.to_thread(router.kill)


async def answers(router: RouterProcess) -> bool:
    """Whether a fresh connection is served."""
    try:
        return (await router.ask("GET", "/metrics", patience=20)).status == 200
    except ConnectionError:
        return False


async def test_the_service_manager_hears_of_one_router(tmp_path: Path, launch: Launch) -> None:
    """READY comes once all workers answer, a reload is told, the watchdog is fed, and a hung worker is replaced."""
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.setblocking(False)
        # A process is given this long to say that its loop turns.
        env = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "4000000"}
        router = await launch({}, args=["--workers", "2"], env=env)
        heard: list[str] = []

        def told(what: str) -> bool:
            while True:
                try:
                    heard.append(manager.recv(4096).decode())
                except BlockingIOError:
                    return any(what in message for message in heard)

        await until(lambda: told("READY=1"))
        assert len(workers(router)) == 2
        heard.clear()
        router.signal(signal.SIGHUP)
        await until(lambda: told("RELOADING=1") and told("READY=1"))
        await until(lambda: told("WATCHDOG=1"))
        former = workers(router)[2]
        os.kill(former, signal.SIGSTOP)
        await until(lambda: workers(router)[2] != former, 60)
        router.signal(signal.SIGTERM)
        assert await asyncio.to_thread(router.wait) == 0
        assert told("STOPPING=1")


async def test_workers_start_side_by_side(launch: Launch) -> None:
    """Two workers and their keeper need hardly longer than one process on the same machine (with room for its load)."""
    best = {"1": 99.0, "2": 99.0}
    for number in range(3):
        for count in best:
            router = await launch({}, folder=f"r{number}-{count}", args=["--workers", count])
            best[count] = min(best[count], router.ready_at - router.started_at)
            await asyncio.to_thread(router.stop)
    assert best["2"] < 3 * best["1"] + 2.0


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 22 0:41 / /mnt/with\\040space rw - cifs //server/share rw
32 30 254:1 / /home/local rw - xfs /dev/vdb rw
33 22 0:42 / /sshfs rw - fuse.sshfs host: rw
34 22 0:43 / /homes rw - 9p host rw
35 36 0:44 / /srv/share rw - nfs server:/srv rw
36 22 254:2 / /srv rw - ext4 /dev/vdc rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib/llm-router", None),
        ("/home/me/state", "nfs4"),
        ("/home", "nfs4"),
        ("/home/local/state", None),
        ("/mnt/with space/x", "cifs"),
        ("/sshfs/x", "fuse.sshfs"),
        ("/homes/x", "9p"),
        ("/homework", None),
        ("/srv/share/x", "nfs"),
        ("/srv/x", None),
    ],
)
def test_a_remote_file_system_is_recognised(folder: str, kind: str | None) -> None:
    """The mount that a folder is on decides, the innermost one, whatever its neighbours are called."""
    assert remote_file_system(Path(folder), MOUNTS) == kind
