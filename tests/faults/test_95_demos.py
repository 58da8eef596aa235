"""The commands that docs/RELIABILITY.md names: they run, and their verdict is part of the suite; and `--demo`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support import drill, matrix
from tests.support.router import RouterProcess


@pytest.mark.slow
async def test_the_fault_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    """Every row of the published fault matrix is as it must be."""
    wrong = await matrix.run(matrix.matrix, seconds=1)
    assert wrong == 0, capsys.readouterr().out


def test_the_published_matrix_has_every_row() -> None:
    """docs/RELIABILITY.md shows each row that the command measures, with the outcome that must be."""
    page = (Path(__file__).parents[2] / "docs" / "RELIABILITY.md").read_text()
    for row in matrix.ROWS:
        assert f"| {row.name} | {row.goal} |" in page


@pytest.mark.slow
async def test_the_outage_drill(capsys: pytest.CaptureFixture[str]) -> None:
    """A killed provider: no client without a byte sees an error, every other sees exactly one error event."""
    wrong = await drill.drill(200)
    assert wrong == 0, capsys.readouterr().out


async def test_the_demo_has_no_workers(tmp_path: Path) -> None:
    """`--demo` is one process, whatever `--workers` asks for, and says so."""
    router = RouterProcess(tmp_path, command=("serve", "--demo"), args=("--workers", "3"))
    await asyncio.to_thread(router.start)
    try:
        assert "--workers is left aside" in router.log()
        assert (await router.ask("GET", "/config")).json()["server"]["workers"] == 1
        assert router.children() == []
        assert (await router.chat("router/code")).header("x-router-model") == "healthy/demo-code"
    finally:
        await asyncio.to_thread(router.stop)
