"""The decision of a request: its category, how it was found, and the chain of models to plan with.

Pure; classifying itself is handed in. LLM modes refine a decision afterwards (see `proxy.asking`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from llm_router.config.models import leads_away
from llm_router.config.values import Snapshot, split_model
from llm_router.errors import ApiError
from llm_router.routing.classify import Classification
from llm_router.routing.turns import Turns, in_tool_loop, read_turns
from llm_router.wire.chat import FORCED_PREFIX, ROUTED_MODELS, ChatRequest, is_sane

CHAIN_MOST = 64

Classify = Callable[[Turns], Classification]
_NO_SCORES: Mapping[str, float] = MappingProxyType({})


class Decision(NamedTuple):
    """What the router will do with a request. `explicit` marks a model that must never be replaced.

    `decided` tells that structure or the client decided: no model is asked for its opinion then. `turns` are there
    where the words decided.
    """

    category: str
    mode: str
    chain: tuple[str, ...]
    explicit: bool = False
    decided: bool = True
    confidence: float = 1.0
    scores: Mapping[str, float] = _NO_SCORES
    evidence: Sequence[str] = ()
    turns: Turns | None = None


def decide(chat: ChatRequest, snapshot: Snapshot, classify: Classify) -> Decision:
    """Raises ApiError: 404 for an unknown category, provider or model id, 400 for a bad `models` list."""
    if chat.model in ROUTED_MODELS:
        return _routed(chat, snapshot, classify)
    if chat.model.startswith(FORCED_PREFIX):
        return _forced(chat.model[len(FORCED_PREFIX) :], snapshot)
    model = full_id(chat.model, snapshot, "model")
    return Decision("explicit", "explicit", (model,), explicit=True, evidence=("the client named the model",))


def _forced(name: str, snapshot: Snapshot) -> Decision:
    category = snapshot.categories.get(name)
    if category is None:
        known = ", ".join(snapshot.categories)
        raise ApiError(404, f"There is no category '{name}'; known: {known}", code="model_not_found", param="model")
    return Decision(name, "forced", category.models, evidence=("the client named the category",))


def _routed(chat: ChatRequest, snapshot: Snapshot, classify: Classify) -> Decision:
    decision = _by_structure(chat, snapshot) if chat.tools else None
    if decision is None:
        decision = _by_words(read_turns(chat.messages), snapshot, classify)
    models = chat.body.get("models")
    if models is None:
        return decision
    return decision._replace(
        mode="models",
        chain=requested_chain(models, snapshot),
        decided=True,
        evidence=("the client sent its own chain in `models`",),
    )


def _by_words(turns: Turns, snapshot: Snapshot, classify: Classify) -> Decision:
    found = classify(turns)
    chain = snapshot.categories[found.category].models
    decision = found.category, found.mode, chain, False, False, found.confidence, found.scores, found.evidence, turns
    return tuple.__new__(Decision, decision)  # a third of what a call of the class costs


def _by_structure(chat: ChatRequest, snapshot: Snapshot) -> Decision | None:
    looping = in_tool_loop(chat.messages)
    if snapshot.tools_routing == "by_task" and not looping:
        return None
    evidence = "the request continues a tool loop" if looping else "the request offers tools"
    return Decision("tools", "structure", snapshot.categories["tools"].models, evidence=(evidence,))


def requested_chain(models: object, snapshot: Snapshot) -> tuple[str, ...]:
    """The client's own chain, checked and in full ids."""
    if not isinstance(models, list) or not models or len(models) > CHAIN_MOST:
        raise ApiError(400, f"'models' must be a list of 1 to {CHAIN_MOST} model ids", param="models")
    chain = []
    for index, model in enumerate(models):
        if not isinstance(model, str) or not model.strip():
            raise ApiError(400, f"'models[{index}]' must be a non-empty string", param=f"models[{index}]")
        if not is_sane(model):
            raise ApiError(400, f"'models[{index}]' is no model id", param=f"models[{index}]")
        chain.append(full_id(model, snapshot, f"models[{index}]"))
    return tuple(chain)


def full_id(model: str, snapshot: Snapshot, param: str) -> str:
    """`provider/model` for an id from a request; 404 where its provider is unknown."""
    provider, name = split_model(model)
    if leads_away(model):
        message = f"'{model}' is no model's name: '..' leads elsewhere"
        raise ApiError(404, message, code="model_not_found", param=param)
    if not provider:
        if "/" in model:
            raise ApiError(404, f"'{model}' names no provider", code="model_not_found", param=param)
        return f"{snapshot.default_provider}/{model}"
    if provider not in snapshot.providers or not name:
        known = ", ".join(snapshot.providers)
        raise ApiError(
            404,
            f"'{model}' is not a model of a known provider; ids are provider/model with one of: {known}",
            code="model_not_found",
            param=param,
        )
    return model
