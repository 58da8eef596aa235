"""What failed requests leave behind: nothing that only the collector would free, which seldom comes."""

from __future__ import annotations

import asyncio
import gc
import traceback
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader

from llm_router.errors import ApiError
from llm_router.server.bodies import read_on
from llm_router.server.connections import BodyEnded
from llm_router.wire.chat import ChatRequest
from tests.server.conftest import CONFIG, StartRouter

SHORT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", SHORT])
async def test_a_failed_attempt_lets_go_of_its_request(serve: StartRouter, answer: bytes, stream: bool) -> None:
    """A provider that breaks off must not cost the memory of every request that it was asked."""

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]}")
        writer.write(answer)
        writer.close()

    upstream = await asyncio.start_server(break_off, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    provider = {"base_url": f"http://127.0.0.1:{port}/v1", "api_key_env": "A_KEY"}
    served = await serve({**CONFIG, "providers": {"a": provider}, "circuit_breaker": {"failure_threshold": 99}})
    body: dict[str, Any] = {"model": "a/m", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    async with upstream:
        await served.ask("POST", "/v1/chat/completions", body)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                assert (await served.ask("POST", "/v1/chat/completions", body)).status == 503
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kept = [one for one in gc.garbage if type(one) is ChatRequest]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert kept == []


@pytest.mark.parametrize("error", [web.RequestPayloadError("broken"), BodyEnded(ApiError(408, "late"))])
async def test_a_broken_upload_is_let_go_of(error: Exception) -> None:
    """What came of a body whose framing broke, or that stopped coming, does not outlive its refusal."""
    protocol = BaseProtocol(asyncio.get_running_loop())
    protocol.connection_made(asyncio.Transport())
    payload = StreamReader(protocol, 2**16, loop=asyncio.get_running_loop())
    payload.feed_data(b"x" * 1000)
    asyncio.get_running_loop().call_soon(payload.set_exception, error)
    with pytest.raises(ApiError) as refused:
        await read_on(cast(Any, protocol), payload, 2000)
    frames = [frame for frame, _ in traceback.walk_tb(refused.value.__traceback__) if "parts" in frame.f_locals]
    assert [frame.f_locals["parts"] for frame in frames] == [[]]
