"""What hedging does to the time to the first token when one answer in twenty starts late.

    python bench/hedging.py [--requests 400]

A real router over two scripted upstreams on loopback; 5% of the first one's answers start after 1.5 s, all others after
20 ms. Run from the top of the repository.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.router import RouterProcess, chains
from tests.support.upstream import Exchange, Upstream, healthy

LATE_SHARE, LATE_SECONDS, USUAL_SECONDS = 0.05, 1.5, 0.02


async def measure(requests: int, hedge: dict[str, float] | None) -> list[float]:
    """First-token times in seconds, sorted, of `requests` streams, eight at a time."""
    rng = random.Random(1)
    first, second = Upstream(), Upstream()

    async def sometimes_late(exchange: Exchange) -> None:
        await asyncio.sleep(LATE_SECONDS if rng.random() < LATE_SHARE else USUAL_SECONDS)
        await healthy(exchange)

    async def usual(exchange: Exchange) -> None:
        await asyncio.sleep(USUAL_SECONDS)
        await healthy(exchange)

    first.script, second.script = sometimes_late, usual
    await first.start()
    await second.start()
    options = {"categories": {"conversation": {"hedge": hedge}}} if hedge else {}
    config = chains({"a": first.port, "b": second.port}, {"conversation": ["a/m", "b/m"]}, **options)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        router = RouterProcess(Path(folder), config, env={"ROUTER_FIRST_BYTE_TIMEOUT": "10"})
        await asyncio.to_thread(router.start)
        try:

            async def client(count: int) -> None:
                for _ in range(count):
                    began = asyncio.get_running_loop().time()
                    answer = await router.chat("router/conversation")
                    assert answer.status == 200
                    times.append(asyncio.get_running_loop().time() - began)

            await asyncio.gather(*(client(requests // 8) for _ in range(8)))
        finally:
            await asyncio.to_thread(router.stop)
    await first.stop()
    await second.stop()
    return sorted(times)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=400)
    args = parser.parse_args()
    rows = []
    hedge = {"after": 0.2, "budget": 0.1}
    for name, setting in (("off", None), ("after 0.2 s, budget 10%", hedge)):
        times = asyncio.run(measure(args.requests, setting))
        rows.append([name, *(f"{times[int(len(times) * q)] * 1000:.0f}" for q in (0.5, 0.95, 0.99))])
    print(tabulate(rows, headers=["hedge", "p50 ms", "p95 ms", "p99 ms"]))


if __name__ == "__main__":
    main()
