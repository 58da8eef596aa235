"""A working directory, and the configuration file of a router that is started there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router.config.edits import with_category
from llm_router.proxy.config_file import ConfigFile

NAME = "router_config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory of its own."""
    here = tmp_path / "work"
    here.mkdir()
    return here


def open_file(folder: Path, environ: dict[str, str] | None = None, **flags: object) -> ConfigFile:
    """The configuration of a router started in `folder`."""
    return ConfigFile({"HOME": str(folder.parent / "home"), **(environ or {})}, flags, folder)


def put(path: Path, content: Any) -> Path:
    """Writes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def adds(name: str, *models: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The change that adds a category."""
    return lambda file: with_category(file, name, list(models) or ["ollama/x"])
