"""Taking secrets out of text that a client, a log or a record will see.

Providers echo keys (or their tails) in error messages; addresses with credentials turn up in exceptions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"
_SHORTEST_SECRET = 6
_PATTERNS = re.compile(
    r"""(?xi)
    \b(?:sk|gsk|xai)[-_][A-Za-z0-9_\-*.]{6,}               # vendors' key formats, starred tails included
    | \b(?:rk|pk|hf|key)[-_](?=[A-Za-z_\-.]*[0-9*])[A-Za-z0-9_\-*.]{6,}   # words begin so too, as in key_points
    | \bAIza[A-Za-z0-9_\-]{10,}
    | (?<=bearer\ )[A-Za-z0-9._~+/\-=*]{6,}
    | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)                        # credentials in a URL
    | (?<=[?&]key=)[^&\s"']+
    """
)


class Masker:
    """Replaces every known secret, and whatever looks like one."""

    __slots__ = ("_known",)

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({s for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __repr__(self) -> str:
        return "<Masker>"

    def __call__(self, text: str) -> str:
        """`text` without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _PATTERNS.sub(MASK, text)
