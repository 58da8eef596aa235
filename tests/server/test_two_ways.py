"""Plain chat requests come by a short way past aiohttp's application: nobody may notice, least of all an attacker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from llm_router.server.chat import DirectChat
from llm_router.server.heads import PlainHead
from llm_router.server.limits import BIG_BODY_BYTES
from tests.server.conftest import CONFIG, Served, StartRouter
from tests.support.client import Answer, Connection, chat_body, request_bytes
from tests.support.upstream import Upstream
from tests.support.waiting import until

PATH = "/v1/chat/completions"
# Without meaning for the answer, but such a request goes the long way.
LONG = {"x-router-dry-run": "0"}
KEY = {"Authorization": "Bearer alpha"}
STREAM, WHOLE = chat_body("router/code", True), chat_body("a/m1", False)


@pytest.fixture
async def served(serve: StartRouter, upstream: Upstream) -> Served:
    """The router with keys, in front of the healthy provider."""
    providers = {"a": {"base_url": upstream.url, "api_key_env": "A_KEY"}}
    return await serve({**CONFIG, "providers": providers}, api_keys=("alpha",), admin_key="root")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that went the short way."""
    taken: list[str] = []
    serve = DirectChat.serve

    async def watched(self: DirectChat, connection: Any, head: PlainHead, identity: Any, body: Any) -> bool:
        taken.append(head.path)
        return await serve(self, connection, head, identity, body)

    monkeypatch.setattr(DirectChat, "serve", watched)
    return taken


def look(answer: Answer) -> tuple[Any, ...]:
    """What a client sees, but for the time."""
    headers = sorted((name.lower(), value) for name, value in answer.headers if name.lower() != "date")
    return answer.status, headers, answer.body, answer.ended


CASES: dict[str, tuple[Any, Mapping[str, str | None], int]] = {
    "stream": (STREAM, {}, 200),
    "whole": (WHOLE, {}, 200),
    "admin key": (WHOLE, {"Authorization": "bearer root"}, 200),
    "form type": (WHOLE, {"Content-Type": "application/x-www-form-urlencoded"}, 200),
    "no type": (WHOLE, {"Content-Type": None}, 200),
    "close": (STREAM, {"Connection": "close"}, 200),
    "session": (STREAM, {"x-session-id": "one"}, 200),
    "no key": (WHOLE, {"Authorization": None}, 401),
    "wrong key": (WHOLE, {"Authorization": "Bearer alphA"}, 401),
    "basic": (WHOLE, {"Authorization": "Basic alpha"}, 401),
    "foreign host": (WHOLE, {"Host": "evil.com"}, 403),
    "broken host": (WHOLE, {"Host": "a b"}, 400),
    "empty host": (WHOLE, {"Host": ""}, 400),
    "empty body": (b"", {}, 400),
    "no JSON": (b"{", {}, 400),
    "a list": ([], {}, 400),
    "no model": ({"messages": []}, {}, 400),
    "no messages": ({"model": "router"}, {}, 400),
    "stream of words": ({**WHOLE, "stream": "yes"}, {}, 400),
    "no such category": (chat_body("router/nope"), {}, 404),
    "no such provider": (chat_body("nobody/m1"), {}, 404),
    "no key for it": (chat_body("openai/gpt-4o"), {}, 503),
    "bad price": (WHOLE, {"x-router-max-price": "cheap"}, 400),
    "compressed": (WHOLE, {"Content-Encoding": "gzip"}, 415),
    "foreign page": (WHOLE, {"Origin": "http://evil.com"}, 403),
    "cross site": (WHOLE, {"Sec-Fetch-Site": "cross-site"}, 403),
    "browser with text": (WHOLE, {"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"}, 415),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("path", [PATH, "/chat/completions"])
async def test_both_ways_give_the_same_answer(served: Served, name: str, path: str) -> None:
    """Status, headers and body are the same by the short way and by the long one."""
    body, headers, status = CASES[name]
    fixed = {**KEY, "x-request-id": "the-same", **headers}
    by_short, by_long = [await served.ask("POST", path, body, headers={**fixed, **extra}) for extra in ({}, LONG)]
    assert by_short.status == status, by_short.body
    assert look(by_short) == look(by_long)
    if status == 200:
        assert by_short.text == by_long.text != ""


async def test_plain_requests_go_the_short_way(served: Served, short: list[str]) -> None:
    """The short way is taken by what SDKs and agents send, on one connection again and again."""
    connection = await Connection.open(served.port)
    for body in (STREAM, WHOLE, STREAM):
        await connection.send(request_bytes("POST", PATH, body, KEY))
        assert (await connection.answer()).status == 200
    assert short == [PATH] * 3
    connection.close()


@pytest.mark.parametrize(
    "headers",
    [LONG, {"Origin": "http://127.0.0.1"}, {"Sec-Fetch-Site": "none"}, {"Host": "evil.com"}, {"Authorization": None}],
    ids=str,
)
async def test_others_go_the_long_way(served: Served, short: list[str], headers: dict[str, str | None]) -> None:
    """Browsers, dry runs and everything that will be refused are left to the application."""
    await served.ask("POST", PATH, WHOLE, headers={**KEY, **headers})
    await served.ask("POST", f"http://127.0.0.1{PATH}", WHOLE, headers=KEY)
    await served.ask("POST", f"{PATH}?a=b", WHOLE, headers=KEY)
    await served.ask("POST", "/v1//chat/completions", WHOLE, headers=KEY)
    assert short == []


async def test_ways_may_change_on_one_connection(served: Served, short: list[str]) -> None:
    """After a request by the long way its connection stays there, and every answer is right and in order."""
    connection = await Connection.open(served.port)
    steps = [("POST", PATH, WHOLE), ("GET", "/health", None), ("POST", PATH, WHOLE), ("GET", "/metrics", None)]
    await connection.send(b"".join(request_bytes(method, path, body, KEY) for method, path, body in steps))
    answers = [await connection.answer() for _ in steps]
    assert [answer.status for answer in answers] == [200] * 4
    assert answers[0].text == answers[2].text
    assert answers[1].json()["status"] == "healthy"
    assert short == [PATH]
    connection.close()


async def test_a_reload_reaches_the_short_way(served: Served, short: list[str]) -> None:
    """A key that was taken away opens nothing from the next request on, on a connection that is open already."""
    connection = await Connection.open(served.port)
    await connection.send(request_bytes("POST", PATH, WHOLE, KEY))
    assert (await connection.answer()).status == 200
    snapshot = served.router.snapshot
    served.router.apply(_with_keys(snapshot, ("other",)))
    await connection.send(request_bytes("POST", PATH, WHOLE, KEY))
    assert (await connection.answer()).status == 401
    assert short == [PATH]
    connection.close()


def _with_keys(snapshot: Any, keys: tuple[str, ...]) -> Any:
    return replace(snapshot, access=replace(snapshot.access, api_keys=keys))


async def test_a_body_in_pieces(served: Served, short: list[str]) -> None:
    """A body that comes byte by byte is the same body."""
    connection = await Connection.open(served.port)
    data = request_bytes("POST", PATH, WHOLE, KEY)
    for index in range(len(data)):
        await connection.send(data[index : index + 1])
        await asyncio.sleep(0)
    assert (await connection.answer()).status == 200
    assert short == [PATH]
    connection.close()


@pytest.mark.parametrize("pause", [0.0, 0.02])
async def test_a_long_body(served: Served, upstream: Upstream, short: list[str], pause: float) -> None:
    """A body of almost the longest that comes by the short way arrives whole, at once or in pieces."""
    words = "".join(f"word{number} " for number in range(98_000))
    body = {**WHOLE, "messages": [{"role": "user", "content": words}]}
    data = request_bytes("POST", PATH, body, KEY)
    assert BIG_BODY_BYTES * 0.9 < len(data) < BIG_BODY_BYTES
    connection = await Connection.open(served.port)
    step = 200_000 if pause else len(data)
    for _ in range(2):
        for start in range(0, len(data), step):
            await connection.send(data[start : start + step])
            await asyncio.sleep(pause)
        assert (await connection.answer()).status == 200
    came = [exchange.request.json()["messages"][0]["content"] for exchange in upstream.exchanges]
    assert came == [words, words]
    assert short == [PATH, PATH]
    connection.close()


async def test_a_silent_body(serve: StartRouter, short: list[str]) -> None:
    """A body that stops coming is 408 by the short way too."""
    served = await serve()
    served.router.apply(replace(served.router.snapshot, header_timeout=0.3))
    connection = await Connection.open(served.port)
    await connection.send(request_bytes("POST", PATH, WHOLE)[:-5])
    answer = await connection.answer()
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert short == [PATH]
    assert await connection.closed_within(20)
    connection.close()


async def test_a_client_that_leaves(served: Served, upstream: Upstream, short: list[str]) -> None:
    """A client that leaves while its provider is silent has its provider hung up on, and its request booked."""

    async def silent(exchange: Any) -> None:
        await exchange.hang()

    upstream.script = silent
    connection = await Connection.open(served.port)
    await connection.send(request_bytes("POST", PATH, STREAM, {**KEY, "x-request-id": "gone"}))
    exchange = await upstream.wait_for(1)
    connection.reset()
    await until(lambda: exchange.closed_at is not None)
    assert short == [PATH]
    await asyncio.to_thread(served.router.bookkeeper.flush)
    record = await served.ask("GET", "/v1/requests/gone", headers=KEY)
    assert record.json()["outcome"] == "cancelled"


async def test_a_fault_of_ours(served: Served, short: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is a 500 without details by both ways."""

    async def fail(*_: Any) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(served.router, "answer", fail)
    answers = [
        await served.ask("POST", PATH, WHOLE, headers={**KEY, "x-request-id": "the-same", **extra})
        for extra in ({}, LONG)
    ]
    assert [answer.status for answer in answers] == [500, 500]
    assert json.loads(answers[0].body) == json.loads(answers[1].body)
    assert b"secret" not in answers[0].raw
    assert short == [PATH]


async def test_draining(served: Served, short: list[str]) -> None:
    """While the router drains, new requests are refused the long way and their connections end."""
    connection = await Connection.open(served.port)
    await connection.send(request_bytes("POST", PATH, WHOLE, KEY))
    assert (await connection.answer()).status == 200
    served.router.draining = True
    await connection.send(request_bytes("POST", PATH, WHOLE, KEY))
    answer = await connection.answer()
    assert (answer.status, answer.error["code"], answer.header("connection")) == (503, "shutting_down", "close")
    assert await connection.closed_within(20)
    assert short == [PATH]
    connection.close()
