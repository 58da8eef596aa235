"""The live parts that answering a request needs; one set for the whole process, whatever the configuration in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llm_router.accounting.pricing import ModelInfo
from llm_router.accounting.pricing import cost as price_of
from llm_router.config.values import Provider
from llm_router.proxy.deadlines import Deadlines
from llm_router.proxy.live import Live
from llm_router.proxy.places import Places
from llm_router.proxy.tap import TapBudget
from llm_router.proxy.upstream import UpstreamClient
from llm_router.routing.breaker import Block, Circuits
from llm_router.routing.decision import Decision
from llm_router.routing.latency import FirstTokens
from llm_router.routing.plan import Candidate, Plan, World, make_plan
from llm_router.routing.sticky import Conversations
from llm_router.wire.chat import ChatRequest
from llm_router.wire.providers.registry import speaks_openai
from llm_router.wire.usage import Usage

_NO_LIMITS = (None, None, None)


class HedgeBudget:
    """Caps the hedges of each category as a share of its requests."""

    def __init__(self) -> None:
        self._requests: dict[str, int] = {}
        self._hedges: dict[str, int] = {}

    def count(self, category: str) -> None:
        """One more request that may be hedged."""
        self._requests[category] = self._requests.get(category, 0) + 1

    def take(self, category: str, share: float) -> bool:
        """Whether one more hedge keeps within `share`; it is counted then."""
        hedges = self._hedges.get(category, 0)
        if hedges + 1 > max(1.0, share * self._requests.get(category, 0)):
            return False
        self._hedges[category] = hedges + 1
        return True


class Slot(Protocol):
    """What bounds the concurrent requests of a provider."""

    limit: int

    async def acquire(self) -> bool:
        """Waits until there is room."""
        ...

    def release(self) -> None:
        """Makes room for the next one."""
        ...

    def resize(self, limit: int) -> None:
        """From now on `limit` are let in."""
        ...


def own_slot(provider: str, limit: int) -> Slot:
    """The slot of a router that is one process."""
    return Places(limit)


def nobody_else() -> None:
    """There is no other worker that would have to be told anything."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the router remembers from one request to the next: its own, or in common with other workers.

    `announce_reload` tells the others that the configuration is to be read again.
    """

    circuits: Circuits
    conversations: Conversations = field(default_factory=Conversations)
    hedges: HedgeBudget = field(default_factory=HedgeBudget)
    make_slot: Callable[[str, int], Slot] = own_slot
    announce_reload: Callable[[], None] = nobody_else


@dataclass(slots=True)
class Parts:
    """Shared by all requests. `clock` gives Unix time; `changed` is called after anything happened to the circuits."""

    upstream: UpstreamClient
    circuits: Circuits
    clock: Callable[[], float]
    changed: Callable[[], None]
    taps: TapBudget = field(default_factory=TapBudget)
    first_tokens: FirstTokens = field(default_factory=FirstTokens)
    deadlines: Deadlines = field(default_factory=Deadlines)
    hedges: HedgeBudget = field(default_factory=HedgeBudget)
    world: tuple[Live, World] | None = None
    make_slot: Callable[[str, int], Slot] = own_slot
    slots: dict[str, Slot] = field(default_factory=dict)

    def slot(self, provider: Provider) -> Slot | None:
        """What bounds a provider's concurrent requests, where its configuration asks for that."""
        limit = provider.max_concurrency
        if limit is None:
            return None
        slot = self.slots.get(provider.name)
        if slot is None:
            slot = self.slots[provider.name] = self.make_slot(provider.name, limit)
        elif slot.limit != limit:
            slot.resize(limit)
        return slot

    def plan(self, chat: ChatRequest, decision: Decision, live: Live, max_price: float | None) -> Plan:
        """The plan for a decided request, as things stand now."""
        known = self.world
        if known is None or known[0] is not live:
            known = self.world = (live, self._make_world(live))
        if decision.explicit:
            return make_plan(chat, decision.chain, known[1], explicit=True)
        category = live.snapshot.categories.get(decision.category)
        limits = (max_price, category.max_price if category else None, live.snapshot.max_price)
        if limits != _NO_LIMITS:
            max_price = min(limit for limit in limits if limit is not None)
        return make_plan(
            chat, decision.chain, known[1], max_price=max_price, order=category.order if category else "chain"
        )

    def _make_world(self, live: Live) -> World:
        def block(model: str, accounts: Sequence[str]) -> Block | None:
            return self.circuits.block(model, accounts, self.clock())

        providers = live.snapshot.providers

        def misfit(chat: ChatRequest, candidate: Candidate) -> tuple[str, str] | None:
            found = live.adapters[candidate.provider.name].misfit(chat)
            return (found.field, found.reason) if found is not None else None

        return World(
            providers=providers,
            info=live.prices.info,
            accounts=lambda provider: live.accounts[provider.name],
            block=block,
            misfit=misfit,
            cost=_estimate,
            first_token_s=self.first_tokens.typical,
            easy=frozenset(name for name, provider in providers.items() if speaks_openai(provider)),
            quiet=self.circuits.is_quiet,
        )


def _estimate(info: ModelInfo | None, tokens: int, output: int) -> float | None:
    return price_of(info, Usage(fresh_input=tokens, output=output))
