"""Changes to the configuration file that the API offers: pure functions from the parsed file to a new one.

What a change does not name is kept: notes, the order of keys, everything else. Each raises ApiError with the field of
the request body that cannot be used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from llm_router.config import fields
from llm_router.config.fields import FileKeyError, KeyProblem
from llm_router.config.values import BUILTIN_CATEGORIES
from llm_router.errors import ApiError

T = TypeVar("T")
Change = Callable[[dict[str, Any]], dict[str, Any]]
# Where in the file a field of the request body ends up.
_BODY_FIELD = re.compile(r"^(model_mappings|custom_categories)\.[A-Za-z0-9_-]+")
_PLACES = ("model_mappings", "custom_categories", "keywords", "categories")


def category_change(body: Mapping[str, Any]) -> Change:
    """The change that the body of `POST /config/category` asks for."""
    _only(body, ("name", "models", "keywords", "description", "examples"))
    return lambda file: with_category(
        file,
        body.get("name"),
        body.get("models"),
        body.get("keywords"),
        body.get("description"),
        body.get("examples"),
    )


def mapping_change(body: Mapping[str, Any]) -> Change:
    """The change that the body of `POST /config/model-mapping` asks for."""
    _only(body, ("category", "models"))
    return lambda file: with_mapping(file, body.get("category"), body.get("models"))


def with_category(
    file: Mapping[str, Any],
    name: Any,
    models: Any,
    keywords: Any = None,
    description: Any = None,
    examples: Any = None,
) -> dict[str, Any]:
    """The file with a category added or changed: the chain in `model_mappings`, the rest in `custom_categories`.

    None leaves what the file has. Given keywords replace all that the category had.
    """
    name = _name(name, "name")
    chain = _chain(models)
    entry: dict[str, Any] = {}
    if keywords is not None:
        entry["keywords"] = _texts(keywords, "keywords")
    if description is not None:
        entry["description"] = _checked(lambda: fields.text(description, "description", empty=True))
    if examples is not None:
        entry["examples"] = _texts(examples, "examples")
    changed = _put_chain(file, name, chain)
    if keywords is not None and name in _object(changed, "keywords"):
        changed["keywords"] = {key: value for key, value in changed["keywords"].items() if key != name}
    if entry or name not in BUILTIN_CATEGORIES:
        custom = _object(changed, "custom_categories")
        changed["custom_categories"] = {**custom, name: {**custom.get(name, {}), **entry}}
    return changed


def with_mapping(file: Mapping[str, Any], category: Any, models: Any) -> dict[str, Any]:
    """The file with another chain for a category that exists."""
    category = _name(category, "category")
    chain = _chain(models)
    if category not in BUILTIN_CATEGORIES and not _knows(file, category):
        _unknown(category)
    return _put_chain(file, category, chain)


def without_category(file: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The file without a category: its chain, description, keywords and options."""
    if name in BUILTIN_CATEGORIES:
        raise ApiError(
            400, f"'{name}' is a built-in category and cannot be removed; change its chain instead", param="name"
        )
    if not _knows(file, name):
        _unknown(name)
    changed = dict(file)
    for place in _PLACES:
        if name in _object(file, place):
            changed[place] = {key: value for key, value in file[place].items() if key != name}
    return changed


def refusal(error: FileKeyError) -> ApiError:
    """The answer to a change whose result the loader refused, naming the field of the request body if it can."""
    field = _BODY_FIELD.sub(lambda found: "models" if found[1] == "model_mappings" else "", error.key).lstrip(".")
    return ApiError(400, f"'{field}': {error.problem}" if field else error.problem, param=field or None)


def _put_chain(file: Mapping[str, Any], name: str, chain: list[str]) -> dict[str, Any]:
    changed = {**file, "model_mappings": {**_object(file, "model_mappings"), name: chain}}
    custom = _object(file, "custom_categories")
    if "models" in custom.get(name, {}):
        # model_mappings wins; a second, outdated chain in the file would only mislead its reader.
        changed["custom_categories"] = {**custom, name: {**custom[name], "models": chain}}
    return changed


def _object(file: Mapping[str, Any], key: str) -> dict[str, Any]:
    value: dict[str, Any] = file.get(key, {})
    return value


def _knows(file: Mapping[str, Any], name: str) -> bool:
    return not fields.is_note(name) and any(name in _object(file, place) for place in _PLACES)


def _name(value: Any, param: str) -> str:
    if value is None:
        _refuse(param, "is missing; a category's name is 1 to 64 letters, digits, _ or -")
    name = _checked(lambda: fields.category_name(value, param))
    if fields.is_note(name):
        _refuse(param, "must not begin with _: such keys are notes in the configuration file")
    return name


def _chain(value: Any) -> list[str]:
    if value is None:
        _refuse("models", 'is missing; write a list of model ids such as ["openrouter/z-ai/glm-5"]')
    chain = _texts(value, "models")
    if not chain:
        _refuse("models", "must name at least one model")
    return chain


def _texts(value: Any, param: str) -> list[str]:
    return list(_checked(lambda: fields.texts(value, param)))


def _checked(read: Callable[[], T]) -> T:
    try:
        return read()
    except KeyProblem as problem:
        _refuse(problem.path, problem.problem)


def _only(body: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in body:
        if key not in known:
            word = key[:64]
            _refuse(word, f"is not known here; {fields.suggestion(word, known)}")


def _unknown(name: str) -> NoReturn:
    raise ApiError(404, f"there is no category {fields.shown(name)}", param="category", code="category_not_found")


def _refuse(param: str, problem: str) -> NoReturn:
    raise ApiError(400, f"'{param}': {problem}", param=param)
