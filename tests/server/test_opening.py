"""What the log says when the router starts."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from llm_router.server.opening import TextLines
from tests.support.router import RouterProcess


def test_lines_begin_with_the_time_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's own lines and those of requests can be sorted together, whatever the machine's zone."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        record = logging.makeLogRecord({"msg": "ready", "levelname": "INFO", "created": 1_800_000_000.25})
        assert TextLines().format(record) == "2027-01-15T08:00:00.250Z INFO ready"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_looks_like_a_mistake_is_in_the_log(tmp_path: Path) -> None:
    """A start tells what `check` would: a newcomer without a key, or with quotes around it, need not guess."""
    with RouterProcess(tmp_path / "bare") as bare:
        assert "no provider key is set" in bare.log()
    with RouterProcess(tmp_path / "quoted", env={"OPENAI_API_KEY": "'sk-quoted-1'"}) as quoted:
        assert "OPENAI_API_KEY begins or ends with a quotation mark" in quoted.log()
        assert "sk-quoted" not in quoted.log()
    with RouterProcess(tmp_path / "fine", env={"OPENAI_API_KEY": "sk-fine-1"}) as fine:
        assert "WARNING" not in fine.log()
