"""What kind of task a person's words are: the local classifier, and `keywords` mode.

Pure and fast: one pass over a bounded part of the text, no I/O, results of repeated texts from a bounded cache.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llm_router.config.values import Category
from llm_router.routing.classify_custom import Profiles, compile_profiles
from llm_router.routing.classify_evidence import Evidence, in_words
from llm_router.routing.classify_features import Features, bounded, clipped, extract
from llm_router.routing.classify_followups import follows, joined, may_follow
from llm_router.routing.classify_keywords import Hit, KeywordMatcher, compile_keywords
from llm_router.routing.classify_model import Found, Model, load, softmax
from llm_router.routing.classify_subjects import Subjects
from llm_router.routing.turns import Turns

CONVERSATION = "conversation"
_TOOLS = "tools"  # decided by the request's tools; here only the user's keywords can choose it
_CACHED = 512  # classifications that are kept, each with the texts that were read
_HIT = 4.0  # what one hit of the user's own keywords adds to its category's score, and every further one
_FURTHER_HIT = 0.5
_MOST_HITS = 4


@dataclass(frozen=True, slots=True)
class Classification:
    """A category and how sure the classifier is (0 to 1, calibrated in local mode).

    `mode` is "local", "keywords" or "structure"; `scores` are probabilities by category; `evidence` is in words.
    """

    category: str
    confidence: float
    mode: str
    scores: Mapping[str, float] = field(default_factory=dict)
    evidence: Sequence[str] = ()


class _Scored(NamedTuple):
    """What is known of a text before anybody asks why. `likely`: how likely it goes on with the one before it."""

    features: Features
    found: Found
    logits: Sequence[float]
    likely: float
    scores: dict[str, float]
    hits: Sequence[Hit]


@dataclass(frozen=True, slots=True, eq=False)
class Roster:
    """The categories of one configuration, made ready for the classifier. Compared by identity: it keys the cache.

    `names` are those that the classifier judges: all but `tools`.
    """

    names: tuple[str, ...]
    own_keywords: KeywordMatcher
    all_keywords: KeywordMatcher
    profiles: Profiles


class Brain:
    """The loaded classifier. Safe to share between requests of one event loop."""

    def __init__(self, model: Model, subjects: Callable[[], bytes] = bytes) -> None:
        self.model = model
        self._subjects = subjects
        self._cache: OrderedDict[tuple[Roster, tuple[str, ...]], Classification] = OrderedDict()

    @classmethod
    def load(cls, weights: bytes, subjects: Callable[[], bytes] = bytes) -> Brain:
        """Read a weights file. Raises ValueError where it is none, or is broken.

        `subjects` gives the list of words by subject; it is asked for it when custom categories need it.
        """
        return cls(load(weights), subjects)

    def roster(self, categories: Iterable[Category]) -> Roster:
        """Make a configuration's categories ready; once per snapshot."""
        known = tuple(categories)
        judged = [category for category in known if category.name != _TOOLS]
        return Roster(
            names=tuple(category.name for category in judged),
            own_keywords=compile_keywords(known),
            all_keywords=compile_keywords(known, shipped=True),
            profiles=compile_profiles(judged, self.model, lambda: Subjects.parse(self._subjects().decode())),
        )

    def classify(self, turns: Turns, roster: Roster) -> Classification:
        """The local mode: structure, words and the user's keywords in one calibrated model."""
        # What is read of a text follows from the clipped text, which is quicker to cut out of a known one.
        texts: tuple[str, ...] = (clipped(turns.latest),)
        if turns.earlier:
            texts += _leant_on(turns)
        key = (roster, texts)
        known = self._cache.get(key)
        if known is not None:
            self._cache.move_to_end(key)
            return known
        found = self._classify([bounded(text) for text in texts], roster)
        self._cache[key] = found
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return found

    def forget(self) -> None:
        """Lets go of what was classified, and with it of the categories that it was judged by."""
        self._cache.clear()

    def _classify(self, texts: Sequence[str], roster: Roster) -> Classification:
        if not texts[0].strip():
            return Classification(CONVERSATION, 0.5, "structure", {CONVERSATION: 0.5}, ("no words to go by",))
        names, values = zip(*self._score(texts, roster).scores.items(), strict=True)
        probabilities = dict(zip(names, softmax(values, 1.0), strict=True))
        best = max(names, key=probabilities.__getitem__)
        evidence = Evidence(lambda: self._evidence(best, self._score(texts, roster), roster))
        return Classification(best, probabilities[best], "local", probabilities, evidence)

    def _score(self, texts: Sequence[str], roster: Roster) -> _Scored:
        """Scores of a text by category, with those of its thread as likely as it goes on with it."""
        features = extract(texts[0], self.model.lexicon)
        found = self.model.find(features)
        logits = self.model.logits(found)
        hits = roster.own_keywords.find(texts[0])
        scores = self._by_category(logits, features, roster, {hit.category for hit in hits})
        for hit in hits:
            scores.setdefault(hit.category, scores[CONVERSATION] - _HIT / 2)
            scores[hit.category] += _HIT + _FURTHER_HIT * (min(hit.count, _MOST_HITS) - 1)
        likely = self._follows(texts[0], features, scores) if len(texts) > 1 else 0.0
        if likely:
            scores = joined(scores, self._score(texts[1:], roster).scores, likely, CONVERSATION)
        return _Scored(features, found, logits, likely, scores, hits)

    def _follows(self, text: str, features: Features, scores: Mapping[str, float]) -> float:
        first = max(scores, key=scores.__getitem__)
        lead = scores[first] - max((score for name, score in scores.items() if name != first), default=scores[first])
        refers = self.model.followup in features.groups
        return follows(text, refers=refers, lead=lead, plain=first == CONVERSATION)

    def _by_category(
        self, logits: Sequence[float], features: Features, roster: Roster, named: Collection[str]
    ) -> dict[str, float]:
        """Scores (tempered) by category: trained classes that the configuration has, then its custom categories."""
        tempered = {name: s / self.model.temperature for name, s in zip(self.model.classes, logits, strict=True)}
        scores: dict[str, float] = {}
        homeless = [CONVERSATION]
        for name in self.model.classes:
            if name in roster.names:
                scores[name] = tempered[name]
            elif name not in roster.profiles.trained.values():
                homeless.append(name)
        scores[CONVERSATION] = _log_sum([tempered[name] for name in dict.fromkeys(homeless)])
        scores.update(roster.profiles.score(features, tempered, named))
        return scores

    def _evidence(self, best: str, scored: _Scored, roster: Roster) -> tuple[str, ...]:
        features, found, logits, likely, _, hits = scored
        reasons = [f"keyword '{hit.keyword}' (yours)" for hit in hits if hit.category == best]
        if likely >= 0.5:
            reasons.append("a short follow-up to earlier words")
        trained = roster.profiles.trained.get(best, best)
        if trained in self.model.classes:
            others = [(score, name) for name, score in zip(self.model.classes, logits, strict=True) if name != trained]
            reasons.extend(in_words(self.model, found, trained, max(others)[1]))
        else:
            reasons.extend(roster.profiles.reasons(best, features))
        return tuple(dict.fromkeys(reasons))[:6]


def classify_by_keywords(turns: Turns, roster: Roster) -> Classification:
    """The `keywords` mode: the configuration's keywords alone; no hit means conversation."""
    hits = roster.all_keywords.find(turns.latest)
    if not hits:
        return Classification(CONVERSATION, 0.0, "keywords", {}, ("no keyword of the configuration occurs",))
    total = sum(hit.count for hit in hits)
    scores = {hit.category: hit.count / total for hit in hits}
    evidence = tuple(f"keyword '{hit.keyword}' ({hit.category})" for hit in hits[:6])
    return Classification(hits[0].category, 1.0, "keywords", scores, evidence)


def _leant_on(turns: Turns) -> tuple[str, ...]:
    """The texts before the newest, back to one that is too long to lean on another."""
    texts: list[str] = []
    later = turns.latest
    for text in turns.earlier:
        if not may_follow(later):
            break
        texts.append(clipped(text))
        later = text
    return tuple(texts)


def _log_sum(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))
