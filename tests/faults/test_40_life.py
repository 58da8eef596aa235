"""Start, drain, kill and restart; full disks and unwritable folders; records that outlive the process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.chunks import DONE, error, finish, role, text
from tests.support.client import Connection, ask, chat_body, request_bytes
from tests.support.crew import refuses
from tests.support.fixtures import Launch, Stage
from tests.support.router import RouterProcess, chains
from tests.support.upstream import Exchange, Script, hang, healthy, reply, stream
from tests.support.waiting import PATIENCE, until

Own = Callable[..., Awaitable[Stage]]
LARGE = json.dumps({"choices": [{"index": 0, "message": {"content": "x" * 6_000_000}, "finish_reason": "stop"}]})


def _lasting(seconds: float) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(role() + text("begun "))
        for _ in range(int(seconds / 0.1)):
            await asyncio.sleep(0.1)
            await exchange.body(text("on "))
        await exchange.body(text("ended") + finish() + DONE)
        await exchange.finish()

    return script


async def _wait(router: RouterProcess, seconds: float = 15.0) -> int:
    return await asyncio.to_thread(router.wait, seconds)


async def test_ready_in_about_a_second(launch: Launch) -> None:
    """From its start to a healthy `/health` the process needs less than a second, of its own time on a busy machine."""
    best = 99.0
    for number in range(3):
        router = await launch(chains({"a": 1, "b": 1}, {"ab": ["a/m1", "b/m2"]}), folder=f"r{number}")
        best = min(best, router.ready_at - router.started_at, router.cpu())
    assert best < 1.2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
async def test_a_signal_drains(own: Own, number: int) -> None:
    """SIGTERM and SIGINT: running answers finish whole, new ones are refused, the process ends with success."""
    stage = await own(env={"ROUTER_FIRST_BYTE_TIMEOUT": "15", "ROUTER_DRAIN_TIMEOUT": "15"})
    stage.a.script = _lasting(1.2)
    stage.b.script = reply(200, json.dumps({"choices": [{"message": {"content": "late"}}]}), delay=0.7)
    idle = await Connection.open(stage.router.port)
    kept = await Connection.open(stage.router.port)
    await kept.send(request_bytes("GET", "/health"))
    assert (await kept.answer()).status == 200
    running = [asyncio.ensure_future(stage.chat("router/ab")) for _ in range(8)]
    plain = asyncio.ensure_future(stage.chat("b/m2", False))
    await stage.a.wait_for(8)
    await stage.b.wait_for(1)
    await asyncio.sleep(0.3)
    stage.router.signal(number)
    await asyncio.sleep(0.2)
    refused = None
    with contextlib.suppress(OSError):
        refused = await stage.chat("router/ab")
    assert refused is None or refused.status in (0, 503)
    for got in await asyncio.gather(*running):
        assert (got.ended, got.done, got.errors) == ("whole", True, [])
        assert got.text.endswith("ended")
    assert (await plain).text == "late"
    assert await _wait(stage.router) == 0
    for connection in (idle, kept):
        connection.close()


async def test_idle_connections_do_not_hold_the_drain(own: Own) -> None:
    """A hundred idle and half-spoken connections do not keep the process from ending at once."""
    stage = await own(env={"ROUTER_HEADER_TIMEOUT": "60", "ROUTER_DRAIN_TIMEOUT": "60"})
    connections = [await Connection.open(stage.router.port) for _ in range(100)]
    for connection in connections[:30]:
        await connection.send(request_bytes("GET", "/health"))
        assert (await connection.answer()).status == 200
    for connection in connections[30:50]:
        await connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    stage.router.signal(signal.SIGTERM)
    assert await _wait(stage.router) == 0
    for connection in connections:
        connection.close()


async def test_the_drain_is_bounded(own: Own) -> None:
    """A stream longer than the drain timeout ends with an error event, never as if it were whole, and is booked."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "1"})
    stage.a.script = _lasting(30)
    name = f"drained-{uuid.uuid4()}"
    running = asyncio.ensure_future(stage.chat("router/ab", headers={"x-request-id": name}, patience=60))
    await stage.a.wait_for(1)
    await asyncio.sleep(0.2)
    started = time.monotonic()
    stage.router.signal(signal.SIGTERM)
    await _wait(stage.router)
    assert time.monotonic() - started > 0.8
    got = await running
    assert not got.done
    assert got.finishes == []
    assert [error["code"] for error in got.errors] == ["upstream_truncated"]
    assert got.ended == "whole", "the body itself ends cleanly"
    await asyncio.to_thread(stage.router.start)
    assert (await stage.router.ask("GET", f"/v1/requests/{name}")).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
async def test_a_second_signal_ends_the_drain(own: Own, number: int) -> None:
    """Told twice to stop, the router cuts what still runs with an error event, books it as cut, and ends well."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "30"})
    stage.a.script = _lasting(30)
    name = f"hurried-{uuid.uuid4()}"
    running = asyncio.ensure_future(stage.chat("router/ab", headers={"x-request-id": name}, patience=60))
    await stage.a.wait_for(1)
    await asyncio.sleep(0.2)
    stage.router.signal(number)
    await asyncio.sleep(0.5)
    assert stage.router.process is not None
    assert stage.router.process.poll() is None, "one signal waits"
    stage.router.signal(number)
    assert await _wait(stage.router) == 0
    got = await running
    assert not got.done
    assert got.finishes == []
    assert [error["code"] for error in got.errors] == ["upstream_truncated"]
    await asyncio.to_thread(stage.router.start)
    record = (await stage.router.ask("GET", f"/v1/requests/{name}")).json()
    assert record["outcome"] == "cut"


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "plain"])
async def test_who_waits_longer_than_the_drain_is_told(own: Own, streamed: bool) -> None:
    """After the drain timeout, not after twice as long, who waits for a first byte gets a 503; it is booked."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "4", "ROUTER_FIRST_BYTE_TIMEOUT": "60"})
    stage.a.script = hang
    name = f"waiting-{uuid.uuid4()}"
    running = asyncio.ensure_future(stage.chat("router/ab", streamed, headers={"x-request-id": name}, patience=60))
    await stage.a.wait_for(1)
    started = time.monotonic()
    stage.router.signal(signal.SIGTERM)
    assert await _wait(stage.router) == 0
    assert 3.9 < time.monotonic() - started < 7.5
    got = await running
    assert (got.status, got.error["code"], got.header("retry-after")) == (503, "shutting_down", "1")
    await asyncio.to_thread(stage.router.start)
    record = (await stage.router.ask("GET", f"/v1/requests/{name}")).json()
    assert (record["outcome"], record["status"]) == ("failed", 503)


@pytest.mark.parametrize("what", ["stalled_client", "silent_upstream", "half_request"])
async def test_nobody_holds_the_drain(own: Own, what: str) -> None:
    """A client that does not read, a provider that is silent, a request that never ends: all bounded by the drain."""
    stage = await own(
        env={"ROUTER_DRAIN_TIMEOUT": "1", "ROUTER_FIRST_BYTE_TIMEOUT": "60", "ROUTER_HEADER_TIMEOUT": "60"}
    )
    stage.a.script = stream([text("x" * 16_000)] * 2000) if what == "stalled_client" else hang
    if what == "half_request":
        connection = await Connection.open(stage.router.port)
        await connection.send(request_bytes(body=chat_body("router/ab"))[:-10])
    else:
        connection = await stage.router.open_chat("router/ab", receive_buffer=4096)
        await stage.a.wait_for(1)
    await asyncio.sleep(0.3)
    stage.router.signal(signal.SIGTERM)
    await _wait(stage.router)
    connection.close()


async def test_who_does_not_read_is_booked_as_cut(own: Own) -> None:
    """A stream that ends with the drain did not end by its client, also where that has not read for a while."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "1"})
    stage.a.script = stream([text("x" * 16_000)] * 2000)
    connection = await Connection.open(stage.router.port, receive_buffer=4096)
    name = f"unread-{uuid.uuid4()}"
    await connection.send(request_bytes(body=chat_body("router/ab"), headers={"x-request-id": name}))
    await stage.a.wait_for(1)
    await connection.receive(PATIENCE)
    stage.router.signal(signal.SIGTERM)
    assert await _wait(stage.router) == 0
    connection.close()
    await asyncio.to_thread(stage.router.start)
    record = (await stage.router.ask("GET", f"/v1/requests/{name}")).json()
    assert (record["outcome"], record["failure"]) == ("cut", "shutting_down")


async def test_the_drain_ends_when_the_last_answer_was_read(own: Own) -> None:
    """A connection whose client had still to read when the drain began carries no other request, and holds nobody."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "60"})
    stage.a.script = reply(200, LARGE)
    connection = await stage.router.open_chat("a/m1", False, receive_buffer=4096)
    await stage.settled(1)
    stage.router.signal(signal.SIGTERM)
    await until(lambda: refuses(stage.router.port))
    got = await connection.answer(PATIENCE)
    assert (got.ended, len(got.body)) == ("whole", len(LARGE))
    assert await _wait(stage.router, 30) == 0
    connection.close()


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "plain"])
async def test_the_drain_waits_for_who_reads_slowly(own: Own, streamed: bool) -> None:
    """What was handed to the system for a client is not lost with the process: the answer arrives whole."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "60"})
    release = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await release.wait()
        await (stream([text("x" * 6_000_000) + finish() + DONE]) if streamed else reply(200, LARGE))(exchange)

    stage.a.script = late
    connection = await stage.router.open_chat("a/m1", streamed, receive_buffer=4096)
    await stage.a.wait_for(1)
    stage.router.signal(signal.SIGTERM)
    await until(lambda: refuses(stage.router.port))
    release.set()
    await asyncio.sleep(0.3)
    got = await connection.answer(PATIENCE)
    assert (got.ended, len(got.text)) == ("whole", 6_000_000)
    assert await _wait(stage.router, 30) == 0
    connection.close()


async def test_a_burst(stage: Stage) -> None:
    """Three hundred requests at the same instant are all answered whole."""
    got = await asyncio.gather(*(stage.chat("router/ab", number % 2 == 0, patience=30) for number in range(300)))
    assert {(one.status, one.text) for one in got} == {(200, "Hello from upstream")}


async def test_the_same_request_id_twice(stage: Stage) -> None:
    """Two requests with one id are two requests: both are served and both are counted."""
    before = (await stage.metrics())["requests"]["total"]
    name = f"twin-{uuid.uuid4()}"
    got = await asyncio.gather(*(stage.chat("router/ab", headers={"x-request-id": name}) for _ in range(2)))
    assert {one.status for one in got} == {200}
    assert (await stage.settled(before + 2))["requests"]["total"] >= before + 2
    assert await stage.record(name)


async def test_the_port_is_released_for_the_next(own: Own, launch: Launch) -> None:
    """While one process drains the next one can bind the port and serve."""
    stage = await own()
    stage.a.script = _lasting(2.5)
    running = asyncio.ensure_future(stage.chat("router/ab"))
    await stage.a.wait_for(1)
    await asyncio.sleep(0.2)
    stage.router.signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    config = json.loads(stage.router.config_file.read_text())
    successor = await launch(config, folder="next", port=stage.router.port, wait=False)
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if (await successor.ask("GET", "/health")).status == 200:
                break
        assert successor.process is not None
        assert successor.process.poll() is None, successor.log()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    got = await running
    assert (got.ended, got.done) == ("whole", True)


async def test_ready_says_when_it_drains(own: Own) -> None:
    """`/ready` is 503 while draining, where a connection that was open before still asks."""
    stage = await own()
    assert (await stage.router.ask("GET", "/ready")).status == 200
    stage.a.script = _lasting(1.5)
    running = asyncio.ensure_future(stage.chat("router/ab"))
    await stage.a.wait_for(1)
    connection = await Connection.open(stage.router.port)
    await asyncio.sleep(0.1)
    stage.router.signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    if await connection.send(request_bytes("GET", "/ready")):
        got = await connection.answer(2)
        assert got.status in (0, 503)
    connection.close()
    assert (await running).done


async def test_a_port_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    """A taken port ends the start with a message that names the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        router = RouterProcess(tmp_path, {}, port=port)
        await asyncio.to_thread(router.start, False)
        assert await _wait(router) not in (0, None)
    assert str(port) in router.log()
    assert "Traceback" not in router.log()


async def test_listens_on_loopback_only(stage: Stage) -> None:
    """By default the router listens on 127.0.0.1 and nowhere else."""
    wanted = f"{stage.router.port:04X}"
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{stage.router.pid}/net/{table}").read_text().splitlines()[1:]:  # noqa: ASYNC240
            local, _, state = line.split()[1:4]
            if state == "0A" and local.endswith(f":{wanted}"):
                listening.append(local.partition(":")[0])
    assert listening == ["0100007F"]


async def test_wide_binding_without_a_key_is_refused(tmp_path: Path) -> None:
    """`--host 0.0.0.0` without a key ends the start and names what would allow it."""
    router = RouterProcess(tmp_path, {}, args=["--host", "0.0.0.0"])
    await asyncio.to_thread(router.start, False)
    assert await _wait(router) != 0
    assert "ROUTER_API_KEY" in router.log()
    assert "Traceback" not in router.log()


@pytest.mark.parametrize("how", ["key", "flag", "variable"])
async def test_wide_binding_on_demand(launch: Launch, how: str) -> None:
    """A key, the flag or its variable allow binding beyond loopback."""
    env = {"key": {"ROUTER_API_KEY": "k-12345678"}, "variable": {"ROUTER_ALLOW_UNAUTHENTICATED": "1"}}.get(how, {})
    args = ["--host", "0.0.0.0"] + (["--allow-unauthenticated"] if how == "flag" else [])
    router = await launch({}, env=env, args=args)
    assert (await router.ask("GET", "/health")).status == 200


async def test_a_kill_loses_no_settled_record(own: Own) -> None:
    """SIGKILL under load: what closed more than a second before is on record, what was running is interrupted."""
    stage = await own(env={"ROUTER_FIRST_BYTE_TIMEOUT": "30"})
    names = [f"done-{number}-{uuid.uuid4()}" for number in range(30)]
    await asyncio.gather(*(stage.chat("router/ab", headers={"x-request-id": name}) for name in names))
    stage.b.script = hang
    running = [f"run-{number}-{uuid.uuid4()}" for number in range(5)]
    connections = []
    for name in running:
        connection = await Connection.open(stage.router.port)
        await connection.send(request_bytes(body=chat_body("b/m2"), headers={"x-request-id": name}))
        connections.append(connection)
    await stage.b.wait_for(5)
    for name in names:
        await stage.record(name)
    await asyncio.sleep(1.2)
    await asyncio.to_thread(stage.router.kill)
    for connection in connections:
        connection.close()
    await asyncio.to_thread(stage.router.start)
    for name in names:
        assert (await stage.router.ask("GET", f"/v1/requests/{name}")).status == 200
    for name in running:
        got = await stage.router.ask("GET", f"/v1/requests/{name}")
        assert got.status == 200
        assert "interrupted" in got.body.decode()


async def test_every_admitted_request_leaves_one_record(stage: Stage) -> None:
    """Whole, cut, failed, refused by the provider, streamed or not: one record each, and the figures add up."""
    scripts: list[tuple[Script, Script]] = [
        (healthy, healthy),
        (stream([role(), text("x")], end="reset"), healthy),
        (reply(500, error("x")), healthy),
        (reply(500, error("x")), reply(500, error("y"))),
        (reply(400, error("bad")), healthy),
        (stream([role(), text("x")], end="hang"), healthy),
    ]
    before = (await stage.metrics())["requests"]
    names = []
    for first, second in scripts:
        for streamed in (True, False):
            await stage.reset()
            stage.a.script, stage.b.script = first, second
            name = f"rec-{uuid.uuid4()}"
            names.append(name)
            await stage.chat("router/ab", streamed, headers={"x-request-id": name})
    records = [await stage.record(name) for name in names]
    assert len(records) == len(names)
    after = (await stage.settled(before["total"] + len(names)))["requests"]
    assert after["total"] - before["total"] == len(names)
    for figures in (before, after):
        assert figures["total"] == figures["success"] + figures["failed"] + figures["cancelled"]


async def test_requests_that_were_not_admitted_leave_none(stage: Stage) -> None:
    """A malformed request is no chat request: the figures do not count it."""
    before = (await stage.metrics())["requests"]["total"]
    for body in (b"{", b"[]", {"model": "x"}):
        assert (await stage.router.ask("POST", "/v1/chat/completions", body)).status == 400
    await asyncio.sleep(0.2)
    assert (await stage.metrics())["requests"]["total"] == before


async def test_unknown_requests_are_404(stage: Stage) -> None:
    """A request id that the ledger does not know is 404; one that still runs is 202."""
    assert (await stage.router.ask("GET", "/v1/requests/nobody-knows")).status == 404
    stage.a.script = hang
    name = f"running-{uuid.uuid4()}"
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes(body=chat_body("router/only"), headers={"x-request-id": name}))
    await stage.a.wait_for(1)
    assert (await stage.router.ask("GET", f"/v1/requests/{name}")).status == 202
    connection.close()


async def test_a_restart_storm_loses_nothing(own: Own) -> None:
    """Three kills in a row: every start is clean and the ledger keeps growing."""
    stage = await own()
    names = []
    for _ in range(3):
        name = f"storm-{uuid.uuid4()}"
        names.append(name)
        await stage.chat("router/ab", headers={"x-request-id": name})
        await stage.record(name)
        await asyncio.sleep(1.1)
        await asyncio.to_thread(stage.router.kill)
        await asyncio.to_thread(stage.router.start)
    for name in names:
        assert (await stage.router.ask("GET", f"/v1/requests/{name}")).status == 200
    assert "Traceback" not in stage.router.log()


async def test_the_log_may_go_away(own: Own) -> None:
    """A reader of the log that goes away (a broken pipe on stdout and stderr) does not stop the router."""
    stage = await own()
    await asyncio.to_thread(stage.router.kill)
    process = subprocess.Popen(  # noqa: ASYNC220
        stage.router.command,
        env=stage.router.env,
        cwd=stage.router.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    stage.router.process = process
    try:
        await asyncio.to_thread(stage.router.wait_ready)
        assert process.stdout is not None
        process.stdout.close()
        for number in range(10):
            assert (await stage.chat("router/ab", number % 2 == 0)).text == "Hello from upstream"
    finally:
        await asyncio.to_thread(stage.router.stop)


async def test_the_loop_stays_free_while_it_starts_serving(own: Own) -> None:
    """The first requests after the start do not wait for an encoding that is being built."""
    stage = await own()
    stage.a.script = reply(200, json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}))
    spent: list[float] = []
    running = asyncio.gather(*(stage.chat("router/ab", False) for _ in range(5)))
    for _ in range(30):
        watch = stage.router.watch()
        assert (await ask(stage.router.port)).status == 200
        spent.append(watch.seconds)
        await asyncio.sleep(0.01)
    await running
    assert max(spent) < 0.15, spent
