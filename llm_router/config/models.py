"""Full model ids: `provider/model`, split at the first slash."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LONGEST = 256


def full_model_id(text: str, default_provider: str, providers: Iterable[str]) -> str:
    """The full id of a model as a person may write it; without a slash it belongs to the default provider.

    Raises ValueError with the problem and the remedy: unknown provider, no model, white space.
    """
    word = text.strip()
    if not word:
        raise ValueError("a model id must not be empty; write provider/model")
    if len(word) > _LONGEST or not word.isprintable() or any(char.isspace() for char in word):
        raise ValueError(f"a model id has at most {_LONGEST} printable characters and no white space")
    if leads_away(word):
        raise ValueError(f"'{word}' is no model's name: '..' leads elsewhere")
    provider, slash, model = word.partition("/")
    if not slash:
        return f"{default_provider}/{word}"
    known = list(providers)
    if provider not in known:
        raise ValueError(_unknown(word, provider, known))
    if not model or model.startswith("/") or model.endswith("/"):
        raise ValueError(f"'{word}' names no model; write {provider}/model")
    return word


def leads_away(name: str) -> bool:
    """Whether a model's name would lead elsewhere as a part of an address: some servers resolve escaped dots, too."""
    return "." in name and not {".", ".."}.isdisjoint(re.split(r"[/\\]", name))


def _unknown(word: str, provider: str, known: list[str]) -> str:
    names = ", ".join(known)
    remedy = f"OpenRouter's models are written openrouter/{word}; " if "openrouter" in known else ""
    return f"'{provider}' is no built-in or configured provider (known: {names}); {remedy}others go under providers"
