"""Reads `.env` of the working directory, where that is safe and meant."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llm_router.errors import ConfigError
from llm_router.proxy.config_file.storage import ForeignFile, read

_LIMIT = 2**20


@dataclass(frozen=True, slots=True)
class DotEnv:
    """Variables from `.env`, without interpolation, and warnings about what was not read."""

    variables: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_dotenv(folder: Path, environ: Mapping[str, str]) -> DotEnv:
    """`.env` in `folder`: not under systemd, not in the image, and only if the user owns it. Raises ConfigError."""
    if environ.get("INVOCATION_ID") or environ.get("LLM_ROUTER_IMAGE"):
        return DotEnv()
    path = folder / ".env"
    try:
        data = read(path, _LIMIT, owner=os.geteuid())
    except ForeignFile:
        return DotEnv(warnings=(f"{path} is not read: it belongs to another user",))
    except OSError as error:
        return DotEnv(warnings=(f"{path} is not read: {error.strerror or error}",))
    return _parse(data or b"", str(path))


def _parse(data: bytes, name: str) -> DotEnv:
    if len(data) > _LIMIT:
        raise ConfigError(name, "is larger than 1 MiB, which no list of variables needs")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}, line {line}", "is not UTF-8 text; save the file as UTF-8") from None
    from dotenv.parser import parse_stream  # many have no such file

    variables: dict[str, str] = {}
    warnings = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            warnings.append(f"{name}, line {binding.original.line} is not understood; write NAME=value")
        elif binding.key and binding.value is not None:
            variables[binding.key] = binding.value
    return DotEnv(variables, tuple(warnings))
