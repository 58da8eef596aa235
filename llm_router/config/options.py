"""A provider's dialect settings: what its adapter reads beside the request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llm_router.config import fields
from llm_router.config.fields import KeyProblem, join
from llm_router.config.values import Api

_DURATION = re.compile(r"0|-?(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")


def _cache(value: Any, path: str) -> bool | str:
    """Automatic prompt caching: off, on, or on with the longer lifetime."""
    return fields.choice(value, path, ("5m", "1h")) if isinstance(value, str) else fields.boolean(value, path)


def _tokens(value: Any, path: str) -> int:
    return fields.integer(value, path, minimum=1)


def _keep_alive(value: Any, path: str) -> str | float:
    """Seconds, or a duration as Ollama writes it ("10m"); -1 keeps the model for ever."""
    if not isinstance(value, str):
        return fields.number(value, path, minimum=-1)
    word = fields.text(value, path)
    if not _DURATION.fullmatch(word):
        raise KeyProblem(path, f'must be seconds or a duration such as "10m" or "1h30m", not {fields.shown(word)}')
    return word


def _think(value: Any, path: str) -> bool | str:
    words = ("low", "medium", "high")
    return fields.choice(value, path, words) if isinstance(value, str) else fields.boolean(value, path)


def _safety_settings(value: Any, path: str) -> list[dict[str, str]]:
    """Google's own form: objects with `category` and `threshold`."""
    if not isinstance(value, list):
        raise KeyProblem(path, f"must be a list of objects, not {fields.describe(value)}")
    settings = []
    for index, item in enumerate(value):
        place = f"{path}[{index}]"
        entry = fields.obj(item, place)
        fields.only(entry, place, ("category", "threshold", "method"))
        settings.append({key: fields.text(word, join(place, key)) for key, word in entry.items()})
    return settings


OPTIONS = {
    "cache": _cache,
    "num_ctx": _tokens,
    "context": _tokens,
    "keep_alive": _keep_alive,
    "think": _think,
    "safety_settings": _safety_settings,
}

# Which dialect reads an option; in any other it has no effect.
DIALECTS: Mapping[str, Api] = {
    "cache": "anthropic-messages",
    "num_ctx": "ollama",
    "context": "ollama",
    "keep_alive": "ollama",
    "think": "ollama",
    "safety_settings": "google-generative-ai",
}


def read_options(entry: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A provider's dialect settings."""
    place = join(path, "options")
    values = fields.section(entry, "options", path, OPTIONS)
    return {key: OPTIONS[key](value, join(place, key)) for key, value in values.items()}
