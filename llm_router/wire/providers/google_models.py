"""What a Gemini model takes, by its name: thinking budgets or levels, and whether thought signatures are demanded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from llm_router.wire.providers.fields import Effort

# Google's documented stand-in for a signature that another vendor's model could not give.
DUMMY_SIGNATURE = "skip_thought_signature_validator"
_VERSION = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH", "max": "HIGH"}
_BUDGETS = {"low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
# The least that a model of the 2.5 family may think; where it may not be 0, thinking cannot be switched off.
_LEAST = {"pro": 128, "lite": 512, "flash": 1}


@dataclass(frozen=True, slots=True)
class GeminiTraits:
    """`levels`: thinking is set by level (version 3 and later), else by a budget of tokens; None: it does not think."""

    levels: bool | None
    signatures: bool
    tier: str


def gemini_traits(model: str) -> GeminiTraits:
    """Traits by name; a name without a version (`gemini-flash-latest`) counts as a current model."""
    name = model.rsplit("/", 1)[-1]
    if not name.startswith("gemini"):
        return GeminiTraits(levels=None, signatures=False, tier="flash")
    found = _VERSION.match(name)
    version = (int(found[1]), int(found[2] or 0)) if found else (3, 0)
    tier = "lite" if "lite" in name else "pro" if "pro" in name else "flash"
    levels = None if version < (2, 5) else version >= (3, 0)
    return GeminiTraits(levels=levels, signatures=version >= (3, 0), tier=tier)


def thinking_config(wanted: Effort | None, traits: GeminiTraits) -> dict[str, Any] | None:
    """`thinkingConfig` for a wish; None where nothing was asked for or the model does not think."""
    if wanted is None or traits.levels is None:
        return None
    if traits.levels:
        if wanted.level == "none":
            # These models cannot be told not to think; the least is the nearest.
            return {"thinkingLevel": "LOW" if traits.tier == "pro" else "MINIMAL"}
        level = _LEVELS[wanted.level]
        if level == "MINIMAL" and traits.tier == "pro":
            level = "LOW"
        return {"includeThoughts": True, "thinkingLevel": level}
    least = _LEAST[traits.tier]
    if wanted.level == "none":
        return {"thinkingBudget": least if traits.tier == "pro" else 0}
    budget = wanted.tokens if wanted.tokens is not None else _BUDGETS.get(wanted.level, least)
    return {"includeThoughts": True, "thinkingBudget": max(budget, least)}


def compat_effort(wanted: Effort | None, traits: GeminiTraits) -> str | None:
    """`reasoning_effort` in the words of the compatibility endpoint; None where nothing is to be sent."""
    if wanted is None or traits.levels is None:
        return None
    if wanted.level == "none" and (traits.levels or traits.tier == "pro"):
        return "low" if traits.tier == "pro" else "minimal"
    return "high" if wanted.level in ("xhigh", "max") else wanted.level
