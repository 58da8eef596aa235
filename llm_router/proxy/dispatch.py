"""The dispatcher: decides, plans, lets candidates contest, relays what wins, and hands over the bill.

It owns the live parts of the router. Pure parts decide (`routing`, `proxy.failover`); this module carries out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from llm_router.accounting.books import Books, Figures
from llm_router.accounting.pricing import PriceTable
from llm_router.config.values import Snapshot, split_model
from llm_router.errors import ApiError, ConfigError, Failure, shutting_down
from llm_router.proxy.asking import Asker
from llm_router.proxy.attempt import WonStream, WonWhole
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.contest import Contest
from llm_router.proxy.exchange import Caller, Downstream, Exchange
from llm_router.proxy.failover import has_failed
from llm_router.proxy.live import Live, accounts_of, go_live
from llm_router.proxy.parts import Memory, Parts
from llm_router.proxy.relay import COMPLETED, CUT
from llm_router.proxy.state import CircuitFile
from llm_router.proxy.sweep import IdleSweep
from llm_router.proxy.tasks import Tasks
from llm_router.proxy.upstream import UpstreamClient
from llm_router.routing.breaker import Permit
from llm_router.routing.classify import Brain
from llm_router.routing.decision import Decision, decide
from llm_router.routing.plan import Plan, needs_of
from llm_router.routing.sticky import Stay, begins, key_of, stay_in_category, stay_on_model
from llm_router.wire.chat import ChatRequest

SAVE_CIRCUITS_AFTER = 0.05
_SERVED = ("completed", "cancelled")


class Router:
    """The running router. `live` is swapped whole on reload; a request keeps the one it started with."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        shipped_prices: bytes,
        brain: Brain,
        upstream: UpstreamClient,
        bookkeeper: Books,
        metrics: Figures,
        config_file: ConfigFile,
        memory: Memory,
        circuit_file: CircuitFile | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._shipped = (shipped_prices, brain)
        self.live: Live = go_live(snapshot, shipped_prices, brain, secrets=upstream.secrets)
        self.upstream = upstream
        self.bookkeeper = bookkeeper
        self.metrics = metrics
        self.config_file = config_file
        self.circuits = memory.circuits
        self.tasks = Tasks()
        self.sweep = IdleSweep()
        self._taking_over = asyncio.Lock()
        self.conversations = memory.conversations
        self.announce_reload = memory.announce_reload
        self.clock = clock
        self.started = clock()
        self.began = time.monotonic()  # `started` may lie: some machines get to know the time only after their start
        self.draining = False
        self._out_of_time = False  # the drain took too long
        self.in_flight = 0
        self._idle: asyncio.Event | None = None  # while somebody waits for the last request
        self._circuit_file = circuit_file
        self._saved_version = 0
        self._saving = False
        self._parts = Parts(
            upstream,
            self.circuits,
            clock,
            self.circuits_changed,
            hedges=memory.hedges,
            make_slot=memory.make_slot,
        )
        self._asker = Asker(self._parts, self.tasks)
        self.classifier_circuits = self._asker.circuits  # of the models that are asked for a category

    def __repr__(self) -> str:
        return f"<Router in_flight={self.in_flight} {self.circuits!r}>"

    @property
    def snapshot(self) -> Snapshot:
        """The configuration in force."""
        return self.live.snapshot

    @property
    def prices(self) -> PriceTable:
        """The price table in force."""
        return self.live.prices

    # --- answering a chat request ----------------------------------------------------------------------------------

    async def answer(self, chat: ChatRequest, caller: Caller, downstream: Downstream) -> None:
        """Carries one request to its end. Raises ApiError before the first byte; always leaves one booking."""
        exchange = Exchange(chat, caller, self.clock(), self._parts.deadlines.loop.time())
        exchange.ticket = self.bookkeeper.enter(
            caller.request_id, exchange.started, client=caller.client, model=chat.model
        )
        self.in_flight += 1
        try:
            live = self.live
            decision = self._decide(exchange, live)
            if self._asker.may_ask(decision, live) and chat.is_open and decision.mode != "sticky":
                decision = await self._ask(exchange, decision, live)
            contest = self._contest(exchange, decision, live)
            won = await contest.win()
            if self._out_of_time and isinstance(won, WonStream):
                # What begins now nobody could end with an event any more.
                contest.lose(won)
                raise shutting_down()
            exchange.won_by(won)
            if isinstance(won, WonStream):
                await self._carry(exchange, won, downstream)
            else:
                self._send(exchange, won, downstream)
        except ApiError as error:
            exchange.fail(error)
            raise
        except asyncio.CancelledError:
            if self._out_of_time and exchange.won is None:
                # It is not the client that left: we do.
                exchange.fail(refusal := shutting_down())
                raise refusal from None
            exchange.cancel()
            raise
        except Exception:
            exchange.stumble()
            raise
        finally:
            self.in_flight -= 1
            self._close(exchange)
            if self._idle is not None and not self.in_flight:
                self._idle.set()

    def _decide(self, exchange: Exchange, live: Live) -> Decision:
        decision = decide(exchange.chat, live.snapshot, live.classify)
        if exchange.chat.is_open:
            decision = self._stay_in_category(exchange, decision, live)
        exchange.decision = decision
        return decision

    async def _ask(self, exchange: Exchange, decision: Decision, live: Live) -> Decision:
        decision, costs = await self._asker.refine(decision, live)
        exchange.decision = decision
        for cost in costs:
            exchange.charge(cost)
        return decision

    def _plan(self, exchange: Exchange, decision: Decision, live: Live) -> Plan:
        plan = self._parts.plan(exchange.chat, decision, live, exchange.caller.max_price)
        return plan if exchange.stay is None else self._stay_on_model(exchange, exchange.stay, plan)

    def _contest(self, exchange: Exchange, decision: Decision, live: Live) -> Contest:
        plan = self._plan(exchange, decision, live)
        category = None if decision.explicit else live.snapshot.categories.get(decision.category)
        return Contest(self._parts, live, exchange, plan, category)

    def _send(self, exchange: Exchange, won: WonWhole, downstream: Downstream) -> None:
        body = won.body
        exchange.answer, exchange.answer_bytes = (body,), len(body)
        exchange.answer_is_stream, exchange.usage = won.as_stream, won.usage
        downstream.send_whole(body, exchange.told(), won.allowed, as_stream=won.as_stream)
        exchange.outcome = "completed"

    async def _carry(self, exchange: Exchange, won: WonStream, downstream: Downstream) -> None:
        told = exchange.told()
        relay = won.relay
        exchange.tap, exchange.answer_is_stream = relay.tap, True
        exchange.chat.forget_body()
        try:
            client = downstream.start_stream(told, won.allowed)
            if won.empty is not None:
                relay.pass_on_empty(client)
            else:
                self.sweep.watch(relay)
                relay.open(client)
            if await relay.run() is COMPLETED:
                exchange.outcome = "completed"
        except ConnectionError:
            exchange.cancel()
        finally:
            self.sweep.forget(relay)
            if relay.end is CUT:
                exchange.cut(relay.failure)
            relay.abandon()
            exchange.usage = relay.usage

    # --- conversations ---------------------------------------------------------------------------------------------

    def _stay_in_category(self, exchange: Exchange, decision: Decision, live: Live) -> Decision:
        exchange.conversation = key_of(exchange.chat, exchange.caller.client, exchange.caller.session)
        if begins(exchange.chat):
            return decision
        stay = self.conversations.find(exchange.conversation, self.clock())
        if stay is None:
            return decision
        exchange.stay = stay
        if decision.mode == "models":
            return decision
        return stay_in_category(decision, stay, live.snapshot.categories)

    def _stay_on_model(self, exchange: Exchange, stay: Stay, plan: Plan) -> Plan:
        decision = exchange.decision
        if decision is None or stay.category != decision.category:
            return plan
        stayed = stay_on_model(plan, stay, decision.chain, exchange.chat)
        if stayed is None:
            return plan
        exchange.decision = decision._replace(mode="sticky")
        return stayed

    def _remember(self, exchange: Exchange) -> None:
        key, decision, won, stay = exchange.conversation, exchange.decision, exchange.won, exchange.stay
        if key is None or decision is None:
            return
        # Who stops an answer that has begun goes on with what came of it.
        if won is not None and won.empty is None and exchange.outcome in _SERVED:
            self.conversations.served(key, won.candidate.model, decision.category, self.clock())
        elif exchange.outcome == "cut" or (stay is not None and has_failed(stay.model, exchange.tried)):
            self.conversations.left(key)

    # --- closing ---------------------------------------------------------------------------------------------------

    def _close(self, exchange: Exchange) -> None:
        """Circuit, then booking; never awaits, so the cancellation of a handler cannot come between."""
        won = exchange.won
        if won is not None:
            if won.permit is not None:
                self._settle_permit(exchange, won.permit)
            if won.slot is not None:
                won.slot.release()
        self._remember(exchange)
        self.circuits_changed()
        self.bookkeeper.submit(exchange.booking(self._parts.deadlines.loop.time()))
        if exchange.tap is not None:
            exchange.tap.release()

    def _settle_permit(self, exchange: Exchange, permit: Permit) -> None:
        if exchange.outcome == "completed":
            self.circuits.completed(permit)
        elif exchange.outcome == "cut" and exchange.failure is not None:
            self.circuits.failed(permit, exchange.failure, self.clock())
        else:
            self.circuits.released(permit)

    def circuits_changed(self) -> None:
        """Has the circuits saved before long, if anything happened to them that is worth it."""
        if self._saving or self._circuit_file is None or self.circuits.version == self._saved_version:
            return
        self._saving = True
        self.tasks.begin(self._save_circuits(self._circuit_file), "save circuits")

    async def _save_circuits(self, file: CircuitFile) -> None:
        """Until all is saved, one save after the other: two at once would write over each other's file."""
        try:
            while self.circuits.version != self._saved_version:
                await asyncio.sleep(SAVE_CIRCUITS_AFTER)
                self._saved_version = self.circuits.version
                await asyncio.to_thread(file.save, self.circuits.dump())
        finally:
            self._saving = False

    # --- explaining ------------------------------------------------------------------------------------------------

    def explain(self, chat: ChatRequest, caller: Caller) -> dict[str, Any]:
        """What would be done with `chat`, without calling anyone or leaving a trace. Raises ApiError as `answer`."""
        live = self.live
        exchange = Exchange(chat, caller, self.clock(), 0.0)
        decision = self._decide(exchange, live)
        plan, needs = self._plan(exchange, decision, live), needs_of(chat)
        decision = exchange.decision or decision
        return {
            "category": decision.category,
            "confidence": round(decision.confidence, 4),
            "mode": decision.mode,
            "scores": {name: round(score, 4) for name, score in decision.scores.items()},
            "evidence": list(decision.evidence),
            "candidates": [
                {
                    "model": candidate.model,
                    "estimated_tokens": needs.tokens,
                    "estimated_cost_usd": plan.cost_of(candidate, needs),
                }
                for candidate in plan.candidates
            ],
            "skipped": [{"model": entry.model, "reason": entry.reason} for entry in plan.skipped],
        }

    # --- operating -------------------------------------------------------------------------------------------------

    async def reload(self) -> Snapshot:
        """Reads the configuration again, here and in all workers; see `refresh`."""
        snapshot = await self.refresh()
        self.announce_reload()
        return snapshot

    async def refresh(self) -> Snapshot:
        """Reads the configuration again; raises ApiError, and keeps the old one, if the new one is not valid."""
        try:
            return await self._take_over(self.config_file.reload)
        except ConfigError as error:
            message = f"the configuration stays as it was: {error}"
            raise ApiError(400, message, code="invalid_configuration", param=error.place) from None

    async def edit(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Snapshot:
        """Changes the configuration file; a client that leaves does not stop it half-way."""
        return await asyncio.shield(self.tasks.start(self._edit(change), "edit configuration"))

    async def _edit(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Snapshot:
        snapshot = await self._take_over(lambda: self.config_file.edit(change))
        self.announce_reload()
        return snapshot

    async def _take_over(self, load: Callable[[], Awaitable[Snapshot]]) -> Snapshot:
        """Loads a snapshot and puts it in force; one after the other, so that an older one never comes last."""
        async with self._taking_over:
            snapshot = await load()
            # Hundreds of categories take a while to prepare; streams must not feel it.
            self._use(await asyncio.to_thread(go_live, snapshot, *self._shipped, self.live, self.upstream.secrets))
            return snapshot

    def apply(self, snapshot: Snapshot) -> Snapshot:
        """Puts a valid snapshot in force for the requests to come."""
        self._use(go_live(snapshot, *self._shipped, self.live, self.upstream.secrets))
        return snapshot

    def _use(self, live: Live) -> None:
        if live.roster is not self.live.roster:
            live.brain.forget()  # each set of categories is large, and hundreds would be kept
        self.live = live
        self.circuits.settings = live.snapshot.breaker
        self.bookkeeper.count = live.snapshot.count

    async def drained(self, seconds: float) -> None:
        """Until no request runs any more, at most `seconds`."""
        if self.in_flight:
            self._idle = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()

    def end_drain(self, why: Failure) -> None:
        """Time is up: ends every stream with an error event; who still waits is told once its handler is cancelled."""
        self._out_of_time = True
        self.sweep.stop_all(why)

    def circuit_report(self) -> dict[str, Any]:
        """Open circuits and the state of every model that is configured or known."""
        snapshot = self.snapshot
        models = {model for category in snapshot.categories.values() for model in category.models}
        models |= self.circuits.known_models()
        accounts: Mapping[str, tuple[str, ...]] = self.live.accounts
        return self.circuits.report(
            {model: accounts.get(split_model(model)[0], ()) for model in sorted(models)}, self.clock()
        )

    def reset_circuit(self, model: str) -> None:
        """Clears one model's circuit, cooldown and count, and lets go of its provider."""
        provider = self.snapshot.providers.get(split_model(model)[0])
        for circuits in (self.circuits, self.classifier_circuits):
            circuits.reset(model)
            if provider is not None:
                circuits.reset_accounts(accounts_of(provider))
        self.circuits_changed()

    def reset_all_circuits(self) -> None:
        """Clears every circuit, cooldown and account."""
        self.circuits.reset_all()
        self.classifier_circuits.reset_all()
        self.circuits_changed()

    def has_able_candidate(self) -> bool:
        """Whether any chain has a model that could be asked now."""
        now = self.clock()
        for category in self.snapshot.categories.values():
            for model in category.models:
                provider = self.snapshot.providers[split_model(model)[0]]
                if provider.configured and self.circuits.block(model, self.live.accounts[provider.name], now) is None:
                    return True
        return False
