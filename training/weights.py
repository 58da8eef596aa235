"""Write the weights file that `llm_router.routing.classify_model.load` reads."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_router.routing.classify_features import Lexicon
from llm_router.routing.classify_model import MAGIC

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
            key = word.strip().lower()
            if "\u3000" < key < "\ua000":  # characters are compared three at a time
                key = key[:3]
            if key and len(groups) - 1 not in entries.setdefault(key, []):
                entries[key].append(len(groups) - 1)
    return groups, {word: tuple(sorted(numbers)) for word, numbers in entries.items()}


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
