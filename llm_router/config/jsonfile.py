"""Reads a configuration file's bytes strictly: repeated keys, NaN and endless nesting are refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from llm_router.config.fields import SURROGATE, FileKeyError, KeyProblem, join
from llm_router.errors import ConfigError

MAX_BYTES = 16 * 2**20
_MAX_DEPTH = 64
_MAX_DIGITS = 40
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class _Refused:
    """Stands in the parsed tree where a value cannot be used, until its path is known."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


class _Repeated(_Refused):
    """Stands for the value of a key that appears more than once in its object."""


def parse_file(data: bytes, file_name: str) -> dict[str, Any]:
    """The JSON object in `data`. Raises ConfigError that names the file and the line and column, or the key."""
    text = _decode(data, file_name)
    try:
        parsed = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=lambda name: _Refused(
                f"{name} is not a JSON number; write a finite number or remove the key"
            ),
            parse_float=_float,
            parse_int=_int,
        )
        _check(parsed, "", 0)
    except json.JSONDecodeError as error:
        place = f"{file_name}, line {error.lineno} column {error.colno}"
        raise ConfigError(place, f"not valid JSON: {error.msg}{_hint(text, error.pos)}") from None
    except KeyProblem as problem:
        raise FileKeyError(file_name, problem) from None
    except RecursionError:
        raise ConfigError(file_name, "is nested too deeply to be a configuration") from None
    if not isinstance(parsed, dict):
        raise ConfigError(file_name, 'must hold one JSON object, like {"model_mappings": {...}}')
    return parsed


def dump_file(content: Mapping[str, Any], previous: bytes | None) -> bytes:
    """The bytes to write for `content`, with the indentation of the `previous` file."""
    found = re.search(rb"\n([ \t]+)\S", previous or b"")
    indent = found[1].decode() if found else "  "
    return (json.dumps(content, indent=indent, ensure_ascii=False) + "\n").encode()


def _decode(data: bytes, file_name: str) -> str:
    if len(data) > MAX_BYTES:
        raise ConfigError(file_name, f"is larger than {MAX_BYTES // 2**20} MiB, which no configuration needs")
    if data[:2] in _UTF16_MARKS:
        raise ConfigError(file_name, "is UTF-16 text; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        place = f"{file_name}, line {line} column {column}"
        raise ConfigError(place, "is not UTF-8 text; save the file as UTF-8 or restore it from a copy") from None
    if not text.strip():
        raise ConfigError(file_name, "is empty; write {} into it, or remove it to use the defaults")
    return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        result[key] = _Repeated("appears more than once; keep one of them") if key in result else value
    return result


def _float(text: str) -> float | _Refused:
    value = float(text)
    return value if math.isfinite(value) else _Refused("is too large a number")


def _int(text: str) -> int | _Refused:
    return int(text) if len(text) <= _MAX_DIGITS else _Refused("is too large a number")


def _check(value: Any, path: str, depth: int) -> None:
    """Raises KeyProblem where something in the tree cannot be kept or written back as it was."""
    if depth > _MAX_DEPTH:
        raise KeyProblem(path.partition(".")[0], f"is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, _Refused):
        raise KeyProblem(path, value.problem)
    if isinstance(value, str) and SURROGATE.search(value):
        raise KeyProblem(path, "holds half of a surrogate pair (\\ud800 to \\udfff), which is no text")
    if isinstance(value, dict):
        for key, item in value.items():
            if SURROGATE.search(key):
                raise KeyProblem(path, "has a key with half of a surrogate pair (\\ud800 to \\udfff) in it")
            _check(item, join(path, key), depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]", depth + 1)


def _hint(text: str, position: int) -> str:
    rest = text[position : position + 2]
    before = text[:position].rstrip()
    if rest in ("//", "/*") or rest[:1] == "#":
        return "; JSON has no comments: use a key that begins with _"
    if rest[:1] == "'":
        return "; JSON wants double quotes"
    if before.endswith(",") or rest[:1] == ",":
        return "; look for a comma too many just before"
    if position >= len(text.rstrip()):
        return "; the file ends too early: was it cut?"
    return ""
