"""Secrets in text that leaves the router."""

from __future__ import annotations

import pytest

from llm_router.wire.masking import MASK, Masker


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
