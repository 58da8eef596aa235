"""What staying on a model is worth: prompt tokens read from provider caches over an agent's conversation of 40 turns.

    python bench/stickiness.py [--turns 40] [--seed 1]

Runs the router's own planner, circuits and conversations (no network) over an agent whose prompt grows by a tool call a
turn. The chain's first model is rate limited now and then. A provider is taken to cache the whole prefix that it was
sent in the last five minutes, as the big ones do.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, field

import orjson
from tabulate import tabulate

from llm_router.accounting.pricing import ModelInfo
from llm_router.config.values import ApiKey, BreakerSettings, Provider
from llm_router.errors import Failure, FailureKind
from llm_router.routing.breaker import Circuits
from llm_router.routing.plan import World, make_plan
from llm_router.routing.sticky import Conversations, begins, key_of, stay_on_model
from llm_router.wire.chat import parse_chat

CHAIN = ("first/m", "second/m", "third/m")
CACHE_SECONDS = 300.0
SYSTEM_TOKENS, TURN_TOKENS = 6_000, 900


@dataclass
class Figures:
    """Tokens over one conversation; `prefixes` is per model what its cache holds, and since when."""

    sent: int = 0
    cached: int = 0
    hops: int = 0
    prefixes: dict[str, tuple[int, float]] = field(default_factory=dict)

    def ask(self, model: str, tokens: int, now: float) -> None:
        """Books one prompt of `tokens`, of which the cached prefix is read cheaply."""
        known, since = self.prefixes.get(model, (0, now))
        self.sent += tokens
        self.cached += min(known, tokens) if now - since <= CACHE_SECONDS else 0
        self.prefixes[model] = (tokens, now)


def simulate(turns: int, seed: int, *, sticky: bool) -> Figures:
    """One conversation, with or without staying."""
    rng = random.Random(seed)
    providers = {m.split("/")[0]: Provider(m.split("/")[0], "http://h", keys=(ApiKey("k"),)) for m in CHAIN}
    circuits, conversations, figures = Circuits(BreakerSettings()), Conversations(), Figures()
    now, last = 0.0, ""
    messages = [{"role": "system", "content": "You are an agent."}, {"role": "user", "content": "Refactor the module"}]
    world = World(
        providers=providers,
        info=lambda model: ModelInfo(),
        accounts=lambda provider: (provider.name,),
        block=lambda model, accounts: circuits.block(model, accounts, now),
        misfit=lambda chat, candidate: None,
        cost=lambda info, tokens, output: None,
        first_token_s=lambda model: None,
    )
    for turn in range(turns):
        now += rng.uniform(5, 25)
        tokens = SYSTEM_TOKENS + turn * TURN_TOKENS
        chat = parse_chat(orjson.dumps({"model": "router", "messages": messages}))
        key = key_of(chat, "me", "")
        assert key is not None
        limited = rng.random() < 0.15
        plan = make_plan(chat, CHAIN, world)
        stay = conversations.find(key, now) if sticky and not begins(chat) else None
        plan = (stay_on_model(plan, stay, CHAIN, chat) if stay else None) or plan
        for candidate in plan.candidates:
            permit = circuits.admit(candidate.model, candidate.accounts, now)
            if permit is None:
                continue
            if limited and candidate.model == CHAIN[0]:
                wait = rng.uniform(5, 40)
                circuits.failed(permit, Failure(FailureKind.RATE_LIMITED, "slow down", retry_after=wait), now)
                continue
            circuits.completed(permit)
            conversations.served(key, candidate.model, "tools", now)
            figures.ask(candidate.model, tokens, now)
            figures.hops += bool(last) and last != candidate.model
            last = candidate.model
            break
        messages += [{"role": "assistant", "content": f"step {turn}"}, {"role": "user", "content": "go on"}]
    return figures


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows = []
    for name, sticky in (("without", False), ("with", True)):
        found = simulate(args.turns, args.seed, sticky=sticky)
        rows.append([name, found.sent, found.cached, found.sent - found.cached, found.hops])
    print(
        tabulate(
            rows, headers=["stickiness", "prompt tokens", "read from caches", "at the full price", "changes of model"]
        )
    )


if __name__ == "__main__":
    main()
