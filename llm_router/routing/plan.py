"""The plan of a request: its candidates in order, and who was left out and why, decided before the first try.

Pure: what is known of models, keys and circuits comes in as arguments. An explicit `provider/model` is left out only
for a missing key or an open circuit; whether it can take the request is for the provider to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from llm_router.accounting.pricing import ModelInfo
from llm_router.config.values import Provider, split_model
from llm_router.routing.breaker import Block
from llm_router.wire.chat import ChatRequest

# An estimate of the prompt must be this much over the window before it keeps a model from being asked.
_WINDOW_SLACK = 0.75
_BYTES_PER_TOKEN = 4
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


class Candidate(NamedTuple):
    """A model that may be tried. `model` is the full id, `upstream_model` the provider's own.

    A tuple, since some are made for each request.
    """

    model: str
    provider: Provider
    upstream_model: str
    info: ModelInfo | None
    accounts: tuple[str, ...]
    estimated_tokens: int = 0
    estimated_output: int = 0
    cost: Cost = _no_cost

    @property
    def estimated_cost(self) -> float | None:
        """In USD; None where the price is unknown."""
        return self.cost(self.info, self.estimated_tokens, self.estimated_output)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A model of the chain that is not tried, and why. `field` names the request field behind a misfit."""

    model: str
    obstacle: Obstacle
    reason: str
    until: float = 0.0
    by_failures: bool = False
    candidate: Candidate | None = None
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Candidates in the order in which they are tried, and the rest."""

    candidates: tuple[Candidate, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request asks of a model."""

    tools: bool
    images: bool
    json_schema: bool
    tokens: int  # estimated prompt tokens
    output: int  # output tokens asked for, 0 if none were named


@dataclass(frozen=True, slots=True)
class World:
    """What the planner may know: lookups, each cheap and free of I/O."""

    providers: Mapping[str, Provider]
    info: Callable[[str], ModelInfo | None]
    accounts: Callable[[Provider], tuple[str, ...]]
    block: Callable[[str, Sequence[str]], Block | None]
    misfit: Callable[[ChatRequest, Candidate], tuple[str, str] | None]
    cost: Cost
    first_token_s: Callable[[str], float | None]  # as observed; None if never
    known: dict[str, Candidate] = field(default_factory=dict)  # without estimates


def needs_of(chat: ChatRequest) -> Needs:
    """Reads the needs off a request; tolerant of whatever its fields hold."""
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
    chain: Sequence[str],
    needs: Needs,
    world: World,
    *,
    explicit: bool = False,
    max_price: float | None = None,
    order: str = "chain",
) -> Plan:
    """Sorts the models of `chain` into candidates and skipped. `max_price` is in USD for the whole request."""
    candidates: list[Candidate] = []
    skipped: list[Skipped] = []
    for model in dict.fromkeys(chain) if len(chain) > 1 else chain:
        candidate = _candidate(model, needs, world)
        obstacle = _obstacle(chat, candidate, needs, world, explicit=explicit, max_price=max_price)
        if obstacle is None:
            candidates.append(candidate)
        else:
            skipped.append(obstacle)
    if order != "chain":
        candidates = _ordered(candidates, world, order)
    return Plan(tuple(candidates), tuple(skipped))


def _candidate(model: str, needs: Needs, world: World) -> Candidate:
    known = world.known.get(model)
    if known is None:
        name, upstream_model = split_model(model)
        provider = world.providers[name]
        known = Candidate(model, provider, upstream_model, world.info(model), world.accounts(provider))
        if len(world.known) >= _KNOWN_MOST:  # explicit models come from clients
            world.known.clear()
        world.known[model] = known
    return Candidate(*known[:5], needs.tokens, needs.output, world.cost)


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
        names = " or ".join(candidate.provider.key_variables)
        return Skipped(model, Obstacle.NO_KEY, f"no key: {names} is not set", candidate=candidate)
    if not explicit and (unable := _unable(candidate, needs, max_price)) is not None:
        return unable
    misfit = world.misfit(chat, candidate)
    if misfit is not None:
        # Also for an explicit model: what its dialect cannot say would be lost on the way, and nobody could judge it.
        return Skipped(model, Obstacle.MISFIT, misfit[1], field=misfit[0])
    block = world.block(model, candidate.accounts)
    if block is None:
        return None
    obstacle = {"open": Obstacle.CIRCUIT, "cooldown": Obstacle.COOLDOWN}.get(block.kind, Obstacle.ACCOUNT)
    return Skipped(model, obstacle, block.reason, block.until, block.by_failures, candidate)


def _unable(candidate: Candidate, needs: Needs, max_price: float | None) -> Skipped | None:
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
        cost = candidate.estimated_cost
        if cost is None:
            return Skipped(model, Obstacle.PRICE, f"its price is unknown, and the most allowed is {max_price:g} USD")
        if cost > max_price:
            return Skipped(model, Obstacle.PRICE, f"about {cost:.6f} USD is over the most allowed {max_price:g} USD")
    return None


def _ordered(candidates: list[Candidate], world: World, order: str) -> list[Candidate]:
    if order == "price":
        return sorted(candidates, key=_price_rank)
    if order == "latency":
        # A model that was never seen goes first once: otherwise it never would be.
        return sorted(candidates, key=lambda candidate: world.first_token_s(candidate.model) or 0.0)
    return candidates


def _price_rank(candidate: Candidate) -> tuple[bool, float]:
    cost = candidate.estimated_cost
    return (cost is None, cost or 0.0)


def larger_window(failed: Candidate, other: Candidate) -> bool:
    """Whether `other` may hold a prompt that was too long for `failed`: a larger window, or an unknown one."""
    if failed.info is None or failed.info.context is None or other.info is None or other.info.context is None:
        return True
    return other.info.context > failed.info.context
