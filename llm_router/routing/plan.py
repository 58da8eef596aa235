"""The plan of a request: its candidates in order, and who was left out and why, decided before the first try.

Pure: what is known of models, keys and circuits comes in as arguments. An explicit `provider/model` is left out only
for a missing key or an open circuit; whether it can take the request is for the provider to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any

from llm_router.accounting.pricing import ModelInfo
from llm_router.config.values import Provider, split_model
from llm_router.errors import FailureKind
from llm_router.routing.breaker import Block
from llm_router.wire.chat import ChatRequest

# An estimate of the prompt must be this much over the window before it keeps a model from being asked.
_WINDOW_SLACK = 0.75
_BYTES_PER_TOKEN = 4
_TOKENS_PER_BYTE = _WINDOW_SLACK / _BYTES_PER_TOKEN
_KNOWN_MOST = 1024


Cost = Callable[[ModelInfo | None, int, int], float | None]


class Obstacle(StrEnum):
    """What keeps a model out of a plan."""

    NO_KEY = "no_key"
    CIRCUIT = "circuit"
    COOLDOWN = "cooldown"
    ACCOUNT = "account"
    TOOLS = "tools"
    VISION = "vision"
    JSON_SCHEMA = "json_schema"
    CONTEXT = "context"
    PRICE = "price"
    MISFIT = "misfit"


def _no_cost(info: ModelInfo | None, tokens: int, output: int) -> float | None:
    return None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be tried. `model` is the full id, `upstream_model` the provider's own."""

    model: str
    provider: Provider
    upstream_model: str
    info: ModelInfo | None
    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A model of the chain that is not tried, and why. `field` names the request field behind a misfit.

    `gone` tells a circuit that is open because the provider does not know the model.
    """

    model: str
    obstacle: Obstacle
    reason: str
    until: float = 0.0
    by_failures: bool = False
    candidate: Candidate | None = None
    field: str | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request asks of a model."""

    tools: bool
    images: bool
    json_schema: bool
    tokens: int  # estimated prompt tokens
    output: int  # output tokens asked for, 0 if none were named


@dataclass(frozen=True, slots=True)
class Plan:
    """Candidates in the order in which they are tried, and the rest. Requests that ask for nothing special share one.

    `cost` says what tokens cost.
    """

    candidates: tuple[Candidate, ...]
    skipped: tuple[Skipped, ...]
    cost: Cost = _no_cost

    def cost_of(self, candidate: Candidate, needs: Needs) -> float | None:
        """The estimate for a request, in USD; None where the price is unknown."""
        return self.cost(candidate.info, needs.tokens, needs.output)


@dataclass(frozen=True, slots=True)
class KnownChain:
    """What holds of a chain whoever asks: its candidates, and what each of them can take.

    `plan` is that of a request which asks for nothing that one of them might lack, while no circuit is in the way.
    `window` is how many tokens fit into the smallest; `asked` names the candidates whose dialect has to be asked.
    """

    candidates: tuple[Candidate, ...]
    plan: Plan
    tools: bool
    images: bool
    json_schema: bool
    window: float
    asked: bool


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class World:
    """What the planner may know: lookups, each cheap and free of I/O.

    `easy` are the providers whose dialect carries whatever a request says, so that `misfit` need not be asked;
    `quiet` tells that `block` has nothing against any model.
    """

    providers: Mapping[str, Provider]
    info: Callable[[str], ModelInfo | None]
    accounts: Callable[[Provider], tuple[str, ...]]
    block: Callable[[str, Sequence[str]], Block | None]
    misfit: Callable[[ChatRequest, Candidate], tuple[str, str] | None]
    cost: Cost
    first_token_s: Callable[[str], float | None]  # as observed; None if never
    easy: frozenset[str] = frozenset()
    quiet: Callable[[], bool] = _never
    chains: dict[tuple[str, ...], KnownChain] = field(default_factory=dict)


def needs_of(chat: ChatRequest) -> Needs:
    """Reads the needs off a request; tolerant of whatever its fields hold."""
    images, image_bytes = False, 0
    if chat.has_parts:
        images, image_bytes = _images([c for m in chat.messages if type(c := m.get("content")) is list])
    response_format = chat.body.get("response_format")
    schema = isinstance(response_format, dict) and response_format.get("type") == "json_schema"
    return Needs(
        tools=bool(chat.tools),
        images=images,
        json_schema=schema,
        tokens=max(1, (len(chat.raw) - image_bytes) // _BYTES_PER_TOKEN),
        output=max(0, chat.output_limit or 0),
    )


def _images(contents: Sequence[list[Any]]) -> tuple[bool, int]:
    found, size = False, 0
    for content in contents:
        for part in content:
            if isinstance(part, dict) and part.get("type") in ("image_url", "input_image", "image"):
                found = True
                size += _image_size(part.get("image_url"))
    return found, size


def _image_size(image: Any) -> int:
    url = image.get("url") if isinstance(image, dict) else image
    return len(url) if isinstance(url, str) else 0


def make_plan(
    chat: ChatRequest,
    chain: tuple[str, ...],
    world: World,
    *,
    explicit: bool = False,
    max_price: float | None = None,
    order: str = "chain",
) -> Plan:
    """Sorts the models of `chain` into candidates and skipped. `max_price` is in USD for the whole request."""
    known = world.chains.get(chain)
    if known is None:
        if len(world.chains) >= _KNOWN_MOST:  # chains may come from clients
            world.chains.clear()
        known = world.chains[chain] = _know(chain, world)
    if max_price is None and order == "chain" and _takes(known, chat, explicit):
        block = world.block
        if world.quiet() or all(block(c.model, c.accounts) is None for c in known.plan.candidates):
            return known.plan
    return _judged(chat, known, world, explicit=explicit, max_price=max_price, order=order)


def _know(chain: tuple[str, ...], world: World) -> KnownChain:
    candidates = tuple(_candidate(model, world) for model in dict.fromkeys(chain))
    usable = tuple(candidate for candidate in candidates if candidate.provider.configured)
    infos = [candidate.info for candidate in usable if candidate.info is not None]
    skipped = tuple(_keyless(candidate) for candidate in candidates if candidate not in usable)
    return KnownChain(
        candidates,
        Plan(usable, skipped, world.cost),
        tools=all(info.tools is not False for info in infos),
        images=all(info.vision is not False for info in infos),
        json_schema=all(info.json_schema is not False for info in infos),
        window=min((info.context for info in infos if info.context is not None), default=inf),
        asked=any(candidate.provider.name not in world.easy for candidate in usable),
    )


def _takes(known: KnownChain, chat: ChatRequest, explicit: bool) -> bool:
    """Whether each candidate can surely take the request. Images count as text here: whoever may be too long for
    that is looked at closely."""
    if known.asked:
        return False
    if explicit:
        return True
    if (not known.tools and chat.tools) or (not known.images and chat.has_parts):
        return False
    if not known.json_schema and "response_format" in chat.body:
        return False
    output = chat.output_limit or 1
    return len(chat.raw) * _TOKENS_PER_BYTE + (output if output > 0 else 1) <= known.window


def _judged(
    chat: ChatRequest, known: KnownChain, world: World, *, explicit: bool, max_price: float | None, order: str
) -> Plan:
    """The plan of a request that has to be looked at closely."""
    needs = needs_of(chat)
    candidates: list[Candidate] = []
    skipped: list[Skipped] = []
    for candidate in known.candidates:
        obstacle = _obstacle(chat, candidate, needs, world, explicit=explicit, max_price=max_price)
        if obstacle is None:
            candidates.append(candidate)
        else:
            skipped.append(obstacle)
    if order != "chain":
        candidates = _ordered(candidates, needs, world, order)
    return Plan(tuple(candidates), tuple(skipped), world.cost)


def _candidate(model: str, world: World) -> Candidate:
    name, upstream_model = split_model(model)
    provider = world.providers[name]
    return Candidate(model, provider, upstream_model, world.info(model), world.accounts(provider))


def _keyless(candidate: Candidate) -> Skipped:
    names = " or ".join(candidate.provider.key_variables)
    return Skipped(candidate.model, Obstacle.NO_KEY, f"no key: {names} is not set", candidate=candidate)


def _obstacle(
    chat: ChatRequest,
    candidate: Candidate,
    needs: Needs,
    world: World,
    *,
    explicit: bool,
    max_price: float | None,
) -> Skipped | None:
    model = candidate.model
    if not candidate.provider.configured:
        return _keyless(candidate)
    if not explicit and (unable := _unable(candidate, needs, world, max_price)) is not None:
        return unable
    misfit = world.misfit(chat, candidate) if candidate.provider.name not in world.easy else None
    if misfit is not None:
        # Also for an explicit model: what its dialect cannot say would be lost on the way, and nobody could judge it.
        return Skipped(model, Obstacle.MISFIT, misfit[1], field=misfit[0])
    block = world.block(model, candidate.accounts)
    return blocked(candidate, block) if block is not None else None


def blocked(candidate: Candidate, block: Block) -> Skipped:
    """A candidate that may not be tried now."""
    obstacle = {"open": Obstacle.CIRCUIT, "cooldown": Obstacle.COOLDOWN}.get(block.kind, Obstacle.ACCOUNT)
    gone = block.failure == FailureKind.MODEL_NOT_FOUND.value
    return Skipped(candidate.model, obstacle, block.reason, block.until, block.by_failures, candidate, gone=gone)


def _unable(candidate: Candidate, needs: Needs, world: World, max_price: float | None) -> Skipped | None:
    model, info = candidate.model, candidate.info
    if info is not None:
        if needs.tools and info.tools is False:
            return Skipped(model, Obstacle.TOOLS, "the model cannot call tools", field="tools")
        if needs.images and info.vision is False:
            return Skipped(model, Obstacle.VISION, "the model cannot see images", field="messages")
        if needs.json_schema and info.json_schema is False:
            reason = "the model cannot answer by a JSON schema"
            return Skipped(model, Obstacle.JSON_SCHEMA, reason, field="response_format")
        if info.context is not None and needs.tokens * _WINDOW_SLACK + needs.output > info.context:
            reason = (
                f"about {needs.tokens} prompt tokens and {needs.output} asked for do not fit into {info.context} tokens"
            )
            return Skipped(model, Obstacle.CONTEXT, reason, candidate=candidate, field="messages")
    if max_price is not None:
        cost = world.cost(info, needs.tokens, needs.output)
        if cost is None:
            return Skipped(model, Obstacle.PRICE, f"its price is unknown, and the most allowed is {max_price:g} USD")
        if cost > max_price:
            return Skipped(model, Obstacle.PRICE, f"about {cost:.6f} USD is over the most allowed {max_price:g} USD")
    return None


def _ordered(candidates: list[Candidate], needs: Needs, world: World, order: str) -> list[Candidate]:
    if order == "price":
        costs = {candidate.model: world.cost(candidate.info, needs.tokens, needs.output) for candidate in candidates}
        return sorted(candidates, key=lambda candidate: _price_rank(costs[candidate.model]))
    if order == "latency":
        # A model that was never seen goes first once: otherwise it never would be.
        return sorted(candidates, key=lambda candidate: world.first_token_s(candidate.model) or 0.0)
    return candidates


def _price_rank(cost: float | None) -> tuple[bool, float]:
    return (cost is None, cost or 0.0)


def larger_window(failed: Candidate, other: Candidate) -> bool:
    """Whether `other` may hold a prompt that was too long for `failed`: a larger window, or an unknown one."""
    if failed.info is None or failed.info.context is None or other.info is None or other.info.context is None:
        return True
    return other.info.context > failed.info.context
