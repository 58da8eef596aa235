"""Prompts written for this project, as rows to learn from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

DATA = Path(__file__).parent / "data"


def rows() -> Iterator[tuple[str, str, str, float]]:
    """Text, label, family and weight of every prompt."""
    for path in sorted(DATA.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield row["text"], row["label"], row.get("family", path.stem), row.get("weight", 1.0)
