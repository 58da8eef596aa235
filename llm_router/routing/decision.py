"""The decision of a request: its category, how it was found, and the chain of models to plan with.

Pure; classifying itself is handed in. LLM modes refine a decision afterwards (see `proxy.asking`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llm_router.config.values import Snapshot, split_model
from llm_router.errors import ApiError
from llm_router.routing.classify import Classification
from llm_router.routing.turns import Turns, read_turns
from llm_router.wire.chat import FORCED_PREFIX, ROUTED_MODELS, ChatRequest, is_sane

CHAIN_MOST = 64

Classify = Callable[[Turns], Classification]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the router will do with a request. `explicit` marks a model that must never be replaced.

    `decided` tells that structure or the client decided: no model is asked for its opinion then.
    """

    category: str
    mode: str
    chain: tuple[str, ...]
    explicit: bool = False
    decided: bool = True
    confidence: float = 1.0
    scores: Mapping[str, float] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
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
    turns = read_turns(chat.messages)
    decision = _by_structure(chat, snapshot, turns)
    if decision is None:
        found = classify(turns)
        decision = Decision(
            found.category,
            found.mode,
            snapshot.categories[found.category].models,
            decided=False,
            confidence=found.confidence,
            scores=found.scores,
            evidence=found.evidence,
            turns=turns,
        )
    if chat.body.get("models") is None:
        return decision
    return Decision(
        decision.category,
        "models",
        requested_chain(chat.body["models"], snapshot),
        confidence=decision.confidence,
        scores=decision.scores,
        evidence=("the client sent its own chain in `models`",),
        turns=turns,
    )


def _by_structure(chat: ChatRequest, snapshot: Snapshot, turns: Turns) -> Decision | None:
    if not chat.tools:
        return None
    if snapshot.tools_routing == "by_task" and not turns.in_tool_loop:
        return None
    evidence = "the request continues a tool loop" if turns.in_tool_loop else "the request offers tools"
    return Decision("tools", "structure", snapshot.categories["tools"].models, evidence=(evidence,), turns=turns)


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
