"""`usage`: tables, JSON and CSV of the ledger."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from llm_router.accounting import report
from llm_router.commands import usage
from llm_router.server.rules import client_name
from tests.commands.conftest import Run

ROWS = [
    {"model": "openai/a", "requests": 3, "cost_usd": 0.5, "avg_ms": 100.0},
    {"model": "=evil()", "requests": 1, "cost_usd": None, "avg_ms": 300.0},
]


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float | None]]:
    """A ledger that gives ROWS and keeps what it was asked."""
    asked: list[tuple[str, float | None]] = []

    class Reader:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def usage(self, by: str, since: float | None) -> list[dict[str, Any]]:
            asked.append((by, since))
            return ROWS

    monkeypatch.setattr(usage, "LedgerReader", Reader)
    return asked


def test_usage_as_a_table(run: Run, ledger: list[tuple[str, float | None]]) -> None:
    """A table with a total; an unknown cost is a question mark, never zero."""
    code, out, _ = run("usage", "--since", "24h")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["model", "requests", "cost", "USD", "avg", "ms"]
    assert lines[2] == ["openai/a", "3", "0.50", "100"]
    assert lines[3] == ["=evil()", "1", "?", "300"]
    assert lines[4] == ["total", "4", "0.50", "150"]
    by, since = ledger[0]
    assert by == "model"
    assert since == pytest.approx(time.time() - 86_400, abs=5)


def test_clients_are_told_by_their_keys(
    run: Run, ledger: list[tuple[str, float | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the ledger's name of a client stands which of the keys in force it is; nobody else knows."""
    keys = ("team-one-0123456789", "team-two-abcdefghij")
    names = [client_name(key) for key in (*keys, "gone")]
    monkeypatch.setattr(
        f"{__name__}.ROWS", [{"client": name, "requests": 1, "cost_usd": 0.5, "avg_ms": 1.0} for name in (*names, "")]
    )
    out = run("usage", "--by", "client", ROUTER_API_KEY=",".join(keys))[1]
    assert [line.partition("  ")[0] for line in out.splitlines()[2:]] == [
        f"{names[0]} (key 1, ****6789)",
        f"{names[1]} (key 2, ****ghij)",
        names[2],
        "-",
        "total",
    ]


def test_usage_as_json_and_csv(run: Run, ledger: list[tuple[str, float | None]]) -> None:
    """JSON is what the ledger gave; CSV cells never begin like a spreadsheet's formula."""
    assert json.loads(run("usage", "--format", "json")[1]) == ROWS
    cells = list(csv.DictReader(io.StringIO(run("usage", "--format", "csv", "--by", "day")[1])))
    assert [cell["model"] for cell in cells] == ["openai/a", "'=evil()"]
    assert ledger[1] == ("day", None)


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_begins_like_a_formula(begin: str) -> None:
    """What spreadsheets would run, also behind what they pass over, gets an apostrophe; numbers are left alone."""
    assert usage._harmless(f"{begin}1+1") == f"'{begin}1+1"
    assert usage._harmless(-0.5) == -0.5


def test_usage_without_rows(run: Run, ledger: list[tuple[str, float | None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty ledger is said in words, and stays valid JSON and CSV."""
    monkeypatch.setattr("tests.commands.test_usage.ROWS", [])
    assert run("usage")[1] == "No requests in this time.\n"
    assert json.loads(run("usage", "--format", "json")[1]) == []
    names = run("usage", "--format", "csv", "--by", "client")[1].strip().split(",")
    assert {"client", *usage._COLUMNS} < set(names)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [(["--since", "yesterday"], 2, "--since: 'yesterday' is no time span"), ([], 1, "state folder: ")],
)
def test_usage_that_cannot_be_given(run: Run, argv: list[str], code: int, words: str) -> None:
    """A bad span is a mistake of the command line; a ledger that is none is a failure that says where it looked."""
    Path("ledger.sqlite3").write_text("no database " * 100)
    found, out, err = run("usage", *argv, ROUTER_STATE_DIR=str(Path.cwd()))
    assert (found, out) == (code, "")
    assert words in err


def test_a_table_of_usage_fits_a_terminal() -> None:
    """Each column of the table is one that rows have; a long name beside large sums still fits 120 columns."""
    names = report.usage_columns("model")
    assert set(usage._COLUMNS) < set(names)
    sums = {"model": "anthropic/claude-sonnet-5-5", "input_tokens": 123_456_789, "cost_usd": 1234.567}
    row = dict.fromkeys(names, 12_345) | sums
    with contextlib.redirect_stdout(io.StringIO()) as out:
        usage._print_table([row], "model")
    assert max(map(len, out.getvalue().splitlines())) <= 120


def test_usage_makes_nothing(run: Run) -> None:
    """Asking before the first request leaves no folder behind, and says where it looked."""
    code, out, err = run("usage")
    assert (code, out) == (0, "No requests in this time.\n")
    assert "state folder: " in err
    assert not (Path.cwd().parent / "home").exists()
