"""The dispatcher: decides, plans, tries candidates in turn until one has meaning, relays, and hands over the bill.

It owns the live parts of the router. Pure parts decide (`routing`, `proxy.failover`); this module carries out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.metrics import Metrics
from llm_router.accounting.pricing import ModelInfo, PriceTable
from llm_router.accounting.pricing import cost as price_of
from llm_router.config.timeouts import effective_timeouts
from llm_router.config.values import Provider, Snapshot, Timeouts, split_model
from llm_router.errors import ApiError, AttemptFailed, ConfigError, FailureKind
from llm_router.proxy.attempt import Attempt, EmptyAnswer, Won, WonStream
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.exchange import Caller, Downstream, Exchange
from llm_router.proxy.failover import Tried, chain_failed, ends_here, is_blameless, provider_answer
from llm_router.proxy.live import Live, accounts_of, go_live
from llm_router.proxy.relay import End, IdleSweep
from llm_router.proxy.state import CircuitFile
from llm_router.proxy.tap import TapBudget
from llm_router.proxy.tasks import Tasks
from llm_router.proxy.upstream import UpstreamClient
from llm_router.routing.breaker import Block, Circuits, Permit
from llm_router.routing.classify import Brain
from llm_router.routing.decision import Decision, decide
from llm_router.routing.latency import FirstTokens
from llm_router.routing.plan import (
    Candidate,
    Obstacle,
    Plan,
    Skipped,
    World,
    larger_window,
    make_plan,
    needs_of,
)
from llm_router.wire.chat import ChatRequest
from llm_router.wire.providers.base import Target
from llm_router.wire.usage import Usage

SAVE_CIRCUITS_AFTER = 0.05
# An empty stop is the request's own doing where it asked for hardly any output.
_FEW_OUTPUT_TOKENS = 16
_KEY_FAILURES = frozenset({FailureKind.AUTHENTICATION, FailureKind.QUOTA_EXCEEDED, FailureKind.RATE_LIMITED})


class Router:
    """The running router. `live` is swapped whole on reload; a request keeps the one it started with."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        shipped_prices: bytes,
        brain: Brain,
        upstream: UpstreamClient,
        bookkeeper: Bookkeeper,
        metrics: Metrics,
        config_file: ConfigFile,
        circuit_file: CircuitFile | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._shipped = (shipped_prices, brain)
        self.live: Live = go_live(snapshot, shipped_prices, brain)
        self.upstream = upstream
        self.bookkeeper = bookkeeper
        self.metrics = metrics
        self.config_file = config_file
        self.circuits = Circuits(snapshot.breaker)
        self.tasks = Tasks()
        self.sweep = IdleSweep()
        self.first_tokens = FirstTokens()
        self.clock = clock
        self.started = clock()
        self.draining = False
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._circuit_file = circuit_file
        self._saved_version = 0
        self._saving = False
        self._taps = TapBudget()
        self._slots: dict[str, asyncio.Semaphore] = {}
        if circuit_file is not None:
            circuit_file.load(self.circuits, self.started)

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

    async def answer(self, chat: ChatRequest, caller: Caller, downstream: Downstream) -> Exchange:
        """Carries one request to its end. Raises ApiError before the first byte; always leaves one booking."""
        loop = asyncio.get_running_loop()
        exchange = Exchange(chat, caller, self.clock(), loop.time())
        exchange.ticket = self.bookkeeper.enter(
            caller.request_id, exchange.started, client=caller.client, model=chat.model
        )
        self.in_flight += 1
        self._idle.clear()
        try:
            await self._carry(exchange, downstream)
        except ApiError as error:
            error.headers = {**exchange.headers(), **error.headers}
            exchange.fail(error)
            raise
        except asyncio.CancelledError:
            exchange.outcome = "cancelled"
            exchange.status = 499 if exchange.committed_ms is None else 200
            raise
        finally:
            self.in_flight -= 1
            self._close(exchange)
            if not self.in_flight:
                self._idle.set()
        return exchange

    async def _carry(self, exchange: Exchange, downstream: Downstream) -> None:
        live = self.live
        decision = decide(exchange.chat, live.snapshot, live.classify)
        exchange.decision = decision
        exchange.plan = self.plan(exchange.chat, decision, live, exchange.caller.max_price)
        won = await self._win(exchange, live)
        headers = {**won.allowed, **exchange.headers()}
        if isinstance(won, WonStream):
            await self._relay(exchange, won, downstream, headers)
        else:
            exchange.answer, exchange.answer_is_stream = (won.body,), won.as_stream
            exchange.usage = won.usage
            await downstream.send_whole(won.body, headers, as_stream=won.as_stream)
            exchange.outcome = "completed"

    async def _relay(self, exchange: Exchange, won: WonStream, downstream: Downstream, headers: dict[str, str]) -> None:
        relay = won.relay
        exchange.tap, exchange.answer_is_stream = relay.tap, True
        exchange.chat = exchange.chat.without_body()
        try:
            client = await downstream.start_stream(headers)
            if exchange.failure is not None:  # a well-formed empty answer, and nobody had a better one
                relay.pass_on_empty(client)
            else:
                self.sweep.watch(relay)
                relay.open(client)
            exchange.outcome = "completed" if await relay.run() is End.COMPLETED else "cut"
            exchange.failure = relay.failure if exchange.outcome == "cut" else exchange.failure
            await downstream.end_stream()
        except ConnectionError:
            exchange.outcome = "cancelled"
        finally:
            self.sweep.forget(relay)
            relay.abandon()
            exchange.usage = won.translator.usage if won.translator is not None else None

    # --- winning an answer -----------------------------------------------------------------------------------------

    async def _win(self, exchange: Exchange, live: Live) -> Won:
        """The first candidate that has meaning to send. Raises the ApiError for the client if none has."""
        plan, decision = exchange.plan, exchange.decision
        assert plan is not None
        assert decision is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (live.snapshot.timeouts.total or float("inf"))
        skipped = list(plan.skipped)
        queue = list(plan.candidates)
        early = None if queue or decision.explicit else _soonest(skipped)
        if early is not None and early.candidate is not None:
            queue.append(early.candidate)
        empty: Won | None = None
        while queue:
            candidate = queue.pop(0)
            share = (deadline - loop.time()) / (len(queue) + 1)
            if share <= 0:
                break
            try:
                won = await self._try(exchange, candidate, live, share, early=early is not None)
            except EmptyAnswer as error:
                empty, exchange.candidate = error.won, candidate
                failure = error.failure
            except AttemptFailed as error:
                failure = error.failure
            else:
                if won is not None:
                    return won
                self._note_block(candidate, skipped)
                continue
            if ends_here(failure, explicit=decision.explicit):
                exchange.failure = failure
                raise provider_answer(failure, exchange.tried)
            if failure.kind is FailureKind.CONTEXT_LENGTH:
                queue = _keep_larger(candidate, queue, skipped)
        if empty is not None:
            exchange.failure = exchange.tried[-1].failure
            exchange.committed_ms = 0.0
            return empty
        exchange.candidate = None
        raise chain_failed(exchange.tried, skipped, explicit=decision.explicit, now=self.clock())

    async def _try(
        self, exchange: Exchange, candidate: Candidate, live: Live, seconds: float, *, early: bool
    ) -> Won | None:
        """Tries a candidate with one of its keys after the other; None if its circuit does not let it pass."""
        while True:
            permit = self.circuits.admit(candidate.model, candidate.accounts, self.clock(), early=early)
            if permit is None:
                return None
            try:
                return await self._attempt(exchange, candidate, permit, live, seconds)
            except AttemptFailed as error:
                if error.failure.kind not in _KEY_FAILURES or len(candidate.accounts) < 2:
                    raise
                if self.circuits.block(candidate.model, candidate.accounts, self.clock()) is not None:
                    raise

    async def _attempt(
        self, exchange: Exchange, candidate: Candidate, permit: Permit, live: Live, seconds: float
    ) -> Won:
        loop = asyncio.get_running_loop()
        began = loop.time()
        decision = exchange.decision
        assert decision is not None
        exchange.permit = permit
        timeouts = self._timeouts(exchange, candidate, live)
        attempt = Attempt(
            exchange.chat,
            self._target(candidate, permit, live),
            live.adapters[candidate.provider.name],
            timeouts,
            min(seconds, timeouts.first_byte or seconds),
            live.mask,
            self._taps,
            lambda: self.circuits.connected(permit),
        )
        try:
            won = await attempt.run(self.upstream)
        except AttemptFailed as error:
            failure = error.failure
            exchange.tried.append(Tried(candidate, failure, (loop.time() - began) * 1000))
            if is_blameless(failure, _explains_empty(exchange.chat)):
                self.circuits.released(permit)
            else:
                self.circuits.failed(permit, failure, self.clock(), in_chain=not decision.explicit)
            exchange.permit = None
            self._save_circuits_soon()
            raise
        except BaseException:
            self.circuits.released(permit)
            exchange.candidate = candidate
            exchange.permit = None
            raise
        now = loop.time()
        exchange.candidate = candidate
        exchange.committed_ms = (now - began) * 1000
        exchange.first_byte_ms = (now - exchange.started_at) * 1000
        self.circuits.committed(permit)
        if exchange.chat.stream:
            self.first_tokens.note(candidate.model, now - began)
        return won

    def _target(self, candidate: Candidate, permit: Permit, live: Live) -> Target:
        keys = candidate.provider.keys
        key = keys[candidate.accounts.index(permit.account)].value if keys else None
        return Target(candidate.provider, candidate.upstream_model, key, candidate.info)

    def _timeouts(self, exchange: Exchange, candidate: Candidate, live: Live) -> Timeouts:
        decision = exchange.decision
        assert decision is not None
        effort = exchange.chat.body.get("reasoning_effort") or exchange.chat.body.get("reasoning")
        return effective_timeouts(
            live.snapshot,
            provider=candidate.provider,
            category=live.snapshot.categories.get(decision.category),
            model=candidate.upstream_model,
            stream=exchange.chat.stream,
            reasoning=bool(candidate.info and candidate.info.reasoning),
            effort=bool(effort) and effort != "none",
        )

    def _note_block(self, candidate: Candidate, skipped: list[Skipped]) -> None:
        """Its circuit closed the way between plan and try."""
        if any(entry.model == candidate.model for entry in skipped):
            return
        block = self.circuits.block(candidate.model, candidate.accounts, self.clock())
        reason = block.reason if block else "its probe is under way"
        obstacle = Obstacle.COOLDOWN if block and block.kind == "cooldown" else Obstacle.CIRCUIT
        skipped.append(Skipped(candidate.model, obstacle, reason, block.until if block else 0.0, candidate=candidate))

    # --- closing ---------------------------------------------------------------------------------------------------

    def _close(self, exchange: Exchange) -> None:
        """Circuit, then booking; never awaits, so the cancellation of a handler cannot come between."""
        permit = exchange.permit
        if permit is not None:
            if exchange.outcome == "completed":
                self.circuits.completed(permit)
            elif exchange.outcome == "cut" and exchange.failure is not None:
                self.circuits.failed(permit, exchange.failure, self.clock())
            else:
                self.circuits.released(permit)
        self._save_circuits_soon()
        self.bookkeeper.submit(exchange.booking(asyncio.get_running_loop().time()))
        if exchange.tap is not None:
            exchange.tap.release()

    def _save_circuits_soon(self) -> None:
        if self._saving or self._circuit_file is None or self.circuits.version == self._saved_version:
            return
        self._saving = True
        self.tasks.begin(self._save_circuits(self._circuit_file), "save circuits")

    async def _save_circuits(self, file: CircuitFile) -> None:
        try:
            await asyncio.sleep(SAVE_CIRCUITS_AFTER)
        finally:
            self._saving = False
        self._saved_version = self.circuits.version
        await asyncio.to_thread(file.save, self.circuits.dump())

    # --- planning and explaining -----------------------------------------------------------------------------------

    def plan(self, chat: ChatRequest, decision: Decision, live: Live, max_price: float | None = None) -> Plan:
        """The plan for a decided request, as things stand now."""
        category = live.snapshot.categories.get(decision.category)
        limits = [
            limit
            for limit in (max_price, category.max_price if category else None, live.snapshot.max_price)
            if limit is not None
        ]
        return make_plan(
            chat,
            decision.chain,
            needs_of(chat),
            self._world(live),
            explicit=decision.explicit,
            max_price=min(limits) if limits and not decision.explicit else None,
            order=category.order if category else "chain",
        )

    def _world(self, live: Live) -> World:
        def block(model: str, accounts: Sequence[str]) -> Block | None:
            return self.circuits.block(model, accounts, self.clock())

        def misfit(chat: ChatRequest, candidate: Candidate) -> tuple[str, str] | None:
            target = Target(candidate.provider, candidate.upstream_model, None, candidate.info)
            found = live.adapters[candidate.provider.name].misfit(chat, target)
            return (found.field, found.reason) if found is not None else None

        def cost(info: ModelInfo | None, tokens: int, output: int) -> float | None:
            return price_of(info, Usage(fresh_input=tokens, output=output))

        return World(
            providers=live.snapshot.providers,
            info=live.prices.info,
            accounts=lambda provider: live.accounts[provider.name],
            block=block,
            misfit=misfit,
            cost=cost,
            first_token_s=self.first_tokens.typical,
        )

    def explain(self, chat: ChatRequest, max_price: float | None = None) -> dict[str, Any]:
        """What would be done with `chat`, without calling anyone or leaving a trace. Raises ApiError as `answer`."""
        live = self.live
        decision = decide(chat, live.snapshot, live.classify)
        plan = self.plan(chat, decision, live, max_price)
        return {
            "category": decision.category,
            "confidence": round(decision.confidence, 4),
            "mode": decision.mode,
            "scores": {name: round(score, 4) for name, score in decision.scores.items()},
            "evidence": list(decision.evidence),
            "candidates": [
                {
                    "model": candidate.model,
                    "estimated_tokens": candidate.estimated_tokens,
                    "estimated_cost_usd": candidate.estimated_cost,
                }
                for candidate in plan.candidates
            ],
            "skipped": [{"model": entry.model, "reason": entry.reason} for entry in plan.skipped],
        }

    # --- operating -------------------------------------------------------------------------------------------------

    async def reload(self) -> Snapshot:
        """Reads the configuration again; raises ApiError, and keeps the old one, if the new one is not valid."""
        try:
            return self.apply(await self.config_file.reload())
        except ConfigError as error:
            message = f"the configuration stays as it was: {error}"
            raise ApiError(400, message, code="invalid_configuration", param=error.place) from None

    async def edit(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Snapshot:
        """Changes the configuration file; shielded, so that a client that leaves does not stop it half-way."""
        work = self.tasks.start(self.config_file.edit(change), "edit configuration")
        return self.apply(await asyncio.shield(work))

    def apply(self, snapshot: Snapshot) -> Snapshot:
        """Puts a valid snapshot in force for the requests to come."""
        self.live = go_live(snapshot, *self._shipped)
        self.circuits.settings = snapshot.breaker
        return snapshot

    async def drained(self, seconds: float) -> None:
        """Until no request runs any more, at most `seconds`."""
        if self.in_flight:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()

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
        self.circuits.reset(model)
        provider: Provider | None = self.snapshot.providers.get(split_model(model)[0])
        if provider is not None:
            self.circuits.reset_accounts(accounts_of(provider))
        self._save_circuits_soon()

    def reset_all_circuits(self) -> None:
        """Clears every circuit, cooldown and account."""
        self.circuits.reset_all()
        self._save_circuits_soon()

    def has_able_candidate(self) -> bool:
        """Whether any chain has a model that could be asked now."""
        now = self.clock()
        for category in self.snapshot.categories.values():
            for model in category.models:
                provider = self.snapshot.providers[split_model(model)[0]]
                if provider.configured and self.circuits.block(model, self.live.accounts[provider.name], now) is None:
                    return True
        return False


def _soonest(skipped: Sequence[Skipped]) -> Skipped | None:
    """Of a chain whose circuits are all open by failures: the one that recovers first."""
    open_ones = [entry for entry in skipped if entry.by_failures]
    waiting = [entry for entry in skipped if entry.obstacle in (Obstacle.COOLDOWN, Obstacle.ACCOUNT)]
    return min(open_ones, key=lambda entry: entry.until) if open_ones and not waiting else None


def _keep_larger(failed: Candidate, queue: list[Candidate], skipped: list[Skipped]) -> list[Candidate]:
    """Candidates that may hold a prompt which was too long for `failed`; the others are noted as skipped."""
    kept = [candidate for candidate in queue if larger_window(failed, candidate)]
    skipped += [
        Skipped(candidate.model, Obstacle.CONTEXT, "its context window is no larger", candidate=candidate)
        for candidate in queue
        if candidate not in kept
    ]
    return kept


def _explains_empty(chat: ChatRequest) -> bool:
    """Whether the request itself makes an empty stop likely: after a tool result, with `stop`, or hardly any output."""
    limit = chat.output_limit
    return (
        chat.messages[-1].get("role") == "tool"
        or bool(chat.body.get("stop"))
        or (limit is not None and limit <= _FEW_OUTPUT_TOKENS)
    )
