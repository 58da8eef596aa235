"""The bytes of a whole answer: exactly what the provider sent, at once, whatever its framing and cuts."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import sse
from tests.support.chunks import DONE, answer, chunk, completion, event, finish, role, text, tool_call, usage
from tests.support.client import Connection, Ears, chat_body, request_bytes
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, healthy, reply, stream
from tests.support.waiting import PATIENCE, until

Own = Callable[..., Awaitable[Stage]]

RICH = [
    b": leading comment\n\n",
    role(),
    text("Grüße, 世界 🌍 "),
    event(chunk({"content": "line\u2028separator\u0085next"})),
    b'data: {"choices":[{"index":0,\ndata: "delta":{"content":"two lines"},"finish_reason":null}]}\n\n',
    b": OPENROUTER PROCESSING\n\n",
    b'event: message\nid: 7\nretry: 1000\ndata:{"choices":[{"index":0,"delta":{"content":"!"}}]}\n\n',
    event(chunk({"content": "y"}, index=1)),
    event(chunk({"content": "z"}), ending=b"\n") + b"\n\n",
    b"data: {this is no json}\n\n",
    b"unknown-field: whatever\n\n",
    *tool_call(),
    event({"choices": [], "obfuscation": "aaaaaa", "x_unknown": {"deep": [1, 2.50, None, 1e400]}}),
    finish("tool_calls"),
    usage(cost=0.000123),
    DONE,
]
BODIES = {
    "lf": b"".join(RICH),
    "crlf": b"".join(RICH).replace(b"\n", b"\r\n"),
    "cr": b"".join(RICH).replace(b"\n", b"\r"),
    "mixed": b"".join(
        part.replace(b"\n", ending) for part, ending in zip(RICH, (b"\n", b"\r\n", b"\r") * 9, strict=False)
    ),
    "bom": b"\xef\xbb\xbf" + b"".join(RICH[1:]),
    "simple": b"".join(answer("Hello", " world")),
    "without_space": b"".join(answer("Hello", " world")).replace(b"data: ", b"data:"),
    "long": b"".join(answer(*(f"word{number} " for number in range(500)))),
}


def digest(body: bytes) -> str:
    """A short hash: a difference in megabytes must not become a page of output."""
    return f"{len(body)}:{hashlib.sha256(body).hexdigest()}"


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 13, 61, 257, 1021, 4093, 16381, None])
@pytest.mark.parametrize("body", BODIES)
async def test_bytes_pass_exactly(stage: Stage, body: str, cut: int | None) -> None:
    """The client's bytes are the provider's bytes, wherever the reads were cut."""
    wanted = BODIES[body]
    if cut is not None and len(wanted) // cut > 4000:
        wanted = b"".join(answer(*"abcdef"))
    stage.a.script = stream(wanted, cut=cut)
    got = await stage.chat("router/ab", patience=30)
    assert (got.status, got.ended) == (200, "whole")
    assert digest(got.body) == digest(wanted)
    assert stage.b.count == 0


@pytest.mark.parametrize("body", ["simple", "crlf", "bom"])
async def test_a_cut_at_every_byte(stage: Stage, body: str) -> None:
    """Two reads that meet at any byte give the same bytes."""
    wanted = BODIES[body] if body == "simple" else BODIES[body][:900]
    whole = wanted if body == "simple" else wanted[: max(wanted.rfind(b"\n\n"), wanted.rfind(b"\r\n\r\n") + 2) + 2]
    whole = whole if whole.endswith(DONE) else whole + finish() + DONE

    async def script(exchange: Exchange) -> None:
        at = exchange.request.json()["at"]
        await exchange.head()
        await exchange.body(whole[:at])
        await asyncio.sleep(0.004)
        await exchange.body(whole[at:])
        await exchange.finish()

    stage.a.script = script
    gate = asyncio.Semaphore(16)

    async def one(at: int) -> None:
        async with gate:
            got = await stage.chat("router/ab", at=at)
        assert (at, digest(got.body)) == (at, digest(whole))

    await asyncio.gather(*(one(at) for at in range(1, len(whole))))
    assert stage.b.count == 0


@pytest.mark.parametrize("encoding", [None, "gzip"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close", "http10"])
async def test_framing_is_ours(stage: Stage, framing: Any, encoding: str | None) -> None:
    """Chunked, counted, close-delimited, HTTP/1.0, gzip: the same bytes reach the client in our framing."""
    if encoding and framing == "length":
        framing = "chunked"
    events = answer("Hello", " world")
    stage.a.script = stream(events, framing=framing, encoding=encoding, gap=0.01)
    got = await stage.chat("router/ab")
    assert (got.ended, got.body) == ("whole", b"".join(events))
    assert got.header("content-encoding") is None
    assert got.header("content-length") is None
    assert got.header("transfer-encoding") == "chunked"


async def test_stream_headers(stage: Stage) -> None:
    """A stream's headers keep proxies from buffering and say what happened."""
    got = await stage.chat("router/ab")
    assert (got.header("content-type") or "").replace(" ", "") == "text/event-stream;charset=utf-8"
    assert "no-cache" in (got.header("cache-control") or "")
    assert got.header("x-accel-buffering") == "no"
    wanted = {
        "x-router-category": "ab",
        "x-router-model": "a/m1",
        "x-router-provider": "a",
        "x-router-attempts": "1",
    }
    assert {name: got.header(name) for name in wanted} == wanted
    assert got.header("x-router-mode")
    assert got.header("x-request-id")


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_request_id_is_the_clients_own_if_sane(stage: Stage, streamed: bool) -> None:
    """A sane `x-request-id` is kept, anything else is replaced."""
    for name in ("abc-123_X.z", "0b9fa2f2-5d8c-4d2e-9a57-1d8f1f0a8e11"):
        got = await stage.chat("router/ab", streamed, headers={"x-request-id": name})
        assert got.header("x-request-id") == name
    for name in ("a b", "x" * 5000, "<script>", "é", '"', "", "../../etc/passwd", "a;b", "%0d%0a"):
        got = await stage.chat("router/ab", streamed, headers={"x-request-id": name})
        assert got.status == 200
        assert got.header("x-request-id") not in (name, None, "")


@pytest.mark.parametrize("megabytes", [1, 5, 15])
async def test_a_large_event_passes(stage: Stage, megabytes: int) -> None:
    """One event of many megabytes arrives whole."""
    events = [role(), text("x" * (megabytes << 20)), finish(), DONE]
    stage.a.script = stream(events)
    got = await stage.chat("router/ab", patience=30)
    assert digest(got.body) == digest(b"".join(events))


async def test_every_event_leaves_at_once(stage: Stage) -> None:
    """No timer, no gathering: the provider says no further word before the client has got the last one."""
    spent: list[float] = []
    words = [f"{number} " for number in range(50)]
    ears = Ears()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for word in map(text, words):
            began = time.monotonic()
            await exchange.body(word)
            await ears.heard(word)
            spent.append(time.monotonic() - began)
        await exchange.body(finish() + DONE)
        await exchange.finish()

    stage.a.script = script
    assert (await stage.chat("router/ab", until=ears)).text == "".join(words)
    assert min(spent) < 0.03, spent


async def test_only_whole_events_leave(stage: Stage) -> None:
    """A read that ends inside an event goes out up to its last blank line; the rest follows with its end."""
    first, second = text("one"), text("two")
    ears = Ears()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(first + second[:10])
        await ears.heard(first)
        await asyncio.sleep(0.1)  # for what must not come
        await exchange.body(second[10:] + finish() + DONE)
        await exchange.finish()

    stage.a.script = script
    got = await stage.chat("router/ab", until=ears)
    seen = b""
    for _, piece in got.pieces:
        seen += piece
        assert sse.unfinished(seen) == b""
    assert got.pieces[0][1] == first
    assert got.body == first + second + finish() + DONE


async def test_many_streams_do_not_mix(stage: Stage) -> None:
    """Forty streams at once: every client gets its own words in its own order."""

    async def script(exchange: Exchange) -> None:
        name = exchange.request.json()["messages"][0]["content"]
        await stream(answer(*(f"{name}:{number} " for number in range(25))), gap=0.01)(exchange)

    stage.a.script = script
    names = [f"client{number}" for number in range(40)]
    got = await asyncio.gather(*(stage.chat("router/ab", content=name) for name in names))
    for name, one in zip(names, got, strict=True):
        assert one.text == "".join(f"{name}:{number} " for number in range(25))
        assert one.done


@pytest.mark.parametrize("framing", ["chunked", "length", "close", "http10"])
@pytest.mark.parametrize("with_usage", [True, False])
async def test_a_missing_done_is_added(stage: Stage, framing: Any, with_usage: bool) -> None:
    """After a finish_reason and a clean end `data: [DONE]` is appended, the only bytes ever added."""
    events = [*answer("Hello", done=False), *([usage()] if with_usage else [])]
    stage.a.script = stream(events, framing=framing)
    got = await stage.chat("router/ab")
    assert (got.ended, got.body) == ("whole", b"".join(events) + DONE)


@pytest.mark.parametrize(
    "tail",
    [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n", b"data: [DONE]\r"],
    ids=["bare", "one_newline", "crlf", "cr"],
)
async def test_an_unended_done_is_ended(stage: Stage, tail: bytes) -> None:
    """A last `[DONE]` without its blank line still reaches a strict reader, once."""
    stage.a.script = stream(b"".join(answer("Hello", done=False)) + tail)
    got = await stage.chat("router/ab")
    assert got.ended == "whole"
    assert [item.data for item in got.events].count("[DONE]") == 1
    assert (got.text, got.errors) == ("Hello", [])


async def test_an_unended_finish_is_ended(stage: Stage) -> None:
    """A last event without its blank line is not lost: strict readers would drop it."""
    stage.a.script = stream(b"".join(answer("Hello", done=False)).removesuffix(b"\n"))
    got = await stage.chat("router/ab")
    assert (got.finishes, got.done, got.errors) == (["stop"], True, [])


@pytest.mark.parametrize("more", [b"", b": tail\n\n" + text("late")], ids=["silent", "talking"])
async def test_done_ends_the_answer(own: Own, more: bytes) -> None:
    """`[DONE]` ends the answer at once even if the upstream stays open, and the upstream is let go."""
    stage = await own(env={"ROUTER_IDLE_TIMEOUT": "60"})
    events = answer("Hello")

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(b"".join(events))
        if more:
            await asyncio.sleep(0.1)
            await exchange.body(more)
        await exchange.hang()

    stage.a.script = script
    got = await stage.chat("router/ab", patience=PATIENCE)
    assert (got.ended, got.body) == ("whole", b"".join(events))
    await until(lambda: stage.a.last.closed_at is not None)


async def test_the_connection_serves_again(stage: Stage) -> None:
    """Streams and plain answers follow one another on one client connection."""
    connection = await Connection.open(stage.router.port)
    for number in range(6):
        await connection.send(request_bytes(body=chat_body("router/ab", number % 2 == 0)))
        got = await connection.answer()
        assert (got.status, got.text) == (200, "Hello from upstream")
    connection.close()


@pytest.mark.parametrize("streamed", [True, False, None])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
async def test_both_paths_answer(stage: Stage, path: str, streamed: bool | None) -> None:
    """The path with and without /v1, streamed and not; no `stream` field means not streamed."""
    stage.a.script = healthy
    got = await stage.chat("router/ab", streamed, path=path)
    assert (got.status, got.text) == (200, "Hello from upstream")
    kind = "text/event-stream" if streamed else "application/json"
    assert (got.header("content-type") or "").startswith(kind)


async def test_a_plain_answer_passes_exactly(stage: Stage) -> None:
    """A whole JSON completion is not re-encoded: unknown fields, number forms and spacing survive."""
    body = json.dumps(completion("Hi") | {"x_unknown": [1.0, 1e22, {"a": None}], "service_tier": "flex"}, indent=3)
    body = body.replace('"x_unknown"', '"big": 123456789012345678901234567890, "x_unknown"')
    stage.a.script = reply(200, body)
    got = await stage.chat("router/ab", False)
    assert got.body.rstrip(b"\n") == body.encode()


@pytest.mark.parametrize("blank", ["", "\n", "\n\n"])
@pytest.mark.parametrize("label", ["text/event-stream", "text/plain; charset=utf-8", "application/octet-stream"])
async def test_a_whole_completion_becomes_one_stream_whatever_it_is_called(
    stage: Stage, label: str, blank: str
) -> None:
    """A JSON completion in answer to `stream: true` is an answer also where its Content-Type says otherwise."""
    stage.a.script = reply(200, json.dumps(completion("Hello there"), indent=1) + blank, content_type=label)
    got = await stage.chat("router/ab")
    assert (got.status, got.ended, got.done, stage.b.count) == (200, "whole", True, 0)
    assert (got.text, got.finishes) == ("Hello there", ["stop"])


async def test_an_error_that_is_called_a_stream_is_an_error(stage: Stage) -> None:
    """A 200 whose body is an error object is told apart from an empty answer, though it claims to be a stream."""
    body = '{"error": {"message": "the tokenizer is on fire", "code": 500}}'
    stage.a.script = stage.b.script = reply(200, body, content_type="text/event-stream")
    got = await stage.chat("router/ab")
    assert (got.status, stage.a.count, stage.b.count) == (503, 1, 1)
    assert [attempt["kind"] for attempt in got.json()["error"]["attempts"]] == ["upstream_error", "upstream_error"]


@pytest.mark.parametrize("kind", ["text", "tools", "reasoning", "length", "two"])
async def test_a_whole_completion_becomes_one_stream(stage: Stage, kind: str) -> None:
    """A JSON completion in answer to `stream: true` reaches the client as one whole stream."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    body = completion("Hello there")
    choice = body["choices"][0]
    if kind == "tools":
        choice["message"] |= {"content": None, "tool_calls": [call, call | {"id": "call_2"}]}
        choice["finish_reason"] = "tool_calls"
    elif kind == "reasoning":
        choice["message"]["reasoning_content"] = "let me think"
    elif kind == "length":
        choice["finish_reason"] = "length"
    elif kind == "two":
        body["choices"].append({"index": 1, "message": {"role": "assistant", "content": "B"}, "finish_reason": "stop"})
    stage.a.script = reply(200, body)
    got = await stage.chat("router/ab", stream_options={"include_usage": True})
    assert (got.header("content-type") or "").startswith("text/event-stream")
    assert (got.ended, got.done, stage.b.count) == ("whole", True, 0)
    assert all(item["object"] == "chat.completion.chunk" for item in got.chunks)
    assert len({item["id"] for item in got.chunks}) == 1
    deltas = [choice for item in got.chunks for choice in item["choices"]]
    if kind == "tools":
        calls = [call for choice in deltas for call in choice["delta"].get("tool_calls") or []]
        assert [(call["index"], call["id"], call["function"]["arguments"]) for call in calls] == [
            (0, "call_1", '{"a": 1}'),
            (1, "call_2", '{"a": 1}'),
        ]
    else:
        first = "".join(c["delta"].get("content") or "" for c in deltas if c["index"] == 0)
        assert first == "Hello there"
    if kind == "reasoning":
        assert "let me think" in "".join(c["delta"].get("reasoning_content") or "" for c in deltas)
    wanted = {"tools": ["tool_calls"], "length": ["length"], "two": ["stop", "stop"]}.get(kind, ["stop"])
    assert got.finishes == wanted


async def test_events_in_answer_to_a_plain_request(stage: Stage) -> None:
    """A provider that streams to a client that did not ask for it: the client still gets JSON, from whomever."""
    stage.a.script = stream(answer("from a"))
    got = await stage.chat("router/ab", False)
    assert got.status == 200
    assert got.json()["choices"][0]["message"]["content"] in ("from a", "Hello from upstream")


async def test_one_broken_event_does_not_kill_a_stream(stage: Stage) -> None:
    """An event that is no JSON in a good stream is passed on and the stream finishes."""
    events = [role(), text("a"), b"data: {broken\n\n", text("b"), finish(), DONE]
    stage.a.script = stream(events)
    got = await stage.chat("router/ab")
    assert got.body == b"".join(events)


_HALF = rb'"content":"Hi \ud83d"'
_RAW_BYTES = b'"content":"Hi \xf0\x9f"'


@pytest.mark.parametrize("cut_text", [_HALF, _RAW_BYTES], ids=["half", "bytes"])
@pytest.mark.parametrize("more", [[finish("length"), DONE], []], ids=["two events", "one event"])
async def test_an_answer_that_was_cut_inside_a_character(stage: Stage, cut_text: bytes, more: list[bytes]) -> None:
    """Every client reads half of an emoji: it is an answer, passes as it came, and ends as it ended."""
    said = event(chunk({"content": "?"}, None if more else "length")).replace(b'"content":"?"', cut_text)
    stage.a.script = stream([said, *more])
    got = await stage.chat("router/ab")
    assert got.body == b"".join([said, *(more or [DONE])])
    assert stage.b.count == 0
    record = await stage.record(got)
    assert (record["outcome"], record["finish_reason"]) == ("completed", "length")
    assert record["counted_output"] >= 2


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_whole_answer_that_was_cut_inside_a_character(stage: Stage, streamed: bool) -> None:
    """The same in one piece; as a stream it holds a character that stands for the half."""
    body = json.dumps(completion("?", "length")).encode().replace(b'"content": "?"', _HALF)
    stage.a.script = reply(200, body)
    got = await stage.chat("router/ab", streamed)
    assert (got.text == "Hi \ufffd") if streamed else (got.body == body)
    assert stage.b.count == 0


RECORDED = sorted((Path(__file__).parents[1] / "support" / "data" / "sse").glob("llama_*/stream*.txt"))


def recorded_body(recording: Path) -> bytes:
    """The events of a recording: without the head before them and the timings behind them."""
    events = recording.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")[2]
    return events.rpartition(b"\n\n")[0].rstrip(b"\n") + b"\n\n"


@pytest.mark.parametrize("recording", RECORDED, ids=lambda path: f"{path.parent.name}-{path.stem}")
async def test_recorded_streams_of_a_real_server(stage: Stage, recording: Path) -> None:
    """Bytes that a real llama.cpp server sent come out unchanged."""
    body = recorded_body(recording)
    stage.a.script = stream(body, cut=97)
    got = await stage.chat("router/ab")
    assert digest(got.body) == digest(body)
