"""Secrets in text that leaves the router."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest

from llm_router.wire.masking import MASK, MESSAGE_CHARS, Masker


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghij",
        "sk-ant-*****wxyz",
        "gsk_abcdefghij",
        "xai-abcdefghij",
        "hf_AbCdEf123",
        "key-3ax6xnjp29jd",
        "AIzaSyA-1234567890",
    ],
)
def test_what_looks_like_a_key_is_masked(secret: str) -> None:
    """Whole keys and starred ones, also of accounts that are not ours."""
    assert Masker([])(f"Incorrect API key provided: {secret}. See the docs") in (
        f"Incorrect API key provided: {MASK}. See the docs",
        f"Incorrect API key provided: {MASK} See the docs",
    )


@pytest.mark.parametrize("words", ["schema.key_points is missing", "a key-derivation", "hf_transfer", "pk_column"])
def test_words_that_begin_like_a_key_stay(words: str) -> None:
    """Fields of a client's own schema are the point of many an error message."""
    assert Masker([])(words) == words


def test_known_secrets_and_addresses_with_credentials_are_masked() -> None:
    """Whatever form a configured key has; credentials go, the host stays."""
    mask = Masker(["mysecretkey"])
    assert mask("mysecretkey at https://me:pass@host/v1?key=abc") == f"{MASK} at https://{MASK}@host/v1?key={MASK}"


def test_of_a_secret_within_another_nothing_is_left() -> None:
    """The longest one that is there goes, not the one that it begins with."""
    mask = Masker(["secretone", "secretone.tail", "xsecretone.tail"])
    assert mask("a secretone.tail, b secretone, c xsecretone.tail") == f"a {MASK}, b {MASK}, c {MASK}"


@pytest.mark.parametrize("before", range(MESSAGE_CHARS - 32, MESSAGE_CHARS + 2))
def test_no_cut_leaves_a_part_of_a_secret(before: int) -> None:
    """A client that has its words repeated decides where in a long message the key behind them stands."""
    secret = "0123456789abcdef0123456789abcdef"
    assert secret[:6] not in Masker(["another", secret])("x" * before + secret + " is no key" + "x" * 100)


@pytest.mark.parametrize(
    "form", [json.dumps, lambda key: json.dumps(key).replace("/", "\\/"), lambda key: quote(key, "")]
)
def test_a_secret_is_known_in_other_spellings(form: Callable[[str], str]) -> None:
    """As an error inside of an error has it, or an address."""
    secret = 'a+b/c"d\\e'
    assert Masker([secret])(f"no such key: {form(secret)}").replace('"', "") == f"no such key: {MASK}"


@pytest.mark.parametrize("unit", ["key-", "hf_.", "rk-pk_", "sk-", "://a:", "bearer ", "?key=", "'a"])
def test_masking_takes_no_longer_for_a_nasty_text(unit: str) -> None:
    """A provider's message of megabytes, or what a client had it repeat, must not hold up everybody's streams."""
    mask = Masker(["0123456789abcdef"])
    started = time.process_time()
    mask(unit * 1_000_000)
    assert time.process_time() - started < 0.2


def test_a_word_is_no_secret() -> None:
    """A secret of six characters is one; a shorter one would be found in half of all texts."""
    masker = Masker(["a1b2c3", "a-key"])
    assert masker("no: a1b2c3, a-key") == f"no: {MASK}, a-key"
