"""`llm-router check`: what is in force, where it comes from, and what looks wrong."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llm_router import exits, shipped
from llm_router.accounting.pricing import ModelInfo, PriceTable
from llm_router.commands.common import load_configuration, print_table
from llm_router.config.advice import advice, unguarded
from llm_router.config.fields import nearest
from llm_router.config.report import CONFIG_FILE, SettingRow, missing_variables, setting_rows
from llm_router.config.values import Provider, Snapshot
from llm_router.errors import ConfigError
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.upstream.errors import ConnectFailed
from llm_router.proxy.upstream.proxies import proxy_for
from llm_router.proxy.upstream.request import Origin
from llm_router.proxy.upstream.tls import create_tls_context
from llm_router.standard_error import complain


def run(arguments: Namespace) -> int:
    """Prints the whole configuration, refuses what `serve` would, and with `--live` asks the models themselves."""
    snapshot = load_configuration(arguments)
    if snapshot is None:
        return exits.CONFIG
    prices = PriceTable.parse(shipped.prices(), snapshot.prices)
    where = _where(snapshot, arguments)
    if arguments.format == "json":
        return _print_json(snapshot, prices, where, live=arguments.live)
    print(f"Configuration file: {where or 'none (llm-router init writes one)'}\n")
    _print_settings(snapshot, where)
    _print_providers(snapshot)
    _print_chains(snapshot, prices)
    _print_advice(snapshot, prices)
    if (problem := unguarded(snapshot)) is not None:
        complain(problem)
        return exits.CONFIG
    if arguments.live:
        from llm_router.commands.live import ask_all, print_answers

        return print_answers(ask_all(snapshot, prices))
    return exits.OK


def _print_json(snapshot: Snapshot, prices: PriceTable, where: str, *, live: bool) -> int:
    """The same for programs: one object, also where `serve` would refuse to start."""
    refusal = unguarded(snapshot)
    found: dict[str, Any] = {
        "config_file": snapshot.config_file or None,
        "settings": [
            {"setting": row.key, "value": row.value, "source": row.source, "variable": row.variable or None}
            for row in _rows(snapshot, where)
        ],
        "providers": [
            {
                "provider": provider.name,
                "configured": provider.configured,
                "key_variables": list(provider.key_variables),
                "base_url": provider.shown_url,
                "proxy": _proxy(provider) or None,
            }
            for provider in snapshot.providers.values()
        ],
        "chains": {
            category.name: [_described(snapshot, prices.info(model), model) for model in category.models]
            for category in snapshot.categories.values()
        },
        "without_price": _unpriced(snapshot, prices),
        "worth_a_look": _worth_a_look(snapshot),
        "refusal": refusal,
    }
    code = exits.OK if refusal is None else exits.CONFIG
    if live and refusal is None:
        from llm_router.commands.live import ask_all, exit_code

        answers = ask_all(snapshot, prices)
        found["live"] = [asdict(answer) for answer in answers]
        code = exit_code(answers)
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return code


def _described(snapshot: Snapshot, info: ModelInfo | None, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "input": info.prices.input if info else None,
        "output": info.prices.output if info else None,
        "context": info.context if info else None,
        "missing": list(missing_variables(snapshot, model)),
        "deprecated": info.deprecated if info else None,
    }


def _where(snapshot: Snapshot, arguments: Namespace) -> str:
    """The configuration file; one that was named may come later."""
    if snapshot.config_file or snapshot.sources["config_file"] == "default":
        return snapshot.config_file
    return f"{ConfigFile(os.environ, {'config': arguments.config}).path} (not there yet)"


def _rows(snapshot: Snapshot, where: str) -> list[SettingRow]:
    rows = setting_rows(snapshot)
    return [replace(row, value=where) if where and row.key == CONFIG_FILE else row for row in rows]


def _print_settings(snapshot: Snapshot, where: str) -> None:
    print("Settings")
    print_table(
        [(row.key, row.value, row.source, row.variable) for row in _rows(snapshot, where)],
        ("setting", "value", "from", "variable"),
    )


def _print_providers(snapshot: Snapshot) -> None:
    rows = []
    for provider in snapshot.providers.values():
        if provider.configured:
            state = "ready" if provider.keys else "ready, no key needed"
        else:
            state = f"no key: set {' or '.join(provider.key_variables)}"
        rows.append((provider.name, state, provider.shown_url, _proxy(provider)))
    print("\nProviders")
    columns = 4 if any(row[3] for row in rows) else 3
    print_table([row[:columns] for row in rows], ("provider", "state", "base URL", "through the proxy")[:columns])


def _proxy(provider: Provider) -> str:
    """The forward proxy that the environment names for this provider, without its password."""
    parts = urlsplit(provider.base_url)
    secure = parts.scheme == "https"
    try:
        found = proxy_for(Origin(secure, parts.hostname or "", parts.port or (443 if secure else 80)), os.environ)
    except ConnectFailed as error:
        return f"it cannot be asked: {error}"
    return f"{found.host}:{found.port}" if found else ""


def _print_chains(snapshot: Snapshot, prices: PriceTable) -> None:
    rows = []
    for category in snapshot.categories.values():
        origin = snapshot.sources[f"model_mappings.{category.name}"]
        for rank, model in enumerate(category.models):
            head = (category.name, origin) if rank == 0 else ("", "")
            rows.append(
                (
                    *head,
                    model,
                    *_prices(prices.info(model)),
                    _window(prices.info(model)),
                    _state(snapshot, prices.info(model), model),
                )
            )
    print("\nChains (USD per million tokens)")
    headers = ("category", "from", "model", "input", "output", "context", "state")
    print_table(rows, headers, right=(3, 4, 5))


def _prices(info: ModelInfo | None) -> tuple[str, str]:
    return (_price(info.prices.input), _price(info.prices.output)) if info else ("?", "?")


def _price(amount: float | None) -> str:
    """Prices are quoted exactly, with two decimals at least."""
    if amount is None:
        return "?"
    digits = f"{amount:.6f}".rstrip("0")
    return digits if len(digits.partition(".")[2]) >= 2 else f"{amount:.2f}"


def _window(info: ModelInfo | None) -> str:
    return f"{info.context:,}" if info and info.context else "?"


def _state(snapshot: Snapshot, info: ModelInfo | None, model: str) -> str:
    missing = missing_variables(snapshot, model)
    if missing:
        return f"skipped: {' or '.join(missing)} is not set"
    return f"ready; retired on {info.deprecated}" if info and info.deprecated else "ready"


def _print_advice(snapshot: Snapshot, prices: PriceTable) -> None:
    unpriced = _unpriced(snapshot, prices)
    if unpriced:
        print("\nModels without a price (their cost is recorded as unknown; `prices` in the file can say it):")
        print("\n".join(f"  {model}{_similar(model, prices.models())}" for model in unpriced))
    problems = _worth_a_look(snapshot)
    if problems:
        print("\nWorth a look:")
        print("\n".join(f"  - {problem}" for problem in problems))
    else:
        print("\nNothing looks wrong.")


def _worth_a_look(snapshot: Snapshot) -> list[str]:
    return [*advice(snapshot), *_about_this_machine(snapshot)]


def _about_this_machine(snapshot: Snapshot) -> Iterator[str]:
    """What `serve` would stumble over on the disk; nothing is written to find out."""
    folder = Path(snapshot.state_dir)
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield f"the state folder {folder} cannot be written by this user: nothing would be kept over a restart"
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        try:
            create_tls_context(os.environ)
        except ConfigError as error:
            yield str(error)


def _unpriced(snapshot: Snapshot, prices: PriceTable) -> list[str]:
    chained = dict.fromkeys(model for category in snapshot.categories.values() for model in category.models)
    return [model for model in chained if _is_unpriced(prices.info(model))]


def _similar(model: str, known: Iterable[str]) -> str:
    near = nearest(model, known, 0.8)
    return f"  (similar, and known: {near})" if near else ""


def _is_unpriced(info: ModelInfo | None) -> bool:
    return info is None or info.prices.input is None or info.prices.output is None
