"""A relay between a scripted upstream answer and a recording client, for tests of the relay and of its clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from llm_router.proxy.relay import Relay
from llm_router.proxy.tap import Tap, TapBudget
from llm_router.wire.masking import Masker

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


class Response:
    """Stands in for an upstream answer: notes what the relay asks of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.last_read = 0.0

    def pause(self) -> None:
        """Noted."""
        self.calls.append("pause")

    def resume(self) -> None:
        """Noted."""
        self.calls.append("resume")

    def release(self) -> None:
        """Noted."""
        self.calls.append("release")

    def close(self) -> None:
        """Noted."""
        self.calls.append("close")


class Client:
    """Records what it is sent; `full` as the test says."""

    def __init__(self) -> None:
        self.sent = b""
        self.ended = False
        self.full = False
        self.readable = asyncio.Event()

    def write(self, data: bytes) -> bool:
        """Takes the bytes."""
        self.sent += data
        return self.full

    def end(self, data: bytes) -> None:
        """Takes the last bytes; nothing may follow."""
        assert not self.ended
        self.ended = True
        self.sent += data

    async def drain(self) -> None:
        """Waits for the test to read."""
        await self.readable.wait()
        self.full = False


def make(choices: int = 1, translator: Any = None) -> tuple[Relay, Response]:
    """A relay over a scripted response."""
    response = Response()
    relay = Relay(
        response,  # type: ignore[arg-type]
        translator,
        Tap(TapBudget()),
        choices=choices,
        idle=5.0,
        mask=Masker(["sk-secret-key"]),
    )
    return relay, response


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """`data` cut into pieces of the given sizes, the last one taking the rest."""
    start = 0
    for size in sizes:
        yield data[start : start + size]
        start += size
    yield data[start:]
