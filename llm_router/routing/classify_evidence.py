"""Why the model decided as it did, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from llm_router.routing.classify_cues import describe
from llm_router.routing.classify_features import PAIRED_CUES
from llm_router.routing.classify_model import Found, Model

_MOST = 5
_LOOKED_AT = 24  # features of which the telling ones are told
_COMMON = 0.3  # rarity below which a word tells nobody anything


class Evidence(Sequence[str]):
    """Reasons in words, found out when somebody reads them: requests are rarely explained."""

    __slots__ = ("_find", "_found")

    def __init__(self, find: Callable[[], tuple[str, ...]]) -> None:
        self._find = find
        self._found: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"<Evidence {self._found or ''}>"

    def __len__(self) -> int:
        return len(self._read())

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._read()[index]

    def _read(self) -> tuple[str, ...]:
        if self._found is None:
            self._found = self._find()
        return self._found


def in_words(model: Model, found: Found, winner: str, second: str) -> list[str]:
    """The features that weighed most for the winner against the class that came second."""
    names = model.heaviest(found, winner, second, _LOOKED_AT)
    said = dict.fromkeys(_say(name, model) for name in names if _telling(name, model))
    return list(said)[:_MOST] or ["the words as a whole"]


def _telling(name: str, model: Model) -> bool:
    """Whether people learn something from a feature's name; its weight may be real all the same."""
    if name.startswith(("@chars", "@lines")):
        return False
    return (len(name) > 1 and name[0] in "@%^") or (model.rarity(name) >= _COMMON and any(map(str.isalpha, name)))


def _say(name: str, model: Model) -> str:
    """A feature's name as people would say it; 0 stood for any number."""
    if name.startswith("@") and len(name) > 2:
        return describe(name[1:])
    if name.startswith("^%"):
        return f"begins with {_group(int(name[2:]), model)}"
    if name.startswith("%") and name[1:2].isdigit():
        number, _, other = name[1:].partition("&")
        if other:
            pair = dict.fromkeys((_group(int(number), model), _group(int(other), model)))
            return " together with ".join(pair)
        return _group(int(number.partition("+")[0]), model)
    name = name.replace("0", "#")
    if name.startswith("^") and name[1:2].strip():  # else the sign, alone or before another word
        return f"begins with '{name[1:]}'"
    if name.endswith("$") and len(name) > 1:
        return f"ends with '{name[:-1]}'"
    if name.endswith("*") and len(name) > 1:
        return f"words that begin with '{name[:-1]}'"
    if name.startswith("*") and len(name) > 1:
        return f"words that end in '{name[1:]}'"
    return f"word '{name}'" if " " not in name else f"words '{name}'"


def _group(number: int, model: Model) -> str:
    """A word group's description; numbers beyond the groups are paired cues."""
    if number < len(model.groups):
        return model.groups[number]
    return describe(PAIRED_CUES[number - len(model.groups)])
