"""The same promises over the native dialects: Anthropic Messages, Gemini and Ollama."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.client import Connection, Ears
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, Script, hang, raw, reply, stream

Own = Callable[..., Awaitable[Stage]]
WORDS = ("Hello ", "from ", "afar")


def _named(*events: dict[str, Any]) -> list[bytes]:
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def _data(*events: dict[str, Any]) -> list[bytes]:
    return [f"data: {json.dumps(event)}\r\n\r\n".encode() for event in events]


def _lines(*events: dict[str, Any]) -> list[bytes]:
    return [json.dumps(event).encode() + b"\n" for event in events]


def _gemini(text: str = "", finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}] if text else []}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8},
        "modelVersion": "g",
    }


def _ollama(text: str = "", done: bool = False) -> dict[str, Any]:
    more = {"done_reason": "stop", "prompt_eval_count": 5, "eval_count": 3} if done else {}
    message = {"role": "assistant", "content": text}
    return {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": done} | more


@dataclass(frozen=True)
class Dialect:
    """A dialect on the wire: the opening, the words, the end, an error in the stream, and whole answers."""

    api: str
    path: str
    opening: Sequence[bytes]
    words: Sequence[bytes]
    end: Sequence[bytes]
    error: bytes
    whole: dict[str, Any]
    empty: Sequence[bytes]
    overloaded: tuple[int, dict[str, Any]]
    content_type: str = "text/event-stream"

    def talk(self, *pieces: bytes, end: Any = "finish", **more: Any) -> Script:
        """A stream of the opening, the words and `pieces`."""
        events = [*self.opening, *self.words, *pieces]
        return stream(events, content_type=self.content_type, end=end, **more)


_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
ANTHROPIC = Dialect(
    api="anthropic-messages",
    path="/messages",
    opening=_named(
        {"type": "message_start", "message": {**_MESSAGE, "usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ),
    words=_named(
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS)
    ),
    end=_named(
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ),
    error=_named({"type": "error", "error": {"type": "overloaded_error", "message": "the far end exploded"}})[0],
    whole={
        **_MESSAGE,
        "content": [{"type": "text", "text": "".join(WORDS)}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 3},
    },
    empty=_named(
        {"type": "message_start", "message": {**_MESSAGE, "usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 0}},
        {"type": "message_stop"},
    ),
    overloaded=(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
)
GOOGLE = Dialect(
    api="google-generative-ai",
    path="/models/m1:",
    opening=(),
    words=_data(*(_gemini(word) for word in WORDS)),
    end=_data(_gemini(finish="STOP")),
    error=_data({"error": {"code": 503, "message": "the far end exploded", "status": "UNAVAILABLE"}})[0],
    whole=_gemini("".join(WORDS), "STOP"),
    empty=_data(_gemini(finish="STOP")),
    overloaded=(503, {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}),
)
OLLAMA = Dialect(
    api="ollama",
    path="/api/chat",
    opening=(),
    words=_lines(*(_ollama(word) for word in WORDS)),
    end=_lines(_ollama(done=True)),
    error=_lines({"error": "the far end exploded"})[0],
    whole=_ollama("".join(WORDS), True),
    empty=_lines(_ollama(done=True)),
    overloaded=(500, {"error": "llama runner process has terminated"}),
    content_type="application/x-ndjson",
)
DIALECTS = {dialect.api: dialect for dialect in (ANTHROPIC, GOOGLE, OLLAMA)}


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """One dialect after the other."""
    return DIALECTS[request.param]


@pytest.fixture
async def far(own: Own, dialect: Dialect) -> Stage:
    """A stage whose upstream `a` speaks `dialect`."""
    stage = await own()
    config = json.loads(stage.router.config_file.read_text())
    base = f"http://127.0.0.1:{stage.a.port}"
    config["providers"]["a"] |= {"api": dialect.api, "base_url": base if dialect.api == "ollama" else f"{base}/v1"}
    stage.router.config_file.write_text(json.dumps(config))
    reloaded = await stage.router.ask("POST", "/config/reload")
    assert reloaded.status == 200, reloaded.raw
    stage.a.script = dialect.talk(*dialect.end)
    return stage


async def test_whole_answers(far: Stage, dialect: Dialect) -> None:
    """A native stream reaches the client as one whole OpenAI-shaped stream, however it was cut; so does plain JSON."""
    for cut in (None, 1, 7, 100):
        far.a.script = dialect.talk(*dialect.end, cut=cut)
        got = await far.chat("router/ab", stream_options={"include_usage": True}, patience=20)
        assert (got.status, got.ended, got.text) == (200, "whole", "".join(WORDS)), cut
        assert (got.finishes, got.done, got.errors) == (["stop"], True, [])
        assert len({chunk["id"] for chunk in got.chunks}) == 1
        assert got.chunks[-1]["usage"]["prompt_tokens"] == 5
        assert got.header("x-router-model") == "a/m1"
    assert dialect.path in far.a.last.request.target
    far.a.script = reply(200, dialect.whole)
    got = await far.chat("router/ab", False)
    assert (got.text, got.json()["choices"][0]["finish_reason"]) == ("".join(WORDS), "stop")
    assert got.json()["object"] == "chat.completion"


async def test_words_come_as_they_are_made(far: Stage, dialect: Dialect) -> None:
    """Translation does not gather: each word is at the client before the next one is sent."""
    ears = Ears()

    async def script(exchange: Exchange) -> None:
        await exchange.head(content_type=dialect.content_type)
        await exchange.body(b"".join(dialect.opening))
        for event, word in zip(dialect.words, WORDS, strict=True):
            await exchange.body(event)
            await ears.heard(word.encode())
        await exchange.body(b"".join(dialect.end))
        await exchange.finish()

    far.a.script = script
    got = await far.chat("router/ab", until=ears)
    assert (got.text, got.done) == ("".join(WORDS), True)


@pytest.mark.parametrize("how", ["fin", "reset", "finish", "hang", "error"])
async def test_cuts(far: Stage, dialect: Dialect, how: Any) -> None:
    """A native stream that breaks off: the words so far, one error event, no finish, no `[DONE]`."""
    far.a.script = dialect.talk(dialect.error) if how == "error" else dialect.talk(end=how)
    got = await far.chat("router/ab")
    assert (got.status, got.ended, got.text) == (200, "whole", "".join(WORDS))
    assert (got.finishes, got.done) == ([], False)
    wanted = {"hang": "upstream_idle_timeout", "error": "upstream_error"}.get(how, "upstream_truncated")
    assert got.error["code"] == wanted
    if how == "error":
        assert "the far end exploded" in got.error["message"]
    assert far.b.count == 0


FAULTS: dict[str, Callable[[Dialect], Script]] = {
    "silent": lambda dialect: hang,
    "reset": lambda dialect: raw(b"", "reset"),
    "opening_then_silence": lambda dialect: stream(dialect.opening, content_type=dialect.content_type, end="hang"),
    "opening_then_end": lambda dialect: stream(dialect.opening, content_type=dialect.content_type),
    "error_first": lambda dialect: stream([*dialect.opening, dialect.error], content_type=dialect.content_type),
    "empty": lambda dialect: stream(dialect.empty, content_type=dialect.content_type),
    "overloaded": lambda dialect: reply(*dialect.overloaded),
    "unauthorized": lambda dialect: reply(401, {"error": {"type": "authentication_error", "message": "bad key"}}),
    "rate_limited": lambda dialect: reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"}),
    "gone": lambda dialect: reply(404, {"error": {"message": "model not found"}}),
    "html": lambda dialect: reply(200, b"<html>", content_type="text/html"),
    "nothing": lambda dialect: reply(200, b""),
    "broken_json": lambda dialect: reply(200, b'{"choices": ['),
    "openai_shaped": lambda dialect: reply(200, b'{"object":"chat.completion"}'),
}


@pytest.mark.parametrize("streamed", [True, False])
async def test_faults_before_the_first_word(far: Stage, dialect: Dialect, streamed: bool) -> None:
    """Every fault before the first word fails over, streamed or not."""
    for name, make in FAULTS.items():
        await far.reset()
        far.a.script = make(dialect)
        got = await far.chat("router/ab", streamed)
        assert (got.status, got.text, got.header("x-router-model")) == (200, "Hello from upstream", "b/m2"), name


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_overflow_inside_a_200_blames_nobody(far: Stage, dialect: Dialect, streamed: bool) -> None:
    """A prompt that is too long moves on to the next window, and the model that said so is asked again next time."""
    far.a.script = reply(200, {"error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}})
    for _ in range(4):
        got = await far.chat("router/ab", streamed)
        assert (got.status, got.header("x-router-model")) == (200, "b/m2")
    assert far.a.count == 4


async def test_a_refused_request_is_the_clients(far: Stage, dialect: Dialect) -> None:
    """A 400 about the request reaches the client in OpenAI's shape with the provider's words."""
    far.a.script = reply(
        400, {"error": {"type": "invalid_request_error", "message": "messages: odd roles", "code": 400}}
    )
    got = await far.chat("router/ab")
    assert (got.status, got.header("x-router-model")) == (400, "a/m1")
    assert "odd roles" in got.error["message"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_leaving(far: Stage, dialect: Dialect, streamed: bool) -> None:
    """A client that leaves closes the native upstream too, before the first word and in the stream."""
    for script, talks in ((hang, False), (dialect.talk(end="hang"), True)):
        if talks and not streamed:
            continue
        far.a.script = script
        number = far.a.count + 1
        connection: Connection = await far.router.open_chat("router/ab", streamed)
        exchange = await far.a.wait_for(number)
        if talks:
            await connection.answer(3, until=lambda got: b"afar" in got.body)
        else:
            await asyncio.sleep(0.1)
        connection.close()
        await asyncio.sleep(0.1)
        await far.turns()
        assert exchange.closed_at is not None


async def test_the_key_travels_in_the_dialects_own_header(far: Stage, dialect: Dialect) -> None:
    """The key is in the header that the dialect wants, never in the address."""
    await far.chat("router/ab")
    request = far.a.last.request
    key = "sk-test-aaaaaaaaaaaaaaaaaaaaaaaa1"
    assert key in str(request.headers)
    assert key not in request.target
    assert key not in request.body.decode()
