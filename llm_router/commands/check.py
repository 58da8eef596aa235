"""`llm-router check`: what is in force, where it comes from, and what looks wrong."""

from __future__ import annotations

import difflib
import os
from argparse import Namespace
from collections.abc import Iterable
from urllib.parse import urlsplit

from llm_router.accounting.pricing import ModelInfo, PriceTable
from llm_router.commands import EXIT_CONFIG, EXIT_OK
from llm_router.commands.common import DATA, complain, load_configuration, print_table
from llm_router.config.advice import advice, unguarded
from llm_router.config.report import CONFIG_FILE, missing_variables, setting_rows
from llm_router.config.values import Provider, Snapshot
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.upstream.errors import ConnectFailed
from llm_router.proxy.upstream.proxies import proxy_for
from llm_router.proxy.upstream.request import Origin


def run(arguments: Namespace) -> int:
    """Prints the whole configuration, refuses what `serve` would, and with `--live` asks the models themselves."""
    snapshot = load_configuration(arguments)
    if snapshot is None:
        return EXIT_CONFIG
    prices = PriceTable.parse((DATA / "prices.json").read_bytes(), snapshot.prices)
    where = _where(snapshot, arguments)
    print(f"Configuration file: {where or 'none (llm-router init writes one)'}\n")
    _print_settings(snapshot, where)
    _print_providers(snapshot)
    _print_chains(snapshot, prices)
    _print_advice(snapshot, prices)
    if (problem := unguarded(snapshot)) is not None:
        complain(problem)
        return EXIT_CONFIG
    if arguments.live:
        from llm_router.commands.live import ask_all

        return ask_all(snapshot, prices)
    return EXIT_OK


def _where(snapshot: Snapshot, arguments: Namespace) -> str:
    """The configuration file; one that was named may come later."""
    if snapshot.config_file or snapshot.sources["config_file"] == "default":
        return snapshot.config_file
    return f"{ConfigFile(os.environ, {'config': arguments.config}).path} (not there yet)"


def _print_settings(snapshot: Snapshot, where: str) -> None:
    print("Settings")
    print_table(
        [
            (row.key, where or row.value if row.key == CONFIG_FILE else row.value, row.source, row.variable)
            for row in setting_rows(snapshot)
        ],
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
    chained = dict.fromkeys(model for category in snapshot.categories.values() for model in category.models)
    unpriced = [model for model in chained if _is_unpriced(prices.info(model))]
    if unpriced:
        print("\nModels without a price (their cost is recorded as unknown; `prices` in the file can say it):")
        print("\n".join(f"  {model}{_similar(model, prices.models())}" for model in unpriced))
    problems = advice(snapshot)
    if problems:
        print("\nWorth a look:")
        print("\n".join(f"  - {problem}" for problem in problems))
    else:
        print("\nNothing looks wrong.")


def _similar(model: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(model, known, n=1, cutoff=0.8)
    return f"  (similar, and known: {near[0]})" if near else ""


def _is_unpriced(info: ModelInfo | None) -> bool:
    return info is None or info.prices.input is None or info.prices.output is None
