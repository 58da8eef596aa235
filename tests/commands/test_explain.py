"""`explain` and `evaluate`: what would be chosen, and how often that is right."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import KEY, Run


def test_explain_shows_category_candidates_and_skipped(run: Run) -> None:
    """A text is classified and planned; nothing is called and nothing is written."""
    Path("router_config.json").write_text(
        '{"model_mappings": {"code": ["openai/gpt-4o", "anthropic/claude-opus-5-5"]}}'
    )
    code, out, err = run("explain", "Fix this Python traceback: KeyError in load()", OPENAI_API_KEY=KEY)
    assert (code, err) == (0, "")
    assert out.startswith("Category    code (mode local, confidence ")
    assert "openai/gpt-4o" in out
    assert "ANTHROPIC_API_KEY" in out
    assert not (Path.cwd().parent / "home").exists()


def test_explain_takes_a_whole_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request from a file or from standard input is explained as it would be routed; JSON on demand."""
    body = {"model": "router/reasoning", "messages": [{"role": "user", "content": "hi"}]}
    Path("request.json").write_text(json.dumps(body))
    code, out, _ = run("explain", "--request", "request.json", "--format", "json", OPENAI_API_KEY=KEY)
    assert code == 0
    assert json.loads(out)["category"] == "reasoning"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(body).encode())))
    assert "Category    reasoning" in run("explain", "--request", "-")[1]


def test_explain_takes_words_without_quotes_and_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words need no quotes around them; a dash alone means what is piped in, as it does for a whole request."""
    quoted = run("explain", "fix this python traceback")
    assert quoted[0] == 0
    assert run("explain", "fix", "this", "python", "traceback") == quoted
    monkeypatch.setattr(sys, "stdin", io.StringIO("fix this python traceback"))
    assert run("explain", "-") == quoted


@pytest.mark.parametrize(
    ("argv", "content", "code", "words"),
    [
        (["explain"], "", 2, "either a text or --request"),
        (["explain", "x", "--request", "f"], "", 2, "either a text or --request"),
        (["explain", "--request", "absent"], "", 1, "absent: No such file"),
        (["explain", "--request", "f"], "{", 1, "f: The request body is not valid JSON"),
        (["explain", "--request", "f"], '{"model": "router"}', 1, "'messages' is missing"),
        (["evaluate", "f"], "\n", 1, "holds no rows"),
        (["evaluate", "f"], "[]", 1, 'f: line 1: must be an object with a "label"'),
        (["evaluate", "f"], '{"label": "code", "text": "x", "accept": "y"}', 1, '"accept" must be a list'),
        (["evaluate", "f"], '{"label": "code"}', 1, 'f: line 1: has neither a "text" nor a "request"'),
        (["evaluate", "f"], '{"label": "code", "text": "x"}\n{', 1, "f: line 2: "),
        (["evaluate", "f"], '\n{"label": "code", "request": {"messages": []}}', 1, "f: line 2: 'messages' must not"),
        (["evaluate", "absent"], "", 1, "absent: No such file"),
        (["evaluate", "-"], "", 1, "standard input: holds no rows"),
        (["explain", "--request", "-"], "", 1, "standard input: The request body"),
    ],
)
def test_what_cannot_be_explained_or_evaluated(
    run: Run, monkeypatch: pytest.MonkeyPatch, argv: list[str], content: str, code: int, words: str
) -> None:
    """A request or a row that cannot be read is told with its place, blank lines counted as editors count them."""
    Path("f").write_text(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    found, out, err = run(*argv)
    assert (found, out) == (code, "")
    assert words in err


def test_evaluate_wants_text(run: Run) -> None:
    """Rows that are no text are told as such, not as a codec sees them."""
    Path("rows").write_bytes(b"\xa8\x00")
    assert run("evaluate", "rows")[2] == "llm-router: rows: is not UTF-8 text\n"


def test_files_of_other_programs_are_read(run: Run) -> None:
    """A mark before UTF-8 text is passed over, and a line ends where JSON lines do, not at ends inside a text."""
    row = json.dumps({"label": "code", "text": "fix this:\u2028a loop\x85 that never ends\u2029"}, ensure_ascii=False)
    Path("rows").write_text(f"\ufeff{row}\r\n{row}\r\n", encoding="utf-8", newline="")
    code, out, err = run("evaluate", "rows", "--format", "json")
    assert (code, err, json.loads(out)["rows"]) == (0, "", 2)
    Path("body").write_text('\ufeff{"model": "router", "messages": [{"role": "user", "content": "hi"}]}', "utf-8")
    assert run("explain", "--request", "body")[0] == 0


def test_a_precision_that_nobody_can_know_is_no_zero(run: Run) -> None:
    """Where no row was given a category, how precisely it is given is unknown: null, and a dash in the table."""
    Path("rows").write_text('{"label": "creative", "accept": ["conversation"], "text": "Good morning! How are you?"}')
    scores = json.loads(run("evaluate", "rows", "--format", "json")[1])["by_label"]["creative"]
    assert scores == {"rows": 1, "precision": None, "recall": 1.0, "f1": None}
    assert ["creative", "1", "-", "100.0%", "-"] in [line.split() for line in run("evaluate", "rows")[1].splitlines()]


def test_a_label_that_is_always_wrong_scores_nothing(run: Run) -> None:
    """Where no row of a category is right and none of its label was found, precision, recall and F1 are 0."""
    rows = [("code", "Good morning! How are you?"), ("conversation", "Fix this Python traceback: KeyError in load()")]
    Path("rows").write_text("\n".join(json.dumps({"label": label, "text": text}) for label, text in rows))
    scores = json.loads(run("evaluate", "rows", "--format", "json")[1])["by_label"]
    assert scores["code"] == {"rows": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_a_misspelt_label_is_told(run: Run) -> None:
    """A label that is no category's name can never be right: it is named, beside figures that stay readable."""
    rows = [{"label": "cod", "text": "x = 1"}, {"label": "odd", "accept": ["code"], "text": "x = 1"}]
    Path("rows").write_text("\n".join(map(json.dumps, rows)))
    code, out, err = run("evaluate", "rows", "--format", "json")
    assert (code, json.loads(out)["rows"]) == (0, 2)
    assert err == "llm-router: rows: has labels that no category is called: cod\n"


def test_evaluate_scores_the_users_own_rows(run: Run) -> None:
    """Accuracy, confusion and cost come from the configuration in force; `accept` counts as right."""
    rows: list[dict[str, Any]] = [
        {"label": "code", "text": "Fix this Python traceback: KeyError in def load(path)"},
        {"label": "conversation", "text": "Good morning! How are you today?"},
        {"label": "creative", "accept": ["code"], "text": "write a python function that reverses a list"},
        {"label": "reasoning", "request": {"messages": [{"role": "user", "content": "Good evening, my friend!"}]}},
    ]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    code, out, _ = run("evaluate", "rows.jsonl", "--format", "json", OPENAI_API_KEY=KEY)
    found = json.loads(out)
    assert code == 0
    assert (found["rows"], found["accuracy"]) == (4, 0.75)
    assert found["confusion"]["reasoning"] == {"conversation": 1}
    assert found["cost"]["code"]["requests"] == 2
    assert found["cost"]["code"]["estimated_cost_usd"] > 0
    assert "4 rows, 75.0% right" in run("evaluate", "rows.jsonl")[1]
    Path("rows.jsonl").write_text(json.dumps(rows[0]))
    assert "1 row, 100.0% right" in run("evaluate", "rows.jsonl")[1]
