"""The real `openai` Python client against the router over scripted upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.chunks import (
    DONE,
    answer,
    completion,
    error,
    error_event,
    event,
    finish,
    role,
    text,
    tool_call,
    usage,
)
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, hang, reply, stream
from tests.support.waiting import until

USER: Any = [{"role": "user", "content": "Say hello"}]
TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]


async def in_thread(stage: Stage, work: Callable[[openai.OpenAI], Any], path: str = "/v1", retries: int = 0) -> Any:
    """Runs `work` with a synchronous client in a thread."""

    def run() -> Any:
        base = f"http://127.0.0.1:{stage.router.port}{path}"
        with openai.OpenAI(api_key="any", base_url=base, max_retries=retries, timeout=10) as client:
            return work(client)

    return await asyncio.to_thread(run)


def asynchronous(stage: Stage, retries: int = 0) -> openai.AsyncOpenAI:
    """An asynchronous client; use it as a context manager."""
    base = f"http://127.0.0.1:{stage.router.port}/v1"
    return openai.AsyncOpenAI(api_key="any", base_url=base, max_retries=retries, timeout=10)


@pytest.mark.parametrize("path", ["/v1", ""])
async def test_plain(stage: Stage, path: str) -> None:
    """A plain completion, with and without /v1 in the base URL, with our headers and request id."""

    def work(client: openai.OpenAI) -> Any:
        got = client.chat.completions.with_raw_response.create(model="router/ab", messages=USER)
        return got.headers, got.parse()

    headers, got = await in_thread(stage, work, path)
    assert got.choices[0].message.content == "Hello from upstream"
    assert got._request_id
    assert headers["x-router-model"] == "a/m1"


async def test_stream(stage: Stage) -> None:
    """A stream chunk by chunk, with usage where it was asked for."""
    stage.a.script = stream([*answer("Hé", "llo 🌍", done=False), usage(), DONE], gap=0.01)

    def work(client: openai.OpenAI) -> list[Any]:
        options: Any = {"include_usage": True}
        return list(
            client.chat.completions.create(model="router/ab", messages=USER, stream=True, stream_options=options)
        )

    chunks = await in_thread(stage, work)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Héllo 🌍"
    assert chunks[-1].usage.total_tokens == 10


async def test_async_stream_comes_as_it_is_made(stage: Stage) -> None:
    """The asynchronous client sees every word when it is sent, not at the end."""
    words, seen = ["one ", "two ", "three "], []

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for number, word in enumerate(words, 1):
            await exchange.body(text(word))
            await until(lambda number=number: len(seen) == number)
        await exchange.body(finish() + DONE)
        await exchange.finish()

    stage.a.script = script
    async with asynchronous(stage) as client:
        async for chunk in await client.chat.completions.create(model="router/ab", messages=USER, stream=True):
            seen.append(chunk.choices[0].delta.content)
    assert seen == [*words, None]


async def test_tool_calls(stage: Stage) -> None:
    """Streamed tool calls merge to what the provider meant; tools lead to the category `tools`."""
    calls = [*tool_call(), *tool_call("second", '{"n": 1}', "call_2")]
    calls[len(tool_call()) :] = [
        item.replace(b'"tool_calls":[{"index":0', b'"tool_calls":[{"index":1') for item in calls[len(tool_call()) :]
    ]
    stage.a.script = stream([role(None), *calls, finish("tool_calls"), DONE])

    def work(client: openai.OpenAI) -> Any:
        with client.chat.completions.stream(model="router", messages=USER, tools=TOOLS) as events:
            for _ in events:
                pass
            return events.get_final_completion()

    got = await in_thread(stage, work)
    first, second = got.choices[0].message.tool_calls
    assert (first.id, first.function.name, json.loads(first.function.arguments)) == (
        "call_1",
        "get_weather",
        {"city": "Oslo"},
    )
    assert (second.id, second.function.arguments) == ("call_2", '{"n": 1}')
    assert got.choices[0].finish_reason == "tool_calls"


async def test_stream_helper(stage: Stage) -> None:
    """The `.stream()` helper finds its finish_reason and the whole text."""

    def work(client: openai.OpenAI) -> Any:
        with client.chat.completions.stream(model="router/ab", messages=USER) as events:
            return [item.type for item in events], events.get_final_completion()

    types, got = await in_thread(stage, work)
    assert got.choices[0].message.content == "Hello from upstream"
    assert types[-1] == "content.done"


class Place(BaseModel):
    """What the parse test asks for."""

    city: str
    size: int


async def test_parse(stage: Stage) -> None:
    """`.parse()` sends a schema that arrives untouched, and reads the answer into its model."""
    stage.a.script = reply(200, completion('{"city": "Oslo", "size": 7}'))

    def work(client: openai.OpenAI) -> Any:
        return client.chat.completions.parse(model="router/ab", messages=USER, response_format=Place)

    got = await in_thread(stage, work)
    assert got.choices[0].message.parsed == Place(city="Oslo", size=7)
    sent = stage.a.last.request.json()["response_format"]
    assert sent["json_schema"]["strict"] is True
    assert sent["json_schema"]["schema"]["required"] == ["city", "size"]


async def test_models(stage: Stage) -> None:
    """`models.list()` reads our list."""
    found = await in_thread(stage, lambda client: [model.id for model in client.models.list()])
    assert "router" in found
    assert "a/m1" in found


@pytest.mark.parametrize("name", ["router", "router/ab", "a/m1"])
async def test_one_model(stage: Stage, name: str) -> None:
    """`models.retrieve()` finds each name that may be asked for, and what is not listed is the SDK's NotFoundError."""
    assert (await in_thread(stage, lambda client: client.models.retrieve(name))).id == name

    def miss(client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError, match="GET /v1/models"):
            client.models.retrieve(name + "-nosuch")

    await in_thread(stage, miss)


@pytest.mark.parametrize("end", ["reset", "fin", "finish", "hang"])
async def test_a_cut_stream_raises(stage: Stage, end: Any) -> None:
    """A provider that breaks off is an APIError for the SDK's user, never a silently short answer."""
    stage.a.script = stream([role(), text("half an ans")], end=end)
    async with asynchronous(stage) as client:
        words = []

        async def read() -> None:
            async for chunk in await client.chat.completions.create(model="router/ab", messages=USER, stream=True):
                words.append(chunk.choices[0].delta.content or "")

        with pytest.raises(openai.APIError) as caught:
            await read()
    assert "".join(words) == "half an ans"
    assert caught.value.code in ("upstream_truncated", "upstream_idle_timeout")


async def test_an_error_event_raises_with_the_providers_words(stage: Stage) -> None:
    """The message of a provider's error event is what the SDK's user sees."""
    stage.a.script = stream([role(), text("a"), error_event("the model caught fire")])
    async with asynchronous(stage) as client:
        with pytest.raises(openai.APIError, match="the model caught fire"):
            async for _ in await client.chat.completions.create(model="router/ab", messages=USER, stream=True):
                pass


@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [(400, openai.BadRequestError, 1), (422, openai.UnprocessableEntityError, 1), (401, openai.InternalServerError, 1)],
)
async def test_errors_and_retries(stage: Stage, status: int, kind: type[openai.APIError], requests: int) -> None:
    """The SDK's own retries: none where a retry cannot help."""
    stage.a.script = reply(status, error("your request is odd"))
    async with asynchronous(stage, retries=2) as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model="a/m1", messages=USER)
    assert stage.a.count == requests
    if status != 401:
        assert "your request is odd" in str(caught.value)
    assert caught.value.body["attempts"][0]["status"] == status  # type: ignore[index]


async def test_rate_limits_are_waited_for(stage: Stage) -> None:
    """A 429 with a short Retry-After is retried by the SDK after that time and succeeds."""
    stage.a.queue = [reply(429, error("slow down"), {"Retry-After": "1"})]
    started = time.monotonic()
    async with asynchronous(stage, retries=2) as client:
        got = await client.chat.completions.create(model="a/m1", messages=USER)
    assert got.choices[0].message.content == "Hello from upstream"
    assert time.monotonic() - started >= 0.9


async def test_unknown_models_and_routes(stage: Stage) -> None:
    """What does not exist is NotFoundError with a readable message, the Responses API included."""
    async with asynchronous(stage) as client:
        with pytest.raises(openai.NotFoundError, match="nosuch"):
            await client.chat.completions.create(model="router/nosuch", messages=USER)
        with pytest.raises(openai.NotFoundError, match="responses"):
            await client.responses.create(model="router", input="x")
        with pytest.raises(openai.NotFoundError, match="embeddings"):
            await client.embeddings.create(model="router", input="x")


async def test_leaving_a_stream_stops_the_provider(stage: Stage) -> None:
    """Closing the SDK's stream closes the upstream."""

    async def endless(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.body(text("x "))
            await asyncio.sleep(0.02)

    stage.a.script = endless
    async with asynchronous(stage) as client:
        got = await client.chat.completions.create(model="router/ab", messages=USER, stream=True)
        async for _ in got:
            break
        await got.close()
        await stage.turns()
        assert stage.a.last.closed_at is not None


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_cancelled_call_stops_the_provider(stage: Stage, streamed: bool) -> None:
    """Cancelling the task that waits for an answer closes the upstream."""
    stage.a.script = hang
    async with asynchronous(stage) as client:
        call: Any = client.chat.completions.create(model="router/only", messages=USER, stream=streamed)
        task = asyncio.ensure_future(call)
        exchange = await stage.a.wait_for(1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await stage.turns()
        assert exchange.closed_at is not None


async def test_failover_is_invisible(stage: Stage) -> None:
    """A broken first provider is not seen by the SDK at all."""
    stage.a.script = stream([role(), event({"error": {"message": "x", "code": 500}})])
    async with asynchronous(stage) as client:
        got = await client.chat.completions.create(model="router/ab", messages=USER, stream=True)
        words = [chunk.choices[0].delta.content or "" async for chunk in got]
    assert "".join(words) == "Hello from upstream"


async def test_logprobs_and_many_choices(stage: Stage) -> None:
    """Fields that the router does not know reach the SDK's objects."""
    logprobs = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}], "refusal": None}
    body = completion("Hi")
    body["choices"][0]["logprobs"] = logprobs
    body["choices"].append({"index": 1, "message": {"role": "assistant", "content": "Ho"}, "finish_reason": "stop"})
    stage.a.script = reply(200, body)
    async with asynchronous(stage) as client:
        got = await client.chat.completions.create(model="router/ab", messages=USER, n=2, logprobs=True)
    assert got.choices[0].logprobs is not None
    assert got.choices[0].logprobs.content[0].token == "Hi"  # type: ignore[index]
    assert got.choices[1].message.content == "Ho"
