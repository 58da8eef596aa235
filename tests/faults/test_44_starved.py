"""A machine that grants the running router no more of something: threads, connections."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from tests.support.fixtures import Launch, start_upstreams
from tests.support.router import chains
from tests.support.waiting import until

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
