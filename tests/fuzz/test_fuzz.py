"""Fuzzing in the default run: mutated seeds by hypothesis, and a short hunt with atheris where it is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

ODDITIES = st.sampled_from(
    [b"", b"\n\n", b"\r", b"\r\n\r\n", b"\x00", b"\xff\xfe", b"{}", b"[", b'"', b"null", b"-1", b"1e999", b'"\\ud800"',
     b"data: ", b"event: error\n", b":", b"[DONE]", b"\xef\xbb\xbf", b'{"error":', b"9" * 30, b"0\r\n\r\n", b"true"]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A seed that was cut, spliced with another, and strewn with oddities."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 5))):
        at, until = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        if draw(st.booleans()):
            until = min(until, at + 8)
        other = draw(st.sampled_from(SEEDS))
        middle = draw(
            ODDITIES | st.binary(max_size=8) | st.integers(0, len(other)).map(lambda cut, other=other: other[cut:])
        )
        data = data[:at] + middle + data[until:]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed(name: str) -> None:
    """Each sample and each of its prefixes in coarse steps is met as the target promises."""
    for seed in SEEDS:
        for end in (*range(0, len(seed), max(1, len(seed) // 50)), len(seed)):
            TARGETS[name](seed[:end])


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_seeds(name: str) -> None:
    """Whatever a sample was turned into, the target keeps its promise."""

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(mutated() | st.binary(max_size=200))
    def hunt(data: bytes) -> None:
        TARGETS[name](data)

    hunt()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("name", TARGETS)
async def test_a_short_hunt(name: str, tmp_path: Path) -> None:
    """Two seconds of coverage-guided fuzzing find nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fuzz.run", name, "-max_total_time=2", f"-artifact_prefix={tmp_path}/"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output[-3000:].decode(errors="replace")
