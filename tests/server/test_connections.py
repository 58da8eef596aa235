"""The HTTP server's connections: how many, how they end, and what is told on them, over raw sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import time
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import http_parser, web
from aiohttp.http import RawRequestMessage

from llm_router.config.values import Access
from llm_router.errors import ConfigError
from llm_router.server import connections, limits
from llm_router.server.connections import Connection as ServerConnection
from llm_router.server.runner import make_runner
from tests.server.conftest import Small, StartSmall
from tests.support.client import Connection as ClientConnection
from tests.support.client import request_bytes
from tests.support.waiting import until

UNLIMITED = resource.RLIM_INFINITY  # another number from Python 3.15 on


async def test_connections_are_kept_alive_and_not_delayed(small: Small) -> None:
    """What the listening socket was told holds for accepted connections: dead peers are found, small writes leave."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    limits.prepare_listener(listener)
    await web.SockSite(small.runner, listener).start()
    connection = await ClientConnection.open(listener.getsockname()[1])
    await connection.send(request_bytes("GET", "/"))
    assert (await connection.answer()).status == 200
    (served,) = small.runner.server.connections
    accepted = served.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


async def test_most_connections(start: StartSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit an idle connection makes room, whoever is busy; where all are, one more is 503 and closed."""
    monkeypatch.setattr(connections, "connection_limit", lambda: 4)
    monkeypatch.setattr(connections, "QUIET_S", 0.0)
    small = await start()
    idle = [await small.open() for _ in range(4)]
    await until(lambda: len(small.runner.server.connections) == 4)
    assert (await small.ask("GET", "/")).status == 200
    assert any(await asyncio.gather(*(connection.closed_within(2) for connection in idle)))
    for connection in idle:
        connection.close()
    busy = [await small.open() for _ in range(4)]
    for connection in busy[:3]:
        await connection.send(request_bytes("GET", "/slow"))
    await until(lambda: small.running == 3)
    newcomer = await small.open()
    assert await busy[3].closed_within(2)
    busy[3].close()
    await newcomer.send(request_bytes("GET", "/slow"))
    busy[3] = newcomer
    await until(lambda: small.running == 4)
    connection = await small.open()
    answer = await connection.answer()
    assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
    assert small.running == 4
    for other in (*busy, connection):
        other.close()


async def test_a_client_that_leaves_cancels_its_handler(small: Small) -> None:
    """FIN and RST both reach the handler while it works."""
    for leave in ("close", "reset"):
        connection = await small.open()
        await connection.send(request_bytes("GET", "/slow"))
        await until(lambda: small.running == 1)
        getattr(connection, leave)()
        await until(lambda: small.running == 0)
    assert small.cancelled == 2


async def test_faults_are_told_without_details(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is a 500 in JSON without its text, logged once with its traceback."""
    answer = await small.ask("GET", "/broken")
    assert (answer.status, answer.error["code"]) == (500, "internal")
    assert b"secret" not in answer.raw
    assert answer.header("x-request-id")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info


async def test_a_fault_in_a_begun_answer_breaks_it_off(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    """An answer that had begun does not end as if it were whole."""
    answer = await small.ask("GET", "/broken-stream")
    assert answer.ended != "whole"
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "unknown_url"),
        ("POST", "/v1/responses", 404, "unknown_url"),
        ("DELETE", "/broken", 405, "method_not_allowed"),
        ("GET", "/%00", 404, "unknown_url"),
        ("GET", "/..%2f..%2fetc/passwd", 404, "unknown_url"),
        ("OPTIONS", "*", 404, "unknown_url"),
    ],
)
async def test_aiohttps_own_refusals_are_json(small: Small, method: str, path: str, status: int, code: str) -> None:
    """What the framework refuses is told in OpenAI's shape, with a newline at the end and a request id."""
    answer = await small.ask(method, path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.body.endswith(b"}\n")
    assert answer.header("x-request-id")
    assert answer.header("server") == "llm-router"
    if status == 405:
        assert answer.header("allow") == "GET, HEAD"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abc-1.2:3_4", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("a b", False),
        ("é", False),
        ("-a", False),
    ],
)
async def test_request_ids(small: Small, sent: str, kept: bool) -> None:
    """A client's own id comes back if it is a sane token; else there is a fresh one each time."""
    first = await small.ask("GET", "/", headers={"x-request-id": sent})
    again = await small.ask("GET", "/", headers={"x-request-id": sent})
    assert (first.header("x-request-id") == sent) is kept
    assert (first.header("x-request-id") == again.header("x-request-id")) is kept


async def test_draining_closes_connections(small: Small) -> None:
    """While the router drains every answer ends its connection."""
    small.draining = True
    answer = await small.ask("GET", "/")
    assert (answer.status, answer.header("connection")) == (200, "close")


async def test_shutdown_lets_requests_finish_within_its_time(start: StartSmall) -> None:
    """What runs may end within the drain timeout, idle connections do not hold, and one clock bounds the whole."""
    small = await start(drain_timeout=1.0)
    idle = await small.open()
    await asyncio.sleep(0.05)
    short = asyncio.ensure_future(small.ask("GET", "/slow?s=0.4"))
    long = asyncio.ensure_future(small.ask("GET", "/slow?s=30", patience=30))
    await until(lambda: small.running == 2)
    began = time.monotonic()
    await small.runner.cleanup()
    assert 0.9 < time.monotonic() - began < 10  # not as long as the longest
    assert (await short).body == b"done"
    assert (await long).status == 0
    assert await idle.closed_within(20)
    assert small.cancelled == 1
    idle.close()


async def test_cross_origin_answers_and_preflights(start: StartSmall) -> None:
    """A configured origin gets its preflight and may read answers and errors; all others get no permission at all."""
    small = await start(access=Access(api_keys=("alpha",), allowed_origins=("https://chat.example.com",)))
    origin = {"Origin": "https://chat.example.com", "Sec-Fetch-Site": "cross-site"}
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    preflight = await small.ask("OPTIONS", "/", headers=origin | wanted)
    assert preflight.status == 204
    assert preflight.header("access-control-allow-headers") == "authorization, content-type"
    assert "POST" in (preflight.header("access-control-allow-methods") or "")
    for headers, status in (({"Authorization": "Bearer alpha"}, 200), ({}, 401)):
        answer = await small.ask("POST", "/", {"a": 1}, headers=origin | headers)
        assert answer.status == status
        assert answer.header("access-control-allow-origin") == "https://chat.example.com"
        assert "retry-after" in (answer.header("access-control-expose-headers") or "")
    missing = await small.ask("GET", "/nowhere", headers=origin | {"Authorization": "Bearer alpha"})
    assert (missing.status, missing.header("access-control-allow-origin")) == (404, "https://chat.example.com")
    evil = await small.ask("OPTIONS", "/", headers={"Origin": "https://evil.com"} | wanted)
    assert evil.status == 403
    assert not [name for name, _ in evil.headers if name.lower().startswith("access-control")]


async def test_nodes_fetch_passes(small: Small) -> None:
    """node's fetch sends `Sec-Fetch-Mode: cors` without Origin or Sec-Fetch-Site; it is no browser."""
    answer = await small.ask("POST", "/", {"a": 1}, headers={"Sec-Fetch-Mode": "cors", "Accept-Language": "*"})
    assert answer.status == 200


async def test_access_settings_in_force_count(small: Small) -> None:
    """A reload that sets a key closes the door for the next request, also on a connection that is open."""
    connection = await small.open()
    for access, status in ((Access(), 200), (Access(api_keys=("alpha",)), 401), (Access(), 200)):
        small.snapshot = replace(small.snapshot, access=access)
        await connection.send(request_bytes("GET", "/"))
        answer = await connection.answer()
        assert answer.status == status
        if status == 401:
            assert answer.header("www-authenticate") == "Bearer"
    connection.close()


def test_pure_python_parser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without aiohttp's C parser there is no server, and the message says what to do."""
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(ConfigError, match="C extension"):
        make_runner(web.Application(), lambda: pytest.fail("not asked"))


def test_connection_limit_follows_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection is counted with its upstream's descriptor; where the system has no limit, ours holds."""
    for soft, limit in ((1024, 480), (64, 8), (10**9, limits.MOST_CONNECTIONS), (UNLIMITED, limits.MOST_CONNECTIONS)):
        monkeypatch.setattr(limits.resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert limits.connection_limit() == limit


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [(1024, 4096, 4096), (1024, 1 << 20, 65_600), (1024, UNLIMITED, 65_600), (1 << 20, 1 << 20, None)],
)
def test_descriptors_are_taken(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int | None) -> None:
    """The soft limit is raised as far as the system allows and we can use, and never lowered."""
    taken: list[Any] = []
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(limits.resource, "setrlimit", lambda _, values: taken.append(values))
    limits.raise_descriptor_limit()
    assert taken == ([] if wanted is None else [(wanted, hard)])


@pytest.mark.parametrize(("most", "taken"), [(61_440, 32_800), (10_240, 8_200), (0, 256)])
def test_descriptors_are_taken_where_the_hard_limit_is_not_all(
    monkeypatch: pytest.MonkeyPatch, most: int, taken: int
) -> None:
    """macOS calls the hard limit unlimited and refuses more than it gives a process: that is no reason not to start."""
    limit = [256]

    def setrlimit(_: int, values: tuple[int, int]) -> None:
        if values[0] > most:
            raise ValueError("current limit exceeds maximum limit")
        limit[0] = values[0]

    monkeypatch.setattr(limits.resource, "getrlimit", lambda _: (limit[0], UNLIMITED))
    monkeypatch.setattr(limits.resource, "setrlimit", setrlimit)
    limits.raise_descriptor_limit()
    assert limit == [taken]


async def test_what_is_read_of_aiohttp_exists(small: Small) -> None:
    """The attributes that aiohttp keeps to itself and the sweep reads are there and mean what we think."""
    connection = await small.open()
    await until(lambda: small.runner.server.connections)
    (server_side,) = small.runner.server.connections
    assert isinstance(server_side, ServerConnection)
    assert server_side.idle
    assert (server_side._current_request, server_side._reading_paused, len(server_side._messages)) == (None, False, 0)
    await connection.send(request_bytes("GET", "/slow"))
    await until(lambda: small.running == 1)
    assert not server_side.idle
    assert server_side._current_request.path == "/slow"
    await connection.send(request_bytes("GET", "/"))
    await until(lambda: server_side._messages)
    assert [type(message) for message, _ in server_side._messages] == [RawRequestMessage]
    connection.close()


async def test_error_answers_keep_their_headers(small: Small) -> None:
    """Refusals of the guard come in JSON with a request id."""
    answer = await small.ask("GET", "/", headers={"Host": "evil.com"})
    assert answer.status == 403
    assert json.loads(answer.body)["error"]["code"] == "host_not_allowed"
    assert answer.header("x-request-id")
