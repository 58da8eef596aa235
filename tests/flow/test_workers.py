"""Several workers are one router: what one knows the others know, and what dies is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from llm_router.server.worker import remote_file_system
from tests.support.chunks import answer as words
from tests.support.chunks import role, text
from tests.support.client import Answer, Connection, chat_body, request_bytes
from tests.support.fixtures import Launch, Stage
from tests.support.router import RouterProcess
from tests.support.upstream import Exchange, PeerGone, Script, hang, healthy, reply, stream

pytestmark = pytest.mark.slow

Own = Callable[..., Awaitable[Stage]]
BROKEN = reply(500, {"error": {"message": "broken"}})
QUICK = {"ROUTER_CIRCUIT_RECOVERY": "1"}


def workers(router: RouterProcess) -> dict[int, int]:
    """The process of each worker, as the log told it last."""
    return {
        int(number): int(pid) for number, pid in re.findall(r"worker (\d+) is ready \(process (\d+)\)", router.log())
    }


async def until(condition: Callable[[], Any], patience: float = 5.0) -> Any:
    """Waits until `condition` (which may be a coroutine function) gives something true; gives that."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.02)


def serves(pid: int, port: int) -> set[int]:
    """The client's ports of the connections that a process serves."""
    return {
        connection.raddr.port
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.raddr and connection.laddr.port == port
    }


def lasting(pieces: int) -> Script:
    """A stream with a word each tenth of a second; the router may leave at any time."""

    async def script(exchange: Exchange) -> None:
        with contextlib.suppress(PeerGone):
            await exchange.head(200, {"Content-Type": "text/event-stream"})
            await exchange.body(role() + text("x"))
            for _ in range(pieces):
                await asyncio.sleep(0.1)
                await exchange.body(text("y"))
            await exchange.body(b"".join(words("end", preamble=False)))
            await exchange.finish()

    return script


class Crew:
    """A stage whose router has workers that can be talked to one by one."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.router = stage.router
        self._connections: dict[int, Connection] = {}
        self._all: list[Connection] = []

    async def open(self) -> Connection:
        """A connection to whichever worker; it is closed at the end of the test."""
        connection = await Connection.open(self.router.port)
        self._all.append(connection)
        return connection

    async def at(self, number: int) -> Connection:
        """A fresh connection to that worker; the kernel decides, so it is tried until it fits."""
        pid = workers(self.router)[number]
        spare = []
        try:
            for _ in range(100):
                connection = await self.open()
                port = connection.sock.getsockname()[1]
                for _ in range(200):
                    if any(port in serves(other, self.router.port) for other in workers(self.router).values()):
                        break
                    await asyncio.sleep(0.005)
                if port in serves(pid, self.router.port):
                    return connection
                spare.append(connection)
        finally:
            for connection in spare:
                connection.close()
        raise AssertionError(f"no connection came to worker {number}")

    async def ask(self, number: int, method: str, path: str, body: Any = None) -> Answer:
        """One request to that worker."""
        return await self._send(number, request_bytes(method, path, body))

    async def chat(self, number: int, model: str = "router/ab", headers: Any = None, **fields: Any) -> Answer:
        """One chat request to that worker."""
        return await self._send(number, request_bytes(body=chat_body(model, **fields), headers=headers))

    async def _send(self, number: int, data: bytes) -> Answer:
        connection = self._connections.get(number) or await self.at(number)
        self._connections[number] = connection
        await connection.send(data)
        return await connection.answer()

    async def circuit(self, number: int, model: str = "a/m1") -> str:
        """What that worker thinks of a circuit."""
        report = (await self.ask(number, "GET", "/circuit-breaker")).json()
        return str(report["circuits"][model]["state"])

    def forget(self) -> None:
        """Closes all connections."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._connections.clear()


@pytest.fixture
async def crew(own: Own) -> AsyncIterator[Callable[..., Awaitable[Crew]]]:
    """`await crew(env=..., models=...)`: a router with two workers, both ready."""
    made: list[Crew] = []

    async def start(env: Mapping[str, str] | None = None, **more: Any) -> Crew:
        # Connections are made one by one, until each worker has enough of them.
        patient = {"ROUTER_HEADER_TIMEOUT": "30", **(env or {})}
        stage = await own(args=("--workers", "2"), env=patient, **more)
        await until(lambda: "with 2 workers" in stage.router.log(), 10)
        made.append(Crew(stage))
        return made[-1]

    yield start
    for one in made:
        one.forget()


async def test_all_workers_serve_and_the_figures_are_sums(crew: Any) -> None:
    """Many connections reach every worker, each request is on record once, and `/metrics` adds up over all of them."""
    both = await crew()
    names = [f"sum-{number}-{uuid.uuid4()}" for number in range(40)]
    connections = [await both.open() for _ in names]
    for name, connection in zip(names, connections, strict=True):
        await connection.send(request_bytes(body=chat_body("router/ab"), headers={"x-request-id": name}))
    got = [await connection.answer() for connection in connections]
    assert [one.text for one in got] == ["Hello from upstream"] * 40
    shares = [len(serves(pid, both.router.port)) for pid in workers(both.router).values()]
    assert sum(shares) == 40
    assert min(shares) >= 5
    for number in (1, 2):
        figures = await until(lambda n=number: _settled(both, n, 40))
        assert figures["requests"] == {"total": 40, "success": 40, "failed": 0, "cancelled": 0}
        assert figures["model_distribution"] == {"a/m1": 40}
        assert len(figures["recent_requests"]) == 40
        assert figures["in_flight"] == 0
    prometheus = (await both._send(1, request_bytes("GET", "/metrics", headers={"Accept": "text/plain"}))).body.decode()
    assert 'llm_router_requests_total{category="ab",model="a/m1",outcome="completed"} 40.0' in prometheus
    (memory,) = re.findall(r"^process_resident_memory_bytes (\S+)$", prometheus, re.MULTILINE)
    assert float(memory) > sum(psutil.Process(pid).memory_info().rss for pid in workers(both.router).values())
    for name in names:
        assert (await both.ask(2, "GET", f"/v1/requests/{name}")).json()["request_id"] == name
    (row,) = (await both.ask(1, "GET", "/v1/usage")).json()["data"]
    assert (row["model"], row["requests"]) == ("a/m1", 40)


async def _settled(both: Crew, number: int, total: int) -> Any:
    figures = (await both.ask(number, "GET", "/metrics")).json()
    return figures if figures["requests"]["total"] >= total else None


async def test_a_request_that_runs_elsewhere_is_pending(crew: Any) -> None:
    """Any worker knows of a running request of another one, in the figures within a second."""
    both = await crew()
    both.stage.a.script = stream(words("slow"), delay=0.8)
    running = asyncio.ensure_future(both.chat(1, headers={"x-request-id": "mine"}))
    await both.stage.a.wait_for(1)
    assert (await both.ask(2, "GET", "/v1/requests/mine")).status == 202
    await until(lambda: _in_flight(both), 1.0)
    assert (await running).status == 200
    await until(lambda: _found(both, 2, "mine"))


async def _in_flight(both: Crew) -> bool:
    return bool((await both.ask(2, "GET", "/metrics")).json()["in_flight"] == 1)


async def _found(both: Crew, number: int, name: str) -> Any:
    found = await both.ask(number, "GET", f"/v1/requests/{name}")
    return found.json() if found.status == 200 else None


async def test_failures_add_up_and_the_circuit_is_one(crew: Any) -> None:
    """Three failures in a row over all workers open the circuit in all; a reset through one closes it in all."""
    both = await crew()
    both.stage.a.script = BROKEN
    await both.chat(1)
    await both.chat(2)
    await asyncio.sleep(0.5)
    await both.chat(1)
    for number in (1, 2):
        await until(lambda n=number: _state(both, n, "open"), 1.0)
    assert both.stage.a.count == 3
    both.stage.a.script = healthy
    assert (await both.chat(2)).header("x-router-model") == "b/m2"
    assert (await both.ask(2, "POST", "/circuit-breaker/reset/a/m1")).status == 200
    await until(lambda: _state(both, 1, "closed"), 1.0)
    assert (await both.chat(1)).header("x-router-model") == "a/m1"


async def _state(both: Crew, number: int, state: str) -> bool:
    return await both.circuit(number) == state


async def test_a_cooldown_and_a_refused_key_are_known_to_all(crew: Any) -> None:
    """A 429's wait and a refused key that one worker met with spare the others the asking."""
    both = await crew(models={"ab": ["a/m1", "b/m2"], "cb": ["c/m3", "b/m2"]})
    both.stage.a.script = reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "30"})
    both.stage.c.script = reply(401, {"error": {"message": "who are you"}})
    await both.chat(1, "router/ab")
    await both.chat(1, "router/cb")
    await until(lambda: _state(both, 2, "cooldown"), 1.0)
    assert (await both.chat(2, "router/ab")).header("x-router-attempts") == "1"
    assert (await both.chat(2, "router/cb")).header("x-router-attempts") == "1"
    assert (both.stage.a.count, both.stage.c.count) == (1, 1)


async def test_one_probe_over_all_workers(crew: Any) -> None:
    """Of twenty requests at once to both workers exactly one probes a half-open circuit; its success frees all."""
    both = await crew(env=QUICK)
    both.stage.a.script = BROKEN
    for _ in range(3):
        await both.chat(1)
    await until(lambda: _state(both, 2, "open"), 1.0)
    await asyncio.sleep(1.1)
    connections = [await both.at(number) for number in (1, 2) * 10]
    both.stage.a.script = stream(words("slow"), delay=0.6)
    for connection in connections:
        await connection.send(request_bytes(body=chat_body("router/ab")))
    got = [await connection.answer() for connection in connections]
    assert sorted(one.text for one in got) == ["Hello from upstream"] * 19 + ["slow"]
    assert both.stage.a.count == 4
    for number in (1, 2):
        await until(lambda n=number: _state(both, n, "closed"), 1.0)


async def test_a_killed_prober_does_not_block_its_model(crew: Any) -> None:
    """The probe of a worker that is killed is free again as soon as it is replaced."""
    both = await crew(env=QUICK | {"ROUTER_FIRST_BYTE_TIMEOUT": "30"})
    both.stage.a.script = BROKEN
    for _ in range(3):
        await both.chat(1)
    await asyncio.sleep(1.2)
    both.stage.a.script = hang
    probing = await both.at(1)
    await probing.send(request_bytes(body=chat_body("router/ab")))
    await both.stage.a.wait_for(4)
    assert (await both.chat(2)).header("x-router-model") == "b/m2"
    both.forget()
    former = workers(both.router)[1]
    os.kill(former, signal.SIGKILL)
    await until(lambda: workers(both.router)[1] != former)
    both.stage.a.script = healthy
    await until(lambda: _served_by(both, 2, "a/m1"), 2.0)


async def _served_by(both: Crew, number: int, model: str) -> bool:
    return (await both.chat(number)).header("x-router-model") == model


async def test_a_conversation_stays_whichever_worker_it_meets(crew: Any) -> None:
    """The second turn goes to the model that served the first one in another worker."""
    chain = ["a/m1", "b/m2"]
    both = await crew(models=dict.fromkeys(("tools", "code", "reasoning", "conversation"), chain))
    first = [{"role": "user", "content": "Good morning, how are you?"}]
    second = [*first, {"role": "assistant", "content": "Fine."}, {"role": "user", "content": "And your family?"}]
    both.stage.a.script = BROKEN
    assert (await both.chat(1, "router", messages=first)).header("x-router-model") == "b/m2"
    both.stage.a.script = healthy
    await asyncio.sleep(0.5)
    got = await both.chat(2, "router", messages=second)
    assert (got.header("x-router-model"), got.header("x-router-mode")) == ("b/m2", "sticky")


async def test_concurrency_is_bounded_over_all_workers(crew: Any, own: Own) -> None:
    """A provider's `max_concurrency` holds for both workers together; who waits is served in the end."""
    both = await crew()
    config = json.loads(both.router.config_file.read_text())
    config["providers"]["a"]["max_concurrency"] = 2
    both.router.config_file.write_text(json.dumps(config))
    assert (await both.ask(1, "POST", "/config/reload")).status == 200
    await asyncio.sleep(0.5)
    running = most = 0

    async def counted(exchange: Exchange) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1
        await healthy(exchange)

    both.stage.a.script = counted
    connections = [await both.at(number) for number in (1, 2) * 5]
    for connection in connections:
        await connection.send(request_bytes(body=chat_body("a/m1")))
    assert [(await connection.answer()).status for connection in connections] == [200] * 10
    assert most == 2


async def test_configuration_is_the_same_everywhere(crew: Any) -> None:
    """An edit through one worker, a reload through one, an edit by hand and SIGHUP reach all within a second."""
    both = await crew()
    body = {"category": "ab", "models": ["b/m2"]}
    assert (await both.ask(1, "POST", "/config/model-mapping", body)).status == 200
    assert (await both.chat(1)).header("x-router-model") == "b/m2"
    await until(lambda: _served_by(both, 2, "b/m2"), 1.0)
    config = json.loads(both.router.config_file.read_text())
    config["model_mappings"]["ab"] = ["c/m3"]
    both.router.config_file.write_text(json.dumps(config))
    assert (await both.ask(2, "POST", "/config/reload")).status == 200
    await until(lambda: _served_by(both, 1, "c/m3"), 1.0)
    config["model_mappings"]["ab"] = ["a/m1"]
    both.router.config_file.write_text(json.dumps(config))
    for number in (1, 2):
        await until(lambda n=number: _served_by(both, n, "a/m1"), 2.0)
    # edits through different workers at the same time do not lose one another
    await asyncio.gather(
        *(
            both.ask(number, "POST", "/config/category", {"name": f"new{number}", "models": ["a/m1"]})
            for number in (1, 2)
        )
    )
    for number in (1, 2):
        await until(lambda n=number: _has_both(both, n), 1.0)


async def _has_both(both: Crew, number: int) -> bool:
    return {"new1", "new2"} <= set((await both.ask(number, "GET", "/config")).json()["model_mappings"])


async def test_a_killed_worker_is_replaced(crew: Any) -> None:
    """SIGKILL: the other worker's streams go on, its own requests are on record as interrupted, a new one serves."""
    both = await crew(env={"ROUTER_IDLE_TIMEOUT": "20", "ROUTER_FIRST_BYTE_TIMEOUT": "20"})

    both.stage.a.script = lasting(30)
    doomed, spared = await both.at(1), await both.at(2)
    for name, connection in (("doomed", doomed), ("spared", spared)):
        await connection.send(request_bytes(body=chat_body("router/ab"), headers={"x-request-id": name}))
    await both.stage.a.wait_for(2)
    await doomed.answer(until=lambda one: b"x" in one.body)
    former = workers(both.router)[1]
    killed = time.monotonic()
    os.kill(former, signal.SIGKILL)
    await until(lambda: workers(both.router)[1] != former)
    assert time.monotonic() - killed < 2.0
    got = await spared.answer()
    assert got.done
    assert got.text.count("y") == 30
    record = await until(lambda: _found(both, 2, "doomed"))
    assert record["outcome"] == "interrupted"
    assert (await until(lambda: _found(both, 2, "spared")))["outcome"] == "completed"
    both.stage.a.script = healthy
    assert (await both.chat(1)).status == 200
    assert "SIGKILL" in both.router.log()


async def test_a_killed_keeper_is_replaced_and_nothing_is_lost(crew: Any) -> None:
    """Requests that close while there is no keeper are booked by the next one, each once."""
    both = await crew()
    (former,) = re.findall(r"keeper is ready \(process (\d+)\)", both.router.log())
    names = [f"kept-{number}-{uuid.uuid4()}" for number in range(30)]
    for position, name in enumerate(names):
        if position == 10:
            os.kill(int(former), signal.SIGKILL)
        await both.chat(1 + position % 2, headers={"x-request-id": name})
    for name in names:
        assert (await until(lambda n=name: _found(both, 1, n)))["outcome"] == "completed"
    (row,) = (await both.ask(1, "GET", "/v1/usage")).json()["data"]
    assert row["requests"] == 30


async def test_sigterm_drains_all_workers(crew: Any) -> None:
    """The port is closed at once, streams of both workers end whole, all is booked, and the exit status is 0."""
    both = await crew(env={"ROUTER_FIRST_BYTE_TIMEOUT": "10"})
    both.stage.a.script = lasting(10)
    connections = [await both.at(number) for number in (1, 2)]
    for connection in connections:
        await connection.send(request_bytes(body=chat_body("router/ab")))
    running = [asyncio.ensure_future(connection.answer()) for connection in connections]
    await both.stage.a.wait_for(2)
    both.router.signal(signal.SIGTERM)
    await until(lambda: _refuses(both.router.port), 1.0)
    for got in await asyncio.gather(*running):
        assert (got.ended, got.done, got.text.count("y")) == ("whole", True, 10)
    assert await asyncio.to_thread(both.router.wait) == 0
    ledger = await asyncio.to_thread(
        subprocess.run,
        [*both.router.command[:3], "usage", "--format", "json"],
        env=both.router.env,
        cwd=both.router.home,
        capture_output=True,
        check=True,
    )
    assert [row["requests"] for row in json.loads(ledger.stdout)] == [2]
    left = {path.name for path in both.router.state.iterdir()}
    assert not [name for name in left if name.endswith((".board", ".sock"))]


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_workers_do_not_outlive_their_supervisor(crew: Any) -> None:
    """When the supervisor is killed the others see it, end by themselves, and let go of the port."""
    both = await crew()
    pids = list(workers(both.router).values())
    await asyncio.to_thread(both.router.kill)
    await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    await until(lambda: _refuses(both.router.port))


async def test_a_router_starts_while_orphans_end(crew: Any) -> None:
    """When the supervisor is killed, another router takes its place at once; streams of the old one end whole."""
    both = await crew(env={"ROUTER_FIRST_BYTE_TIMEOUT": "10"})
    both.stage.a.script = lasting(25)
    connections = [await both.at(number) for number in (1, 2)]
    for number, connection in enumerate(connections):
        await connection.send(request_bytes(body=chat_body("router/ab"), headers={"x-request-id": f"orphan-{number}"}))
    running = [asyncio.ensure_future(connection.answer()) for connection in connections]
    await both.stage.a.wait_for(2)
    await asyncio.to_thread(both.router.kill)
    await asyncio.to_thread(both.router.start)
    both.stage.a.script = healthy
    assert (await both.stage.chat("router/ab")).status == 200
    assert not any(stream.done() for stream in running)
    for got in await asyncio.gather(*running):
        assert (got.ended, got.done, got.text.count("y")) == ("whole", True, 25)
    for number in range(2):

        async def booked(name: str = f"orphan-{number}") -> bool:
            got = await both.router.ask("GET", f"/v1/requests/{name}")
            return got.status == 200 and got.json()["outcome"] == "completed"

        await until(booked)


async def test_a_second_signal_ends_the_drain_of_all_workers(crew: Any) -> None:
    """One signal to the whole group is one; the second one cuts the streams, and the exit status is 0."""
    both = await crew(env={"ROUTER_FIRST_BYTE_TIMEOUT": "10", "ROUTER_DRAIN_TIMEOUT": "30"})
    both.stage.a.script = lasting(300)
    connections = [await both.at(number) for number in (1, 2)]
    for connection in connections:
        await connection.send(request_bytes(body=chat_body("router/ab")))
    running = [asyncio.ensure_future(connection.answer(patience=20)) for connection in connections]
    await both.stage.a.wait_for(2)
    for pid in workers(both.router).values():
        os.kill(pid, signal.SIGTERM)
    both.router.signal(signal.SIGTERM)
    await asyncio.sleep(0.7)
    assert not any(stream.done() for stream in running)
    both.router.signal(signal.SIGTERM)
    assert await asyncio.to_thread(both.router.wait, 5) == 0
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
    assert await asyncio.to_thread(router.wait) == 1
    assert "exit status 3" in router.log()
    assert "giving up" in router.log()


async def test_circuits_survive_a_restart_with_and_without_workers(crew: Any) -> None:
    """What one worker knew in its last moment is there after a restart, also for a router that is one process."""
    both = await crew()
    both.stage.a.script = BROKEN
    for name in ("state.sqlite3", "workers.lock", "keeper.sock"):
        assert stat.S_IMODE((both.router.state / name).stat().st_mode) == 0o600
    for _ in range(3):
        await both.chat(2)
    both.forget()
    for command in (both.router.command, [part for part in both.router.command if part not in ("--workers", "2")]):
        both.router.signal(signal.SIGTERM)
        assert await asyncio.to_thread(both.router.wait, 30) == 0
        both.router.command = command
        await asyncio.to_thread(both.router.start)
        report = (await both.router.ask("GET", "/circuit-breaker")).json()
        assert report["open_circuits"] == ["a/m1"]


async def test_a_killed_router_s_circuits_were_written_down(crew: Any) -> None:
    """What any worker knows is on the disk soon after: a kill of all of them forgets no open circuit."""
    both = await crew()
    both.stage.a.script = BROKEN
    for _ in range(3):
        await both.chat(2)
    await until(lambda: _saved_as_open(both.router.state / "circuits.json"))
    # The supervisor first: it would replace the others.
    for pid in (both.router.pid, *workers(both.router).values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    both.forget()
    await asyncio.to_thread(both.router.wait)
    await asyncio.to_thread(both.router.start)
    report = (await both.router.ask("GET", "/circuit-breaker")).json()
    assert report["open_circuits"] == ["a/m1"]


def _saved_as_open(path: Path) -> bool:
    if not path.exists():
        return False
    saved = json.loads(path.read_bytes())
    return any(circuit["open_until"] for circuit in saved["models"].values())


async def test_the_service_manager_hears_of_one_router(tmp_path: Path, launch: Launch) -> None:
    """READY comes once all workers answer, a reload is told, the watchdog is fed, and a hung worker is replaced."""
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.setblocking(False)
        env = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "2000000"}
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
        await until(lambda: workers(router)[2] != former, 10)
        router.signal(signal.SIGTERM)
        assert await asyncio.to_thread(router.wait) == 0
        assert told("STOPPING=1")


async def test_ready_in_about_a_second_with_workers(launch: Launch) -> None:
    """Two workers and their keeper need hardly longer than one process (room for a loaded machine)."""
    best = 99.0
    for number in range(3):
        router = await launch({}, folder=f"r{number}", args=["--workers", "2"])
        best = min(best, router.ready_at - router.started_at)
    assert best < 2.0


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 22 0:41 / /mnt/with\\040space rw - cifs //server/share rw
32 30 254:1 / /home/local rw - xfs /dev/vdb rw
33 22 0:42 / /sshfs rw - fuse.sshfs host: rw
34 22 0:43 / /homes rw - 9p host rw
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
    ],
)
def test_a_remote_file_system_is_recognised(folder: str, kind: str | None) -> None:
    """The mount that a folder is on decides, the innermost one, whatever its neighbours are called."""
    assert remote_file_system(Path(folder), MOUNTS) == kind
