"""The LLM modes: where the local classifier is not to decide (alone), a model is asked, within a time budget.

Any failure or lateness means the local answer. Equal questions share one call and one cached answer; the calls have a
circuit of their own, so that a bad classifier model is left alone without touching chat traffic.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from dataclasses import dataclass

import orjson

from llm_router.accounting.booking import SideCost
from llm_router.config.values import BreakerSettings, Category, split_model
from llm_router.errors import AttemptFailed
from llm_router.proxy.attempt import EmptyAnswer, WonWhole, attempt
from llm_router.proxy.live import Live, Way
from llm_router.proxy.parts import Parts
from llm_router.proxy.tasks import Tasks
from llm_router.routing.breaker import Circuits
from llm_router.routing.classify_evidence import Evidence
from llm_router.routing.decision import Decision
from llm_router.routing.question import question, question_key, read_answer
from llm_router.wire.chat import parse_chat
from llm_router.wire.providers.base import Target

_CACHED = 2048
_RECOVERY_SECONDS = 60.0
_LOCAL_MODES = ("local", "keywords")


@dataclass(frozen=True, slots=True)
class Asked:
    """One answered question: the category, which mode's model gave it, and what it cost."""

    category: str
    mode: str
    cost: SideCost


class Asker:
    """Asks models about categories; owned by the router, living over configurations."""

    def __init__(self, parts: Parts, tasks: Tasks) -> None:
        self._parts = parts
        self._tasks = tasks
        self._circuits = Circuits(BreakerSettings(recovery_timeout_sec=_RECOVERY_SECONDS))
        self._known: OrderedDict[bytes, Asked] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[Asked | None]] = {}

    def __repr__(self) -> str:
        return f"<Asker known={len(self._known)} running={len(self._running)}>"

    def may_ask(self, decision: Decision, live: Live) -> bool:
        """Whether `refine` could change anything, so that most requests need not wait for it."""
        return not decision.decided and live.snapshot.routing_mode not in _LOCAL_MODES

    async def refine(self, decision: Decision, live: Live) -> tuple[Decision, SideCost | None]:
        """The decision after asking, and what the call cost if this request was the one that made it."""
        models = self._models(decision, live)
        turns = decision.turns
        if not models or turns is None or not turns.latest.strip():
            return decision, None
        categories = [category for category in live.snapshot.categories.values() if category.name != "tools"]
        key = question_key(turns.latest, turns.earlier, categories, [model for _, model in models])
        asked, cost = self._known.get(key), None
        if asked is None:
            seconds = live.snapshot.classifier.timeout_ms / 1000
            running = self._running.get(key)
            mine = running is None
            if running is None:
                work = self._ask_in_turn(key, decision, categories, models, live, seconds)
                running = self._running[key] = self._tasks.start(work, "ask for a category")
            done, _ = await asyncio.wait({running}, timeout=seconds)
            asked = running.result() if done and running.exception() is None else None
            cost = asked.cost if asked is not None and mine else None
        if asked is None:
            return decision, cost
        return _with_answer(decision, asked, live), cost

    def _models(self, decision: Decision, live: Live) -> list[tuple[str, str]]:
        """Whom to ask, in turn: (mode, full id). Nobody where structure or the client has decided already."""
        snapshot = live.snapshot
        mode, settings = snapshot.routing_mode, snapshot.classifier
        if not self.may_ask(decision, live):
            return []
        if mode == "hybrid" and decision.confidence >= settings.confidence:
            return []
        asked = [("ollama", settings.ollama_model)] if mode in ("ollama", "hybrid") else []
        asked += [("api", settings.api_model)] if mode in ("api", "hybrid") else []
        return [(name, model) for name, model in asked if self._able(model, live)]

    def _able(self, model: str, live: Live) -> bool:
        provider = live.snapshot.providers.get(split_model(model)[0])
        if provider is None or not provider.configured:
            return False
        return self._circuits.block(model, live.accounts[provider.name], self._parts.clock()) is None

    async def _ask_in_turn(
        self,
        key: bytes,
        decision: Decision,
        categories: list[Category],
        models: list[tuple[str, str]],
        live: Live,
        seconds: float,
    ) -> Asked | None:
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            for position, (mode, model) in enumerate(models):
                left = deadline - asyncio.get_running_loop().time()
                asked = await self._ask(mode, model, decision, categories, live, left / (len(models) - position))
                if asked is not None:
                    self._remember(key, asked)
                    return asked
            return None
        finally:
            del self._running[key]

    async def _ask(
        self, mode: str, model: str, decision: Decision, categories: list[Category], live: Live, seconds: float
    ) -> Asked | None:
        provider_name, upstream_model = split_model(model)
        provider = live.snapshot.providers[provider_name]
        if seconds <= 0 or decision.turns is None:
            return None
        permit = self._circuits.admit(model, live.accounts[provider_name], self._parts.clock())
        if permit is None:
            return None
        body = question(decision.turns.latest, decision.turns.earlier, categories, model, secrets.token_hex(8))
        if provider_name == "openrouter":
            body["reasoning"] = {"enabled": False}
        chat = parse_chat(orjson.dumps(body))
        info = live.prices.info(model)
        key = provider.keys[0].value if provider.keys else None
        target = Target(provider, upstream_model, key, info)
        way = Way(live.adapters[provider_name], target, seconds, seconds, seconds)
        try:
            won = await attempt(self._parts, live, chat, way, seconds)
        except EmptyAnswer:
            self._circuits.released(permit)
            return None
        except AttemptFailed as error:
            self._circuits.failed(permit, error.failure, self._parts.clock())
            return None
        except BaseException:
            self._circuits.released(permit)
            raise
        self._circuits.committed(permit)
        self._circuits.completed(permit)
        assert isinstance(won, WonWhole)
        category = read_answer(orjson.loads(won.body), [category.name for category in categories])
        if category is None:
            return None
        cost = SideCost("classifier", model, chat.raw, (won.body,), False, won.usage, info)
        return Asked(category, mode, cost)

    def _remember(self, key: bytes, asked: Asked) -> None:
        self._known[key] = asked
        if len(self._known) > _CACHED:
            self._known.popitem(last=False)


def _with_answer(decision: Decision, asked: Asked, live: Live) -> Decision:
    category = live.snapshot.categories.get(asked.category)
    if category is None:
        return decision
    chain = decision.chain if decision.mode == "models" else category.models
    evidence = Evidence(lambda: (f"{asked.cost.model} was asked and said {asked.category}", *decision.evidence))
    return decision._replace(category=asked.category, mode=asked.mode, chain=chain, confidence=1.0, evidence=evidence)
