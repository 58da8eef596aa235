"""`llm-router evaluate`: how well the running configuration sorts the user's own labelled requests."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_router import exits
from llm_router.commands.common import counted, dollars, file_name, print_table
from llm_router.commands.offline import offline_router
from llm_router.errors import ApiError, ConfigError
from llm_router.proxy.exchange import Caller
from llm_router.standard_error import complain
from llm_router.wire.chat import parse_chat

_EXAMPLE = '{"label": "code", "text": "why does this loop never end?"}'


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled request: its line in the file, the right category, others that are right as well, and the body."""

    line: int
    label: str
    accept: frozenset[str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a row. `cost` is the estimate in USD for the first candidate, None where it is unknown."""

    label: str
    found: str
    right: bool
    cost: float | None


class BadRow(Exception):
    """A line that is no labelled request; the text says which and why."""


def run(arguments: Namespace) -> int:
    """Prints accuracy, confusion matrix, and cost by category."""
    name = file_name(arguments.file)
    try:
        text = sys.stdin.read() if arguments.file == "-" else Path(name).read_text(encoding="utf-8")
        # Further ends of a line that Unicode knows may stand in a text; some programs begin UTF-8 with a mark.
        rows = list(read_rows(text.removeprefix("\ufeff").split("\n")))
        judged, strange = asyncio.run(_judge_all(rows, arguments.config))
    except OSError as error:
        complain(f"{name}: {error.strerror or error}")
    except UnicodeDecodeError:
        complain(f"{name}: is not UTF-8 text")
    except BadRow as error:
        complain(f"{name}: {error}")
    except ConfigError as error:
        complain(str(error))
        return exits.CONFIG
    else:
        if judged:
            _print(summary(judged), arguments.format)
            if strange:
                complain(f"{name}: has labels that no category is called: {', '.join(strange)}")
            return exits.OK
        complain(f"{name}: holds no rows; a row looks like {_EXAMPLE}")
    return exits.FAILED


def read_rows(lines: Iterable[str]) -> Iterator[Row]:
    """The rows of a JSONL file; blank lines are passed over. Raises BadRow."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _read_row(number, json.loads(line))
        except (ValueError, RecursionError) as error:
            raise BadRow(f"line {number}: {error}") from None


def _read_row(line: int, row: Any) -> Row:
    if not isinstance(row, dict) or not isinstance(row.get("label"), str):
        raise ValueError('must be an object with a "label"')
    accept = row.get("accept") or []
    if not isinstance(accept, list) or not all(isinstance(label, str) for label in accept):
        raise ValueError('"accept" must be a list of labels')
    request = row.get("request")
    if request is None and isinstance(row.get("text"), str):
        request = {"messages": [{"role": "user", "content": row["text"]}]}
    if not isinstance(request, dict):
        raise ValueError('has neither a "text" nor a "request"')
    return Row(line, row["label"], frozenset(accept), json.dumps({**request, "model": "router"}).encode())


async def _judge_all(rows: Sequence[Row], config: str | None) -> tuple[list[Judged], list[str]]:
    """What became of the rows, and the labels of those that no category can be right for."""
    router = offline_router(config)
    judged = []
    for row in rows:
        try:
            found = router.explain(parse_chat(row.body), Caller("evaluate"))
        except ApiError as error:
            raise BadRow(f"line {row.line}: {error.message}") from None
        first = next(iter(found["candidates"]), None)
        category = found["category"]
        right = category == row.label or category in row.accept
        judged.append(Judged(row.label, category, right, first["estimated_cost_usd"] if first else None))
    categories = router.snapshot.categories
    return judged, sorted({row.label for row in rows if not {row.label, *row.accept} & categories.keys()})


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """Accuracy as shares, the confusion matrix as counts by label and category, and estimated USD by category."""
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    costs: dict[str, list[float]] = defaultdict(list)
    for one in judged:
        confusion[one.label][one.found] += 1
        costs[one.found].append(one.cost or 0.0)
    labels = sorted(confusion)
    return {
        "rows": len(judged),
        "accuracy": sum(one.right for one in judged) / len(judged),
        "by_label": {label: _scores(label, judged) for label in labels},
        "confusion": {label: dict(confusion[label]) for label in labels},
        "cost": {
            category: {"requests": len(known), "estimated_cost_usd": sum(known)}
            for category, known in sorted(costs.items())
        },
        "without_price": sum(one.cost is None for one in judged),
    }


def _scores(label: str, judged: Sequence[Judged]) -> dict[str, float | int | None]:
    """Recall counts what `accept` allows as found; precision is over all rows that were given this category, if any."""
    own = [one for one in judged if one.label == label]
    given = [one for one in judged if one.found == label]
    recall = sum(one.right for one in own) / len(own)
    if not given:
        return {"rows": len(own), "precision": None, "recall": recall, "f1": None}
    precision = sum(one.right for one in given) / len(given)
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return {"rows": len(own), "precision": precision, "recall": recall, "f1": f1}


def _print(found: dict[str, Any], style: str) -> None:
    if style == "json":
        print(json.dumps(found, indent=2))
        return
    print(f"{counted(found['rows'], 'row')}, {found['accuracy']:.1%} right\n")
    print_table(
        [
            (label, f"{each['rows']:,}", *(_share(each[name]) for name in ("precision", "recall", "f1")))
            for label, each in found["by_label"].items()
        ],
        ("label", "rows", "precision", "recall", "F1"),
        right=range(1, 5),
    )
    categories = sorted({category for row in found["confusion"].values() for category in row})
    print("\nConfusion (rows: your labels, columns: what the router found)")
    print_table(
        [
            (label, *(f"{row.get(category, 0):,}" for category in categories))
            for label, row in found["confusion"].items()
        ],
        ("label", *categories),
        right=range(1, len(categories) + 1),
    )
    print("\nEstimated cost with the first candidate of each")
    print_table(
        [
            (category, f"{each['requests']:,}", dollars(each["estimated_cost_usd"]))
            for category, each in found["cost"].items()
        ],
        ("category", "requests", "about USD"),
        right=(1, 2),
    )
    if found["without_price"]:
        print(f"\nWithout a known price, and so missing from the cost: {counted(found['without_price'], 'row')}.")


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
