"""Faults after the commit point: the words so far, one error event, a clean end, and nothing invented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import sse
from tests.support.chunks import DONE, answer, error_event, event, finish, role, text
from tests.support.client import Answer
from tests.support.fixtures import Stage
from tests.support.router import KEYS
from tests.support.upstream import Exchange, Framing, Script, stream

WORDS = "the quick brown fox jumps over the lazy dog "
SOME = [role(), *(text(f"{word} ") for word in WORDS.split())]


def assert_cut(got: Answer, *codes: str) -> None:
    """One error event at the very end, a whole body, no invented end of the answer."""
    assert got.status == 200
    assert got.ended == "whole", "the client's body must end cleanly"
    assert not got.done
    assert got.finishes == []
    assert set(got.error) >= {"message", "type", "param", "code"}
    assert got.error["code"] in codes, got.error
    assert json.loads(got.events[-1].data) == {"error": got.error}
    assert sse.unfinished(got.body) == b""
    for secret in ("127.0.0.1", "Traceback", "sk-test"):
        assert secret not in got.body.decode("utf-8", "replace")


@dataclass(frozen=True)
class Cut:
    """How a stream breaks after its words, and the codes that tell it."""

    name: str
    script: Script
    codes: tuple[str, ...]


def _short_length() -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.head(framing="length", length=100_000)
        await exchange.send(b"".join(SOME))
        exchange.close()

    return script


def _corrupt_gzip() -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.head(encoding="gzip")
        for piece in SOME:
            await exchange.body(piece)
        await asyncio.sleep(0.1)  # together with the words it would be a failed attempt before the commit point
        await exchange.send(b"20\r\n" + b"\xff" * 32 + b"\r\n0\r\n\r\n")

    return script


def _cut_gzip() -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.head(encoding="gzip")
        for piece in SOME:
            await exchange.body(piece)
        await exchange.send(b"0\r\n\r\n")

    return script


def _half_event(end: Any, framing: Framing = "chunked") -> Script:
    return stream([*SOME, b'data: {"choices":[{"index":0,"delta":{"content":"lo'], end=end, framing=framing)


TRUNCATED = ("upstream_truncated",)
BROKEN = ("upstream_truncated", "upstream_error")
IDLE = ("upstream_idle_timeout",)
# As Google's servers write it into a stream of any shape: over several lines, without a field name.
BARE_ERROR = json.dumps(
    [{"error": {"code": 503, "message": f"provider exploded, key {KEYS['a']}", "status": "UNAVAILABLE"}}], indent=2
).encode()
NAMED_ERROR = f"event: error\ndata: provider exploded, key {KEYS['a']}\n\n".encode()
CUTS = [
    Cut("fin", stream(SOME, end="fin"), TRUNCATED),
    Cut("reset", stream(SOME, end="reset"), TRUNCATED),
    Cut("half_chunk", stream(SOME, end="half_chunk"), TRUNCATED),
    Cut("bad_chunk", stream(SOME, end="bad_chunk"), BROKEN),
    Cut("garbage", stream(SOME, end="garbage"), BROKEN),
    Cut("clean_end_without_finish", stream(SOME), TRUNCATED),
    Cut("close_without_finish", stream(SOME, framing="close"), TRUNCATED),
    Cut("http10_without_finish", stream(SOME, framing="http10"), TRUNCATED),
    Cut("done_without_finish", stream([*SOME, DONE]), TRUNCATED),
    Cut("short_length", _short_length(), TRUNCATED),
    Cut("corrupt_gzip", _corrupt_gzip(), BROKEN),
    Cut("cut_gzip", _cut_gzip(), BROKEN),
    Cut("half_event_fin", _half_event("fin"), TRUNCATED),
    Cut("half_event_reset", _half_event("reset"), TRUNCATED),
    Cut("half_event_clean", _half_event("finish"), TRUNCATED),
    Cut("half_event_close", _half_event("finish", "close"), TRUNCATED),
    Cut("half_event_silence", _half_event("hang"), IDLE),
    Cut("silence", stream(SOME, end="hang"), IDLE),
    Cut("error_event", stream([*SOME, error_event("provider exploded")]), ("upstream_error",)),
    Cut("error_event_open", stream([*SOME, error_event("provider exploded")], end="hang"), ("upstream_error",)),
    Cut("error_then_done", stream([*SOME, error_event("provider exploded"), DONE]), ("upstream_error",)),
    Cut(
        "error_with_finish",
        stream(
            [
                *SOME,
                event(
                    {
                        "id": "x",
                        "error": {"code": 502, "message": "provider exploded"},
                        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
                    }
                ),
            ]
        ),
        ("upstream_error",),
    ),
    Cut("error_unended", stream([*SOME, error_event("provider exploded").rstrip()]), ("upstream_error",)),
    Cut("error_in_words", stream([*SOME, NAMED_ERROR]), ("upstream_error",)),
    Cut("bare_error", stream([*SOME, BARE_ERROR + b"\r\n\r\n"]), ("upstream_error",)),
    Cut("bare_error_unended", stream([*SOME, BARE_ERROR]), ("upstream_error",)),
    Cut(
        "vllm_error",
        stream([*SOME, event({"object": "error", "message": "provider exploded", "code": 500})]),
        ("upstream_error",),
    ),
]


# A `[DONE]` without any finish_reason is judged in a test of its own.
@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut.name != "done_without_finish"], ids=lambda cut: cut.name)
async def test_a_cut_answer_never_looks_complete(stage: Stage, cut: Cut) -> None:
    """After the commit point every break yields the words so far, one error event and a clean end; no second model."""
    stage.a.script = cut.script
    got = await stage.chat("router/ab")
    assert_cut(got, *cut.codes)
    if cut.name == "corrupt_gzip":  # what stands in the same block as the damage may be lost with it
        assert got.text
        assert WORDS.startswith(got.text)
    else:
        assert got.text == WORDS
        assert got.body.startswith(b"".join(SOME))
    assert stage.b.count == 0
    if cut.codes == ("upstream_error",):
        assert "provider exploded" in got.error["message"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (stream(SOME), "ended without a finish_reason"),
        (stream(SOME, end="hang"), "stream timed out"),
        (stream(SOME, end="reset"), "upstream connection closed"),
    ],
    ids=["clean_end", "silence", "reset"],
)
async def test_a_cut_is_told_in_words_that_agents_know(stage: Stage, script: Script, words: str) -> None:
    """Agents that search the message for what they may repeat (pi, OpenCode) find it there: else the turn is lost."""
    stage.a.script = script
    got = await stage.chat("router/ab")
    assert words in got.error["message"]
    assert got.error["type"] == "server_error"


async def test_done_without_a_finish(stage: Stage) -> None:
    """`[DONE]` ends the answer at once, also where the provider never gave a finish_reason: nothing is invented."""
    stage.a.script = stream([*SOME, DONE], end="hang")
    got = await stage.chat("router/ab")
    assert got.ended == "whole"
    assert got.text == WORDS
    assert got.finishes == []


@pytest.mark.parametrize("how", ["reset", "fin"])
async def test_cut_at_every_byte(own: Callable[..., Awaitable[Stage]], how: Any) -> None:
    """A stream that breaks at any byte after the commit gives whole events, then one error event."""
    stage = await own(env={"ROUTER_CIRCUIT_THRESHOLD": "1000000"})
    whole = b"".join([role(), text("alpha "), text("beta "), text("gamma ")])
    first = len(role() + text("alpha "))
    gate = asyncio.Semaphore(12)

    async def script(exchange: Exchange) -> None:
        await stream(whole[: exchange.request.json()["at"]], end=how)(exchange)

    stage.a.script = script

    async def one(at: int) -> None:
        async with gate:
            got = await stage.chat("router/ab", at=at)
        assert_cut(got, *TRUNCATED)
        assert "alpha beta gamma ".startswith(got.text)
        assert got.text.startswith("alpha ")

    await asyncio.gather(*(one(at) for at in range(first, len(whole) + 1)))
    assert stage.b.count == 0


@pytest.mark.parametrize("end", ["reset", "fin", "half_chunk"])
async def test_a_break_between_finish_and_done(stage: Stage, end: Any) -> None:
    """After the finish_reason a break is still no clean end: `[DONE]` is not invented."""
    stage.a.script = stream(answer("Hello", done=False), end=end)
    got = await stage.chat("router/ab")
    assert got.ended == "whole"
    assert (got.done, len(got.errors)) in ((False, 1), (True, 0))
    if end != "fin":
        assert not got.done


@pytest.mark.parametrize("seconds", [1.6])
async def test_a_drip_is_no_fault(stage: Stage, seconds: float) -> None:
    """One byte at a time for longer than the idle clock is no silence."""
    events = answer("Hello")
    slow = text("drip")[:8]

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(events[0] + events[1])
        for at in range(8):
            await exchange.body(slow[at : at + 1])
            await asyncio.sleep(seconds / 8)
        await exchange.body(text("drip")[8:] + b"".join(events[2:]))
        await exchange.finish()

    stage.a.script = script
    got = await stage.chat("router/ab")
    assert got.body == events[0] + events[1] + text("drip") + b"".join(events[2:])


async def test_comments_keep_a_committed_stream_alive(stage: Stage) -> None:
    """Comments after the commit are bytes: the idle clock starts anew and they reach the client as they come."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(text("a"))
        for _ in range(5):
            await asyncio.sleep(0.4)
            await exchange.body(b": still here\n\n")
        await exchange.body(finish() + DONE)
        await exchange.finish()

    stage.a.script = script
    got = await stage.chat("router/ab")
    assert got.body == text("a") + b": still here\n\n" * 5 + finish() + DONE


SECRETS = [
    KEYS["a"],
    "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD",
    "sk-or-v1-0123456789abcdef0123456789abcdef0123456789abcdef",
    "sk-ant-api03-abcdefghijklmnopqrstuvwxyz-0123456789",
    "AIzaSyA1234567890abcdefghijklmnopqrstuvw",
    "Bearer abcdef0123456789abcdef0123456789",
    "https://user:hunter2secret@proxy.example/v1",
]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:10])
@pytest.mark.parametrize("place", ["message", "deep"])
async def test_secrets_in_error_events_are_masked(stage: Stage, secret: str, place: str) -> None:
    """An error event keeps the provider's words and loses the keys in them."""
    if place == "message":
        payload = error_event(f"Incorrect API key provided: {secret}. You can find your key at example")
    else:
        payload = error_event("Incorrect API key provided", metadata={"raw": f"key={secret}", "list": [secret]})
    stage.a.script = stream([*SOME, payload])
    got = await stage.chat("router/ab")
    needle = {"Bearer": secret.removeprefix("Bearer "), "https:": "hunter2secret"}.get(secret[:6], secret)
    assert needle not in got.body.decode()
    assert "Incorrect API key provided" in got.error["message"]


async def test_an_error_event_split_over_reads_is_still_masked(stage: Stage) -> None:
    """Masking does not depend on where the reads were cut."""
    payload = b"".join([*SOME, error_event(f"key {KEYS['a']} is wrong")])
    stage.a.script = stream(payload, cut=5)
    got = await stage.chat("router/ab")
    assert KEYS["a"] not in got.body.decode()
    assert "is wrong" in got.error["message"]


async def test_the_word_error_is_no_error(stage: Stage) -> None:
    """Content that talks about errors, and error fields that are null, pass byte for byte."""
    events = [
        role(),
        text('{"error": {"message": "quoted"}}'),
        text('"error":'),
        event({"error": None, "choices": [{"index": 0, "delta": {"content": "null"}, "finish_reason": None}]}),
        event({"choices": [{"index": 0, "delta": {"content": "x", "error": "inner"}, "finish_reason": None}]}),
        b": error: comment\n\n",
        finish(),
        DONE,
    ]
    stage.a.script = stream(events)
    got = await stage.chat("router/ab")
    assert got.body == b"".join(events)


async def test_an_endless_event_is_cut(stage: Stage) -> None:
    """An event that passes 16 MiB without its end is a clear error, not a growing buffer."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(b"".join(SOME))
        await exchange.body(b'data: {"choices":[{"index":0,"delta":{"content":"')
        for _ in range(400):
            await exchange.body(b"a" * 65536)
        await exchange.hang()

    stage.a.script = script
    got = await stage.chat("router/ab")
    assert_cut(got, "upstream_error", "upstream_truncated", "response_too_large")
    assert len(got.body) < 1 << 20


async def test_a_cut_in_a_plain_answer_fails_over(stage: Stage) -> None:
    """A plain answer is not committed before it is whole: a cut in its middle is invisible."""
    stage.a.script = stream(
        b'{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"half', end="reset"
    )
    got = await stage.chat("router/ab", False)
    assert (got.status, got.text) == (200, "Hello from upstream")


async def test_cuts_count(stage: Stage) -> None:
    """Three cuts in a row open the circuit: the fourth request goes to the next model."""
    stage.a.script = stream(SOME, end="reset")
    for _ in range(3):
        assert_cut(await stage.chat("router/ab"), *TRUNCATED)
    await asyncio.sleep(0.1)
    got = await stage.chat("router/ab")
    assert got.header("x-router-model") == "b/m2"
    assert stage.a.count == 3
