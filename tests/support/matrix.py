"""The fault matrix, measured on the running code: `python -m tests.support.matrix [--figures]`.

The rows are faults of the first of two upstreams, the second is healthy; clocks are three seconds. Prints a markdown
table: what the upstream does, what must happen, what happened. Exit code 1 if a row is not as it must be. `--figures`
measures the time that a failover adds instead.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.chunks import DONE, error, error_event, finish, role, text
from tests.support.client import Answer
from tests.support.router import RouterProcess, chains
from tests.support.upstream import Script, Upstream, hang, healthy, raw, reply, stream

CLOCKS = {"ROUTER_TOTAL_TIMEOUT": "60", "ROUTER_CIRCUIT_THRESHOLD": "1000000"}
TEN = [role(), *(text(f"word{number} ") for number in range(10))]
FAILOVER, ERROR_EVENT, RETURNED, WHOLE = "failover", "error event", "returned to the client", "passed on, whole"
REFUSALS = {
    500: error("internal error", kind="server_error"),
    503: error("overloaded", kind="server_error"),
    529: error("overloaded", kind="overloaded_error"),
    429: error("rate limit", "rate_limit_exceeded"),
    401: error("bad key", "invalid_api_key"),
    402: error("no credits", 402),
    404: error("no such model", "model_not_found"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One fault, its script and what must happen."""

    name: str
    script: Script
    goal: str


ROWS: Sequence[Row] = (
    *(Row(f"{status}", reply(status, body), FAILOVER) for status, body in REFUSALS.items()),
    Row("400 about the request", reply(400, error("bad request", "invalid_value")), RETURNED),
    Row("400 context_length_exceeded", reply(400, error("too long", "context_length_exceeded")), FAILOVER),
    Row("200 JSON body with error", reply(200, error("boom", 502)), FAILOVER),
    Row("200 then EOF", stream([]), FAILOVER),
    Row("200 with only [DONE]", stream([DONE]), FAILOVER),
    Row("role + stop, no text", stream([role(), finish(), DONE]), FAILOVER),
    Row("first event is an error", stream([error_event()]), FAILOVER),
    Row("role chunk, then error", stream([role(), error_event()]), FAILOVER),
    Row("connection refused", hang, FAILOVER),
    Row("reset before headers", raw(b"", "reset"), FAILOVER),
    Row("no headers", hang, FAILOVER),
    Row("headers, then silence", stream([], end="hang"), FAILOVER),
    Row("role chunk, then silence", stream([role()], end="hang"), FAILOVER),
    Row("10 tokens, clean EOF, no finish", stream(TEN), ERROR_EVENT),
    Row("10 tokens, TCP reset", stream(TEN, end="reset"), ERROR_EVENT),
    Row("5 tokens, then stall", stream(TEN[:6], end="hang"), ERROR_EVENT),
    Row("one broken JSON event in a good stream", stream([*TEN, b"data: {broken\n\n", finish(), DONE]), WHOLE),
)


def judge(got: Answer, seconds: float) -> tuple[str, str]:
    """(what kind of outcome this is, how it is told in the table)."""
    at = f" at {seconds:.1f} s" if seconds > 0.5 else ""
    if got.status != 200:
        return RETURNED, f"{got.status} {got.error['code']}{at}"
    if got.errors:
        clean = got.ended == "whole" and not got.done and not got.finishes and len(got.errors) == 1
        return (ERROR_EVENT if clean else "unclean", f"error event `{got.error['code']}`{at}")
    if got.ended == "whole" and got.done and got.header("x-router-model") == "b/m2" and got.text:
        return FAILOVER, f"F{at}"
    if got.ended == "whole" and got.done and got.text:
        return WHOLE, f"passed on, whole{at}"
    return "bad", f"x ended {got.ended}, [DONE] {got.done}, text {got.text!r:.40}{at}"


@dataclass(slots=True)
class Bench:
    """A router between two upstreams."""

    router: RouterProcess
    a: Upstream
    b: Upstream

    async def once(self, script: Script, refused: bool = False) -> tuple[Answer, float]:
        """One streamed request whose first upstream does `script`; the answer and its seconds."""
        await self.router.ask("POST", "/circuit-breaker/reset-all")
        self.a.script = script
        if refused:
            await self.a.stop()
        started = time.monotonic()
        got = await self.router.chat("router/ab", patience=30)
        seconds = time.monotonic() - started
        if refused:
            await self.a.start()
        return got, seconds

    async def leave(self, script: Script, streamed: bool, first: bytes) -> float:
        """Seconds from a client's leaving to the end of its upstream connection."""
        self.a.script = script
        number = self.a.count + 1
        connection = await self.router.open_chat("router/ab", streamed)
        exchange = await self.a.wait_for(number)
        if first:
            await connection.answer(5, until=lambda got: first in got.body)
        else:
            await asyncio.sleep(0.3)
        left = time.monotonic()
        connection.close()
        async with asyncio.timeout(30):
            await exchange.closed.wait()
        return (exchange.closed_at or left) - left


async def matrix(bench: Bench) -> int:
    """Prints the table; the number of rows that are not as they must be."""
    print("| upstream does | must happen | llm-router |")
    print("|---|---|---|")
    wrong = 0
    for row in ROWS:
        outcome, words = judge(*await bench.once(row.script, row.name == "connection refused"))
        wrong += outcome != row.goal
        print(f"| {row.name} | {row.goal} | {'' if outcome == row.goal else '**not as it must be:** '}{words} |")
    talking = stream([text("word ")] * 500, gap=0.02)
    leaves = [
        await bench.leave(talking, True, b"word"),
        await bench.leave(hang, True, b""),
        await bench.leave(hang, False, b""),
    ]
    words = " / ".join(f"stopped after {seconds * 1000:.0f} ms" for seconds in leaves)
    wrong += max(leaves) > 0.1
    print(f"| client leaves mid-stream / before token / non-stream | upstream stopped within 100 ms | {words} |")
    return wrong


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def figures(bench: Bench, rounds: int = 300) -> int:
    """Prints what a failover adds to the time until the whole (short) answer, in milliseconds."""
    times: dict[str, list[float]] = {}
    cases: dict[str, tuple[Script, bool]] = {
        "no fault": (healthy, False),
        "refused": (healthy, True),
        "500": (reply(500, REFUSALS[500]), False),
        "reset": (raw(b"", "reset"), False),
    }
    for name, (script, refused) in cases.items():
        bench.a.script = script
        if refused:
            await bench.a.stop()
        spent = times[name] = []
        for _ in range(rounds):
            started = time.monotonic()
            await bench.router.chat("router/ab")
            spent.append((time.monotonic() - started) * 1000)
        if refused:
            await bench.a.start()
    plain = statistics.median(times["no fault"])
    print("| first upstream | p50 ms | p99 ms | added p50 ms |")
    print("|---|---|---|---|")
    for name, spent in times.items():
        p50 = statistics.median(spent)
        print(f"| {name} | {p50:.2f} | {percentile(spent, 0.99):.2f} | {p50 - plain:+.2f} |")
    return 0


async def run(work: Callable[[Bench], Awaitable[int]], seconds: int = 3) -> int:
    """Runs `work` between fresh upstreams, with clocks of that many seconds."""
    a, b = await Upstream().start(), await Upstream().start()
    b.script = healthy
    with tempfile.TemporaryDirectory() as folder:
        config = chains({"a": a.port, "b": b.port}, {"ab": ["a/m1", "b/m2"]})
        clocks = CLOCKS | dict.fromkeys(("ROUTER_FIRST_BYTE_TIMEOUT", "ROUTER_IDLE_TIMEOUT"), str(seconds))
        router = RouterProcess(Path(folder), config, clocks)
        await asyncio.to_thread(router.start)
        try:
            return await work(Bench(router, a, b))
        finally:
            await asyncio.to_thread(router.stop)
            await a.stop()
            await b.stop()


def main() -> int:
    """Entry of the command."""
    parser = argparse.ArgumentParser(description="Measure the fault matrix on the running code.")
    parser.add_argument("--figures", action="store_true", help="measure the time that a failover adds instead")
    return asyncio.run(run(figures if parser.parse_args().figures else matrix))


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
