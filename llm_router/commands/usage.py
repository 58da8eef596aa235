"""`llm-router usage`: what the ledger says."""

from __future__ import annotations

import csv
import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_router import exits
from llm_router.accounting.report import By, LedgerReader, NoLedger, NothingBooked, parse_since, usage_columns
from llm_router.commands.common import dollars, load_configuration, print_table
from llm_router.config.report import mask
from llm_router.config.values import Access
from llm_router.server.rules import client_name
from llm_router.standard_error import complain

# What a table shows, and as what; JSON and CSV have the rest too.
_COLUMNS = {
    "requests": "requests",
    "failed": "failed",
    "cancelled": "cancelled",
    "input_tokens": "tokens in",
    "cached_input": "cached",
    "output_tokens": "tokens out",
    "cost_usd": "cost USD",
    "unknown_cost": "no price",
    "avg_ms": "avg ms",
}


def run(arguments: Namespace) -> int:
    """Prints sums of the ledger."""
    try:
        since = parse_since(arguments.since, time.time()) if arguments.since else None
    except (ValueError, OverflowError) as error:
        complain(f"--since: {error}")
        return exits.USAGE
    snapshot = load_configuration(arguments)
    if snapshot is None:
        return exits.CONFIG
    try:
        rows = LedgerReader(Path(snapshot.state_dir)).usage(arguments.by, since)
    except NoLedger as error:
        complain(f"{error} (state folder: {snapshot.state_dir})")
        if not isinstance(error, NothingBooked):
            return exits.FAILED
        rows = []  # a report of nothing is a report: scripts get one that they can read
    if arguments.by == "client" and arguments.format == "table":
        known = _clients(snapshot.access)
        rows = [{**row, "client": known.get(row["client"], row["client"])} for row in rows]
    _print(rows, arguments.by, arguments.format)
    return exits.OK


def _clients(access: Access) -> dict[str, str]:
    """What the ledger calls the holders of the keys in force, and which keys those are."""
    keys = [(key, f"key {number}") for number, key in enumerate(access.api_keys, 1)]
    if access.admin_key:
        keys.append((access.admin_key, "admin key"))
    return {client_name(key): f"{client_name(key)} ({which}, {mask(key)})" for key, which in keys}


def _print(rows: Sequence[dict[str, Any]], by: By, style: str) -> None:
    if style == "json":
        print(json.dumps(rows, indent=2))
    elif style == "csv":
        _print_csv(rows, by)
    else:
        _print_table(rows, by)


def _print_csv(rows: Sequence[dict[str, Any]], by: By) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = list(rows[0]) if rows else usage_columns(by)
    writer.writerow(names)
    writer.writerows([_harmless(row[name]) for name in names] for row in rows)


def _harmless(value: Any) -> Any:
    """Spreadsheets run cells that begin like a formula; names in the ledger come from outside."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _print_table(rows: Sequence[dict[str, Any]], by: str) -> None:
    if not rows:
        print("No requests in this time.")
        return
    names = [name for name in _COLUMNS if name in rows[0]]
    cells = [[row[by] or "-", *(_cell(name, row[name]) for name in names)] for row in rows]
    total = ["total", *(_cell(name, _total(rows, name)) for name in names)]
    headers = [by, *(_COLUMNS[name] for name in names)]
    print_table([*cells, total], headers, right=range(1, len(headers)))


def _total(rows: Sequence[dict[str, Any]], name: str) -> Any:
    if name == "avg_ms":
        requests = sum(row["requests"] for row in rows)
        return sum((row[name] or 0.0) * row["requests"] for row in rows) / requests if requests else None
    known = [row[name] for row in rows if row[name] is not None]
    return sum(known) if known else None


def _cell(name: str, value: Any) -> str:
    if name == "cost_usd":
        return dollars(value)
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
