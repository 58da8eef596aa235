"""The contest for one request: candidates are tried in turn (or, hedged, side by side) until one has meaning."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from llm_router.accounting.booking import SideCost
from llm_router.config.values import Hedge
from llm_router.errors import AttemptFailed, Failure, FailureKind
from llm_router.proxy.attempt import Attempt, EmptyAnswer, Won, WonStream
from llm_router.proxy.exchange import Exchange
from llm_router.proxy.failover import Tried, chain_failed, ends_here, is_blameless, provider_answer
from llm_router.proxy.live import Live
from llm_router.proxy.parts import Parts, Slot
from llm_router.routing.breaker import Permit
from llm_router.routing.plan import Candidate, Obstacle, Plan, Skipped, larger_window
from llm_router.wire.chat import ChatRequest

# An empty stop is the request's own doing where it asked for hardly any output.
_FEW_OUTPUT_TOKENS = 16
_KEY_FAILURES = frozenset({FailureKind.AUTHENTICATION, FailureKind.QUOTA_EXCEEDED, FailureKind.RATE_LIMITED})


@dataclass(slots=True)
class Win:
    """An answer that can be sent, with what has to be settled when it has ended."""

    candidate: Candidate
    won: Won
    permit: Permit | None
    committed_ms: float
    slot: Slot | None = None
    empty: Failure | None = None  # it is a well-formed empty answer that nobody could better

    def lose(self, parts: Parts, chat: ChatRequest) -> SideCost:
        """Another candidate was quicker: stops this one at once; what it has cost by now is waste."""
        if self.permit is not None:
            parts.circuits.released(self.permit)
        if self.slot is not None:
            self.slot.release()
        answer: Sequence[bytes] = ()
        usage = None
        if isinstance(self.won, WonStream):
            self.won.relay.abandon()
            answer = self.won.relay.gate.held
            usage = self.won.translator.usage if self.won.translator is not None else None
        else:
            answer, usage = (self.won.body,), self.won.usage
        stream = isinstance(self.won, WonStream)
        return SideCost("hedge", self.candidate.model, chat.raw, answer, stream, usage, self.candidate.info)


class Contest:
    """The tries of one exchange. `exchange.tried` grows as they fail."""

    def __init__(self, parts: Parts, live: Live, exchange: Exchange, plan: Plan, hedge: Hedge | None = None) -> None:
        assert exchange.decision is not None
        self._parts = parts
        self._live = live
        self._exchange = exchange
        self._decision = exchange.decision
        self._skipped = list(plan.skipped)
        self._queue = list(plan.candidates)
        self._early = False
        self._empty: Win | None = None
        self._hedge = hedge
        self._losing = False
        self._loop = parts.deadlines.loop
        self._deadline = self._loop.time() + (live.snapshot.timeouts.total or float("inf"))

    async def win(self) -> Win:
        """The first candidate that has meaning to send. Raises the ApiError for the client if none has."""
        if not self._queue and not self._decision.explicit:
            self._take_soonest()
        while self._queue:
            candidate = self._queue.pop(0)
            if self._seconds() <= 0:
                break
            win = await self._try_hedged(candidate) if self._hedge is not None else await self._try(candidate)
            if win is not None:
                return win
        if self._empty is not None:
            return self._empty
        raise chain_failed(
            self._exchange.tried, self._skipped, explicit=self._decision.explicit, now=self._parts.clock()
        )

    def _seconds(self) -> float:
        """What is left of the total, shared over the candidates still to come."""
        return (self._deadline - self._loop.time()) / (len(self._queue) + 1)

    def _take_soonest(self) -> None:
        """Of a chain whose circuits are all open by failures, the one that recovers first may be probed early."""
        open_ones = [entry for entry in self._skipped if entry.by_failures and entry.candidate is not None]
        waiting = [entry for entry in self._skipped if entry.obstacle in (Obstacle.COOLDOWN, Obstacle.ACCOUNT)]
        if open_ones and not waiting:
            soonest = min(open_ones, key=lambda entry: entry.until)
            assert soonest.candidate is not None
            self._queue.append(soonest.candidate)
            self._early = True

    # --- one candidate ---------------------------------------------------------------------------------------------

    async def _try(self, candidate: Candidate) -> Win | None:
        """None if it failed or could not be tried, and the next one is to be asked. Raises ApiError to end it all."""
        circuits, clock = self._parts.circuits, self._parts.clock
        try:
            while (
                permit := circuits.admit(candidate.model, candidate.accounts, clock(), early=self._early)
            ) is not None:
                try:
                    return await self._attempt(candidate, permit)
                except AttemptFailed as error:
                    # Another key of the same provider may do.
                    if error.failure.kind not in _KEY_FAILURES or len(candidate.accounts) < 2:
                        raise
                    if circuits.block(candidate.model, candidate.accounts, clock()) is not None:
                        raise
        except EmptyAnswer as error:
            self._empty = Win(candidate, error.won, None, 0.0, empty=error.failure)
            return None
        except AttemptFailed as error:
            self._judge(candidate, error.failure)
            return None
        self._note_block(candidate)
        return None

    def _judge(self, candidate: Candidate, failure: Failure) -> None:
        if ends_here(failure, explicit=self._decision.explicit):
            self._exchange.failure = failure
            raise provider_answer(failure, self._exchange.tried)
        if failure.kind is FailureKind.CONTEXT_LENGTH:
            kept = [other for other in self._queue if larger_window(candidate, other)]
            self._skipped += [
                Skipped(other.model, Obstacle.CONTEXT, "its context window is no larger", candidate=other)
                for other in self._queue
                if other not in kept
            ]
            self._queue = kept

    async def _attempt(self, candidate: Candidate, permit: Permit) -> Win:
        parts, chat = self._parts, self._exchange.chat
        slot = parts.slot(candidate.provider)
        began = self._loop.time()
        holds_slot = False
        try:
            if slot is not None:
                await self._wait_for(slot)
                holds_slot = True
                began = self._loop.time()
            won = await self._start(candidate, permit).run(parts.upstream)
        except AttemptFailed as error:
            failure = error.failure
            self._exchange.tried.append(Tried(candidate, failure, (self._loop.time() - began) * 1000))
            if is_blameless(failure, isinstance(error, EmptyAnswer) and explains_empty(chat)):
                parts.circuits.released(permit)
            else:
                parts.circuits.failed(permit, failure, parts.clock(), in_chain=not self._decision.explicit)
            parts.changed()
            if slot is not None and holds_slot:
                slot.release()
            raise
        except BaseException:
            self._exchange.candidate = candidate
            gone = Failure(FailureKind.CANCELLED, "given up before an answer came")
            self._exchange.tried.append(Tried(candidate, gone, (self._loop.time() - began) * 1000))
            if self._losing:
                lost = SideCost("hedge", candidate.model, chat.raw, price_info=candidate.info)
                self._exchange.side_costs.append(lost)
            parts.circuits.released(permit)
            if slot is not None and holds_slot:
                slot.release()
            raise
        seconds = self._loop.time() - began
        parts.circuits.committed(permit)
        if chat.stream:
            parts.first_tokens.note(candidate.model, seconds)
        return Win(candidate, won, permit, seconds * 1000, slot)

    async def _wait_for(self, slot: Slot) -> None:
        """A full provider queues its requests; the wait is bounded by this candidate's share of the total."""
        try:
            async with asyncio.timeout(self._seconds()):
                await slot.acquire()
        except TimeoutError:
            message = "the provider's own limit of concurrent requests (max_concurrency) stayed full"
            raise AttemptFailed(Failure(FailureKind.QUEUE_TIMEOUT, message)) from None

    def _start(self, candidate: Candidate, permit: Permit) -> Attempt:
        live, chat, parts = self._live, self._exchange.chat, self._parts
        effort = chat.body.get("reasoning_effort") or chat.body.get("reasoning")
        asks = bool(effort) and effort != "none"
        timeouts = live.timeouts(candidate, self._decision.category, stream=chat.stream, effort=asks)
        seconds = self._seconds()
        first_byte = timeouts.first_byte
        return Attempt(
            chat,
            live.target(candidate, permit.account),
            live.adapters[candidate.provider.name],
            timeouts,
            first_byte if first_byte and first_byte < seconds else seconds,
            live.mask,
            parts.taps,
            parts.deadlines,
            parts.circuits.connected,
            permit,
        )

    def _note_block(self, candidate: Candidate) -> None:
        """Its circuit closed the way between plan and try."""
        if any(entry.model == candidate.model for entry in self._skipped):
            return
        block = self._parts.circuits.block(candidate.model, candidate.accounts, self._parts.clock())
        reason = block.reason if block else "its probe is under way"
        obstacle = Obstacle.COOLDOWN if block and block.kind == "cooldown" else Obstacle.CIRCUIT
        until = block.until if block else 0.0
        self._skipped.append(Skipped(candidate.model, obstacle, reason, until, candidate=candidate))

    # --- side by side ----------------------------------------------------------------------------------------------

    async def _try_hedged(self, candidate: Candidate) -> Win | None:
        """As `_try`, but when it has shown no meaning for a while, the next candidate starts beside it."""
        self._parts.hedges.count(self._decision.category)
        delay = self._hedge_delay(candidate)
        if delay is None or not self._queue:
            return await self._try(candidate)
        tasks = [self._loop.create_task(self._try(candidate))]
        best: Win | None = None
        try:
            _, running = await asyncio.wait(tasks, timeout=delay)
            hedge = self._hedge
            if running and self._queue and hedge and self._parts.hedges.take(self._decision.category, hedge.budget):
                tasks.append(self._loop.create_task(self._try(self._queue.pop(0))))
            running = set(tasks)
            while best is None and running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                best = next((win for task in tasks if task in done and (win := task.result()) is not None), None)
            return best
        finally:
            await self._stop(tasks, best)

    def _hedge_delay(self, candidate: Candidate) -> float | None:
        """Seconds of silence after which the next candidate starts; None while too little is known."""
        assert self._hedge is not None
        after = self._hedge.after
        return self._parts.first_tokens.p95(candidate.model) if after == "p95" else after

    async def _stop(self, tasks: list[asyncio.Task[Win | None]], best: Win | None) -> None:
        """Ends all but the best, at once; what they were asked for nothing is booked as waste."""
        running = [task for task in tasks if not task.done()]
        if running:
            self._losing = True
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            self._losing = False
        for task in tasks:
            if task.cancelled() or task.exception() is not None:
                continue
            # A second winner, or one whose client left before it could be used.
            win = task.result()
            if win is not None and win is not best:
                self._exchange.side_costs.append(win.lose(self._parts, self._exchange.chat))


def explains_empty(chat: ChatRequest) -> bool:
    """Whether the request itself makes an empty stop likely: after a tool result, with `stop`, or hardly any output."""
    limit = chat.output_limit
    return (
        chat.messages[-1].get("role") == "tool"
        or bool(chat.body.get("stop"))
        or (limit is not None and limit <= _FEW_OUTPUT_TOKENS)
    )
