"""A machine that grants the running router no more of something: threads, connections."""

from __future__ import annotations

import json
import os
import resource
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.chunks import answer
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.fixtures import Launch, Stage, start_upstreams
from tests.support.router import chains
from tests.support.upstream import stream
from tests.support.waiting import until

Own = Callable[..., Awaitable[Stage]]

needs_prlimit = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of a running process: Linux alone")


def _grant_no_threads(pid: int) -> None:
    """Leaves some memory, but not enough for the stack of a thread."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    hard = resource.prlimit(pid, resource.RLIMIT_AS)[1]
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * 1024 * 1024, hard))


@needs_prlimit
@pytest.mark.skipif("ROUTER_WORKERS" in os.environ, reason="the keeper may still be building what it counts with")
async def test_no_more_threads(launch: Launch) -> None:
    """No thread can be had any more: names of providers are looked up, the ledger read, the configuration changed."""
    upstreams = await start_upstreams({"a": 0, "b": 0})
    config = chains({name: upstream.port for name, upstream in upstreams.items()}, {"ab": ["a/m1", "b/m2"]})
    config = json.loads(json.dumps(config).replace("127.0.0.1", "localhost"))
    router = await launch(config)
    _grant_no_threads(router.pid)
    for _ in range(3):
        got = await router.chat()
        assert (got.status, got.text, got.header("x-router-model")) == (200, "Hello from upstream", "a/m1")
    assert (await router.ask("GET", "/v1/usage")).status == 200
    got = await router.ask("POST", "/config/category", {"name": "extra", "models": ["a/m1"]})
    assert got.status == 200, got.raw
    router.config_file.write_text(router.config_file.read_text().replace('"extra"', '"other"'))
    await until(lambda: "configuration was reloaded" in router.log())
    assert "Traceback" not in router.log()
    for upstream in upstreams.values():
        await upstream.stop()


@needs_prlimit
async def test_no_more_descriptors(own: Own) -> None:
    """No connection can be made: the provider is not blamed, the log says why once, and all is well afterwards."""
    stage = await own()
    clients = [await Connection.open(stage.router.port) for _ in range(6)]
    await stage.turns()
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in stage.router.processes()}
    for pid, (_, hard) in limits.items():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    for client in clients:
        await client.send(request_bytes(body=chat_body("router/ab"), headers={"Connection": "close"}))
        got = await client.answer(5)
        assert got.status == 503
        assert [attempt["kind"] for attempt in got.error["attempts"]] == ["no_resources"] * 2
        assert "too many open files" in got.error["message"].lower()
        assert got.header("retry-after") == "1"
        client.close()
    for pid, limit in limits.items():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    got = await stage.chat("a/m1")
    assert (got.status, got.text) == (200, "Hello from upstream")
    assert 1 <= stage.router.log().count("short of what connections need") <= (2 if stage.router.has_workers else 1)


async def test_more_clients_than_connections(own: Own) -> None:
    """Clients who come all at once and are too many are told so: none is closed with its request unread."""
    stage = await own(limits={resource.RLIMIT_NOFILE: 128})
    stage.a.script = stream(answer("Hello from upstream"), delay=0.3)
    clients = [await Connection.open(stage.router.port) for _ in range(150)]
    for client in clients:
        await client.send(request_bytes(body=chat_body("a/m1"), headers={"Connection": "close"}))
    found = Counter([(await client.answer(10)).status for client in clients])
    assert set(found) == {200, 503}, found
    for client in clients:
        client.close()
