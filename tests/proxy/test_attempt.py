"""One attempt at a scripted upstream: what its answer, or the lack of one, is understood as."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from llm_router.config.values import BreakerSettings, Provider
from llm_router.errors import AttemptFailed, FailureKind
from llm_router.proxy.attempt import WonWhole, attempt
from llm_router.proxy.live import Live, Way
from llm_router.proxy.parts import Parts
from llm_router.proxy.upstream import UpstreamClient
from llm_router.routing.breaker import Circuits
from llm_router.wire.chat import ChatRequest, parse_chat
from llm_router.wire.masking import Masker
from llm_router.wire.providers.base import Target
from llm_router.wire.providers.registry import adapter_for
from tests.support.chunks import completion, error
from tests.support.upstream import Exchange, Upstream, hang, reply

LONG = 60.0


class _Live:
    mask = Masker(["sk-secret-key"])


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A scripted upstream."""
    server = await Upstream().start()
    yield server
    await server.stop()


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    """The live parts with a client of their own."""
    client = UpstreamClient()
    yield Parts(client, Circuits(BreakerSettings()), lambda: 0.0, lambda: None)
    await client.close()


def ask(**fields: Any) -> ChatRequest:
    """A chat request."""
    return parse_chat(orjson.dumps({"model": "router", "messages": [{"role": "user", "content": "hi"}], **fields}))


async def tried(parts: Parts, upstream: Upstream, chat: ChatRequest, seconds: float = LONG) -> Any:
    """What an attempt at the upstream gives."""
    provider = Provider("custom", upstream.url, builtin=False)
    way = Way(adapter_for(provider, lambda: 0.0), Target(provider, "m"), LONG, LONG, LONG)
    return await attempt(parts, cast(Live, _Live()), chat, way, seconds)


async def failed(parts: Parts, upstream: Upstream, chat: ChatRequest, seconds: float = LONG) -> Any:
    """The failure of an attempt at the upstream."""
    with pytest.raises(AttemptFailed) as failed:
        await tried(parts, upstream, chat, seconds)
    return failed.value.failure


def stalled(status: int, headers: Mapping[str, str]) -> Any:
    """An answer whose body stops after its first bytes."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(status, headers, "length", "application/json", 100)
        await exchange.body(b'{"error"')
        await exchange.hang()

    return script


async def test_a_refusal_whose_words_stall_is_still_a_refusal(parts: Parts, upstream: Upstream) -> None:
    """Status and Retry-After have come: that the body did not within the attempt's time makes it no silence."""
    upstream.script = stalled(429, {"Retry-After": "7"})
    failure = await failed(parts, upstream, ask(), 0.3)
    assert (failure.kind, failure.status, failure.retry_after) == (FailureKind.RATE_LIMITED, 429, 7)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("script", [hang, stalled(200, {})], ids=["no head", "half a body"])
async def test_silence_is_silence(parts: Parts, upstream: Upstream, script: Any, streamed: bool) -> None:
    """An answer that does not come in time is a timeout, whether its head came or not."""
    upstream.script = script
    failure = await failed(parts, upstream, ask(stream=streamed), 0.3)
    assert (failure.kind, failure.status) == (FailureKind.FIRST_BYTE_TIMEOUT, None)


async def test_words_beside_a_repeated_request_are_found(parts: Parts, upstream: Upstream) -> None:
    """Validators repeat the request that they refuse, which may be an agent's of hundreds of kilobytes."""
    body = orjson.loads(error("maximum context length is 10 tokens", "context_length_exceeded"))
    upstream.script = reply(400, {**body, "input": "x" * 500_000})
    failure = await failed(parts, upstream, ask())
    assert (failure.kind, failure.message) == (FailureKind.CONTEXT_LENGTH, "maximum context length is 10 tokens")


def nested(depth: int) -> Any:
    """Lists inside of lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


async def test_a_deep_answer_becomes_a_stream(parts: Parts, upstream: Upstream) -> None:
    """JSON that is deeper than the quick writer goes is carried by the slow one."""
    message = {"role": "assistant", "content": "Hi", "x": nested(300)}
    upstream.script = reply(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    won = await tried(parts, upstream, ask(stream=True))
    assert isinstance(won, WonWhole)
    assert b"[" * 300 in won.body


async def test_a_request_that_cannot_be_written_is_the_clients_mistake(parts: Parts, upstream: Upstream) -> None:
    """JSON may be read that is too deep to be written anew: 400 for the client, and nobody was asked."""
    chat = ask(max_completion_tokens=5)
    failure = await failed(parts, upstream, replace(chat, body={**chat.body, "x": nested(100_000)}))
    assert (failure.kind, failure.status) == (FailureKind.INVALID_REQUEST, None)
    assert "nested too deeply" in failure.message
    assert upstream.count == 0


async def test_an_answer_that_cannot_be_written_is_none(
    parts: Parts, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for what a provider sent: the next candidate may do better."""
    loads = orjson.loads

    def deepen(data: bytes) -> Any:
        body = loads(data)
        return {**body, "x": nested(100_000)} if "choices" in body else body

    upstream.script = reply(200, completion("Hi"))
    chat = ask(stream=True)
    monkeypatch.setattr("llm_router.wire.providers.openai.orjson.loads", deepen)
    assert (await failed(parts, upstream, chat)).kind is FailureKind.INVALID_RESPONSE


async def test_headers_that_are_passed_on_are_plain_and_short(parts: Parts, upstream: Upstream) -> None:
    """Of the few that a client gets, none is longer than any of them needs to be, and none has a secret in it."""
    headers = {
        "openai-version": "v" * 200,
        "x-generation-id": "v" * 201,
        "x-ratelimit-limit-tokens": "sk-secret-key",
        "x-ratelimit-remaining-tokens": "\u00fcber",
        "x-other": "1",
    }
    upstream.script = reply(200, completion("Hi"), headers)
    assert (await tried(parts, upstream, ask())).allowed == {"openai-version": "v" * 200}


async def test_a_limit_that_is_changed_holds_for_who_comes_then(parts: Parts) -> None:
    """After a reload the places of a provider are as many as its new limit says, those who hold one counted in."""
    provider = Provider("custom", "http://x", builtin=False, max_concurrency=1)
    slot = parts.slot(provider)
    assert slot is not None
    assert parts.slot(provider) is slot
    await slot.acquire()
    assert parts.slot(replace(provider, max_concurrency=2)) is slot
    assert await slot.acquire()
    third = asyncio.ensure_future(slot.acquire())
    await asyncio.sleep(0)
    assert not third.done()
    slot.release()
    assert await third
    assert parts.slot(replace(provider, max_concurrency=None)) is None
