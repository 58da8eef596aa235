"""`keywords` mode: the configuration's keywords alone decide, whole words in any script, the most specific hit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.conftest import BUILT_IN
from tests.support.client import chat_body
from tests.support.router import RouterProcess

WORDS = {
    "code": ["python", "c++", "stack trace", "naïve", "Straße", "代码"],
    "reasoning": ["prove", "trace", "stack"],
}


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    """A router in `keywords` mode; nobody is called, `explain` tells the category."""
    config = {
        "keywords": WORDS,
        "custom_categories": {
            "creative": {"models": ["openai/x"], "keywords": ["story", "poem"], "examples": ["a limerick"]}
        },
    }
    with RouterProcess(tmp_path_factory.mktemp("keywords"), config, env={"ROUTING_MODE": "keywords"}) as router:
        yield router


async def category_of(router: RouterProcess, content: Any, **more: Any) -> str:
    """What `explain` says."""
    answer = await router.ask("POST", "/v1/explain", chat_body("router", content=content, **more))
    assert answer.status == 200, answer.body
    found: str = answer.json()["category"]
    return found


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("PYTHON please", "code"),
        ("(python)", "code"),
        ("python-x", "code"),
        ("Is python3 or pythonic or python_x a word?", "conversation"),
        ("c++", "code"),
        ("write it in c++.", "code"),
        ("STRASSE", "code"),
        ("NAÏVE", "code"),
        ("nai\u0308ve", "code"),
        ("naive", "conversation"),
        ("请写代码吧", "code"),
        ("stack trace", "code"),
        ("a trace", "reasoning"),
        ("the stack", "reasoning"),
        ("a story", "creative"),
        ("stories", "conversation"),
        ("def foo(): return 1", "conversation"),
        ("a limerick", "conversation"),
        ("", "conversation"),
    ],
)
async def test_whole_words_and_the_most_specific_of_them(router: RouterProcess, text: str, category: str) -> None:
    """Keywords match whole, whatever case, script or composition; a phrase beats its words; none: conversation."""
    assert await category_of(router, text) == category


async def test_the_person_decides_and_nobody_else(router: RouterProcess) -> None:
    """Keywords of a system prompt or of an older turn do not count; those in a list of parts do."""
    asked = {"role": "user", "content": "hello"}
    assert await category_of(router, "", messages=[{"role": "system", "content": "python"}, asked]) == "conversation"
    assert await category_of(router, [{"type": "text", "text": "python"}]) == "code"


async def test_tools_are_structure(router: RouterProcess) -> None:
    """A request that offers tools is of the category `tools` in every mode; an empty list offers none."""
    tool = {"type": "function", "function": {"name": "f"}}
    assert await category_of(router, "python", tools=[tool]) == "tools"
    assert await category_of(router, "python", tools=[]) == "code"


async def test_the_configuration_shows_the_words_in_force(router: RouterProcess) -> None:
    """`/config` tells the keywords of every category that has some, custom ones too."""
    shown = (await router.ask("GET", "/config")).json()
    assert shown["routing_mode"] == "keywords"
    assert shown["keywords"] == {**WORDS, "creative": ["story", "poem"]}
    assert set(shown["model_mappings"]) == {*BUILT_IN, "creative"}
