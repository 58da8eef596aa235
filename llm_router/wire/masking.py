"""Taking secrets out of text that a client, a log or a record will see.

Providers echo keys (or their tails) in error messages; addresses with credentials turn up in exceptions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

MASK = "***"
MESSAGE_CHARS = 2000
_SHORTEST_SECRET = 6
# No lookahead here goes far, and no two runs without a bound follow one another: the text is a provider's, or what a
# client had it repeat.
_PATTERNS = re.compile(
    r"""(?xi)
    \b(?:sk|gsk|xai)[-_][A-Za-z0-9_\-*.]{6,}               # vendors' key formats, starred tails included
    | \b(?:rk|pk|hf|key)[-_](?=[A-Za-z_\-.]{0,60}[0-9*])[A-Za-z0-9_\-*.]{6,}   # words begin so too, as in key_points
    | \bAIza[A-Za-z0-9_\-]{10,}
    | (?<=bearer\ )[A-Za-z0-9._~+/\-=*]{6,}
    | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)                        # credentials in a URL
    | (?<=[?&]key=)[^&\s"']+
    """
)


class Masker:
    """Replaces every known secret, and whatever looks like one."""

    __slots__ = ("_known", "_secrets")

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in _forms(secret)}
        self._secrets = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, self._secrets))) if forms else None

    def __repr__(self) -> str:
        return "<Masker>"

    def __call__(self, text: str) -> str:
        """`text` without secrets, cut to what a message may have."""
        if len(text) > MESSAGE_CHARS:
            text = self._cut(text)
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _PATTERNS.sub(MASK, text)

    def _cut(self, text: str) -> str:
        """The beginning of a text, without the part of a secret that the cut would leave at its end."""
        cut = text[:MESSAGE_CHARS]
        for secret in self._secrets:
            begin = text.find(secret, max(0, MESSAGE_CHARS - len(secret) + 1), MESSAGE_CHARS + len(secret) - 1)
            if begin >= 0:
                cut = cut[:begin] + MASK
        return cut


def _forms(secret: str) -> Iterator[str]:
    """A secret as it is, and as errors inside of errors and addresses have it."""
    yield secret
    yield quote(secret, safe="")
    escaped = json.dumps(secret)[1:-1]
    yield escaped
    yield escaped.replace("/", "\\/")
