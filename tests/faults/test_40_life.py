"""Start, kill and restart; full disks and unwritable folders; records that outlive the process."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.chunks import error, role, text
from tests.support.client import Connection, ask, chat_body, request_bytes
from tests.support.fixtures import Launch, Stage
from tests.support.router import RouterProcess, chains
from tests.support.upstream import Script, hang, healthy, reply, stream
from tests.support.waiting import until

Own = Callable[..., Awaitable[Stage]]


async def test_ready_in_about_a_second(launch: Launch) -> None:
    """From its start to a healthy `/health` the process needs less than a second, of its own time on a busy machine."""
    best = 99.0
    for number in range(3):
        router = await launch(chains({"a": 1, "b": 1}, {"ab": ["a/m1", "b/m2"]}), folder=f"r{number}")
        best = min(best, router.ready_at - router.started_at, router.cpu())
    assert best < 1.2


async def test_a_reload_does_not_end_a_start(launch: Launch) -> None:
    """SIGHUP while the process is still starting leaves it to start."""
    router = await launch(chains({"a": 1, "b": 1}, {"ab": ["a/m1", "b/m2"]}), wait=False)

    def ignored() -> bool:
        found = re.search(r"^SigIgn:\s*(\w+)", Path(f"/proc/{router.pid}/status").read_text(), re.MULTILINE)
        return bool(found and int(found[1], 16) & 1 << signal.SIGHUP - 1)

    await until(ignored)
    router.signal(signal.SIGHUP)
    await asyncio.to_thread(router.wait_ready)


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


async def test_a_port_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    """A taken port ends the start with a message that names the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        router = RouterProcess(tmp_path, {}, port=port)
        await asyncio.to_thread(router.start, False)
        assert await router.ended() not in (0, None)
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
    assert set(listening) == {"0100007F"}


async def test_wide_binding_without_a_key_is_refused(tmp_path: Path) -> None:
    """`--host 0.0.0.0` without a key ends the start and names what would allow it."""
    router = RouterProcess(tmp_path, {}, args=["--host", "0.0.0.0"])
    await asyncio.to_thread(router.start, False)
    assert await router.ended() != 0
    assert "ROUTER_API_KEY" in router.log()
    assert "Traceback" not in router.log()


@pytest.mark.parametrize("how", ["key", "flag", "variable"])
async def test_wide_binding_on_demand(launch: Launch, how: str) -> None:
    """A key, the flag or its variable allow binding beyond loopback."""
    env = {"key": {"ROUTER_API_KEY": "k-12345678"}, "variable": {"ROUTER_ALLOW_UNAUTHENTICATED": "1"}}.get(how, {})
    args = ["--host", "0.0.0.0"] + (["--allow-unauthenticated"] if how == "flag" else [])
    router = await launch({}, env=env, args=args)
    assert (await router.ask("GET", "/health")).status == 200


async def test_a_reload_does_not_open_what_others_reach(launch: Launch) -> None:
    """Beyond loopback a reload that would take the key away is refused, and the key goes on being asked for."""
    key = {"Authorization": "Bearer k-12345678"}
    config = {"server": {"api_key_env": "MY_ROUTER_KEY"}}
    router = await launch(config, env={"MY_ROUTER_KEY": "k-12345678"}, args=["--host", "0.0.0.0"])
    router.config_file.write_text('{"server": {"host": "127.0.0.1"}}')
    got = await router.ask("POST", "/config/reload", headers=key)
    assert (got.status, got.error["code"]) == (400, "invalid_configuration")
    assert "ROUTER_API_KEY" in got.error["message"]
    assert (await router.ask("GET", "/config")).status == 401
    assert (await router.ask("GET", "/config", headers=key)).status == 200


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
        assert (await stage.record(name))["outcome"] == "interrupted"


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
