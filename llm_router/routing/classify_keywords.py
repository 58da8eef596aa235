"""Keywords of the configuration, found in one pass over a text, however many categories there are.

A keyword matches whole words in any case; in scripts that write no spaces (and in Hangul, whose particles cling to the
word) it matches inside. The most specific hit wins: the longest keyword, then most hits, then the configured order.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llm_router.config.values import Category

_HEAD = 3_000  # characters of a text that are read from its start, and from its end
_TAIL = 1_500
_LONGEST = 12  # words of one keyword that are compared
# A letter of a script without spaces is a word of its own here, so that neighbours make substrings.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1100-\u11ff\u3005-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
    r"|[^\W\u0e00-\u0eff\u1100-\u11ff\u3005-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff][\w\u0300-\u036f\u064b-\u065f\u0900-\u0dff]*"
    r"|[^\w\s]"
)


@dataclass(frozen=True, slots=True)
class Hit:
    """A category's best keyword in a text, and how often any of its keywords occurred."""

    category: str
    keyword: str
    count: int


@dataclass(frozen=True, slots=True)
class KeywordMatcher:
    """Keywords by their words, and by their first word the numbers of words that keywords have."""

    entries: Mapping[str, tuple[tuple[str, str], ...]]
    lengths: Mapping[str, tuple[int, ...]]
    order: Mapping[str, int]

    def find(self, text: str) -> list[Hit]:
        """Categories with a hit, the most specific first."""
        if not self.entries:
            return []
        words = _words(_read(text))
        found: dict[str, tuple[str, int]] = {}
        for position, word in enumerate(words):
            for length in self.lengths.get(word, ()):
                key = word if length == 1 else " ".join(words[position : position + length])
                for category, keyword in self.entries.get(key, ()):
                    best, count = found.get(category, ("", 0))
                    found[category] = (keyword if len(keyword) > len(best) else best, count + 1)
        hits = [Hit(category, keyword, count) for category, (keyword, count) in found.items()]
        return sorted(hits, key=lambda hit: (-len(hit.keyword), -hit.count, self.order[hit.category]))


def compile_keywords(categories: Iterable[Category], *, shipped: bool = False) -> KeywordMatcher:
    """A matcher for the categories' own keywords; `shipped` lets the defaults stand in where there are none."""
    entries: dict[str, list[tuple[str, str]]] = {}
    lengths: dict[str, set[int]] = {}
    order: dict[str, int] = {}
    for category in categories:
        order[category.name] = len(order)
        own: Sequence[str] = category.keywords or (category.shipped_keywords if shipped else ())
        for keyword in dict.fromkeys(keyword.strip().casefold() for keyword in own):
            words = _words(keyword)[:_LONGEST]
            if words:
                entries.setdefault(" ".join(words), []).append((category.name, keyword))
                lengths.setdefault(words[0], set()).add(len(words))
    return KeywordMatcher(
        {words: tuple(places) for words, places in entries.items()},
        {word: tuple(sorted(sizes)) for word, sizes in lengths.items()},
        order,
    )


def _read(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"


def _words(text: str) -> list[str]:
    folded = text.casefold()
    if not folded.isascii():
        folded = unicodedata.normalize("NFKC", folded).casefold()
    return _WORD.findall(folded)
