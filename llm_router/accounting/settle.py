"""From a booking to its ledger record: reads the answer, counts, weighs the evidence, prices. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from llm_router.accounting.booking import Booking, Kind, LedgerRecord, SideCost, as_json
from llm_router.accounting.drift import DriftBook
from llm_router.accounting.pricing import ModelInfo, cost
from llm_router.accounting.tokens import Count, Counter, Encoding, estimate_bytes
from llm_router.wire.answer import Answer, read_completion, read_stream, read_tail
from llm_router.wire.usage import Usage

DEFAULT_ENCODING = "o200k_base"
# Encodings that differ in special tokens alone count alike.
_SAME_RANKS = {"o200k_harmony": "o200k_base"}
# With `when_missing` every so many requests are counted all the same, or the drift would go stale.
_SAMPLE_EVERY = 16

# A chunk of a stream is mostly frame.
_STREAM_BYTES_A_TOKEN = 150
_BYTES_A_TOKEN = 4

CountMode = Literal["always", "when_missing"]
FindEncoding = Callable[[str], Encoding | None]


def no_encoding(name: str) -> Encoding | None:
    """Where there are no ranks at all."""
    return None


class Evidence(NamedTuple):
    """What is known about the tokens and the cost of one answer, and which evidence the bill rests on."""

    input: Count | None
    output: Count | None
    usage: Usage | None
    billed: Usage | None
    cost: float | None
    source: str | None


_NOTHING = Evidence(None, None, None, None, 0.0, None)


class Settler:
    """Settles bookings one after the other, and learns from each what counts are worth. For one thread."""

    def __init__(self, find_encoding: FindEncoding, drift: DriftBook) -> None:
        self._find_encoding = find_encoding
        self._counters: dict[str, Counter] = {}
        self._since_sample = 0
        self.drift = drift
        self.mode: CountMode = "always"
        self.degraded = 0

    def __repr__(self) -> str:
        return f"<Settler mode={self.mode} degraded={self.degraded} counters={sorted(self._counters)}>"

    def settle(self, booking: Booking, *, estimate: bool = False) -> LedgerRecord:
        """The record of a booking; with `estimate` nothing is tokenised (there is no time for it)."""
        # What was reported before an answer broke off does not tell how much of it had come by then.
        thorough = self.mode == "always" or booking.outcome != "completed" or self._is_sample()
        answer = _read(booking, thorough)
        evidence = self._evidence(booking, answer, estimate, thorough)
        sides = [(side, self._weigh(side, _read(side, thorough), estimate, thorough, 0)) for side in booking.side_costs]
        return _record(booking, answer, evidence, sides)

    def bare(self, booking: Booking) -> LedgerRecord:
        """The record of a booking that could not be read: what happened, without tokens and cost."""
        unknown = Evidence(None, None, None, None, None, None)
        return _record(booking, Answer(), unknown, [])

    def _evidence(self, booking: Booking, answer: Answer, estimate: bool, thorough: bool) -> Evidence:
        if not booking.model:
            return _NOTHING
        if booking.outcome == "failed" and answer.usage is None:
            said = answer.text or answer.tool_text or answer.reasoning
            if not said:
                # No provider charges for a refusal.
                return _NOTHING
        missing = max(0, booking.answer_bytes - _size(booking.answer))
        return self._weigh(booking, answer, estimate, thorough, missing)

    def _weigh(
        self, paid: Booking | SideCost, answer: Answer, estimate: bool, thorough: bool, missing_bytes: int
    ) -> Evidence:
        usage, info = answer.usage, paid.price_info
        if usage is not None and not thorough:
            return _billed(None, None, usage, info, usage)
        if estimate:
            self.degraded += 1
            prompt = Count(_estimate_prompt(paid), False)
            output = Count((len(answer.text) + len(answer.reasoning) + len(answer.tool_text)) // 4, False)
        else:
            counter = self._counter(info)
            prompt = counter.request(paid.request)
            output = _count_answer(counter, answer)
        if missing_bytes:
            output = Count(_scale(output.tokens, paid, missing_bytes), False)
        if usage is not None:
            whole = _is_whole(paid)
            if whole and prompt.genuine and output.genuine:
                self.drift.learn(paid.model, prompt.tokens, usage.input, output.tokens, usage.output)
            return _billed(prompt, output, usage, info, _completed(usage, prompt, output, whole=whole))
        return self._from_count(paid.model, prompt, output, info)

    def _from_count(self, model: str, prompt: Count, output: Count, info: ModelInfo | None) -> Evidence:
        tokens = self.drift.calibrate(model, prompt.tokens, output.tokens)
        source = "tiktoken" if tokens is None else "tiktoken_calibrated"
        fresh, out = tokens or (prompt.tokens, output.tokens)
        billed = Usage(fresh_input=fresh, output=out)
        price = cost(info, billed)
        return Evidence(prompt, output, None, billed, price, None if price is None else source)

    def _is_sample(self) -> bool:
        self._since_sample += 1
        if self._since_sample < _SAMPLE_EVERY:
            return False
        self._since_sample = 0
        return True

    def _counter(self, info: ModelInfo | None) -> Counter:
        name = info.encoding if info else DEFAULT_ENCODING
        counter = self._counters.get(name)
        if counter is None:
            counter = self._new_counter(name)
        return counter

    def _new_counter(self, name: str) -> Counter:
        """The counter of an encoding, else of the default one, else one that estimates (and is asked for again)."""
        ranks = _SAME_RANKS.get(name, name)
        for known in dict.fromkeys((ranks, DEFAULT_ENCODING)):
            if known in self._counters:
                break
            encoding = self._find_encoding(known)
            if encoding is not None:
                self._counters[known] = Counter(encoding)
                break
        else:
            return Counter(None)
        if known == ranks:
            self._counters[name] = self._counters[known]
        return self._counters[known]


def interrupted_record(request_id: str, started: float, client: str, category: str, model: str) -> LedgerRecord:
    """The record of a request that its process did not live to finish; what it cost is unknown."""
    provider, slash, _ = model.partition("/")
    known = bool(slash) and provider != "router"
    booking = Booking(
        request_id,
        started,
        client=client,
        category=category,
        model=model if known else "",
        provider=provider if known else "",
        outcome="interrupted",
        status=0,
    )
    unknown = Evidence(None, None, None, None, None, None)
    return _record(booking, Answer(), unknown, [])._replace(total_ms=None)


def _read(paid: Booking | SideCost, thorough: bool) -> Answer:
    """The answer; if it need not be thorough, only the end of a stream that ends with a report of usage."""
    blocks = paid.answer
    if not blocks:
        return Answer(usage=paid.reported)
    if not paid.answer_is_stream:
        answer = read_completion(blocks[0] if len(blocks) == 1 else b"".join(blocks))
    else:
        answer = Answer() if thorough else read_tail(blocks)
        if answer.usage is None and (thorough or paid.reported is None):
            answer = read_stream(blocks)
    if paid.reported is not None:
        answer.usage = paid.reported
    return answer


def _count_answer(counter: Counter, answer: Answer) -> Count:
    if not (answer.reasoning or answer.tool_text or answer.images or answer.audio):
        return counter.text(answer.text)
    tokens, genuine = 0, not (answer.images or answer.audio)
    for text in (answer.text, answer.reasoning, answer.tool_text):
        if text:
            count = counter.text(text)
            tokens += count.tokens
            genuine = genuine and count.genuine
    return Count(tokens, genuine)


def _estimate_prompt(paid: Booking | SideCost) -> int:
    if isinstance(paid, Booking) and len(paid.request) < paid.request_bytes:
        return paid.request_bytes // 4
    return estimate_bytes(paid.request)


def _scale(tokens: int, paid: Booking | SideCost, missing_bytes: int) -> int:
    """The tokens of an answer of which only a part was kept: at the rate of that part, if it could be read."""
    kept = _size(paid.answer)
    if tokens:
        return round(tokens * (kept + missing_bytes) / kept)
    return (kept + missing_bytes) // (_STREAM_BYTES_A_TOKEN if paid.answer_is_stream else _BYTES_A_TOKEN)


def _size(blocks: Sequence[bytes]) -> int:
    return len(blocks[0]) if len(blocks) == 1 else sum(map(len, blocks))


def _is_whole(paid: Booking | SideCost) -> bool:
    return isinstance(paid, SideCost) or paid.outcome == "completed"


def _completed(usage: Usage, prompt: Count, output: Count, *, whole: bool) -> Usage:
    """Reported usage, with our count where the report lacks a side that cannot have been empty.

    The report of an answer that broke off may be older than its last words: Anthropic's first event speaks of one
    token of output, and the next report would have come with the end.
    """
    if usage.input == 0 and prompt.tokens:
        usage = Usage(prompt.tokens, 0, 0, usage.output, usage.reasoning, 0, usage.provider_cost)
    if output.tokens > usage.output and (usage.output == 0 or not whole):
        usage = Usage(
            usage.fresh_input,
            usage.cache_read,
            usage.cache_write,
            output.tokens,
            usage.reasoning,
            usage.cache_write_1h,
            usage.provider_cost,
        )
    return usage


def _billed(
    prompt: Count | None, output: Count | None, usage: Usage, info: ModelInfo | None, billed: Usage
) -> Evidence:
    if usage.provider_cost is not None:
        return Evidence(prompt, output, usage, billed, usage.provider_cost, "provider_cost")
    price = cost(info, billed)
    source = "provider_usage" if billed is usage else "tiktoken"
    return tuple.__new__(Evidence, (prompt, output, usage, billed, price, None if price is None else source))


def _record(
    booking: Booking, answer: Answer, evidence: Evidence, sides: list[tuple[SideCost, Evidence]]
) -> LedgerRecord:
    counted_in, counted_out, usage, billed, price, source = evidence
    side_price = side_json = counted_by = None
    if sides:
        side_price, side_json = _sum_sides(sides)
        price = None if price is None or side_price is None else price + side_price
    if counted_in is not None and counted_out is not None:
        counted_by = "tiktoken" if counted_in.genuine and counted_out.genuine else "estimate"
    attempts = booking.attempts
    finish = answer.finish_reasons
    first_byte_ms = booking.first_byte_ms
    kind = (
        booking.category,
        booking.mode,
        booking.model,
        booking.provider,
        1 if booking.stream else 0,
        booking.client,
        booking.outcome,
        booking.status,
        booking.failure or None,
        len(attempts),
        (finish[0] if 0 in finish else finish[min(finish)]) if finish else None,
        answer.model,
        counted_by,
        source,
    )
    record = (
        booking.request_id,
        booking.started,
        None if first_byte_ms is None else _microseconds(first_byte_ms),
        _microseconds(booking.total_ms),
        booking.request_bytes,
        booking.answer_bytes,
        billed.input if billed else None,
        billed.output if billed else None,
        counted_in.tokens if counted_in else None,
        counted_out.tokens if counted_out else None,
        price,
        *(_NO_REPORT if usage is None else usage[:_REPORTED]),
        side_price,
        side_json,
        attempts,
        # Past the check of its length, which is constant here, as that of the record.
        tuple.__new__(Kind, kind),
    )
    return tuple.__new__(LedgerRecord, record)


def _microseconds(ms: float) -> float:
    """Milliseconds with three decimals; `round` would take ten times as long to get the last bit right."""
    return int(ms * 1000 + 0.5) / 1000


# All that a usage says but the cost.
_REPORTED = Usage._fields.index("provider_cost")
_NO_REPORT = (None,) * _REPORTED


def _sum_sides(sides: list[tuple[SideCost, Evidence]]) -> tuple[float | None, str]:
    total: float | None = 0.0
    rows: list[dict[str, Any]] = []
    for side, evidence in sides:
        total = None if total is None or evidence.cost is None else total + evidence.cost
        rows.append(
            {
                "kind": side.kind,
                "model": side.model,
                "input_tokens": evidence.billed.input if evidence.billed else None,
                "output_tokens": evidence.billed.output if evidence.billed else None,
                "cost_usd": evidence.cost,
                "cost_source": evidence.source,
            }
        )
    return total, as_json(rows)
