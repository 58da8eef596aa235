"""What the benchmark found, as a table on the terminal, as bench/RESULTS.md and as a plot."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bench.gateways import PAIR
from bench.start import HEAD, Start

if TYPE_CHECKING:
    from bench.gateways import Gateway

BASE, OURS = "relay", "router"


@dataclass(frozen=True, slots=True)
class Row:
    """One round of one gateway. `times` are percentiles in milliseconds, None where nothing was seen."""

    requests: int
    bad: int
    chunks: int
    cpu_s: float
    seconds: float
    peak_mib: float
    times: Mapping[str, float | None]
    problems: Mapping[str, int] = field(default_factory=dict)

    @property
    def cpu_us(self) -> float:
        """CPU per chunk of a stream, or per request where nothing was streamed, in microseconds."""
        return self.cpu_s * 1e6 / max(1, self.chunks or self.requests)


def cost(rows: Sequence[Row]) -> float:
    """The lowest of the rounds."""
    return min(row.cpu_us for row in rows)


def median(rows: Sequence[Row], name: str) -> float | None:
    """The median of a percentile over the rounds."""
    values = [value for row in rows if (value := row.times.get(name)) is not None]
    return statistics.median(values) if values else None


COLUMNS = (
    "gateway",
    "CPU us",
    "x relay",
    "whole p50",
    "whole p99",
    "first p50",
    "first p99",
    "delay p50",
    "delay p99",
    "peak MiB",
    "req/s",
    "bad",
)


def table(rows: Mapping[str, Sequence[Row]]) -> list[list[str]]:
    """The cells of one scenario."""
    base = cost(rows[BASE]) if BASE in rows else None
    cells = []
    for name, runs in rows.items():
        times = [
            median(runs, column) for column in ("whole_50", "whole_99", "first_50", "first_99", "delay_50", "delay_99")
        ]
        cells.append(
            [
                name,
                f"{cost(runs):.1f}",
                f"{cost(runs) / base:.2f}" if base else "-",
                *("-" if value is None else f"{value:.3g}" for value in times),
                f"{max(run.peak_mib for run in runs):.0f}",
                f"{statistics.median(run.requests / run.seconds for run in runs):.0f}",
                str(sum(run.bad for run in runs)),
            ]
        )
    return cells


def unit(rows: Mapping[str, Sequence[Row]]) -> str:
    """What the CPU column is per."""
    return "chunk" if any(run.chunks for runs in rows.values() for run in runs) else "request"


def print_table(name: str, about: str, rows: Mapping[str, Sequence[Row]], most: float | None) -> None:
    """One scenario on the terminal."""
    aim = f"; at most {most:g} x relay" if most is not None else ""
    print(f"\n{name}  {about} (CPU per {unit(rows)}{aim})")
    cells = [list(COLUMNS), *table(rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), flush=True)
    for note in notes(rows):
        print(f"  {note}")
    for gateway, runs in rows.items():
        for run in runs:
            if run.problems:
                print(f"  {gateway}: {dict(run.problems)}")


def notes(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """What two workers cost of what one process does."""
    if PAIR not in rows or OURS not in rows:
        return []
    return [f"Two workers: {cost(rows[PAIR]) / cost(rows[OURS]):.2f} times one process. Aim: at most 1.1."]


def print_starts(starts: Sequence[Start]) -> None:
    """The starts on the terminal."""
    cells = [HEAD, *(start.cells for start in starts)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True)


def write_results(
    folder: Path,
    gateways: Sequence[Gateway],
    starts: Sequence[Start],
    results: Mapping[str, Mapping[str, Sequence[Row]]],
    about: Mapping[str, tuple[str, float | None]],
    curve: Mapping[int, Mapping[str, Sequence[Row]]],
    rounds: int,
) -> None:
    """RESULTS.md and streams.svg."""
    lines = [
        "# Results",
        "",
        f"Written by `python -m bench` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {rounds} rounds. {machine()}.",
        "CPU is that of the gateway's whole process tree, the lowest of the rounds; times are medians, in ms:",
        "`whole` until the answer's end, `first` until its first byte, `delay` of a chunk on its way from provider.",
        "",
        "## Start and memory",
        "",
        "Until `/health` answers, the best of some starts; memory right after that answer. RSS of several processes",
        "counts what they share once for each, PSS once.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---" * len(HEAD) + "|",
        *("| " + " | ".join(start.cells) + " |" for start in starts),
        "",
        *peak(gateways, results),
        "| gateway | first chat answer | RSS a second later |",
        "|---|---|---|",
        *(f"| {gateway.name} | {gateway.start_s:.2f} s | {gateway.idle_mib:.0f} MiB |" for gateway in gateways),
        "",
    ]
    for name, rows in results.items():
        text, most = about[name]
        aim = f" Aim: at most {most:g} times the relay." if most is not None else ""
        lines += [f"## {name}: {text}", "", f"CPU per {unit(rows)}.{aim}", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        lines += ["| " + " | ".join(cells) + " |" for cells in table(rows)]
        lines += ["", *(f"{note}\n" for note in notes(rows))]
    gateways = [gateway for gateway in gateways if not gateway.scenarios]
    lines += [
        "## CPU per chunk against concurrent streams",
        "",
        "Streams at 20 ms, 50 chunks each.",
        "",
        "![CPU per chunk](streams.svg)",
        "",
        "| streams | " + " | ".join(gateway.name for gateway in gateways) + " |",
        "|---" * (len(gateways) + 1) + "|",
        *(
            f"| {number} | " + " | ".join(f"{cost(rows[gateway.name]):.1f} us" for gateway in gateways) + " |"
            for number, rows in curve.items()
        ),
        "",
    ]
    (folder / "RESULTS.md").write_text("\n".join(lines))
    series = {gateway.name: [(n, cost(rows[gateway.name])) for n, rows in curve.items()] for gateway in gateways}
    (folder / "streams.svg").write_text(plot(series))


def peak(gateways: Sequence[Gateway], results: Mapping[str, Mapping[str, Sequence[Row]]]) -> list[str]:
    """How far 1000 streams let memory grow."""
    idle = {gateway.name: gateway.idle_mib for gateway in gateways}
    rows = results.get("S4", {})
    if OURS not in rows or OURS not in idle:
        return []
    over = max(row.peak_mib for row in rows[OURS]) - idle[OURS]
    return [f"Peak of one process in S4: {over:+.0f} MiB over idle. Aim: at most +60 MiB.", ""]


def machine() -> str:
    """Where this was measured."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{len(names)} x {names[0] if names else platform.processor()}, {system}"


_COLOURS = ("#c0392b", "#2c7fb8", "#31a354", "#756bb1", "#e6550d", "#636363")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 400, 60, 50


def plot(series: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Lines over concurrent streams (logarithmic), as SVG."""
    import math

    numbers = sorted({number for points in series.values() for number, _ in points})
    top = max(value for points in series.values() for _, value in points) * 1.1
    low, high = math.log(numbers[0]), math.log(numbers[-1])

    def x(number: float) -> float:
        return _LEFT + (math.log(number) - low) / (high - low) * (_WIDTH - _LEFT - 110)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - 20)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    ]
    for step in range(6):
        value = top * step / 5
        parts.append(f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - 110}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0f}</text>')
    below = _HEIGHT - _BOTTOM + 18
    parts += [f'<text x="{x(number):.1f}" y="{below}" text-anchor="middle">{number}</text>' for number in numbers]
    parts.append(f'<text x="{_LEFT}" y="14">CPU us per chunk</text>')
    parts.append(f'<text x="{(_WIDTH - 110) / 2}" y="{_HEIGHT - 10}">concurrent streams at 20 ms</text>')
    for index, (name, points) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(f"{x(number):.1f},{y(value):.1f}" for number, value in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        last = points[-1]
        parts.append(f'<text x="{x(last[0]) + 6:.1f}" y="{y(last[1]) + 4:.1f}" fill="{colour}">{name}</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)
