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
from llm_router.wire.chat import dump, parse_chat
from llm_router.wire.providers.base import Target

_CACHED = 2048
_RECOVERY_SECONDS = 60.0
_LOCAL_MODES = ("local", "keywords")


@dataclass(frozen=True, slots=True)
class Opinion:
    """One answered question: the category, and which mode's model gave it."""

    category: str
    mode: str
    model: str


@dataclass(slots=True)
class SharedCall:
    """One question to one model after the other; `costs` are theirs whose answers came, of use or not."""

    costs: tuple[SideCost, ...] = ()
    waiting: int = 0  # requests

    def take_costs(self) -> tuple[SideCost, ...]:
        """What is to be paid, for the first request that asks."""
        costs, self.costs = self.costs, ()
        return costs


class Asker:
    """Asks models about categories; owned by the router, living over configurations."""

    def __init__(self, parts: Parts, tasks: Tasks) -> None:
        self._parts = parts
        self._tasks = tasks
        self.circuits = Circuits(BreakerSettings(recovery_timeout_sec=_RECOVERY_SECONDS))
        self._known: OrderedDict[bytes, Opinion] = OrderedDict()
        self._running: dict[bytes, tuple[SharedCall, asyncio.Task[Opinion | None]]] = {}

    def __repr__(self) -> str:
        return f"<Asker known={len(self._known)} running={len(self._running)}>"

    def may_ask(self, decision: Decision, live: Live) -> bool:
        """Whether `refine` could change anything, so that most requests need not wait for it."""
        return not decision.decided and live.snapshot.routing_mode not in _LOCAL_MODES

    async def refine(self, decision: Decision, live: Live) -> tuple[Decision, tuple[SideCost, ...]]:
        """The decision after asking, and what the calls cost, if no other request pays for them."""
        models = self._models(decision, live)
        turns = decision.turns
        if not models or turns is None or not turns.latest.strip():
            return decision, ()
        categories = [category for category in live.snapshot.categories.values() if category.name != "tools"]
        key = question_key(turns.latest, turns.earlier, categories, [model for _, model in models])
        opinion = self._known.get(key)
        if opinion is not None:
            return _with_opinion(decision, opinion, live), ()
        seconds = live.snapshot.classifier.timeout_ms / 1000
        running = self._running.get(key)
        if running is None:
            call = SharedCall()
            work = self._ask_in_turn(key, call, decision, categories, models, live, seconds)
            running = self._running[key] = call, self._tasks.start(work, "ask for a category")
        call, task = running
        call.waiting += 1
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            if call.waiting == 1:  # all who asked have left
                self._forget(key, call)
                task.cancel()
            raise
        finally:
            call.waiting -= 1
        opinion = task.result() if done and task.exception() is None else None
        return decision if opinion is None else _with_opinion(decision, opinion, live), call.take_costs()

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
        return self.circuits.block(model, live.accounts[provider.name], self._parts.clock()) is None

    async def _ask_in_turn(
        self,
        key: bytes,
        call: SharedCall,
        decision: Decision,
        categories: list[Category],
        models: list[tuple[str, str]],
        live: Live,
        seconds: float,
    ) -> Opinion | None:
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            for position, (mode, model) in enumerate(models):
                left = deadline - asyncio.get_running_loop().time()
                share = left / (len(models) - position)
                category = await self._ask(model, call, decision, categories, live, share)
                if category is not None:
                    opinion = self._known[key] = Opinion(category, mode, model)
                    if len(self._known) > _CACHED:
                        self._known.popitem(last=False)
                    return opinion
            return None
        finally:
            self._forget(key, call)

    def _forget(self, key: bytes, call: SharedCall) -> None:
        """Nobody joins `call` any more; the question may meanwhile have been asked anew."""
        running = self._running.get(key)
        if running is not None and running[0] is call:
            del self._running[key]

    async def _ask(
        self, model: str, call: SharedCall, decision: Decision, categories: list[Category], live: Live, seconds: float
    ) -> str | None:
        """The category that the model names, if it names one."""
        turns = decision.turns
        if seconds <= 0 or turns is None:
            return None
        provider = split_model(model)[0]
        body = question(turns.latest, turns.earlier, categories, model, secrets.token_hex(8))
        if provider == "openrouter":
            body["reasoning"] = {"enabled": False}
        chat = parse_chat(dump(body))
        permit = self.circuits.admit(model, live.accounts[provider], self._parts.clock())
        if permit is None:
            return None
        way = _way_to(model, permit.account, live, seconds)
        try:
            won = await attempt(self._parts, live, chat, way, seconds)
        except EmptyAnswer as empty:
            self.circuits.released(permit)
            won = empty.won
        except AttemptFailed as error:
            self.circuits.failed(permit, error.failure, self._parts.clock())
            return None
        except BaseException:
            self.circuits.released(permit)
            raise
        else:
            self.circuits.committed(permit)
            self.circuits.completed(permit)
        assert isinstance(won, WonWhole)
        # Paid is also an answer that does not help.
        call.costs += (SideCost("classifier", model, chat.raw, (won.body,), False, won.usage, way.target.info),)
        return read_answer(orjson.loads(won.body), [category.name for category in categories])


def _way_to(model: str, account: str, live: Live, seconds: float) -> Way:
    """How a model is asked about a category, with the key behind `account`."""
    name, upstream_model = split_model(model)
    provider = live.snapshot.providers[name]
    key = provider.keys[live.accounts[name].index(account)].value if provider.keys else None
    target = Target(provider, upstream_model, key, live.prices.info(model))
    return Way(live.adapters[name], target, seconds, seconds, seconds)


def _with_opinion(decision: Decision, opinion: Opinion, live: Live) -> Decision:
    category = live.snapshot.categories.get(opinion.category)
    if category is None:
        return decision
    chain = decision.chain if decision.mode == "models" else category.models
    evidence = Evidence(lambda: (f"{opinion.model} was asked and said {opinion.category}", *decision.evidence))
    return decision._replace(
        category=opinion.category, mode=opinion.mode, chain=chain, confidence=1.0, evidence=evidence
    )
