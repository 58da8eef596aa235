"""Write the weights file that `llm_router.routing.classify_model.load` reads."""

from __future__ import annotations

import json
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_router.routing.classify_features import Lexicon, tokens
from llm_router.routing.classify_model import MAGIC

_HANGUL = re.compile(r"[\uac00-\ud7af]+")
_PARTICLES = "을를이가은는의에로도과와"
_SECTION = re.compile(r"\[(\w+)\] (.+)")


def read_lexicons(path: Path) -> tuple[list[tuple[str, str]], dict[str, tuple[int, ...]]]:
    """The groups (name, description) and the map from entry to the groups that have it."""
    groups: list[tuple[str, str]] = []
    entries: dict[str, list[int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if section := _SECTION.match(line):
            groups.append((section[1], section[2]))
            continue
        _, _, words = line.partition(":")
        for word in words.split(","):
            for key in (key for form in forms_of(word.strip().lower()) for key in keys_of(form)):
                if len(groups) - 1 not in entries.setdefault(key, []):
                    entries[key].append(len(groups) - 1)
    return groups, {word: tuple(sorted(numbers)) for word, numbers in entries.items()}


def forms_of(entry: str) -> Iterable[str]:
    """An entry as it is and, where the letters are Latin ones, without the marks that people in a hurry leave out."""
    bare = unicodedata.normalize("NFD", entry.replace("ı", "i").replace("ł", "l").replace("ß", "ss"))
    bare = "".join(char for char in bare if not unicodedata.combining(char))
    return (entry, bare) if bare.isascii() and bare != entry else (entry,)


def keys_of(entry: str) -> list[str]:
    """The features by which an entry of the lexicon is found: a word, a stem, a pair, or how a text begins."""
    if not entry:
        return []
    if entry.endswith("*"):
        stem = entry[:-1]
        if not _HANGUL.fullmatch(stem):
            return [stem[:6] + "*"]
        return [stem[:4] + "*"] if len(stem) > 1 else [stem, *(f"{stem}{particle}*" for particle in _PARTICLES)]
    words = tokens(entry)
    if len(words) == 1:  # characters of scripts without spaces are compared three at a time
        return [words[0][:3] if words[0] >= "\u0e00" and not _HANGUL.match(words[0]) else words[0]]
    if len(words) == 3 and words[1] == "-":
        return [f"- {words[2]}"]
    if len(words) >= 3 and words[1] in ("'", "’"):
        return [f"{words[0]} {words[1]}"] if len(words[0]) > 2 else []
    return [" ".join(words)] if len(words) == 2 else ["^" + " ".join(words[:3])]


def dump(
    header: Mapping[str, Any], names: Sequence[str], lexicon: Lexicon, columns: Sequence[Sequence[int]], rarities: bytes
) -> bytes:
    """The file's bytes; `names` are the features row by row, group pairs last."""
    by_groups: dict[str, list[str]] = {}
    for word, numbers in lexicon.items():
        by_groups.setdefault(",".join(map(str, numbers)), []).append(word)
    lexicon_bytes = "\n".join("\t".join([numbers, *words]) for numbers, words in by_groups.items()).encode()
    names_bytes = "\n".join(names).encode()
    weights = b"".join(struct.pack(f"<{len(column)}h", *column) for column in columns)
    full = {**header, "names_bytes": len(names_bytes), "lexicon_bytes": len(lexicon_bytes)}
    head = json.dumps(full, ensure_ascii=False).encode()
    body = head + names_bytes + lexicon_bytes + weights + rarities
    return MAGIC + struct.pack("<II", len(head), zlib.crc32(body)) + body
