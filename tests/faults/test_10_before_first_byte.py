"""Faults before the commit point: the next candidate answers and the client never learns of the first one."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.chunks import answer, completion, error, error_event, event, finish, role
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, Script, Upstream, healthy, plain, raw, reply, stream

HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
CREDENTIALS = {"authentication", "quota_exceeded"}


async def _refuse(upstream: Upstream) -> None:
    await upstream.stop()


def _on_connect(what: Any) -> Callable[[Upstream], Awaitable[None]]:
    async def apply(upstream: Upstream) -> None:
        upstream.on_connect = what

    return apply


def _script(script: Script) -> Callable[[Upstream], Awaitable[None]]:
    async def apply(upstream: Upstream) -> None:
        upstream.script = script

    return apply


async def _comments_only(exchange: Exchange) -> None:
    await exchange.head()
    while True:
        await exchange.body(b": OPENROUTER PROCESSING\n\n")
        await asyncio.sleep(0.2)


async def _pings_only(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.body(role())
    while True:
        await exchange.body(b"event: ping\ndata: {}\n\n")
        await asyncio.sleep(0.2)


async def _endless_header(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    for _ in range(600):
        await exchange.send(b"a" * 65536)
    await exchange.hang()


async def _endless_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(20_000):
        await exchange.send(b"".join(b"X-%d-%d: %s\r\n" % (number, part, b"v" * 60) for part in range(50)))
    await exchange.hang()


async def _endless_line(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.body(b'data: {"choices":[{"delta":{"content":"')
    for _ in range(700):
        await exchange.body(b"a" * 65536)
    await exchange.hang()


async def _endless_error(exchange: Exchange) -> None:
    await exchange.head(500, content_type="text/plain")
    for _ in range(2000):
        await exchange.body(b"e" * 65536)
    await exchange.hang()


async def _endless_comments(exchange: Exchange) -> None:
    await exchange.head()
    for _ in range(2000):
        await exchange.body(b": " + b"c" * 65500 + b"\n\n")
    await exchange.hang()


async def _hang(exchange: Exchange) -> None:
    await exchange.hang()


def _head(rest: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n" + rest


@dataclass(frozen=True)
class Fault:
    """What upstream `a` does, which kinds describe it, and whether it is met on streamed and plain requests."""

    name: str
    apply: Callable[[Upstream], Awaitable[None]]
    kinds: frozenset[str]
    modes: str = "sp"
    asked: int = 1
    seconds: float = 4.0


def _fault(name: str, apply: Any, *kinds: str, **more: Any) -> Fault:
    return Fault(name, apply, frozenset(kinds), **more)


NOT_CONNECTED = ("connect_error", "connection_lost", "protocol_error")
LOST = ("connection_lost", "protocol_error", "connect_error")
FAKE = ("invalid_response", "empty_completion", "protocol_error", "connection_lost", "upstream_truncated")
EMPTY = ("empty_completion", "invalid_response", "connection_lost", "upstream_truncated")

FAULTS = [
    _fault("refused", _refuse, "connect_error", asked=0),
    _fault("accept_then_close", _on_connect("close"), *NOT_CONNECTED, asked=0),
    _fault("accept_then_reset", _on_connect("reset"), *NOT_CONNECTED, asked=0),
    _fault("close_before_head", _script(raw(b"", "fin")), *LOST),
    _fault("reset_before_head", _script(raw(b"", "reset")), *LOST),
    _fault("reset_inside_head", _script(raw(b"HTTP/1.1 200 OK\r\nContent-Ty", "reset")), *LOST),
    _fault("close_inside_head", _script(raw(b"HTTP/1.1 200 OK\r\nContent-Ty", "fin")), *LOST),
    _fault("reset_after_head", _script(raw(_head(b"\r\n"), "reset")), *LOST, *EMPTY),
    _fault("close_after_head", _script(raw(_head(b"\r\n"), "fin")), *LOST, *EMPTY),
    _fault("garbage", _script(raw(b"\x00\x01\x02 this is not http\r\n\r\n")), "protocol_error", "connection_lost"),
    _fault("garbage_status", _script(raw(b"HTTP/1.1 abc OK\r\n\r\n")), "protocol_error", "connection_lost"),
    _fault("http2_preface", _script(raw(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00")), "protocol_error", "connection_lost"),
    _fault("bad_chunk_size", _script(raw(_head(b"\r\nZZ\r\nabc\r\n"), "hang")), "protocol_error"),
    _fault("negative_length", _script(raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello")), "protocol_error"),
    _fault("short_body", _script(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")), *LOST, *EMPTY),
    _fault(
        "corrupt_gzip",
        _script(raw(_head(b"Content-Encoding: gzip\r\n\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"))),
        "protocol_error",
        *EMPTY,
    ),
    _fault("no_content_204", _script(raw(b"HTTP/1.1 204 No Content\r\n\r\n")), *FAKE, "server_error"),
    _fault("switching_101", _script(raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")), *FAKE),
    *(
        _fault(f"redirect_{status}", _script(reply(status, HTML, {"Location": "/v1/elsewhere"})), "redirect")
        for status in (301, 302, 303, 307, 308)
    ),
    *(
        _fault(f"status_{status}", _script(reply(status, error("it broke", kind="server_error"))), *kinds)
        for status, kinds in {
            500: ("server_error",),
            502: ("server_error",),
            503: ("server_error", "overloaded"),
            504: ("server_error",),
            520: ("server_error",),
            524: ("server_error",),
            529: ("overloaded", "server_error"),
            408: ("server_error", "first_byte_timeout", "overloaded"),
            401: ("authentication",),
            402: ("quota_exceeded", "authentication"),
            403: ("authentication",),
            404: ("model_not_found",),
            429: ("rate_limited",),
        }.items()
    ),
    _fault("status_500_html", _script(reply(500, HTML, content_type="text/html")), "server_error"),
    _fault("status_500_empty", _script(reply(500, b"")), "server_error"),
    _fault("status_500_array", _script(reply(500, b'[{"error":{"code":500,"message":"x"}}]')), "server_error"),
    _fault("status_999", _script(raw(b"HTTP/1.1 999 Denied\r\nContent-Length: 0\r\n\r\n")), *FAKE, "server_error"),
    _fault("hang_before_head", _script(_hang), "first_byte_timeout"),
    _fault("hang_after_head", _script(stream([], end="hang")), "first_byte_timeout"),
    _fault("comments_only", _script(_comments_only), "first_byte_timeout", modes="s"),
    _fault("pings_only", _script(_pings_only), "first_byte_timeout", modes="s"),
    _fault("role_then_silence", _script(stream([role()], end="hang")), "first_byte_timeout", modes="s"),
    _fault(
        "half_json_then_silence",
        _script(raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{", "hang")),
        "first_byte_timeout",
        "idle_timeout",
    ),
    _fault("html_200", _script(reply(200, HTML, content_type="text/html")), "invalid_response"),
    _fault("html_as_events", _script(stream([HTML])), *FAKE),
    _fault("empty_200", _script(reply(200, b"")), *FAKE),
    _fault("empty_stream", _script(stream([])), "empty_completion", modes="s"),
    _fault("invalid_json", _script(reply(200, b'{"choices": [{"message"')), "invalid_response"),
    _fault("json_array", _script(reply(200, b"[]")), "invalid_response"),
    _fault("json_string", _script(reply(200, b'"ok"')), "invalid_response"),
    _fault("json_null", _script(reply(200, b"null")), "invalid_response", "empty_completion"),
    _fault("without_choices", _script(reply(200, b'{"id":"x","object":"chat.completion"}')), *FAKE),
    _fault("empty_choices", _script(reply(200, b'{"id":"x","choices":[]}')), *FAKE),
    _fault("choices_no_list", _script(reply(200, b'{"id":"x","choices":{"a":1}}')), *FAKE),
    _fault("choices_of_null", _script(reply(200, b'{"id":"x","choices":[null]}')), *FAKE),
    _fault("error_200", _script(reply(200, error("upstream failed", 502))), "upstream_error", "server_error"),
    _fault("error_string_200", _script(reply(200, b'{"error":"out of memory"}')), "upstream_error", "server_error"),
    _fault("vllm_error_200", _script(reply(200, b'{"object":"error","message":"boom","code":500}')), "upstream_error"),
    _fault("only_done", _script(stream([b"data: [DONE]\n\n"])), "empty_completion", modes="s"),
    _fault("first_event_error", _script(stream([error_event()])), "upstream_error", "server_error", modes="s"),
    _fault(
        "vllm_error_event",
        _script(stream([event({"object": "error", "message": "boom", "code": 500})])),
        "upstream_error",
        modes="s",
    ),
    _fault(
        "named_error_event",
        _script(stream([b'event: error\ndata: {"message": "boom"}\n\n'])),
        "upstream_error",
        modes="s",
    ),
    _fault("role_then_error", _script(stream([role(), error_event()])), "upstream_error", modes="s"),
    _fault(
        "error_with_choices",
        _script(
            stream(
                [
                    event(
                        {
                            "error": {"code": 502, "message": "bad upstream"},
                            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
                        }
                    )
                ]
            )
        ),
        "upstream_error",
        modes="s",
    ),
    _fault("role_then_end", _script(stream([role()])), *EMPTY, modes="s"),
    _fault("role_then_reset", _script(stream([role()], end="reset")), *LOST, *EMPTY, modes="s"),
    _fault("role_then_done", _script(stream([role(), b"data: [DONE]\n\n"])), "empty_completion", modes="s"),
    _fault("comments_then_end", _script(stream([b": hi\n\n"] * 3)), *EMPTY, modes="s"),
    _fault("empty_stop", _script(stream([role(), finish(), b"data: [DONE]\n\n"])), "empty_completion", modes="s"),
    _fault("empty_completion", _script(plain("")), "empty_completion", modes="p"),
    _fault("null_completion", _script(reply(200, completion(None))), "empty_completion", modes="p"),
    _fault("bad_json_events_only", _script(stream([b"data: {broken\n\n", b"data: [DONE]\n\n"])), *FAKE, modes="s"),
    _fault("endless_header", _script(_endless_header), "protocol_error", "response_too_large", "connection_lost"),
    _fault("endless_headers", _script(_endless_headers), "protocol_error", "response_too_large", "connection_lost"),
    _fault("endless_line", _script(_endless_line), "response_too_large", "protocol_error", modes="s"),
    _fault(
        "endless_json",
        _script(_endless_line),
        "response_too_large",
        "invalid_response",
        "protocol_error",
        "first_byte_timeout",
        modes="p",
    ),
    _fault("endless_error_body", _script(_endless_error), "server_error", "response_too_large"),
    _fault(
        "endless_comments",
        _script(_endless_comments),
        "response_too_large",
        "invalid_response",
        "first_byte_timeout",
        modes="s",
        seconds=6,
    ),
]


def _each() -> Iterator[Any]:
    for fault in FAULTS:
        for mode in fault.modes:
            yield pytest.param(fault, mode == "s", id=f"{fault.name}-{'stream' if mode == 's' else 'plain'}")


CASES = list(_each())


@pytest.mark.parametrize(("fault", "streamed"), CASES)
async def test_the_next_candidate_answers(stage: Stage, fault: Fault, streamed: bool) -> None:
    """Every fault before the first byte fails over: a whole answer, one try on each, and headers that tell."""
    await fault.apply(stage.a)
    started = time.monotonic()
    got = await stage.chat("router/ab", streamed)
    assert got.status == 200, got.raw
    assert got.ended == "whole"
    assert got.text == "Hello from upstream"
    assert got.finishes == (["stop"] if streamed else []) or not streamed
    assert got.done or not streamed
    assert not got.errors
    assert stage.b.count == 1
    assert stage.a.count <= max(1, fault.asked)
    assert got.header("x-router-model") == "b/m2"
    assert got.header("x-router-provider") == "b"
    assert got.header("x-router-attempts") == "2"
    assert time.monotonic() - started < fault.seconds


@pytest.mark.parametrize(("fault", "streamed"), CASES)
async def test_the_only_candidate_is_a_clear_error(stage: Stage, fault: Fault, streamed: bool) -> None:
    """With nobody left the answer is one OpenAI-shaped error with the attempt's kind, no address, no page."""
    await fault.apply(stage.a)
    got = await stage.chat("router/only", streamed)
    if fault.name in ("empty_stop", "empty_completion", "null_completion"):
        assert got.status == 200, "a well-formed empty answer is passed on as it came when nobody is left"
        return
    assert got.status == (429 if fault.name == "status_429" else 503), got.raw
    assert "application/json" in (got.header("content-type") or "")
    assert got.body.endswith(b"\n")
    problem = got.error
    assert set(problem) >= {"message", "type", "param", "code", "attempts"}
    assert problem["code"] == ("rate_limit_exceeded" if fault.name == "status_429" else "all_candidates_failed")
    (attempt,) = problem["attempts"]
    assert set(attempt) >= {"model", "kind", "status", "ms"}
    assert attempt["model"] == "a/m1"
    assert attempt["kind"] in fault.kinds, attempt
    if fault.name.startswith("status_"):
        assert str(attempt["status"]) in fault.name
    assert got.header("retry-after") is not None
    for secret in (str(stage.a.port), "127.0.0.1", "Traceback", "<html", "sk-test"):
        assert secret not in got.body.decode()
    assert got.header("x-request-id")
    assert got.header("x-router-attempts") == "1"


@pytest.mark.parametrize("streamed", [True, False])
async def test_all_hang_is_one_error_in_time(stage: Stage, streamed: bool) -> None:
    """When the whole chain is silent the client gets one error within chain length times the first-byte clock."""
    for upstream in (stage.a, stage.b, stage.c):
        upstream.script = _hang
    started = time.monotonic()
    got = await stage.chat("router/abc", streamed)
    assert got.status == 503
    assert [attempt["model"] for attempt in got.error["attempts"]] == ["a/m1", "b/m2", "c/m3"]
    assert 2.5 < time.monotonic() - started < 6


async def test_each_model_is_tried_once_in_order(stage: Stage) -> None:
    """A failing chain is walked in its order and no model is asked twice."""
    for upstream in (stage.a, stage.b, stage.c):
        upstream.script = reply(500, error("no"))
    got = await stage.chat("router/abc")
    assert got.status == 503
    assert [upstream.count for upstream in (stage.a, stage.b, stage.c)] == [1, 1, 1]
    assert [upstream.last.request.json()["model"] for upstream in (stage.a, stage.b, stage.c)] == ["m1", "m2", "m3"]


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_stale_connection_is_invisible(stage: Stage, how: Any) -> None:
    """A reused connection that dies before the first byte is replaced once, same model, circuit untouched."""

    async def dies_when_reused(exchange: Exchange) -> None:
        if any(other.connection is exchange.connection for other in stage.a.exchanges[:-1]):
            await raw(b"", how)(exchange)
        else:
            await healthy(exchange)

    stage.a.script = dies_when_reused
    for _ in range(4):
        got = await stage.chat("router/ab")
        assert got.text == "Hello from upstream"
        assert got.header("x-router-model") == "a/m1"
    assert stage.b.count == 0
    circuits = (await stage.router.ask("GET", "/circuit-breaker")).json()
    assert "a/m1" not in str(circuits.get("open_circuits", ""))


async def test_a_fresh_connection_that_dies_is_not_repeated(stage: Stage) -> None:
    """Only a reused connection earns the second try: a model is asked once on a connection of its own."""
    stage.a.script = raw(b"", "reset")
    await stage.chat("router/ab")
    assert stage.a.count == 1


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
    ],
    ids=["103", "100", "102x3"],
)
async def test_interim_answers_are_skipped(stage: Stage, interim: bytes) -> None:
    """1xx answers before the real one are no answers."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(interim)
        await stream(answer("fine"))(exchange)

    stage.a.script = script
    got = await stage.chat("router/ab")
    assert (got.status, got.text, got.header("x-router-model")) == (200, "fine", "a/m1")


async def test_a_large_header_is_survived(stage: Stage) -> None:
    """60 KB of provider headers are no fault, and they do not reach the client."""
    stage.a.script = stream(answer("fine"), headers={"X-Large": "v" * 30_000, "X-Larger": "w" * 30_000})
    got = await stage.chat("router/ab")
    assert (got.text, stage.b.count) == ("fine", 0)
    assert got.header("x-large") is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["relative", "absolute"])
async def test_redirects_are_never_followed(stage: Stage, status: int, target: str) -> None:
    """A redirect is a failed attempt: neither prompt nor key is sent to where it points."""
    location = "/v1/chat/completions" if target == "relative" else f"http://127.0.0.1:{stage.c.port}/v1/steal"
    stage.a.script = reply(status, b"", {"Location": location})
    got = await stage.chat("router/ab")
    assert got.header("x-router-model") == "b/m2"
    assert (stage.a.count, stage.c.count) == (1, 0)


async def test_the_total_clock_is_shared(own: Callable[..., Awaitable[Stage]]) -> None:
    """One slow candidate cannot eat the chain: what is left of the total is shared over those still to come."""
    stage = await own(env={"ROUTER_TOTAL_TIMEOUT": "3", "ROUTER_FIRST_BYTE_TIMEOUT": "30"})
    stage.a.script = stage.b.script = _hang
    got = await stage.chat("router/abc")
    assert got.text == "Hello from upstream"
    assert got.header("x-router-model") == "c/m3"
    stage.c.script = _hang
    started = time.monotonic()
    got = await stage.chat("router/abc")
    assert got.status == 503
    assert 2.0 < time.monotonic() - started < 10  # the first-byte clock is 30 s


async def test_connect_clock(own: Callable[..., Awaitable[Stage]]) -> None:
    """An address that never answers the handshake costs the connect clock, then the next candidate is asked."""
    stage = await own(env={"ROUTER_CONNECT_TIMEOUT": "0.5", "ROUTER_FIRST_BYTE_TIMEOUT": "10"})
    await stage.a.stop()
    with socket.socket() as full:  # a full accept queue drops the handshake
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind(("127.0.0.1", stage.a.port))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", stage.a.port))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        got = await stage.chat("router/ab")
        for filler in fillers:
            filler.close()
    assert got.header("x-router-model") == "b/m2"
    assert time.monotonic() - started < 4  # 5 s where the variable is not heeded
