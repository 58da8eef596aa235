"""A text as features: words, word pairs, stems, characters of scripts without spaces, word groups, structure.

The same code runs in training and in the router. What is read of a text is bounded, so the cost is too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from llm_router.routing.classify_cues import cues

HEAD = 1_000  # characters that are read from a text's start, and from its end
TAIL = 300
_DENSE_HEAD = 400  # the same for scripts that write no spaces, where every character makes several features
_DENSE_TAIL = 150
_STRUCTURE = 450  # characters of the head, and of the end, that are searched for structure
_STRUCTURE_TAIL = 200
_OPENING = 8  # tokens (or characters, where words are not spaced) that count as the beginning of a text
_PAIRED = 16  # word groups whose pairs are looked at

_DIGITS = re.compile(r"\d+")
_BARE = r"\u0e00-\u0eff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff"  # scripts that write no spaces
_LETTERS = rf"[^\W{_BARE}\uac00-\ud7af]"
_MARKS = r"[\u0300-\u036f\u064b-\u065f\u0900-\u0dff]"
# Runs of one kind of script (Hangul apart, since its particles cling to foreign words), words with their combining
# marks (Arabic, Indic), or up to three signs in a row. The most usual comes first.
_TOKEN = re.compile(
    rf"{_LETTERS}+(?:{_MARKS}+{_LETTERS}*)*|[{_BARE}]+|[\uac00-\ud7af]+|(?:{_MARKS}+{_LETTERS}*)+|[^\w\s]{{1,3}}"
)
_UNSPACED = re.compile(rf"[{_BARE}]+")
_FIRST_UNSPACED = "\u0e00"

Lexicon = Mapping[str, tuple[int, ...]]
# Cues that are paired with word groups as if they were one.
PAIRED_CUES = (
    "numbers2", "numbers5", "questionend", "fence", "declares", "latex", "choice", "numbersdense", "colonend", "call"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Features:
    """`grams` share their weight the more the more there are; the others weigh one each.

    `groups` maps a word group's number to the count of its hits; `opening` are the groups that begin the text.
    """

    grams: set[str]
    cues: list[str]
    groups: dict[int, int]
    opening: set[int]


def clipped(text: str) -> str:
    """The most of a text that is ever read: its head and its tail."""
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]}\n{text[-TAIL:]}"


def bounded(text: str) -> str:
    """The part of a text (clipped or not) that is read."""
    if len(text) <= _DENSE_HEAD + _DENSE_TAIL:
        return text
    sample = text[:_DENSE_HEAD]
    # Characters that stand without spaces take three bytes each: few texts need to be looked at closely.
    if (
        len(sample.encode("utf-8", "surrogatepass")) > 2 * _DENSE_HEAD
        and sum(map(len, _UNSPACED.findall(sample))) * 2 > _DENSE_HEAD
    ):
        return f"{sample}\n{text[-_DENSE_TAIL:]}"
    return clipped(text)


def tokens(text: str) -> list[str]:
    """Lower-case words and signs; every number is one and the same word."""
    return _TOKEN.findall(_DIGITS.sub("0", text.lower()))


def extract(text: str, lexicon: Lexicon) -> Features:
    """Features of a bounded text. `lexicon` maps words, word pairs, stems ("func*") and characters to groups."""
    found = tokens(text)
    grams = _keys(found)
    if found:
        grams.update(("^" + found[0], "^" + " ".join(found[:2]), "^" + " ".join(found[:3]), found[-1] + "$"))
    groups: dict[int, int] = {}
    for hit in filter(None, map(lexicon.get, grams)):
        for group in hit:
            groups[group] = groups.get(group, 0) + 1
    opening: set[int] = set()
    for hit in filter(None, map(lexicon.get, _keys([token[:_OPENING] for token in found[:_OPENING]]))):
        opening.update(hit)
    whole = len(text) <= _STRUCTURE + _STRUCTURE_TAIL
    shown = cues(text if whole else f"{text[:_STRUCTURE]}\n{text[-_STRUCTURE_TAIL:]}")
    return Features(grams, shown, groups, opening)


def group_pairs(features: Features, first_cue: int) -> Iterator[tuple[int, int]]:
    """Pairs of groups that occur together, the smaller number first; paired cues are numbered from `first_cue`."""
    here = sorted(features.groups)[:_PAIRED]
    here.extend(first_cue + i for i, name in enumerate(PAIRED_CUES) if name in features.cues)
    for i, a in enumerate(here):
        for b in here[i + 1 :]:
            yield a, b


def _keys(found: list[str]) -> set[str]:
    """Words, pairs of neighbours, and parts of words."""
    keys = set(found)
    parts: set[str] = set()
    for token in keys:
        if token < _FIRST_UNSPACED:
            if len(token) > 3:
                parts.update(_stems(token))
            if token[-1] == "0" and len(token) > 2:  # a name with its version
                parts.add(token[:-1])
        elif "\uac00" <= token[0] <= "\ud7af":
            parts.update((token[:2] + "*", token[:3] + "*", token[:4] + "*"))
        else:
            _characters(token, parts)
    keys.update([f"{a} {b}" for a, b in pairwise(found)])
    keys |= parts
    return keys


def _stems(token: str) -> Iterable[str]:
    if len(token) < 6:
        stems: tuple[str, ...] = (token[:4] + "*",)
    else:
        stems = (token[:4] + "*", token[:5] + "*", token[:6] + "*", "*" + token[-4:])
    if token[:2] == "ال":
        return (*stems, token[2:], token[2:6] + "*", token[2:7] + "*")
    return stems


def _characters(run: str, into: set[str]) -> None:
    for size in (1, 2, 3):
        into.update([run[i : i + size] for i in range(len(run) - size + 1)])
