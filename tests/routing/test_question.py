"""Asking a model for a category: what is sent and how answers are read."""

from __future__ import annotations

import pytest

from llm_router.config.values import Category
from llm_router.routing.question import question, question_key, read_answer, shorten

NAMES = ["code", "reasoning", "conversation", "my-stories"]
CATEGORIES = [Category(name, description=f"about {name}") for name in NAMES]


@pytest.mark.parametrize(
    ("content", "category"),
    [
        ('{"category": "code"}', "code"),
        ('{"category": "poetry"}', None),
        ('{"category": ["code"]}', None),
        ("Code", "code"),
        ("The category is my-stories.", "my-stories"),
        ("code or reasoning", None),
        ("encode", None),
        pytest.param("It is, after some thought, " * 100 + "code", "code", id="long"),
        pytest.param("It is, after some thought, " * 1000 + "code", None, id="too long to be searched"),
        ("", None),
        (None, None),
    ],
)
def test_only_a_known_name_counts(content: str | None, category: str | None) -> None:
    """JSON, or exactly one known name as a word; anything else is no answer."""
    assert read_answer({"choices": [{"message": {"content": content}}]}, NAMES) == category


@pytest.mark.parametrize("completion", [{}, {"choices": []}, {"choices": [None]}, [], None, {"choices": [{}]}])
def test_odd_completions_are_no_answer(completion: object) -> None:
    """Whatever comes, nothing breaks."""
    assert read_answer(completion, NAMES) is None


def test_the_question_is_bounded_and_constrained() -> None:
    """A long message is shortened, the answer constrained to the names, descriptions are told."""
    body = question("x" * 100_000, ["before " * 1000], CATEGORIES, "p/m", "fence")
    assert len(body["messages"][1]["content"]) < 3000
    assert body["response_format"]["json_schema"]["schema"]["properties"]["category"]["enum"] == NAMES
    assert "about my-stories" in body["messages"][0]["content"]


def test_shortening_keeps_both_ends() -> None:
    """The beginning and the end of a message say most."""
    text = "BEGIN" + "x" * 10_000 + "END"
    assert shorten(text).startswith("BEGIN")
    assert shorten(text).endswith("END")
    assert shorten("short") == "short"


def test_equal_questions_have_equal_keys() -> None:
    """Text, thread, categories and models make the key; lone surrogates do not break it."""
    key = question_key("hi\ud83d", (), CATEGORIES, ["p/m"])
    assert key == question_key("hi\ud83d", (), list(CATEGORIES), ["p/m"])
    assert key != question_key("hi", (), CATEGORIES, ["p/m"])
    assert key != question_key("hi\ud83d", ("earlier",), CATEGORIES, ["p/m"])
    assert key != question_key("hi\ud83d", (), CATEGORIES, ["p/other"])


def test_keywords_speak_for_a_category_that_has_no_description() -> None:
    """The first ten of them, so that a long list is no long prompt; without any its name has to do."""
    words = tuple(f"word{number}" for number in range(30))
    asked = question("x", [], [Category("mine", keywords=words), Category("bare")], "m", "fence")
    told = asked["messages"][0]["content"]
    assert f"- mine: {', '.join(words[:10])}\n" in told
    assert "- bare: bare\n" in told


def test_what_stands_for_a_category_makes_another_question() -> None:
    """An answer from before its keywords or its description were changed is not the answer to the new question."""
    versions = [Category("mine"), Category("mine", keywords=("tea",)), Category("mine", description="hot drinks")]
    assert len({question_key("x", (), [version], ["p/m"]) for version in versions}) == 3
