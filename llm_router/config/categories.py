"""Categories: chains, keywords, descriptions and per-category options from the file, defaults where it is silent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from llm_router.config import fields
from llm_router.config.defaults import SHIPPED_KEYWORDS, default_chain
from llm_router.config.fields import KeyProblem, join
from llm_router.config.models import full_model_id
from llm_router.config.providers import read_timeouts
from llm_router.config.settings import usd
from llm_router.config.values import BUILTIN_CATEGORIES, Category, Hedge

_OPTION_KEYS = ("timeouts", "order", "hedge", "max_price")
_CUSTOM_KEYS = ("description", "models", "keywords", "examples")
_HEDGE_KEYS = ("after", "budget")


@dataclass(frozen=True, slots=True)
class ModelIds:
    """How model ids in the file are read: which providers exist and which one takes ids without a slash."""

    default_provider: str
    default_model: str
    providers: Collection[str]
    configured: Collection[str]

    def full(self, value: Any, path: str) -> str:
        """The full id of a JSON value; KeyProblem where it is none."""
        try:
            return full_model_id(fields.text(value, path), self.default_provider, self.providers)
        except ValueError as error:
            raise KeyProblem(path, str(error)) from None

    def chain(self, value: Any, path: str) -> tuple[str, ...]:
        """A non-empty list of models as full ids; repetitions are dropped."""
        if not isinstance(value, list):
            raise KeyProblem(path, f"must be a list of model ids, not {fields.describe(value)}")
        if not value:
            raise KeyProblem(path, "must name at least one model; remove the key to use the default chain")
        return tuple(dict.fromkeys(self.full(item, f"{path}[{index}]") for index, item in enumerate(value)))


def read_categories(content: Mapping[str, Any], ids: ModelIds) -> tuple[dict[str, Category], dict[str, str]]:
    """All categories by name, and the sources of their chains by file key."""
    mappings = fields.section(content, "model_mappings")
    keywords = fields.section(content, "keywords")
    custom = fields.section(content, "custom_categories")
    for head, names in (("model_mappings", mappings), ("keywords", keywords), ("custom_categories", custom)):
        for name in names:
            fields.category_name(name, join(head, name))
    options = fields.section(content, "categories", known=(*BUILTIN_CATEGORIES, *custom, *mappings, *keywords))
    default_hedge = _hedge(content, "")
    categories: dict[str, Category] = {}
    sources: dict[str, str] = {}
    for name in dict.fromkeys((*BUILTIN_CATEGORIES, *mappings, *custom, *keywords)):
        described = fields.section(custom, name, "custom_categories", _CUSTOM_KEYS)
        chain, named = _chain(name, mappings, described, ids)
        own = _keywords(name, keywords, described)
        path = join("categories", name)
        option = fields.section(options, name, "categories", _OPTION_KEYS)
        categories[name] = Category(
            name=name,
            models=chain,
            keywords=own or (),
            shipped_keywords=SHIPPED_KEYWORDS.get(name, ()) if own is None else (),
            description=_description(name, described),
            examples=_examples(name, described),
            custom=name not in BUILTIN_CATEGORIES,
            order=_order(option, path),
            timeouts=read_timeouts(option, path),
            hedge=_hedge(option, path) if "hedge" in option else default_hedge,
            max_price=usd(option.get("max_price"), join(path, "max_price")),
        )
        sources[join("model_mappings", name)] = "file" if named else "default"
    return categories, sources


def _chain(
    name: str, mappings: Mapping[str, Any], described: Mapping[str, Any], ids: ModelIds
) -> tuple[tuple[str, ...], bool]:
    """The effective chain and whether the file names it; `model_mappings` wins over `custom_categories`."""
    from_custom = (
        ids.chain(described["models"], join(join("custom_categories", name), "models"))
        if "models" in described
        else None
    )
    if name in mappings:
        return ids.chain(mappings[name], join("model_mappings", name)), True
    if from_custom:
        return from_custom, True
    return default_chain(name, ids.configured, ids.default_model), False


def _keywords(name: str, keywords: Mapping[str, Any], described: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The user's own keywords from both places that may hold them; None where neither does."""
    found = [
        fields.texts(parent[key], path)
        for parent, key, path in (
            (keywords, name, join("keywords", name)),
            (described, "keywords", join(join("custom_categories", name), "keywords")),
        )
        if key in parent
    ]
    if not found:
        return None
    return tuple(dict.fromkeys(word for words in found for word in words))


def _description(name: str, described: Mapping[str, Any]) -> str:
    if described.get("description") is None:
        return ""
    return fields.text(described["description"], join(join("custom_categories", name), "description"), empty=True)


def _examples(name: str, described: Mapping[str, Any]) -> tuple[str, ...]:
    if "examples" not in described:
        return ()
    return fields.texts(described["examples"], join(join("custom_categories", name), "examples"))


def _order(option: Mapping[str, Any], path: str) -> Literal["chain", "price", "latency"]:
    if "order" not in option:
        return "chain"
    word = fields.choice(option["order"], join(path, "order"), ("chain", "price", "latency"))
    return cast(Literal["chain", "price", "latency"], word)


def _hedge(parent: Mapping[str, Any], path: str) -> Hedge | None:
    """The `hedge` of a category or, for all categories, of the file; null, false or no budget turns it off."""
    stated = parent.get("hedge")
    if stated is None or stated is False:  # zero is neither
        return None
    place = join(path, "hedge")
    value = fields.section(parent, "hedge", path, _HEDGE_KEYS)
    if "after" not in value:
        raise KeyProblem(join(place, "after"), 'is missing; write seconds, or "p95" for the model\'s own')
    after = value["after"]
    if after != "p95":
        if isinstance(after, str):
            raise KeyProblem(join(place, "after"), f'must be seconds or "p95", not {fields.shown(after)}')
        after = fields.number(after, join(place, "after"), above=0.0)
    budget = fields.number(value.get("budget", 0.05), join(place, "budget"), maximum=1.0)
    return Hedge(after=after, budget=budget) if budget else None
