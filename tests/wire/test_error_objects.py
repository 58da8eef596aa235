"""Errors inside a 200 answer, in each form that was seen in the wild."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router.errors import FailureKind
from llm_router.wire.error_objects import ErrorSeen, bare_error, error_in, error_type, upstream_error

UNTOLD = "the provider reported an error"


@pytest.mark.parametrize(
    ("chunk", "name", "message"),
    [
        ({"error": {"message": "m"}}, b"", "m"),
        ([{"error": {"message": "m"}}], b"", "m"),
        ({"error": "m"}, b"", "m"),
        ({"error": [{"message": "m"}, {"message": "n"}]}, b"", "m"),
        ({"error": True, "message": "m"}, b"", "m"),
        ({"error": [], "object": "error", "message": "m"}, b"", "m"),
        ({"type": "error", "message": "m"}, b"", "m"),
        ({"message": "m"}, b"error", "m"),
        ("m", b"error", "m"),
        ({"error": {"message": 5}}, b"", UNTOLD),
        ({"error": {"code": 500}}, b"", UNTOLD),
        ({"choices": [{"finish_reason": "stop"}, {"finish_reason": "error", "error": {"message": "m"}}]}, b"", "m"),
        ({"choices": [{"finish_reason": "error"}]}, b"", UNTOLD),
    ],
)  # fmt: skip
def test_an_error_is_found_in_every_form(chunk: Any, name: bytes, message: str) -> None:
    """As an object, a text, a list, a sign with the words beside it, under its event's name, as a finish."""
    seen = error_in(chunk, name)
    assert seen is not None
    assert seen.message == message


@pytest.mark.parametrize(
    "chunk",
    [
        None, 5, "text", [], [{}], [{"error": "m"}, {"error": "n"}], {}, {"error": None}, {"error": ""}, {"error": {}},
        {"message": "m"}, {"type": "message"}, {"object": "chat.completion.chunk", "choices": []},
        {"choices": [5, None, {"finish_reason": "stop"}]}, {"choices": "error"},
    ],
)  # fmt: skip
def test_what_is_none_is_taken_for_none(chunk: Any) -> None:
    """An answer that says nothing of an error must not be cut for one."""
    assert error_in(chunk) is None
    assert error_in(chunk, b"message") is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b' {"error": {"message": "m"}}\n', "m"),
        (b'[{"error": {"message": "m"}}]', "m"),
        (b'{"error": {"message": "a\tb"}}', "a\tb"),
        (b'{"choices": []}', None),
        (b'data: {"error": {"message": "m"}}', None),
        (b'{"error": {"message": "m"', None),
        (b'{"error": "' + b"m" * 20_000 + b'"}', None),
        (b"", None),
    ],
)
def test_a_bare_error_is_one_without_a_field_name(raw: bytes, message: str | None) -> None:
    """JSON between the events of a stream, as Google's servers write it, if it is an error and no longer than one."""
    seen = bare_error(raw)
    assert (seen.message if seen is not None else None) == message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "t", "status": "S"}, "t"),
        ({"status": "S"}, "S"),
        ({"metadata": {"error_type": "e"}, "type": "t"}, "e"),
        ({"metadata": "x", "type": "t"}, "t"),
        ({}, None),
    ],
)
def test_the_word_for_its_kind_is_the_nearest_to_the_source(error: dict[str, Any], kind: str | None) -> None:
    """What OpenRouter's metadata say goes before the error's own type, and that before Google's status."""
    assert error_type(error) == kind


@pytest.mark.parametrize(("code", "shown"), [("c", "c"), (429, "429"), (True, None), ([1], None), (None, None)])
def test_the_failure_has_the_providers_code(code: Any, shown: str | None) -> None:
    """Texts and numbers are codes; whatever else stands there is none."""
    failure = upstream_error(ErrorSeen({"message": "m", "code": code, "type": 5}))
    assert (failure.kind, failure.code, failure.type) == (FailureKind.UPSTREAM_ERROR, shown, None)
    assert (failure.message, failure.status) == ("m", 200)
