"""What one request costs inside the dispatcher, without sockets: CPU time, and Python function calls.

    python -m bench.pipeline [--stream] [--profile]

The upstream is a canned answer and the client a list, so that the figures do not depend on the machine's neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from llm_router.config.values import Snapshot
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.dispatch import Router
from llm_router.proxy.exchange import Caller
from llm_router.proxy.upstream import UpstreamResponse
from llm_router.server.app import make_router
from llm_router.wire.chat import parse_chat
from llm_router.wire.providers.base import UpstreamCall

CHAIN = ["openai/gpt-4o-mini"]
SETTINGS = {"model_mappings": dict.fromkeys(("tools", "code", "reasoning", "conversation"), CHAIN)}
ENVIRON = {"OPENAI_API_KEY": "sk-bench", "ROUTER_LOG_LEVEL": "error"}
WORDS = "the router streams tokens from a provider while each client waits for its first byte "

WHOLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello. " * 20}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 60, "total_tokens": 260},
    }
).encode()


def chunk(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


STREAM = [
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"content": f"word{number} "}) for number in range(100)),
    chunk({}, "stop"),
    b"data: [DONE]\n\n",
]


def request_body(size: int = 1024, *, stream: bool = False) -> bytes:
    """A chat request of about `size` bytes."""
    body = {
        "model": "router",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": (WORDS * (size // len(WORDS) + 1))[: size - 200]},
        ],
        "temperature": 0.7,
        "max_tokens": 512,
    }
    if stream:
        body["stream"] = True
    return json.dumps(body).encode()


class Carrier:
    """A connection that is never in anybody's way."""

    heard = False

    def push(self, data: bytes) -> None:
        """Replaced by the response."""

    def pause(self) -> None:
        """Nothing arrives by itself."""

    def resume(self) -> None:
        """Nothing waits."""

    def drain(self) -> None:
        """Everything has arrived."""

    def abort(self) -> None:
        """There is nothing to close."""


class Canned:
    """An upstream client that answers at once."""

    def __init__(self, *, stream: bool) -> None:
        kind = "text/event-stream" if stream else "application/json"
        self._headers = {"content-type": kind}
        self._stream = stream

    async def send(self, call: UpstreamCall, *, connect_timeout: float) -> UpstreamResponse:
        """The answer; a stream arrives in the next turn of the loop."""
        loop = asyncio.get_running_loop()
        carrier: Any = Carrier()
        response = UpstreamResponse(200, self._headers, carrier, loop)
        if self._stream:
            loop.call_soon(self._feed, response, carrier)
        else:
            carrier.push(WHOLE)
            response.message_over(None)
        return response

    def _feed(self, response: UpstreamResponse, carrier: Any) -> None:
        for event in STREAM:
            carrier.push(event)
        response.message_over(None)


class Nobody:
    """A client that reads everything."""

    full = False

    def start_stream(self, told: object, allowed: object) -> Nobody:
        """Takes the head."""
        return self

    def send_whole(self, body: bytes, told: object, allowed: object, *, as_stream: bool) -> None:
        """Takes an answer."""

    def write(self, data: bytes) -> bool:
        """Takes a part."""
        return False

    def end(self, data: bytes) -> None:
        """Takes the end."""

    async def drain(self) -> None:
        """Never needed."""


def make(folder: Path, *, stream: bool) -> Router:
    """A router with its bookkeeper not started: what is submitted is dropped by `answer`."""
    config = folder / "router_config.json"
    config.write_text(json.dumps(SETTINGS))
    environ = {
        **ENVIRON,
        "ROUTER_CONFIG_FILE": str(config),
        "ROUTER_STATE_DIR": str(folder / "state"),
        "HOME": str(folder),
    }
    config_file = ConfigFile(environ, {}, folder)
    snapshot: Snapshot = config_file.load()
    router = make_router(snapshot, config_file, environ)
    router._parts.upstream = Canned(stream=stream)  # type: ignore[assignment]
    return router


async def answer(router: Router, raw: bytes) -> None:
    """One request from its bytes to its booking."""
    await router.answer(parse_chat(raw), Caller("req_1", "key-1"), Nobody())  # type: ignore[arg-type]


async def answers(router: Router, raw: bytes, number: int) -> None:
    """So many requests, one after the other; each with bytes of its own, as from a socket."""
    for _ in range(number):
        await answer(router, bytes(bytearray(raw)))


async def python_calls(router: Router, raw: bytes) -> int:
    """How many Python functions one request enters once everything is warm. The same at every run."""
    await answers(router, raw, 5)
    seen = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        seen += event == "call"

    sys.setprofile(count)
    try:
        await answer(router, raw)
    finally:
        sys.setprofile(None)
    return seen


async def measure(folder: Path, *, stream: bool, profile: bool, size: int) -> None:
    """Prints the figures."""
    router = make(folder, stream=stream)
    raw = request_body(size, stream=stream)
    print(f"python calls: {await python_calls(router, raw)}")
    best = float("inf")
    for _ in range(7):
        began = time.thread_time()
        await answers(router, raw, 500)
        best = min(best, time.thread_time() - began)
        router.bookkeeper.flush()
    print(f"loop thread: {best * 2000:.1f} us per request")
    if profile:
        profiler = cProfile.Profile()
        profiler.enable()
        await answers(router, raw, 1000)
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    await asyncio.to_thread(router.bookkeeper.close, 5.0)


def main() -> None:
    """Parses arguments and runs on the loop that serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--size", type=int, default=1024)
    args = parser.parse_args()
    import uvloop

    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(measure(Path(folder), stream=args.stream, profile=args.profile, size=args.size))


if __name__ == "__main__":
    main()
