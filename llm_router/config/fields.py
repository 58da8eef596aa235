"""Reads single values of the configuration file; every refusal names the key's path and what would be right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from llm_router.errors import ConfigError

_PLAIN_KEY = re.compile(r"[\w./:@+-]+")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHOWN = 60
# Half of a pair: JSON can spell it, but it is no text and cannot be written back.
SURROGATE = re.compile("[\ud800-\udfff]")


class KeyProblem(Exception):
    """A value in the configuration file that cannot be used; `path` is its key path, without the file's name."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class FileKeyError(ConfigError):
    """A ConfigError about one key of the configuration file; `key` is its path, `place` has the file's name too."""

    def __init__(self, file_name: str, problem: KeyProblem) -> None:
        super().__init__(f"{file_name}: {problem.path}" if problem.path else file_name, problem.problem)
        self.key = problem.path


def join(path: str, key: str) -> str:
    """The path of `key` inside the object at `path`."""
    shown = key if _PLAIN_KEY.fullmatch(key) else json.dumps(key[:_SHOWN], ensure_ascii=True)
    return f"{path}.{shown}" if path else shown


def is_note(key: str) -> bool:
    """Whether a key is the user's own note, which the router ignores and keeps."""
    return key.startswith(("_", "$"))


def describe(value: Any) -> str:
    """A JSON value's type in words, for messages; never the value itself, which may be a secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def shown(text: str) -> str:
    """A value as a message shows it: quoted, one line, shortened."""
    return json.dumps(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...", ensure_ascii=False)


def obj(value: Any, path: str) -> dict[str, Any]:
    """An object without the user's notes."""
    if not isinstance(value, dict):
        raise KeyProblem(path, f"must be an object, not {describe(value)}")
    return {key: item for key, item in value.items() if not is_note(key)}


def section(parent: Mapping[str, Any], key: str, path: str = "", known: Iterable[str] | None = None) -> dict[str, Any]:
    """The object at `key` of `parent` ({} if absent); with `known` given, any other key in it is refused."""
    if key not in parent:
        return {}
    place = join(path, key)
    value = obj(parent[key], place)
    if known is not None:
        only(value, place, known)
    return value


def only(value: Mapping[str, Any], path: str, known: Iterable[str]) -> None:
    """Refuses the first key of `value` that is not `known`, with the nearest one that is."""
    names = list(known)
    for key in value:
        if key not in names and not is_note(key):
            raise KeyProblem(join(path, key), f"unknown key; {suggestion(key, names)}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint for a word that is not known: the nearest that is, else all of them."""
    names = list(known)
    near = nearest(word.lower(), names)
    if near is not None:
        return f"did you mean {shown(near)}?"
    return f"known here: {', '.join(names)}"


def nearest(word: str, names: Iterable[str], likeness: float = 0.6) -> str | None:
    """The one of `names` that is most like a word, if it is so much like it (0 to 1, as difflib has it)."""
    import difflib  # for mistakes alone: a router that started well need not hold it

    return next(iter(difflib.get_close_matches(word, names, n=1, cutoff=likeness)), None)


def text(value: Any, path: str, *, empty: bool = False) -> str:
    """A string without surrounding white space."""
    if not isinstance(value, str):
        raise KeyProblem(path, f"must be a string, not {describe(value)}")
    stripped = value.strip()
    if not stripped and not empty:
        raise KeyProblem(path, "must not be empty")
    if SURROGATE.search(stripped):
        raise KeyProblem(path, "holds half of a surrogate pair, which is no text")
    return stripped


def texts(value: Any, path: str) -> tuple[str, ...]:
    """A list of non-empty strings; repetitions are dropped."""
    if not isinstance(value, list):
        raise KeyProblem(path, f"must be a list of strings, not {describe(value)}")
    return tuple(dict.fromkeys(text(item, f"{path}[{index}]") for index, item in enumerate(value)))


def number(
    value: Any, path: str, *, minimum: float = 0.0, above: float | None = None, maximum: float | None = None
) -> float:
    """A number of at least `minimum` (and above `above`, where given); true and false are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise KeyProblem(path, f"must be a number, not {describe(value)}")
    low = f"greater than {above:.15g}" if above is not None else f"{minimum:.15g} or more"
    if value < minimum or (above is not None and value <= above):
        raise KeyProblem(path, f"must be {low}, not {value:.15g}")
    if maximum is not None and value > maximum:
        raise KeyProblem(path, f"must be at most {maximum:.15g}, not {value:.15g}")
    return float(value)


def integer(value: Any, path: str, *, minimum: int, maximum: int | None = None) -> int:
    """A whole number in a range; 3.0 is not one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise KeyProblem(path, f"must be a whole number, not {_number_in_words(value)}")
    if value < minimum or (maximum is not None and value > maximum):
        limits = f"from {minimum} to {maximum}" if maximum is not None else f"of at least {minimum}"
        raise KeyProblem(path, f"must be a whole number {limits}, not {value}")
    return value


def _number_in_words(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else describe(value)


def boolean(value: Any, path: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise KeyProblem(path, f"must be true or false, not {describe(value)}")
    return value


def choice(value: Any, path: str, choices: Iterable[str]) -> str:
    """One of a few words, in any case."""
    names = list(choices)
    word = text(value, path).lower()
    if word not in names:
        near = nearest(word, names)
        hint = f"; did you mean {shown(near)}?" if near is not None else ""
        raise KeyProblem(path, f"must be one of {', '.join(names)}, not {shown(word)}{hint}")
    return word


def category_name(value: Any, path: str) -> str:
    """A category's name: 1 to 64 letters, digits, `_`, `-`."""
    if not isinstance(value, str):
        raise KeyProblem(path, f"must be a string, not {describe(value)}")
    if not _NAME.fullmatch(value):
        raise KeyProblem(path, "a category's name is 1 to 64 letters, digits, _ or -")
    return value
