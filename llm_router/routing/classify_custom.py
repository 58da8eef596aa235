"""Custom categories without retraining: what their description, examples and keywords say about them.

A custom category that plainly means what the model was trained to know as `creative` gets that class; any other is
scored by the words that its own texts share with the prompt, and by those that tell its subject (health, law, travel),
rare words counting more than common ones.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from llm_router.config.values import Category
from llm_router.routing.classify_features import Features, extract
from llm_router.routing.classify_model import Model
from llm_router.routing.classify_subjects import Subjects

_CREATIVE = "creative"
_REST = "conversation"
_CREATIVE_GROUPS = ("a creative form", "style and make-believe", "figures and places of tales")
_CREATIVE_NAME = re.compile(
    r"creativ|kreativ|créati|творч|yaratıcı|إبداع|रचनात्मक|창작|创意|创作|文学|創作|литератур|screenwrit|songwrit|storytell"
    r"|(?:^|[\W_])(?:stor(?:y|ies)|poe(?:t|ts|try|m|ms)|fiction|role[-_]?play(?:s|ing)?|lyrics?|narrati(?:ve|on)s?|novels?)"
    r"(?:$|[\W_])",
    re.IGNORECASE,
)
_FLOOR = -2.6  # score of a custom category, against conversation, for a text that shares nothing with it
_SIMILAR = 9.0  # what full likeness to an example adds
_TERM = 1.6  # what each word of the description that occurs adds, times its rarity, up to _TERMS such
_TERMS = 3.0
_ASIDE = 0.6  # what is left of one that does not tell the category's subject ("personal" finance)
_COVER = 9.0  # what it adds if the text has no other words than those of the description
_COMMON = 0.3  # rarity below which a word says nothing
_ALIKE = 0.57  # share of the longer word that two forms of one word have in common from their start
_HANGUL = ("\uac00", "\ud7af")
_UNSPACED = "\u0e00"
_OVERLAP = 0.5  # share of the pairs of characters that are words, where words are not spaced: pairs overlap
_COMPARED = 24  # categories that are compared with a text: those that share most words with it
_SUBJECT = 5.0  # what a word adds that tells a category's subject, times its rarity, up to _TOLD such
_TOLD = 1.2
_SHARED = 0.7  # what is left of that where several categories are about a subject: it does not tell them apart
_ELSEWHERE = 1.5  # what words take away that tell other subjects, where they weigh as much
_SPREAD = 12  # rarer words of a text beyond which a single word tells less and less
_BESIDE = 0.3  # how much the lesser of the two likenesses, by own words and by subject, adds to the greater


class _Said(NamedTuple):
    """The rarer words of a text with their rarity, the length of that vector, and how much could be shared of it.

    `told` are the subjects that one of its words tells each, and how much.
    """

    words: Mapping[str, float]
    length: float
    total: float
    told: Sequence[tuple[Collection[str], float]]


@dataclass(frozen=True, slots=True)
class Profile:
    """One custom category: its examples as rare words with their weights, and the words that describe it by bucket.

    `home` is the trained class that its own texts belong to: prompts of that class are the ones it takes over.
    `subjects` is what they are about, of which words tell less if it is not `alone` in that.
    """

    name: str
    home: str
    examples: tuple[tuple[Mapping[str, float], float], ...]
    terms: Mapping[str, tuple[tuple[str, float], ...]]
    subjects: frozenset[str] = frozenset()
    alone: bool = True

    def score(self, said: _Said) -> float:
        """How alike a text is, by its words and by its subject."""
        own = self._alike(said)
        if not self.subjects or not said.told:
            return own
        here = sum(weight for subjects, weight in said.told if not self.subjects.isdisjoint(subjects))
        elsewhere = sum(weight for _, weight in said.told) - here
        subject = _SUBJECT * min(here, _TOLD) * (1.0 if self.alone else _SHARED)
        beside = _BESIDE * min(own, subject) - (_ELSEWHERE * elsewhere if elsewhere >= here else 0.0)
        return max(own, subject) + beside

    def _alike(self, said: _Said) -> float:
        best = 0.0
        for vector, size in self.examples:
            shared = sum(weight * vector[word] for word, weight in said.words.items() if word in vector)
            best = max(best, shared / (said.length * size))
        matched = sum(weight for word in said.words if (weight := self.term(word)))
        cover = matched / said.total
        return _SIMILAR * best + _TERM * min(matched, _TERMS) + _COVER * min(cover, 0.5)

    def term(self, word: str) -> float:
        """The weight of the describing word that this is a form of; 0 where it is none."""
        return max((weight for term, weight in self.terms.get(_bucket(word), ()) if _same(term, word)), default=0.0)


@dataclass(frozen=True, slots=True)
class Profiles:
    """All custom categories of a configuration. `trained` maps those that the model has learned to its class.

    Their own words tell several of those apart. `sharing` tells which of the profiles (`own`: of all others, and of
    the trained where they are several) have a word or a word's beginning in their texts, so that hundreds of them
    cost no more than the few that a prompt has to do with; `about` tells the same of subjects.
    """

    trained: Mapping[str, str]
    own: tuple[Profile, ...]
    sharing: Mapping[str, tuple[int, ...]]
    about: Mapping[str, tuple[int, ...]]
    subjects: Subjects
    model: Model

    def score(
        self, features: Features, tempered: Mapping[str, float], named: Collection[str] = ()
    ) -> Iterator[tuple[str, float]]:
        """Scores of custom categories on the scale of the trained classes (tempered).

        Categories that share nothing with the text are left out. Those `named` (by a keyword) are always compared.
        """
        alike = self._alike(features, named) if self.own else []
        kin = {profile.name: likeness for profile, likeness in alike if profile.name in self.trained}
        split = math.log(sum(math.exp(kin.get(name, 0.0)) for name in self.trained)) if self.trained else 0.0
        for name, trained in self.trained.items():
            yield name, tempered[trained] + kin.get(name, 0.0) - split
        for profile, likeness in alike:
            if profile.name not in self.trained:
                # A verse about tenants is no question of law: where nobody writes verses it is conversation.
                yield profile.name, max(tempered[_REST], tempered[profile.home]) + _FLOOR + likeness

    def _alike(self, features: Features, named: Collection[str]) -> list[tuple[Profile, float]]:
        """The categories that share most words with a text, those named too, and how alike they are."""
        said = _said(features, self.model, self.subjects if self.about else None)
        touched = Counter(number for word in said.words for number in self.sharing.get(_bucket(word), ()))
        touched.update(number for subjects, _ in said.told for name in subjects for number in self.about.get(name, ()))
        compared = {number: self.own[number] for number, _ in touched.most_common(_COMPARED)}
        if named:
            compared.update((number, self.own[number]) for number in touched if self.own[number].name in named)
        return [(profile, profile.score(said)) for profile in compared.values()]

    def reasons(self, name: str, features: Features) -> list[str]:
        """Words that a text shares with a custom category's own texts, then those that tell its subject."""
        profile = next((profile for profile in self.own if profile.name == name), None)
        if profile is None:
            return []
        words = _words(features, self.model)
        shared = [word for word in words if profile.term(word) or any(word in vector for vector, _ in profile.examples)]
        shared.sort(key=lambda word: (-words[word], word))
        reasons = [f"word '{word}' as in its description or examples" for word in shared[:4]]
        telling = self.subjects.told(features.grams) if profile.subjects else {}
        for word, subjects in sorted(telling.items()):
            if word not in shared and (here := sorted(profile.subjects.intersection(subjects))):
                said = f"words that begin with '{word[:-1]}'" if word.endswith("*") else f"word '{word}'"
                reasons.append(f"{said} of its subject, {here[0]}")
        return reasons


def compile_profiles(
    categories: Sequence[Category], model: Model, known: Callable[[], Subjects] = Subjects
) -> Profiles:
    """Make the custom categories ready to be compared with texts; `known` is asked for the subjects if need be."""
    custom = [category for category in categories if category.custom and category.name not in model.classes]
    named = {c.name: c.name for c in categories if c.custom and c.name in model.classes}
    trained = {**named, **{c.name: _CREATIVE for c in custom if _means_creative(c, model)}}
    only = trained if len(trained) == 1 else {}  # has nobody to be told apart from
    subjects = known() if any(category.name not in trained for category in custom) else Subjects()
    own = [
        _profile(category, model, Subjects() if category.name in trained else subjects)
        for category in categories
        if category.custom and category.name not in only
    ]
    sharing: dict[str, list[int]] = {}
    about: dict[str, list[int]] = {}
    for number, profile in enumerate(own):
        for bucket in {*profile.terms, *(_bucket(word) for vector, _ in profile.examples for word in vector)}:
            sharing.setdefault(bucket, []).append(number)
        for subject in profile.subjects:
            about.setdefault(subject, []).append(number)
    return Profiles(
        {name: trained_class for name, trained_class in trained.items() if trained_class in model.classes},
        tuple(replace(profile, alone=all(len(about[subject]) == 1 for subject in profile.subjects)) for profile in own),
        {bucket: tuple(numbers) for bucket, numbers in sharing.items()},
        {subject: tuple(numbers) for subject, numbers in about.items()},
        subjects,
        model,
    )


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


def _profile(category: Category, model: Model, subjects: Subjects) -> Profile:
    name = re.sub(r"[_-]+", " ", category.name)
    said = f"{name}. {category.description}. {' '.join(category.keywords)}"
    features = extract(said, model.lexicon)
    shown = [extract(text, model.lexicon) for text in category.examples]
    vectors = [_words(example, model) for example in shown]
    about = subjects.of(features.grams.union(*(example.grams for example in shown)))
    terms: dict[str, list[tuple[str, float]]] = {}
    for word, weight in _words(features, model).items():
        told = not about or not about.isdisjoint(subjects.named_by(word))
        terms.setdefault(_bucket(word), []).append((word, weight if told else _ASIDE * weight))
    home = _home(" ".join((said, *category.examples)), model)
    examples = tuple((vector, _length(vector)) for vector in vectors)
    return Profile(category.name, home, examples, {key: tuple(found) for key, found in terms.items()}, about)


def _home(text: str, model: Model) -> str:
    scores = model.logits(model.find(extract(text, model.lexicon)))
    return model.classes[max(range(len(scores)), key=scores.__getitem__)]


def _words(features: Features, model: Model) -> dict[str, float]:
    """The rarer words of a text with their rarity; pairs of characters where words are not spaced."""
    return {gram: rarity for gram in features.grams if _is_word(gram) and (rarity := model.rarity(gram)) >= _COMMON}


def _said(features: Features, model: Model, subjects: Subjects | None) -> _Said:
    words = _words(features, model)
    total = sum(weight * (_OVERLAP if _is_pair(word) else 1.0) for word, weight in words.items())
    told = []
    if subjects:
        each = min(1.0, math.sqrt(_SPREAD / max(1, len(words))))
        told = [(names, each * model.rarity(word)) for word, names in subjects.told(features.grams).items()]
    return _Said(words, _length(words), total or 1.0, told)


def _length(vector: Mapping[str, float]) -> float:
    return math.sqrt(sum(weight * weight for weight in vector.values())) or 1.0


def _is_word(gram: str) -> bool:
    """Not a sign, a number, a pair, a stem, a beginning or an end; of characters without spaces just the pairs."""
    if not gram[0].isalpha() or gram[-1] in "*$" or " " in gram:
        return False
    return gram < _UNSPACED or _HANGUL[0] <= gram[0] <= _HANGUL[1] or len(gram) == 2


def _is_pair(word: str) -> bool:
    """Whether a word is two characters of a run without spaces."""
    return word >= _UNSPACED and not _HANGUL[0] <= word[0] <= _HANGUL[1]


def _bucket(word: str) -> str:
    """What all forms of a word have in common: its beginning."""
    if _HANGUL[0] <= word[0] <= _HANGUL[1]:
        return word[:2]
    return word if word >= _UNSPACED else word[:4]


def _same(term: str, word: str) -> bool:
    """Whether two words of one bucket are forms of one word."""
    if term == word or term >= _UNSPACED:
        return True
    common = next((i for i, (a, b) in enumerate(zip(term, word, strict=False)) if a != b), min(len(term), len(word)))
    return common >= 4 and common >= _ALIKE * max(len(term), len(word))
