"""The linear model: weights as they are shipped, and the scores that they give to features.

File: magic, length of a JSON header and CRC-32 of all that follows (both u32, little endian), the header, then the
names of the features, the lexicon, the int16 weights of every feature, one column per class, and a byte for each one's
rarity. It is not compressed, so that loading it is quick.
"""

from __future__ import annotations

import json
import math
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import chain, islice
from typing import Any

from llm_router.routing.classify_features import Features, Lexicon, group_pairs

MAGIC = b"LRCL\x03"
_PIECE = 32_768
_SHARING = -0.4  # how strongly the grams of a text share their weight: 0 not at all, -1 wholly


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of the grams and of the other features of a text; each gram weighs `share`."""

    grams: list[int]
    dense: list[int]
    share: float


@dataclass(frozen=True, slots=True)
class Model:
    """Loaded weights. Columns are classes; the first class is the reference, whose scores are 0.

    `groups` are the word groups' descriptions, `followup` the number of the group of words that refer back. `rows` are
    the features' places in all columns, in this order.
    """

    classes: tuple[str, ...]
    groups: tuple[str, ...]
    followup: int
    rarities: bytes
    lexicon: Lexicon
    rows: Mapping[str, int]
    columns: tuple[array[int], ...]
    step: float
    bias: tuple[float, ...]
    temperature: float
    pairs: Mapping[int, int]

    def find(self, features: Features) -> Found:
        """The rows of a text's known features."""
        get = self.rows.get
        dense = [row for row in map(get, self._dense(features)) if row is not None]
        pairs = self.pairs
        dense += [pairs[key] for a, b in group_pairs(features, len(self.groups)) if (key := a << 8 | b) in pairs]
        grams = [row for row in map(get, features.grams) if row is not None]
        return Found(grams, dense, share_of(len(features.grams)))

    def logits(self, found: Found) -> list[float]:
        """Scores by class (in the order of `classes`), before the temperature."""
        share = self.step * found.share
        scores = [0.0]
        for column, bias in zip(self.columns, self.bias, strict=True):
            weight = column.__getitem__
            scores.append(bias + share * sum(map(weight, found.grams)) + self.step * sum(map(weight, found.dense)))
        return scores

    def heaviest(self, found: Found, winner: str, second: str, most: int) -> list[str]:
        """Names of the features that weigh most for the winner against the second, the heaviest first."""
        plus, minus = self._column_of(winner), self._column_of(second)
        weighed: list[tuple[float, int]] = []
        for rows, share in ((found.dense, 1.0), (found.grams, found.share)):
            if plus and minus:
                margins = [(share * (plus[row] - minus[row]), row) for row in rows]
            elif plus:
                margins = [(share * plus[row], row) for row in rows]
            else:
                margins = [(-share * minus[row], row) for row in rows] if minus else []
            weighed += nlargest(most, margins)
        # They are asked for rarely: no second list of them is kept.
        names = list(self.rows)
        return [names[row] for weight, row in nlargest(most, weighed) if weight > 0]

    def _column_of(self, name: str) -> array[int] | None:
        """A class's weights; None for the reference class."""
        index = self.classes.index(name)
        return self.columns[index - 1] if index else None

    def rarity(self, gram: str) -> float:
        """How rare a gram is, from 0 (everywhere) to 1 (unseen)."""
        row = self.rows.get(gram)
        return 1.0 if row is None else self.rarities[row] / 255

    def _dense(self, features: Features) -> list[str]:
        names = [f"@{name}" for name in features.cues]
        for group, count in features.groups.items():
            names.extend(_counted(group, count))
        names.extend([f"^%{group}" for group in features.opening])
        return names


def share_of(grams: int) -> float:
    """What each of so many grams weighs: a text's length says little, but many words say more than few."""
    return float((grams + 1) ** _SHARING)


def dense_names(features: Features, groups: int | None = None) -> list[str]:
    """Names of all features but the grams; `groups` (their number) adds the pairs."""
    names = [f"@{name}" for name in features.cues]
    for group, count in features.groups.items():
        names.extend(_counted(group, count))
    names.extend(f"^%{group}" for group in features.opening)
    if groups is not None:
        names.extend(f"%{a}&{b}" for a, b in group_pairs(features, groups))
    return names


def _counted(group: int, count: int) -> tuple[str, ...]:
    if count < 2:
        return (f"%{group}",)
    return (f"%{group}", f"%{group}+2") if count < 4 else (f"%{group}", f"%{group}+2", f"%{group}+4")


def load(data: bytes) -> Model:
    """Read a weights file. Raises ValueError where it is none, or is broken."""
    if not data.startswith(MAGIC):
        raise ValueError("classifier weights: wrong magic bytes")
    try:
        length, check = struct.unpack_from("<II", data, len(MAGIC))
        start = len(MAGIC) + 8
        if zlib.crc32(memoryview(data)[start:]) != check:
            raise ValueError("classifier weights: damaged or cut short")
        header: dict[str, Any] = json.loads(data[start : start + length])
        return _read(header, data, start + length)
    except (struct.error, KeyError, TypeError) as error:
        raise ValueError(f"classifier weights: {error}") from error


def _read(header: Mapping[str, Any], data: bytes, start: int) -> Model:
    names_end = start + header["names_bytes"]
    lexicon_end = names_end + header["lexicon_bytes"]
    lexicon = _lexicon(_pieces(data, names_end, lexicon_end))  # before the rows, which fill the holes that it leaves
    rows: dict[str, int] = {}
    pairs: dict[int, int] = {}
    same = dict(zip(lexicon, lexicon, strict=True)).get  # a word of both is kept once
    for names in _pieces(data, start, names_end):
        rows.update(zip(map(same, names, names), range(len(rows), len(rows) + len(names)), strict=True))
    for name, row in islice(rows.items(), header["first_pair"], None):
        a, _, b = name[1:].partition("&")
        pairs[int(a) << 8 | int(b)] = row
    return Model(
        classes=tuple(header["classes"]),
        groups=tuple(header["groups"]),
        followup=header["followup"],
        rarities=data[-len(rows) :],
        lexicon=lexicon,
        rows=rows,
        columns=tuple(_column(data, lexicon_end, len(rows), i) for i in range(len(header["classes"]) - 1)),
        step=header["step"],
        bias=tuple(header["bias"]),
        temperature=header["temperature"],
        pairs=pairs,
    )


def _pieces(data: bytes, start: int, end: int) -> Iterator[list[str]]:
    """The lines between two places, some at a time: what is made on the way shall not leave a hole of a megabyte."""
    while start < end:
        stop = data.find(b"\n", start + _PIECE, end)
        if stop < 0:
            stop = end
        yield data[start:stop].decode().split("\n")
        start = stop + 1


def _column(data: bytes, start: int, size: int, index: int) -> array[int]:
    column = array("h")
    column.frombytes(data[start + index * size * 2 : start + (index + 1) * size * 2])
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _lexicon(pieces: Iterable[Sequence[str]]) -> Lexicon:
    """Lines of "groups TAB words": numbers joined by commas, words by tabs."""
    lexicon: dict[str, tuple[int, ...]] = {}
    for line in chain.from_iterable(pieces):
        numbers, *words = line.split("\t")
        lexicon.update(dict.fromkeys(words, tuple(map(int, numbers.split(",")))))
    return lexicon


def softmax(scores: Sequence[float], temperature: float) -> list[float]:
    """Scores as probabilities."""
    top = max(scores)
    powers = [math.exp((score - top) / temperature) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]
