"""Subjects that people name categories after (health, law, travel ...), and the words by which a text is known to be
about one: a category described as "health and medication" is meant by "ibuprofen" too, in whatever language.

The words are data that is read only where a configuration has categories that may be about a subject.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_STEMS = (2, 3, 4, 5, 6)  # letters of a stem, fewer in Hangul
_MOST = 4  # subjects of one category
_LESSER = 0.5  # share of the most named subject's words that another one needs
_ONE = 1.0  # a single word that is named is enough in a short description


@dataclass(frozen=True, slots=True)
class Subjects:
    """Words (and pairs, stems, characters, as features have them) with the subjects that they tell."""

    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Subjects:
        """Read the list: "[subject]", then lines of "language: word, stem*, two words"."""
        words: dict[str, tuple[str, ...]] = {}
        subject: tuple[str, ...] = ()  # one for all words that tell it alone
        for line in text.splitlines():
            if line.startswith("["):
                subject = (line.strip("[]"),)
            elif line and not line.startswith("#"):
                for word in line.partition(": ")[2].split(", "):
                    known = words.setdefault(word, subject)
                    if subject[0] not in known:
                        words[word] = known + subject
        return cls(words)

    def told(self, grams: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The features of a text that tell subjects, with those."""
        return {word: self.words[word] for word in filter(self.words.__contains__, grams)}

    def named_by(self, word: str) -> frozenset[str]:
        """The subjects that a single word tells, by itself or by its beginning."""
        return frozenset(
            name for key in (word, *(word[:size] + "*" for size in _STEMS)) for name in self.words.get(key, ())
        )

    def of(self, said: Iterable[str]) -> frozenset[str]:
        """What a category is about whose texts have these features: the subjects that most of their words tell."""
        counts: dict[str, float] = {}
        for subjects in self.told(said).values():
            for subject in subjects:
                counts[subject] = counts.get(subject, 0.0) + 1 / len(subjects)
        most = max(counts.values(), default=0.0)
        if most < _ONE:
            return frozenset()
        kept = sorted(counts, key=lambda subject: (-counts[subject], subject))[:_MOST]
        return frozenset(subject for subject in kept if counts[subject] > _LESSER * most)
