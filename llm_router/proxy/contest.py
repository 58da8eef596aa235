"""The contest for one request: candidates are tried in turn (or, hedged, side by side) until one has meaning."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf
from typing import Literal

from llm_router.accounting.booking import SideCost
from llm_router.config.values import Category
from llm_router.errors import AttemptFailed, Failure, FailureKind
from llm_router.proxy.attempt import CancelledReported, EmptyAnswer, WonStream, WonWhole, attempt
from llm_router.proxy.exchange import Exchange
from llm_router.proxy.failover import Tried, chain_failed, ends_here, is_blameless, provider_answer
from llm_router.proxy.live import Live, Way
from llm_router.proxy.parts import Parts, Slot
from llm_router.proxy.upstream import CancelledUnsent
from llm_router.routing.breaker import EARLY_PROBE_EVERY, Permit
from llm_router.routing.plan import Candidate, Obstacle, Plan, Skipped, blocked, larger_window
from llm_router.wire.chat import ChatRequest
from llm_router.wire.providers.fields import asks_to_think
from llm_router.wire.usage import Usage

Win = WonStream | WonWhole

# An empty stop is the request's own doing where it asked for hardly any output.
_FEW_OUTPUT_TOKENS = 16
_KEY_FAILURES = frozenset({FailureKind.AUTHENTICATION, FailureKind.QUOTA_EXCEEDED, FailureKind.RATE_LIMITED})


class Contest:
    """The tries of one exchange, whose `tried` grows as they fail. No `category`: the client named the model."""

    __slots__ = (
        "_deadline",
        "_decision",
        "_early",
        "_empty",
        "_empty_cost",
        "_exchange",
        "_hedge",
        "_live",
        "_losing",
        "_parts",
        "_probed",
        "_queue",
        "_skipped",
        "_time",
    )

    def __init__(self, parts: Parts, live: Live, exchange: Exchange, plan: Plan, category: Category | None) -> None:
        assert exchange.decision is not None
        self._parts = parts
        self._live = live
        self._exchange = exchange
        self._decision = exchange.decision
        self._early = self._losing = self._probed = False
        self._empty: Win | None = None
        self._empty_cost: SideCost | None = None
        self._skipped = plan.skipped
        self._queue = plan.candidates
        self._hedge = category.hedge if category is not None else None
        self._time = parts.deadlines.loop.time
        total = category.timeouts.total if category is not None else None
        self._deadline = exchange.started_at + (total or live.snapshot.timeouts.total or inf)

    async def win(self) -> Win:
        """The first candidate that has meaning to send. Raises the ApiError for the client if none has."""
        if not self._queue and not self._decision.explicit:
            self._take_soonest()
        if self._hedge is not None:
            self._parts.hedges.count(self._decision.category)
        while self._queue:
            candidate = self._next()
            win = await self._try_hedged(candidate) if self._hedge is not None else await self._try(candidate)
            if win is not None:
                return win
        if self._empty is not None:
            self._empty.committed_at = self._time()
            if self._empty_cost is not None:
                self._exchange.discharge(self._empty_cost)
            return self._empty
        tried = self._exchange.tried
        self._exchange.skipped = self._skipped
        raise chain_failed(
            tried,
            self._skipped,
            explicit=self._decision.explicit,
            now=self._parts.clock(),
            recovery=self._live.snapshot.breaker.recovery_timeout_sec,
            probed=self._probed and not any(entry.failure.kind in _KEY_FAILURES for entry in tried),
        )

    def _next(self) -> Candidate:
        candidate, self._queue = self._queue[0], self._queue[1:]
        return candidate

    def _share(self, now: float) -> float:
        """What is left of the total, shared over the candidates still to come; `now` is the loop's clock."""
        return (self._deadline - now) / (len(self._queue) + 1)

    def _take_soonest(self) -> None:
        """Of a chain whose circuits are all open by failures, the one that recovers first may be probed early.

        Once a second for the whole chain: a failed probe makes another one the first to recover.
        """
        open_ones = [entry for entry in self._skipped if entry.by_failures and entry.candidate is not None]
        waiting = [entry for entry in self._skipped if entry.obstacle in (Obstacle.COOLDOWN, Obstacle.ACCOUNT)]
        if open_ones and not waiting:
            soonest = min(open_ones, key=lambda entry: entry.until)
            assert soonest.candidate is not None
            circuits = self._parts.circuits
            self._probed = not all(circuits.is_gone(entry.model) for entry in open_ones)
            last = max(circuits.last_attempt(entry.model) for entry in open_ones)
            if self._parts.clock() - last < EARLY_PROBE_EVERY:
                return
            # Asked after all: its answer decides, as of any candidate that was.
            self._skipped = tuple(entry for entry in self._skipped if entry is not soonest)
            self._queue = (soonest.candidate,)
            self._early = True

    # --- one candidate ---------------------------------------------------------------------------------------------

    async def _try(self, candidate: Candidate) -> Win | None:
        """None if it failed or could not be tried, and the next one is to be asked. Raises ApiError to end it all."""
        parts, chat = self._parts, self._exchange.chat
        slot, accounts = parts.slot(candidate.provider), candidate.accounts
        now_at = self._time
        while True:
            began = now_at()
            seconds = self._share(began)
            if seconds <= 0:
                return None
            if slot is not None:
                if not await self._has_place(slot, candidate, began, seconds):
                    return None
                began = now_at()
                seconds = self._share(began)
            # Only now: what was queued for while it was well may have failed meanwhile.
            permit = parts.circuits.admit(candidate.model, accounts, parts.clock(), early=self._early)
            if permit is None:
                self._note_block(candidate)
                if slot is not None:
                    slot.release()
                return None
            try:
                way = self._way(candidate, permit.account)
                if way.first_byte < seconds:
                    seconds = way.first_byte
                won = await attempt(parts, self._live, chat, way, seconds, permit)
            except AttemptFailed as error:
                self._note_failure(candidate, permit, error, began)
                if slot is not None:
                    slot.release()
                # Each key once: one that is to be tried again at once would be, for as long as it is refused.
                accounts = tuple([account for account in accounts if account != permit.account])
                if accounts and self._may_have_another_key(candidate.model, accounts, error.failure):
                    continue
                self._judge(candidate, error)
                return None
            except BaseException as error:
                self._note_leaving(candidate, permit, began, error)
                if slot is not None:
                    slot.release()
                raise
            now = now_at()
            parts.circuits.committed(permit)
            if chat.stream:
                parts.first_tokens.note(candidate.model, now - began)
            won.candidate, won.permit, won.slot = candidate, permit, slot
            won.committed_at, won.committed_ms = now, (now - began) * 1000
            return won

    async def _has_place(self, slot: Slot, candidate: Candidate, began: float, seconds: float) -> bool:
        """A full provider queues its requests; the wait is bounded by this candidate's share of the total."""
        parts = self._parts
        if not self._early and parts.circuits.block(candidate.model, candidate.accounts, parts.clock()) is not None:
            self._note_block(candidate)
            return False
        try:
            async with asyncio.timeout(seconds):
                await slot.acquire()
        except TimeoutError:
            message = "the provider's own limit of concurrent requests (max_concurrency) stayed full"
            self._note_tried(candidate, Failure(FailureKind.QUEUE_TIMEOUT, message), began)
            return False
        except asyncio.CancelledError:
            self._note_given_up(candidate, (self._time() - began) * 1000)
            raise
        return True

    def _way(self, candidate: Candidate, account: str) -> Way:
        chat = self._exchange.chat
        return self._live.way(candidate, account, self._decision.category, chat.stream, asks_to_think(chat.body))

    def _note_tried(self, candidate: Candidate, failure: Failure, began: float) -> None:
        self._exchange.note(Tried(candidate, failure, (self._time() - began) * 1000))

    def _note_failure(self, candidate: Candidate, permit: Permit, error: AttemptFailed, began: float) -> None:
        parts, failure = self._parts, error.failure
        self._note_tried(candidate, failure, began)
        if is_blameless(failure, isinstance(error, EmptyAnswer) and explains_empty(self._exchange.chat)):
            parts.circuits.released(permit)
        else:
            parts.circuits.failed(permit, failure, parts.clock(), in_chain=not self._decision.explicit)
        parts.changed()

    def _note_leaving(self, candidate: Candidate, permit: Permit, began: float, error: BaseException) -> None:
        """The client has left, or another was quicker; who waited for a connection was not asked."""
        self._note_given_up(candidate, (self._time() - began) * 1000)
        if not isinstance(error, CancelledUnsent):
            usage = error.usage if isinstance(error, CancelledReported) else None
            self._bill(candidate, stream=self._exchange.chat.stream, usage=usage)
        self._parts.circuits.released(permit)

    def _note_given_up(self, candidate: Candidate, ms: float) -> None:
        gone = Failure(FailureKind.CANCELLED, "given up before an answer came")
        self._exchange.note(Tried(candidate, gone, ms))

    def _bill(
        self, candidate: Candidate, answer: Sequence[bytes] = (), stream: bool = False, usage: Usage | None = None
    ) -> None:
        """What one that is given up has cost: the request's own bill where the client left it alone, else waste."""
        exchange = self._exchange
        if self._losing or exchange.candidate is not None:
            exchange.charge(self._side_cost("hedge", candidate, answer, stream, usage))
        else:
            exchange.candidate = candidate
            exchange.answer, exchange.answer_bytes = tuple(answer), sum(map(len, answer))
            exchange.answer_is_stream, exchange.usage = stream, usage

    def _side_cost(
        self,
        kind: Literal["hedge", "empty"],
        candidate: Candidate,
        answer: Sequence[bytes],
        stream: bool,
        usage: Usage | None,
    ) -> SideCost:
        return SideCost(kind, candidate.model, self._exchange.chat.raw, answer, stream, usage, candidate.info)

    def _may_have_another_key(self, model: str, accounts: Sequence[str], failure: Failure) -> bool:
        return (
            failure.kind in _KEY_FAILURES and self._parts.circuits.block(model, accounts, self._parts.clock()) is None
        )

    def _judge(self, candidate: Candidate, error: AttemptFailed) -> None:
        """What the failure means for the candidates to come. Raises ApiError where it is the client's answer."""
        if isinstance(error, EmptyAnswer):
            self._empty = error.won
            self._empty.candidate = candidate
            # Its prompt was read, and perhaps it thought in silence. If it is passed on after all it is no waste.
            self._empty_cost = self._side_cost("empty", candidate, *_what_came(error.won))
            self._exchange.charge(self._empty_cost)
            return
        failure = error.failure
        if ends_here(failure, explicit=self._decision.explicit):
            self._exchange.failure = failure
            raise provider_answer(failure, self._exchange.tried)
        if failure.kind is FailureKind.CONTEXT_LENGTH:
            kept = tuple([other for other in self._queue if larger_window(candidate, other)])
            self._skipped += tuple(
                [
                    Skipped(other.model, Obstacle.CONTEXT, "its context window is no larger", candidate=other)
                    for other in self._queue
                    if other not in kept
                ]
            )
            self._queue = kept

    def _note_block(self, candidate: Candidate) -> None:
        """Its circuit closed the way between plan and try."""
        if any(entry.model == candidate.model for entry in self._skipped):
            return
        block = self._parts.circuits.block(candidate.model, candidate.accounts, self._parts.clock())
        if block is not None:
            self._skipped += (blocked(candidate, block),)
        else:
            self._skipped += (
                Skipped(candidate.model, Obstacle.CIRCUIT, "its probe is under way", candidate=candidate),
            )

    # --- side by side ----------------------------------------------------------------------------------------------

    async def _try_hedged(self, candidate: Candidate) -> Win | None:
        """As `_try`, but when it has shown no meaning for a while, the next candidate starts beside it."""
        delay = self._hedge_delay(candidate)
        if delay is None or not self._queue:
            return await self._try(candidate)
        loop = self._parts.deadlines.loop
        tasks = [loop.create_task(self._try(candidate))]
        best: Win | None = None
        try:
            _, running = await asyncio.wait(tasks, timeout=delay)
            hedge = self._hedge
            if running and self._queue and hedge and self._parts.hedges.take(self._decision.category, hedge.budget):
                tasks.append(loop.create_task(self._try(self._next())))
            running = set(tasks)
            while best is None and running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                best = next((win for task in tasks if task in done and (win := task.result()) is not None), None)
                if best is None and tasks[0] in running and self._queue:
                    # The first one is as silent as it was when the one beside it, which failed now, was started.
                    tasks.append(loop.create_task(self._try(self._next())))
                    running.add(tasks[-1])
            return best
        finally:
            await self._stop(tasks, best)

    def _hedge_delay(self, candidate: Candidate) -> float | None:
        """Seconds of silence after which the next candidate starts; None while too little is known.

        What is known of a model is when its streams begin: a whole answer takes longer, and is not late for that.
        """
        assert self._hedge is not None
        after = self._hedge.after
        if after != "p95":
            return after
        return self._parts.first_tokens.p95(candidate.model) if self._exchange.chat.stream else None

    async def _stop(self, tasks: list[asyncio.Task[Win | None]], best: Win | None) -> None:
        """Ends all but the best, at once; what they were asked for nothing is booked, as waste or as what was left."""
        running = [task for task in tasks if not task.done()]
        # Where nobody won and nobody ended it all, the client has left.
        self._losing = best is not None or any(_ended_it(task) for task in tasks)
        try:
            if running:
                for task in running:
                    task.cancel()
                await asyncio.wait(running)
        except asyncio.CancelledError:
            best, self._losing = None, False  # the client has left meanwhile, and nobody wants the best one either
            await asyncio.wait(running)
            raise
        finally:
            self._lose_all_but(best, tasks)
            self._losing = False

    def _lose_all_but(self, best: Win | None, tasks: list[asyncio.Task[Win | None]]) -> None:
        for task in tasks:
            if not task.done() or task.cancelled() or task.exception() is not None:
                continue
            # A second winner, or one whose client left before it could be used.
            win = task.result()
            if win is not None and win is not best:
                self.lose(win)

    def lose(self, win: Win) -> None:
        """Nobody wants this answer any more: stops it at once, and books what it has cost by now."""
        assert win.permit is not None
        self._parts.circuits.released(win.permit)
        if win.slot is not None:
            win.slot.release()
        self._note_given_up(win.candidate, win.committed_ms)
        if isinstance(win, WonStream):
            win.relay.abandon()
        self._bill(win.candidate, *_what_came(win))


def _what_came(win: Win) -> tuple[Sequence[bytes], bool, Usage | None]:
    """Of an answer that the client has seen nothing of: its bytes, whether they are a stream, usage beside them."""
    if isinstance(win, WonStream):
        return win.relay.unsent(), True, win.relay.usage
    return (win.body,), win.as_stream, win.usage


def _ended_it(task: asyncio.Task[Win | None]) -> bool:
    """Whether this try brought the answer for the client, which was no completion."""
    return task.done() and not task.cancelled() and task.exception() is not None


def explains_empty(chat: ChatRequest) -> bool:
    """Whether the request itself makes an empty stop likely: after a tool result, with `stop`, or hardly any output."""
    limit = chat.output_limit
    return (
        chat.messages[-1].get("role") == "tool"
        or bool(chat.body.get("stop"))
        or (limit is not None and limit <= _FEW_OUTPUT_TOKENS)
    )
