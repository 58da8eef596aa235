"""Load for the benchmark: raw sockets, one line of JSON with what was seen.

`closed`: so many connections, each asking again as soon as it was answered. `paced`: so many streams, one each,
begun over `--ramp` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from array import array
from pathlib import Path
from typing import Any, cast

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
# A gateway may cut a time in two with its own framing.
_TIME = re.compile(rb"<(\d{0,20})(?:\r\n[0-9A-Fa-f]+\r\n)?(\d{0,20})>")
_END = b"0\r\n\r\n"


class Seen:
    """What all clients have seen together; times in milliseconds."""

    def __init__(self) -> None:
        self.whole, self.first, self.delay = array("d"), array("d"), array("d")
        self.good = self.bad = self.chunks = 0
        self.problems: dict[str, int] = {}

    def problem(self, what: str) -> None:
        """One answer that was not as it should be."""
        self.bad += 1
        self.problems[what] = self.problems.get(what, 0) + 1


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, seen: Seen, chunks: int) -> None:
        self._request = request
        self._seen = seen
        self._chunks = chunks
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to ask."""
        self.transport = cast(asyncio.Transport, transport)

    def ask(self) -> asyncio.Future[None]:
        """Sends the request; done when the answer has ended."""
        self._done = self._loop.create_future()
        self._head = b""
        self._left = -1  # bytes of a body whose length is known
        self._got = 0
        self._tail = b""
        self._begun = time.monotonic_ns()
        self.transport.write(self._request)
        return self._done

    def connection_lost(self, error: Exception | None) -> None:
        """Too early, if an answer was awaited."""
        if self._done is not None and not self._done.done():
            self._seen.problem("connection lost")
            self._done.set_result(None)

    def data_received(self, data: bytes) -> None:
        """A part of the answer."""
        now = time.monotonic_ns()
        if self._left == -1 and not self._tail:
            data = self._read_head(data, now)
            if not data:
                return
        # A time may be cut by the end of a read.
        text = self._tail + data
        last = 0
        for found in _TIME.finditer(text):
            self._got += 1
            last = found.end()
            self._seen.delay.append((now - int(found[1] + found[2])) / 1e6)
        self._tail = text[max(last, len(text) - 60) :]
        if self._left > 0:
            self._left -= len(data)
        if self._left == 0 or (self._left < 0 and self._tail.endswith(_END)):
            self._finish(now)

    def _read_head(self, data: bytes, now: int) -> bytes:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return b""
        self._seen.first.append((now - self._begun) / 1e6)
        head, body = self._head[:end], self._head[end + 4 :]
        found = _LENGTH.search(head)
        if found is not None:
            self._left = int(found[1])
        self._tail = b"\r\n"
        return body

    def _finish(self, now: int) -> None:
        seen = self._seen
        seen.whole.append((now - self._begun) / 1e6)
        seen.chunks += self._got
        if self._head[9:12] != b"200":
            seen.problem(self._head[:200].decode("latin-1"))
        elif self._got != self._chunks:
            seen.problem(f"{self._got} chunks")
        else:
            seen.good += 1
        assert self._done is not None
        self._done.set_result(None)


async def run(args: argparse.Namespace) -> dict[str, Any]:
    """The load; gives the figures."""
    body: bytes = args.body
    head = f"POST {args.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += "".join(f"{line}\r\n" for line in args.header) + f"Content-Length: {len(body)}\r\n\r\n"
    seen = Seen()
    loop = asyncio.get_running_loop()
    left = args.requests

    async def client(delay: float) -> None:
        nonlocal left
        await asyncio.sleep(delay)
        make = lambda: Client(head.encode() + body, seen, args.chunks)  # noqa: E731
        _, protocol = await loop.create_connection(make, "127.0.0.1", args.port)
        if args.mode == "paced":
            await protocol.ask()
        else:
            while left > 0:
                left -= 1
                await protocol.ask()
                if protocol.transport.is_closing():
                    _, protocol = await loop.create_connection(make, "127.0.0.1", args.port)
        protocol.transport.close()

    number = args.requests if args.mode == "paced" else args.connections
    step = args.ramp / number if args.mode == "paced" else 0.0
    began = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*(client(step * n) for n in range(number))), args.seconds)
    took = time.monotonic() - began
    return {
        "good": seen.good,
        "bad": seen.bad,
        "problems": seen.problems,
        "chunks": seen.chunks,
        "seconds": took,
        **{
            f"{name}_{q}": quantile(values, q)
            for name, values in (("whole", seen.whole), ("first", seen.first), ("delay", seen.delay))
            for q in (50, 99)
        },
    }


def quantile(values: array[float], percent: int) -> float | None:
    """A percentile, None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else None


def main() -> None:
    """Parses arguments, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--body", type=lambda path: Path(path).read_bytes(), required=True)
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--mode", choices=("closed", "paced"), default="closed")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--chunks", type=int, default=0, help="how many each answer must have")
    parser.add_argument("--ramp", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    import uvloop

    print(json.dumps(uvloop.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
