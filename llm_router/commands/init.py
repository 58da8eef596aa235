"""`llm-router init`: a configuration file to start from."""

from __future__ import annotations

import json
import os
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

from llm_router import exits
from llm_router.commands.common import print_table
from llm_router.config.advice import advice
from llm_router.config.loading import load
from llm_router.config.settings import Environment
from llm_router.config.values import BUILTIN_CATEGORIES, Snapshot
from llm_router.errors import ConfigError
from llm_router.proxy.config_file import ConfigFile, write_new
from llm_router.proxy.config_file.dotenv import read_dotenv
from llm_router.proxy.config_file.file import FILE_NAME, working_folder
from llm_router.standard_error import complain


def run(arguments: Namespace) -> int:
    """Writes the file, or checks the one that is there."""
    try:
        dotenv = read_dotenv(working_folder(), os.environ).variables
        named = Environment(os.environ, dotenv).get("ROUTER_CONFIG_FILE")[0]
        path = Path(os.path.expanduser(arguments.config or named or FILE_NAME))
        if os.path.lexists(path):
            return _check_existing(path)
        snapshot = load(os.environ, dotenv, None, str(path))
    except ConfigError as error:
        complain(str(error))
        return exits.CONFIG
    content = json.dumps(starter(snapshot), indent=2, ensure_ascii=False) + "\n"
    try:
        write_new(path, content.encode())
    except FileExistsError:
        return _check_existing(path)
    except OSError as error:
        complain(f"{path} cannot be written: {error.strerror or error}")
        return exits.FAILED
    _tell_written(path, snapshot, f" --config {shlex.quote(arguments.config)}" if arguments.config else "")
    return exits.OK


def starter(snapshot: Snapshot) -> dict[str, Any]:
    """The content of a new file: the chains that the keys at hand allow, spelled out to be changed."""
    return {
        "_readme": [
            "Keys that begin with _ are notes. Everything is optional; docs/CONFIGURATION.md has every key.",
            "A chain is tried from its first model on. `llm-router check` shows prices and what is missing.",
            "API keys stay in environment variables or .env; they are refused here.",
        ],
        "model_mappings": {name: list(snapshot.categories[name].models) for name in BUILTIN_CATEGORIES},
        "custom_categories": {
            "creative": {
                "description": "stories, poems, lyrics, role-play: prose whose style is the product",
                "models": list(snapshot.categories["conversation"].models),
                "keywords": ["story", "poem", "lyrics"],
                "examples": ["write a limerick about a cat that codes", "tell a bedtime story about a shy dragon"],
            }
        },
        "circuit_breaker": {
            "failure_threshold": snapshot.breaker.failure_threshold,
            "recovery_timeout_sec": _plain(snapshot.breaker.recovery_timeout_sec),
        },
    }


def _check_existing(path: Path) -> int:
    print(f"{path} exists and was not changed.")
    try:
        snapshot = ConfigFile(os.environ, {"config": str(path)}).load()
    except ConfigError as error:
        complain(str(error))
        return exits.CONFIG
    print("It is valid. This is what the router makes of it:\n")
    print_table(
        [
            (name, "\n".join(category.models), _short(category.keywords))
            for name, category in snapshot.categories.items()
        ],
        ("category", "chain", "keywords"),
    )
    for problem in advice(snapshot):
        print(f"\nNote: {problem}")
    return exits.OK


def _tell_written(path: Path, snapshot: Snapshot, flag: str) -> None:
    ready = [provider.name for provider in snapshot.providers.values() if provider.keys]
    print(f"Wrote {path}.")
    if ready:
        print(f"It uses: {', '.join(ready)}, and Ollama as the last resort.")
    else:
        print(
            "No provider key is set yet. Set one (for example OPENROUTER_API_KEY) and change the chains to your taste,"
        )
        print(f"or remove the file and run `llm-router init{flag}` again.")
    print(f"Next: `llm-router check{flag}`, then `llm-router serve{flag}`.")


def _plain(number: float) -> float | int:
    """As a person writes it: 300, not 300.0."""
    return int(number) if number.is_integer() else number


def _short(words: tuple[str, ...]) -> str:
    return ", ".join(words[:5]) + (", ..." if len(words) > 5 else "")
