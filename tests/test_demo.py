"""The demo's scripted providers: what they answer, and that nothing real is reached."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from llm_router.demo import DemoSetup, demo_greeting, start_demo

QUESTION = {"role": "user", "content": "Good morning"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


@pytest.fixture
async def demo() -> AsyncIterator[DemoSetup]:
    setup = await start_demo({"OPENAI_API_KEY": "sk-real", "ROUTER_PORT": "4000", "ROUTER_STATE_DIR": "/real"})
    yield setup
    await setup.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def address(demo: DemoSetup, provider: str) -> str:
    return f"{demo.configuration['providers'][provider]['base_url']}/chat/completions"


@pytest.fixture
async def healthy(demo: DemoSetup) -> AsyncIterator[openai.AsyncOpenAI]:
    base_url = demo.configuration["providers"]["healthy"]["base_url"]
    async with openai.AsyncOpenAI(api_key="none", base_url=base_url) as client:
        yield client


async def test_environment_hides_what_is_real(demo: DemoSetup) -> None:
    """No key, address or state folder of the user is left in the demo's environment; the port is kept."""
    assert "OPENAI_API_KEY" not in demo.environ
    assert demo.environ["ROUTER_PORT"] == "4000"
    assert demo.environ["ROUTER_STATE_DIR"] != "/real"
    assert demo.environ["OLLAMA_BASE_URL"].startswith("http://127.0.0.1:")


async def test_configuration_is_a_private_file_that_goes_away(demo: DemoSetup) -> None:
    """The configuration file holds what the setup says, is readable by its owner alone, and is removed at the end."""
    path = demo.environ["ROUTER_CONFIG_FILE"]
    folder = os.path.dirname(path)
    assert orjson.loads(_read(path)) == demo.configuration
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    await demo.close()
    with pytest.raises(FileNotFoundError):
        os.stat(folder)


async def test_every_chain_ends_healthy_after_a_failure(demo: DemoSetup) -> None:
    """Each built-in category starts with a provider that fails, so that failover shows, and ends with the good one."""
    chains = demo.configuration["model_mappings"]
    assert set(chains) == {"tools", "code", "reasoning", "conversation"}
    for chain in chains.values():
        assert not chain[0].startswith("healthy/")
        assert chain[-1].startswith("healthy/")
    assert set(demo.configuration["prices"]) == {model for chain in chains.values() for model in chain}


async def test_limited_provider_says_when_to_come_back(demo: DemoSetup, session: aiohttp.ClientSession) -> None:
    """The rate limited provider answers 429 with Retry-After."""
    async with session.post(address(demo, "limited"), json={}) as answer:
        assert answer.status == 429
        assert int(answer.headers["Retry-After"]) > 0


async def test_broken_provider_breaks_in_three_ways(demo: DemoSetup, session: aiohttp.ClientSession) -> None:
    """In turn: the connection is reset, a status 500, a 200 whose only event is an error."""
    with pytest.raises(aiohttp.ClientError):
        await session.post(address(demo, "broken"), json={})
    async with session.post(address(demo, "broken"), json={}) as answer:
        assert answer.status == 500
    async with session.post(address(demo, "broken"), json={}) as answer:
        assert answer.status == 200
        event = (await answer.text()).removeprefix("data: ")
        assert "made-up" in json.loads(event)["error"]["message"]
    with pytest.raises(aiohttp.ClientError):
        await session.post(address(demo, "broken"), json={})


async def test_healthy_provider_streams_an_answer_that_says_it_is_made_up(healthy: openai.AsyncOpenAI) -> None:
    """Word by word, with the model that was asked for, a finish and the usage that was asked for."""
    stream = await healthy.chat.completions.create(
        model="demo-code", messages=[QUESTION], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    words = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "made-up answer" in "".join(words)
    assert "'demo-code'" in "".join(words)
    assert max(len(word.split()) for word in words) == 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens >= sum(bool(word) for word in words)


async def test_healthy_provider_answers_whole(healthy: openai.AsyncOpenAI) -> None:
    """Without `stream` the same answer comes as one completion with usage."""
    answer = await healthy.chat.completions.create(model="demo-reasoning", messages=[QUESTION])
    assert "made-up answer" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_reader_that_leaves_is_no_error(
    demo: DemoSetup, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a reader that leaves in the middle nor a connection that is reset on purpose is logged."""
    body = {"model": "demo-code", "messages": [QUESTION], "stream": True}
    answer = await session.post(address(demo, "healthy"), json=body)
    await answer.content.readany()
    answer.close()
    with pytest.raises(aiohttp.ClientError):
        await session.post(address(demo, "broken"), json={})
    await asyncio.sleep(0.2)
    assert caplog.records == []


@pytest.mark.parametrize("stream", [True, False])
async def test_tools_are_called_once(healthy: openai.AsyncOpenAI, stream: bool) -> None:
    """The first tool offered is called with texts that say they are made up; with its result there, words come."""
    ask: Any = healthy.chat.completions.create
    conversation: list[dict[str, Any]] = [QUESTION]
    answer = await ask(model="demo-tools", messages=conversation, tools=[WEATHER], stream=stream)
    if stream:
        chunks = [chunk.choices[0] async for chunk in answer]
        call, finish = chunks[1].delta.tool_calls[0], chunks[-1].finish_reason
    else:
        call, finish = answer.choices[0].message.tool_calls[0], answer.choices[0].finish_reason
    assert (call.function.name, finish) == ("weather", "tool_calls")
    assert json.loads(call.function.arguments) == {"city": "made up by the demo"}
    turn = {"id": call.id, "type": "function", "function": {"name": "weather", "arguments": call.function.arguments}}
    conversation += [
        {"role": "assistant", "content": None, "tool_calls": [turn]},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        {"role": "user", "content": [{"type": "text", "text": "internal context, as agents add it"}]},
    ]
    answer = await ask(model="demo-tools", messages=conversation, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("tools", [[{"type": "function"}], ["weather"], [{"type": "function", "function": {}}]])
async def test_unusable_tools_are_not_called(demo: DemoSetup, session: aiohttp.ClientSession, tools: list[Any]) -> None:
    """A tool without a name is left alone: the answer is words."""
    body = {"model": "demo-tools", "messages": [QUESTION], "tools": tools}
    async with session.post(address(demo, "healthy"), json=body) as answer:
        assert (await answer.json())["choices"][0]["finish_reason"] == "stop"


async def test_tool_without_a_schema_is_called_without_arguments(healthy: openai.AsyncOpenAI) -> None:
    """A function that describes no parameters gets an empty object."""
    tool: Any = {"type": "function", "function": {"name": "now"}}
    answer: Any = await healthy.chat.completions.create(model="demo-tools", messages=[QUESTION], tools=[tool])
    assert answer.choices[0].message.tool_calls[0].function.arguments == "{}"


async def test_healthy_provider_refuses_nonsense(demo: DemoSetup, session: aiohttp.ClientSession) -> None:
    """A body that is no chat request gets a 400 in OpenAI's shape."""
    async with session.post(address(demo, "healthy"), data=b"{") as answer:
        assert answer.status == 400
        assert "JSON" in (await answer.json())["error"]["message"]


def test_greeting_holds_commands_to_copy() -> None:
    """Every curl command of the greeting is one line with the router's own address and valid JSON."""
    lines = [line.strip() for line in demo_greeting("http://127.0.0.1:4000").splitlines() if "curl" in line]
    assert len(lines) >= 5
    for line in lines:
        assert "http://127.0.0.1:4000/" in line
        if " -d '" in line:
            assert json.loads(line.split(" -d '")[1].rstrip("'"))["model"] == "router"
