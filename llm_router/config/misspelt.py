"""Variables that are set and that nobody reads, but whose names are nearly those of the router's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from llm_router.config.fields import nearest
from llm_router.config.settings import Environment

_ALIKE = re.compile(r"(?:LLM_)?(?:ROUTER|OPENROUTER|OPENAI|ANTHROPIC|GOOGLE|GEMINI|OLLAMA|DEFAULT|ROUTING)_[A-Z0-9_]+")
_PREFIXES = ("LLM_ROUTER_", "LLM_", "ROUTER_")
_NEAR = 0.84  # ROUTER_PROT and OPENROUTER_KEY are near; OLLAMA_MODELS and others that other programs read are not


def misspelt(environment: Environment, known: Iterable[str]) -> Iterator[str]:
    """A sentence for each variable whose name is rather a slip for one of `known`; values are not shown."""
    names = frozenset(known)
    for source, variables in ((" in .env", environment.dotenv), ("", environment.process)):
        for name in sorted(variables):
            if name not in names and variables[name].strip() and _ALIKE.fullmatch(name):
                meant = _meant(name, names)
                if meant:
                    yield f"{name}{source} is set, but nothing reads it; did you mean {meant}?"


def _meant(name: str, known: frozenset[str]) -> str | None:
    for prefix in _PREFIXES:
        if name.removeprefix(prefix) in known:
            return name.removeprefix(prefix)
    base_url = re.sub("_API_(?:BASE|URL)$", "_BASE_URL", name)
    if base_url in known:
        return base_url
    return nearest(name, sorted(known), _NEAR)
