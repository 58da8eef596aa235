"""A provider for the benchmark: answers chat completions at once or as a paced stream, with next to no work of its own.

The shape of its streams comes as lines of JSON on standard input: {"chunks": 100, "interval_ms": 20}; each line is
answered by a line. Every chunk's text holds the moment it was written (`<ns>`, monotonic), so that whoever reads it on
the same machine knows how long it took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from typing import Any, cast

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: *chunked", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')

_ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": "gpt-4o-mini",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "It depends. " * 50}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 240, "completion_tokens": 150, "total_tokens": 390},
    }
).encode()
_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_FRAME = '{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1750000000,"model":"gpt-4o-mini",%s}'
_TIME = 20

shape: dict[str, Any] = {"chunks": 100, "interval_ms": 20}


def event(rest: str) -> bytes:
    """One event in one HTTP chunk."""
    data = b"data: " + (_FRAME % rest).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


_TOKEN = event(f'"choices":[{{"index":0,"delta":{{"content":" word <{"0" * _TIME}>"}},"finish_reason":null}}]')
_BEFORE, _AFTER = _TOKEN.split(b"0" * _TIME, 1)
_ROLE = event('"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]')
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def ending(chunks: int) -> bytes:
    """Finish, usage and the end of the body."""
    usage = f'"choices":[],"usage":{{"prompt_tokens":240,"completion_tokens":{chunks},"total_tokens":{240 + chunks}}}'
    return event('"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]') + event(usage) + _DONE


class Provider(asyncio.Protocol):
    """One connection of a gateway."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.data = bytearray()
        self.left = 0
        self.timer: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A gateway connected."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """It left."""
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Collects a request; answers once it is whole."""
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.data[:end])
        length = _LENGTH.search(head)
        if length is not None:
            if len(self.data) < end + 4 + int(length[1]):
                return
        elif _CHUNKED.search(head) and not self.data.endswith(b"\r\n0\r\n\r\n"):
            return
        # Somewhere near an end of the body: the middle may be long.
        streams = _STREAM.search(self.data, end, end + 2000) or _STREAM.search(
            self.data, max(end, len(self.data) - 500)
        )
        self.data.clear()
        if streams is None:
            self.transport.write(_WHOLE)
        else:
            self.transport.write(_HEAD + _ROLE)
            self.left = self.chunks = shape["chunks"]
            self.step = shape["interval_ms"] / 1000
            self.due = self.loop.time()
            self.next()

    def next(self) -> None:
        """Plans the next chunk: after the interval, or in the next turn of the loop."""
        if self.step:
            self.due += self.step
            self.timer = self.loop.call_at(self.due, self.send)
        else:
            self.timer = self.loop.call_soon(self.send)

    def send(self) -> None:
        """One chunk; after the last one the end."""
        self.left -= 1
        self.transport.write(b"%b%020d%b" % (_BEFORE, time.monotonic_ns(), _AFTER))
        if self.left:
            self.next()
        else:
            self.timer = None
            self.transport.write(ending(self.chunks))


async def serve(port: int) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Provider, "127.0.0.1", port, backlog=4096)
    print("ready", flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        shape.update(json.loads(line))
        print("ok", flush=True)


def main() -> None:
    """Serves on the port that is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    import uvloop

    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
