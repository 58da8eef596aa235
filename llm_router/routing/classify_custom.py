"""Custom categories without retraining: what their description, examples and keywords say about them.

A custom category that plainly means what the model was trained to know as `creative` gets that class; any other is
scored by the words that its own texts share with the prompt, rare words counting more than common ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llm_router.config.values import Category
from llm_router.routing.classify_features import Features, extract
from llm_router.routing.classify_model import Model

_CREATIVE = "creative"
_CREATIVE_GROUPS = ("a creative form", "style and make-believe", "figures and places of tales")
_CREATIVE_NAME = re.compile(
    r"creativ|kreativ|créati|творч|storytell|stories|story|poet|poem|fiction|roleplay|role[-_]play|lyric|songwrit|narrativ"
    r"|yaratıcı|إبداع|रचनात्मक|창작|创意|创作|文学|創作|novel|screenwrit|литератур",
    re.IGNORECASE,
)
_FLOOR = -2.5  # score of a custom category, against conversation, for a text that shares nothing with it
_SIMILAR = 9.0  # what full likeness adds
_TERM = 1.1  # what each rare word of the description that occurs adds, up to _TERMS
_TERMS = 3.0
_COMMON = 0.45  # share of a rare word's weight below which a word counts as common


@dataclass(frozen=True, slots=True)
class Profile:
    """One custom category: the grams of each of its texts with their weights, and the lengths of those vectors."""

    name: str
    examples: tuple[tuple[Mapping[str, float], float], ...]
    terms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Profiles:
    """All custom categories of a configuration. `trained` maps those that the model has learned to its class."""

    trained: Mapping[str, str]
    own: tuple[Profile, ...]
    model: Model

    def score(self, features: Features, tempered: Mapping[str, float], base: float) -> Iterator[tuple[str, float]]:
        """Score by custom category, on the scale of the (tempered) trained classes."""
        split = math.log(len(self.trained)) if self.trained else 0.0
        for name, trained in self.trained.items():
            yield name, tempered[trained] - split
        if self.own:
            weights = {gram: self.model.rarity(gram) for gram in features.grams if _is_word(gram)}
            length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
            for profile in self.own:
                yield profile.name, base + _FLOOR + _likeness(profile, weights, length)

    def reasons(self, name: str, features: Features) -> list[str]:
        """Words that a text shares with a custom category's own texts."""
        for profile in self.own:
            if profile.name == name:
                known = {**profile.terms}
                for example, _ in profile.examples:
                    known.update(example)
                shared = sorted((g for g in features.grams if g in known), key=lambda g: (-known[g], g))
                return [f"word '{gram}' as in its description or examples" for gram in shared if gram.isalnum()][:4]
        return []


def compile_profiles(categories: Sequence[Category], model: Model) -> Profiles:
    """Make the custom categories ready to be compared with texts."""
    custom = [category for category in categories if category.custom and category.name not in model.classes]
    named = {c.name: c.name for c in categories if c.custom and c.name in model.classes}
    trained = {**named, **{c.name: _CREATIVE for c in custom if _means_creative(c, model)}}
    own = tuple(_profile(category, model) for category in custom if category.name not in trained)
    return Profiles({k: v for k, v in trained.items() if v in model.classes}, own, model)


def _means_creative(category: Category, model: Model) -> bool:
    """Whether name, description and keywords make plain that stories, verse and the like are meant."""
    if _CREATIVE_NAME.search(category.name):
        return True
    said = ". ".join((category.name, category.description, ", ".join(category.keywords)))
    groups = extract(said, model.lexicon).groups
    creative = sum(groups.get(model.groups.index(name), 0) for name in _CREATIVE_GROUPS)
    asks = ("asks to make something", "asks for advice", "asks for facts or an explanation")
    others = sum(count for number, count in groups.items() if model.groups[number] not in (*_CREATIVE_GROUPS, *asks))
    return creative >= 2 and creative > others


def _profile(category: Category, model: Model) -> Profile:
    said = " ".join(
        (category.name.replace("_", " ").replace("-", " "), category.description, " ".join(category.keywords))
    )
    terms = {g: w for g in _grams(said, model) if (w := model.rarity(g)) >= _COMMON and " " not in g}
    examples = []
    for text in category.examples:
        vector = {gram: model.rarity(gram) for gram in _grams(text, model)}
        examples.append((vector, math.sqrt(sum(weight * weight for weight in vector.values())) or 1.0))
    return Profile(category.name, tuple(examples), terms)


def _grams(text: str, model: Model) -> set[str]:
    return {gram for gram in extract(text, model.lexicon).grams if _is_word(gram)}


def _is_word(gram: str) -> bool:
    """Words, stems and characters; not signs, beginnings and ends."""
    return gram[0] not in "^*" and gram[-1] != "$" and any(map(str.isalpha, gram[:2]))


def _likeness(profile: Profile, weights: Mapping[str, float], length: float) -> float:
    best = 0.0
    for vector, size in profile.examples:
        shared = sum(weight * vector[gram] for gram, weight in weights.items() if gram in vector)
        best = max(best, shared / (length * size))
    terms = sum(profile.terms[gram] for gram in weights if gram in profile.terms)
    return _SIMILAR * best + _TERM * min(terms, _TERMS)
