"""Why the model decided as it did, in words."""

from __future__ import annotations

from llm_router.routing.classify_cues import describe
from llm_router.routing.classify_features import PAIRED_CUES
from llm_router.routing.classify_model import Found, Model

_MOST = 5


def in_words(model: Model, found: Found, winner: str, second: str) -> list[str]:
    """The features that weighed most for the winner against the class that came second."""
    said = [_say(name, model) for name in model.heaviest(found, winner, second, _MOST + 4)]
    return list(dict.fromkeys(said))[:_MOST]


def _say(name: str, model: Model) -> str:
    """A feature's name as people would say it."""
    if name.startswith("@") and len(name) > 2:
        return describe(name[1:])
    if name.startswith("^%"):
        return f"begins with {_group(int(name[2:]), model)}"
    if name.startswith("%") and name[1:2].isdigit():
        number, _, other = name[1:].partition("&")
        if other:
            return f"{_group(int(number), model)} together with {_group(int(other), model)}"
        return _group(int(number.partition("+")[0]), model)
    if name.startswith("^") and len(name) > 1:
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
