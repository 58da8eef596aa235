"""User-space instructions per request: a figure that hardly depends on the machine's neighbours. Needs valgrind.

    python -m bench.instructions                         # the bare relay and the router, S1 to S5
    python -m bench.instructions --only router S1:300    # one gateway, a scenario with its number of requests

The gateway runs under callgrind, some fifty times slower: streams are paced slower too, and batches are smaller than
they would be. What the kernel does is not counted, and a long copy counts an instruction a byte. Compare figures of the
same scenario; 0.3 % is noise for S1, S2 and S5, a few per cent where reads may merge (S3).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.__main__ import SCENARIOS, Bench, Scenario
from bench.gateways import Gateway, known_gateways

_REQUESTS = {"S1": 300, "S2": 40, "S3": 20, "S4": 100, "S4x": 100, "S5": 30}
_SETTLES = 1.5  # seconds until what a load left behind is settled, too
_CALLGRIND = "valgrind -q --tool=callgrind --instr-atstart=no --callgrind-out-file={work}/callgrind "


def count(bench: Bench, gateway: Gateway, scenario: Scenario) -> tuple[float, int]:
    """Thousands of instructions per request, and how many requests went wrong."""
    bench.shape(scenario)
    bench.load(gateway, replace(scenario, requests=max(40, scenario.requests // 4)), 1.0)
    time.sleep(_SETTLES)
    _control(gateway, "-i", "on")
    _control(gateway, "-z")
    seen = bench.load(gateway, scenario, scenario.ramp)
    time.sleep(_SETTLES)
    _control(gateway, "-d")
    _control(gateway, "-i", "off")
    folder = bench.folder / gateway.name
    dumps = sorted(folder.glob("callgrind*"), key=lambda path: path.stat().st_mtime)
    lines = dumps[-1].read_text().splitlines()
    total = next(int(line.split()[1]) for line in lines if line.startswith(("totals:", "summary:")))
    for dump in dumps:
        dump.unlink()
    return total / max(1, seen["good"]) / 1000, seen["bad"]


def _control(gateway: Gateway, *words: str) -> None:
    subprocess.run(["callgrind_control", *words, str(gateway.pid)], capture_output=True, check=True)


def _slowed(scenario: Scenario, requests: int) -> Scenario:
    if not scenario.paced:
        return replace(scenario, requests=requests)
    return replace(scenario, requests=requests, interval_ms=400, ramp=4.0, chunks=20)


def main() -> None:
    """Prints a line for each gateway and scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=list(_REQUESTS), metavar="SCENARIO[:REQUESTS]")
    parser.add_argument("--only", default="relay,router", help="comma list of gateways")
    parser.add_argument("--router", default=f"{sys.executable} -m llm_router", help="the command of ours")
    args = parser.parse_args()
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}
    gateways = known_gateways(args.router)
    for name in args.only.split(","):
        gateway = gateways[name]
        gateway.command = _CALLGRIND + gateway.command
        with tempfile.TemporaryDirectory() as place:
            bench = Bench(Path(place), cores=False)
            try:
                gateway.start(Path(place), bench.port, None, patience=120.0)
                for word in args.scenarios:
                    scenario, _, number = word.partition(":")
                    wanted = _slowed(scenarios[scenario], int(number or _REQUESTS[scenario]))
                    kilo, bad = count(bench, gateway, wanted)
                    print(f"{name:8} {scenario:4} {kilo:10.1f} thousand instructions a request, {bad} bad", flush=True)
            finally:
                gateway.stop()
                bench.close()


if __name__ == "__main__":
    sys.exit(main())
