"""Gateways side by side: the router, a bare aiohttp relay, nginx where it is installed, and any peer that is given.

    python -m bench                                    # everything; writes bench/RESULTS.md and bench/streams.svg
    python -m bench --scenarios S1,S3 --rounds 5       # prints only
    python -m bench --peer 'other=/path/to/other --port {port} --upstream {upstream}'

All gateways run from the start; each scenario visits them in turn, round after round, so that a slow spell of the
machine hits all of them. CPU figures are the lowest of the rounds (other work can only add to them), all others are
medians. Trust the CPU columns: times depend on what else runs on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.bodies import agent, chat
from bench.gateways import PAIR, Gateway, Peak, cpu_seconds, free_port, known_gateways
from bench.report import OURS, Row, print_starts, print_table, write_results
from bench.start import Start, starts

HERE = Path(__file__).parent
STEPS = (10, 50, 100, 250, 500, 1000)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. `body` is kind and size; `interval_ms` None means an answer in one piece."""

    name: str
    about: str
    body: tuple[str, int]
    requests: int
    connections: int = 1
    chunks: int = 0
    interval_ms: int = 0
    paced: bool = False
    ramp: float = 1.0
    most: float | None = None  # the most that ours may cost, relative to the relay


SCENARIOS = (
    Scenario("S0", "1 KB prompt, one connection: added latency", ("chat", 1024), 400, 1, most=None),
    Scenario("S1", "1 KB prompt, 32 connections", ("chat", 1024), 3000, 32, most=0.6),
    Scenario("S2", "100 KB prompt, 16 connections, streamed", ("stream", 102_400), 600, 16, 20, most=0.7),
    Scenario("S3", "100 chunks back to back, 32 connections", ("stream", 1024), 500, 32, 100, most=1.0),
    Scenario("S4", "1000 streams at 200 ms", ("stream", 1024), 1000, 0, 25, 200, paced=True, ramp=2.0, most=0.6),
    Scenario("S4x", "500 streams at 20 ms", ("stream", 1024), 500, 0, 100, 20, paced=True, most=0.6),
    Scenario(
        "S5", "400 KB agent prompt with 30 tools, 8 connections, streamed", ("agent", 409_600), 200, 8, 20, most=0.7
    ),
)


class Bench:
    """The provider, the gateways, and the measuring."""

    def __init__(self, folder: Path, cores: bool) -> None:
        self.folder = folder
        every = sorted(os.sched_getaffinity(0))
        split = cores and len(every) > 1
        self.theirs = {every[-1]} if split else None
        self._ours = set(every[:-1]) if split else None
        self._warm: set[tuple[str, str]] = set()
        self.port = free_port()
        self._provider = subprocess.Popen(
            [sys.executable, "-m", "bench.provider", "--port", str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if self._ours is not None:
            os.sched_setaffinity(self._provider.pid, self._ours)
        self._hear()

    def close(self) -> None:
        """Ends the provider."""
        self._provider.terminate()
        self._provider.wait()

    def _hear(self) -> None:
        assert self._provider.stdout is not None
        self._provider.stdout.readline()

    def shape(self, scenario: Scenario) -> None:
        """How the provider answers from now on."""
        assert self._provider.stdin is not None
        line = json.dumps({"chunks": scenario.chunks, "interval_ms": scenario.interval_ms})
        self._provider.stdin.write(line.encode() + b"\n")
        self._provider.stdin.flush()
        self._hear()

    def measure(self, gateway: Gateway, scenario: Scenario) -> Row:
        """One round of one gateway."""
        self.shape(scenario)
        if (gateway.name, scenario.name) not in self._warm:
            self._warm.add((gateway.name, scenario.name))
            self.load(gateway, replace(scenario, requests=max(8, scenario.requests // 20)), 0.2)
        before = cpu_seconds(gateway.pid)
        with Peak(gateway.pid) as peak:
            seen = self.load(gateway, scenario, scenario.ramp)
            time.sleep(0.5)  # what a gateway does for these requests afterwards belongs to them
        return Row(
            requests=seen["good"],
            bad=seen["bad"],
            problems=seen["problems"],
            chunks=seen["chunks"],
            cpu_s=cpu_seconds(gateway.pid) - before,
            seconds=seen["seconds"],
            peak_mib=peak.mib,
            times={name: seen[name] for name in seen if name.endswith(("_50", "_99"))},
        )

    def load(self, gateway: Gateway, scenario: Scenario, ramp: float) -> dict[str, Any]:
        """What the load generator saw; the gateway must be running, the provider have its shape."""
        kind, size = scenario.body
        body = self.folder / f"{kind}-{size}-{gateway.model}.json"
        if not body.exists():
            made = agent(size, gateway.model) if kind == "agent" else chat(size, gateway.model, stream=kind == "stream")
            body.write_bytes(made)
        words = [sys.executable, "-m", "bench.load", "--port", str(gateway.port), "--body", str(body)]
        words += ["--requests", str(scenario.requests), "--chunks", str(scenario.chunks), "--ramp", str(ramp)]
        words += ["--mode", "paced"] if scenario.paced else ["--connections", str(scenario.connections)]
        for line in gateway.headers:
            words += ["--header", line]
        pin = (lambda cores=self._ours: os.sched_setaffinity(0, cores)) if self._ours is not None else None
        done = subprocess.run(words, capture_output=True, text=True, preexec_fn=pin, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-1000:])
        result: dict[str, Any] = json.loads(done.stdout)
        return result


@contextlib.contextmanager
def running(bench: Bench, gateways: list[Gateway], folder: Path) -> Iterator[list[Gateway]]:
    """The gateways that could be started."""
    started = []
    try:
        for gateway in gateways:
            try:
                gateway.start(folder, bench.port, bench.theirs)
            except (RuntimeError, OSError) as error:
                print(f"{gateway.name}: {error}", flush=True)
                continue
            started.append(gateway)
            print(
                f"{gateway.name:<12} chats after {gateway.start_s:.2f} s, idle {gateway.idle_mib:.0f} MiB", flush=True
            )
        yield started
    finally:
        for gateway in started:
            gateway.stop()


def streams(number: int) -> Scenario:
    """A point of the plot: so many streams at 20 ms."""
    return Scenario(f"{number} streams", "", ("stream", 1024), number, 0, 50, 20, paced=True, ramp=0.5)


def main() -> None:
    """Parses arguments, measures, reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scenarios", help="comma list (`start` is one); without it all of them, and the results are written"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], help="NAME=COMMAND with {port} and {upstream}")
    parser.add_argument("--only", help="comma list of gateways")
    parser.add_argument("--router", default=f"{sys.executable} -m llm_router", help="the command of ours")
    parser.add_argument("--no-pin", action="store_true", help="do not give the gateways a core of their own")
    args = parser.parse_args()
    gateways = known_gateways(args.router)
    for peer in args.peer:
        name, _, command = peer.partition("=")
        gateways[name] = Gateway(name, command)
    wanted = args.only.split(",") if args.only else list(gateways)
    names = args.scenarios.split(",") if args.scenarios else [scenario.name for scenario in SCENARIOS]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        bench = Bench(folder, not args.no_pin)
        try:
            with running(bench, [gateways[name] for name in wanted], folder) as started:
                results: dict[str, dict[str, list[Row]]] = {}
                began: list[Start] = []
                if not args.scenarios or "start" in names:
                    ours = known_gateways(args.router)
                    began = list(starts(ours[OURS], ours[PAIR], folder, bench.port, bench.theirs))
                    print_starts(began)
                for scenario in SCENARIOS:
                    if scenario.name in names:
                        able = [one for one in started if not one.scenarios or scenario.name in one.scenarios]
                        results[scenario.name] = rounds(bench, able, scenario, args.rounds)
                        print_table(scenario.name, scenario.about, results[scenario.name], scenario.most)
                if not args.scenarios:
                    able = [one for one in started if not one.scenarios]
                    curve = {number: rounds(bench, able, streams(number), max(1, args.rounds - 1)) for number in STEPS}
                    about = {scenario.name: (scenario.about, scenario.most) for scenario in SCENARIOS}
                    write_results(HERE, started, began, results, about, curve, args.rounds)
        finally:
            bench.close()


def rounds(bench: Bench, gateways: list[Gateway], scenario: Scenario, number: int) -> dict[str, list[Row]]:
    """So many rounds over all gateways."""
    rows: dict[str, list[Row]] = {gateway.name: [] for gateway in gateways}
    for _ in range(number):
        for gateway in gateways:
            rows[gateway.name].append(bench.measure(gateway, scenario))
    return rows


if __name__ == "__main__":
    main()
