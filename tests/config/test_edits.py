"""Changes through the API: what they put where, what they keep, and what they refuse."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from llm_router.config.edits import (
    category_change,
    mapping_change,
    refusal,
    with_category,
    with_mapping,
    without_category,
)
from llm_router.config.fields import FileKeyError, KeyProblem
from llm_router.config.loading import load
from llm_router.errors import ApiError

FILE: dict[str, Any] = {
    "_note": "mine",
    "model_mappings": {"_why": "cheap", "code": ["openai/a"]},
    "keywords": {"c": ["old"], "code": ["python"]},
    "custom_categories": {"c": {"_note": "keep", "models": ["openai/a"], "description": "d", "keywords": ["k"]}},
    "categories": {"c": {"order": "price"}},
    "timeouts": {"idle": 5},
}


def valid(file: dict[str, Any]) -> dict[str, Any]:
    """The file, once it was checked that it loads."""
    load({}, {}, json.dumps(file).encode(), "router_config.json")
    return file


def test_a_new_category_goes_to_both_places() -> None:
    """The chain goes to model_mappings, the rest to custom_categories; everything else stays, in its order."""
    before = copy.deepcopy(FILE)
    after = valid(with_category(FILE, "poems", ["openai/b"], ["ode"], "verse", ["write an ode"]))
    assert before == FILE
    assert after["model_mappings"] == {"_why": "cheap", "code": ["openai/a"], "poems": ["openai/b"]}
    assert after["custom_categories"]["poems"] == {
        "keywords": ["ode"],
        "description": "verse",
        "examples": ["write an ode"],
    }
    assert list(after) == list(FILE)
    assert after["custom_categories"]["c"] == FILE["custom_categories"]["c"]


def test_a_category_in_an_empty_file() -> None:
    """The first change may find nothing at all."""
    assert valid(with_category({}, "c", ["ollama/x"])) == {
        "model_mappings": {"c": ["ollama/x"]},
        "custom_categories": {"c": {}},
    }


def test_a_changed_category_keeps_what_is_not_named() -> None:
    """Description, notes and keywords stay unless the request names them; given keywords replace all there were."""
    after = valid(with_category(FILE, "c", ["openai/b"]))
    entry = after["custom_categories"]["c"]
    assert entry == {"_note": "keep", "models": ["openai/b"], "description": "d", "keywords": ["k"]}
    assert after["model_mappings"]["c"] == ["openai/b"]
    replaced = valid(with_category(FILE, "c", ["openai/b"], ["new"]))
    assert replaced["custom_categories"]["c"]["keywords"] == ["new"]
    assert replaced["keywords"] == {"code": ["python"]}
    assert load({}, {}, json.dumps(replaced).encode(), "f").categories["c"].keywords == ("new",)


def test_a_built_in_category_gets_no_needless_entry() -> None:
    """Changing the chain of `code` leaves custom_categories alone."""
    after = valid(with_category(FILE, "code", ["openai/b"]))
    assert after["custom_categories"] == FILE["custom_categories"]
    assert after["model_mappings"]["code"] == ["openai/b"]


def test_a_mapping_changes_the_chain_alone() -> None:
    """POST /config/model-mapping replaces one chain, also of a category that only custom_categories names."""
    after = valid(with_mapping(FILE, "c", ["openai/z"]))
    assert after["model_mappings"]["c"] == ["openai/z"]
    assert after["custom_categories"]["c"]["models"] == ["openai/z"]
    assert after["keywords"] == FILE["keywords"]
    assert valid(with_mapping({}, "reasoning", ["openai/z"])) == {"model_mappings": {"reasoning": ["openai/z"]}}


def test_a_removed_category_is_gone_everywhere() -> None:
    """DELETE removes chain, description, keywords and options, so that the file stays valid."""
    after = valid(without_category(valid(with_category(FILE, "c", ["openai/b"])), "c"))
    assert "c" not in after["model_mappings"]
    assert after["custom_categories"] == {}
    assert after["keywords"] == {"code": ["python"]}
    assert after["categories"] == {}
    assert after["timeouts"] == {"idle": 5}


BAD: list[tuple[Any, str]] = [
    ({"models": ["openai/a"]}, "name"),
    ({"name": None, "models": ["openai/a"]}, "name"),
    ({"name": 7, "models": ["openai/a"]}, "name"),
    ({"name": "", "models": ["openai/a"]}, "name"),
    ({"name": "a b", "models": ["openai/a"]}, "name"),
    ({"name": "../etc", "models": ["openai/a"]}, "name"),
    ({"name": "_note", "models": ["openai/a"]}, "name"),
    ({"name": "é", "models": ["openai/a"]}, "name"),
    ({"name": "x" * 65, "models": ["openai/a"]}, "name"),
    ({"name": "x\n", "models": ["openai/a"]}, "name"),
    ({"name": "x"}, "models"),
    ({"name": "x", "models": "openai/a"}, "models"),
    ({"name": "x", "models": []}, "models"),
    ({"name": "x", "models": ["openai/a", 1]}, "models[1]"),
    ({"name": "x", "models": ["openai/a", " "]}, "models[1]"),
    ({"name": "x", "models": ["\ud800"]}, "models[0]"),
    ({"name": "x", "models": ["openai/a"], "keywords": "k"}, "keywords"),
    ({"name": "x", "models": ["openai/a"], "keywords": ["k", ""]}, "keywords[1]"),
    ({"name": "x", "models": ["openai/a"], "description": 1}, "description"),
    ({"name": "x", "models": ["openai/a"], "examples": [None]}, "examples[0]"),
    ({"name": "x", "models": ["openai/a"], "keyword": []}, "keyword"),
]


@pytest.mark.parametrize(("body", "param"), BAD, ids=[f"{n}-{row[1]}" for n, row in enumerate(BAD)])
def test_a_bad_category_is_refused_by_field(body: Any, param: str) -> None:
    """A body that cannot be used is a 400 that names its field."""
    with pytest.raises(ApiError) as caught:
        category_change(body)({})
    assert (caught.value.status, caught.value.param) == (400, param)
    assert f"'{param}'" in caught.value.message


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"category": "nosuch", "models": ["openai/a"]}, 404, "category"),
        ({"category": "_why", "models": ["openai/a"]}, 400, "category"),
        ({"models": ["openai/a"]}, 400, "category"),
        ({"category": "code"}, 400, "models"),
        ({"category": "code", "models": ["x"], "name": "code"}, 400, "name"),
    ],
)
def test_a_bad_mapping_is_refused_by_field(body: Any, status: int, param: str) -> None:
    """An unknown category is 404, any other mistake 400 with its field."""
    with pytest.raises(ApiError) as caught:
        mapping_change(body)(FILE)
    assert (caught.value.status, caught.value.param) == (status, param)


@pytest.mark.parametrize(("name", "status"), [("code", 400), ("tools", 400), ("nosuch", 404), ("_why", 404), ("", 404)])
def test_what_cannot_be_removed(name: str, status: int) -> None:
    """A built-in category is 400, an unknown one (a note too) 404."""
    with pytest.raises(ApiError) as caught:
        without_category(FILE, name)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("key", "param"),
    [
        ("model_mappings.c[1]", "models[1]"),
        ("custom_categories.c.keywords[0]", "keywords[0]"),
        ("timeouts.idle", "timeouts.idle"),
    ],
)
def test_what_the_load_refuses_names_the_field_of_the_body(key: str, param: str) -> None:
    """A key path of the file is told as the field of the request that put the value there."""
    error = refusal(FileKeyError("f", KeyProblem(key, "is bad")))
    assert (error.status, error.param, error.message) == (400, param, f"'{param}': is bad")
