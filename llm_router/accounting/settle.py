"""From a booking to its ledger record: reads the answer, counts, weighs the evidence, prices. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from llm_router.accounting.booking import Booking, Kind, LedgerRecord, SideCost, as_json
from llm_router.accounting.drift import DriftBook
from llm_router.accounting.pricing import ModelInfo, cost
from llm_router.accounting.tokens import Counter, Encoding, estimate_bytes
from llm_router.errors import FailureKind
from llm_router.wire.answer import Answer, read_completion, read_stream, read_tail
from llm_router.wire.usage import Usage

DEFAULT_ENCODING = "o200k_base"
# Encodings that differ in special tokens alone count alike.
_SAME_RANKS = {"o200k_harmony": "o200k_base"}
# With `when_missing` every so many requests are counted all the same, or the drift would go stale.
_SAMPLE_EVERY = 16

# It was not the provider who ended such a request, but this router, as a client that leaves does.
_OUR_END: Final = FailureKind.SHUTTING_DOWN.value

# A chunk of a stream is mostly frame.
_STREAM_BYTES_A_TOKEN = 150
_BYTES_A_TOKEN = 4

# Clients may name any model, and models call themselves anything: past so many kinds all are made anew.
_MAX_KINDS = 4_096
_NAME_CHARS = 256  # of what a provider calls itself and an answer's end; there is no telling what it sends

CountMode = Literal["always", "when_missing"]
FindEncoding = Callable[[str], Encoding | None]


def no_encoding(name: str) -> Encoding | None:
    """Where there are no ranks at all."""
    return None


_tuple: Final = tuple.__new__

# As a `Count`, without the price of making one.
_Counted = tuple[int, bool]

# The kinds that were met, by their parts.
_Kinds = dict[tuple[Any, ...], Kind]

# What is known about one answer: how it was counted, our counts of the prompt and of the answer, the report, the tokens
# in and out that the bill rests on, the cost and its source. A plain tuple, since one is made for each answer.
Evidence = tuple[str | None, int | None, int | None, Usage | None, int | None, int | None, float | None, str | None]
_NOTHING: Evidence = (None, None, None, None, None, None, 0.0, None)
_UNKNOWN: Evidence = (None, None, None, None, None, None, None, None)


class Settler:
    """Settles bookings one after the other, and learns from each what counts are worth. For one thread."""

    def __init__(self, find_encoding: FindEncoding, drift: DriftBook) -> None:
        self._find_encoding = find_encoding
        self._counters: dict[str, Counter] = {}
        self._kinds: _Kinds = {}
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
        if not booking.side_costs:
            return _record(booking, answer, evidence, self._kinds)
        sides = [(side, self._side(side, estimate, thorough)) for side in booking.side_costs]
        return _record(booking, answer, evidence, self._kinds, sides)

    def bare(self, booking: Booking) -> LedgerRecord:
        """The record of a booking that could not be read: what happened, without tokens and cost."""
        return _record(booking, Answer(), _UNKNOWN, self._kinds)

    def _evidence(self, booking: Booking, answer: Answer, estimate: bool, thorough: bool) -> Evidence:
        if not booking.model:
            return _NOTHING
        if booking.outcome == "failed" and answer.usage is None and booking.failure != _OUR_END:
            said = answer.text or answer.tool_text or answer.reasoning
            if not said:
                # No provider charges for a refusal.
                return _NOTHING
        if not thorough and (usage := _full(answer.usage)) is not None:
            return _as_reported(usage, booking.price_info)
        prompt, output = self._count(booking, answer, estimate)
        if booking.answer_bytes > (kept := _size(booking.answer)):
            output = _scale(output[0], booking, kept), False
        return self._weigh(booking, answer, prompt, output, booking.outcome == "completed")

    def _side(self, side: SideCost, estimate: bool, thorough: bool) -> Evidence:
        # Of a stream only the beginning came, and what it reported by then.
        whole = not side.answer_is_stream or side.kind == "empty"
        thorough = thorough or not whole
        answer = _read(side, thorough)
        if not thorough and (usage := _full(answer.usage)) is not None:
            return _as_reported(usage, side.price_info)
        prompt, output = self._count(side, answer, estimate)
        return self._weigh(side, answer, prompt, output, whole)

    def _count(self, paid: Booking | SideCost, answer: Answer, estimate: bool) -> tuple[_Counted, _Counted]:
        """Our own counts of the prompt and of the answer."""
        if estimate:
            self.degraded += 1
            tokens = (len(answer.text) + len(answer.reasoning) + len(answer.tool_text)) // 4
            return (_estimate_prompt(paid), False), (tokens, False)
        name = paid.price_info.encoding if paid.price_info else DEFAULT_ENCODING
        counter = self._counters.get(name)
        if counter is not None:
            return counter.request(paid.request), _count_answer(counter, answer)
        counter = self._new_counter(name)
        prompt, output = counter.request(paid.request), _count_answer(counter, answer)
        if name in self._counters:
            return prompt, output
        # Another encoding stood in: that is an estimate.
        return (prompt[0], False), (output[0], False)

    def _weigh(
        self, paid: Booking | SideCost, answer: Answer, prompt: _Counted, output: _Counted, whole: bool
    ) -> Evidence:
        """What is billed, by the counts and the report if there is one; that of a `whole` answer tells their drift."""
        usage, info = answer.usage, paid.price_info
        counted_in, genuine_in = prompt
        counted_out, genuine_out = output
        genuine = genuine_in and genuine_out
        counted_by = "tiktoken" if genuine else "estimate"
        if usage is None:
            tokens_in, tokens_out, price, source = self._from_count(paid.model, counted_in, counted_out, info)
            return counted_by, counted_in, counted_out, None, tokens_in, tokens_out, price, source
        fresh, read, write, tokens_out, _, _, _ = billed = usage
        tokens_in = fresh + read + write
        if whole and genuine:
            self.drift.learn(paid.model, counted_in, tokens_in, counted_out, tokens_out)
        if not tokens_in or counted_out > tokens_out:
            billed = _completed(usage, counted_in, counted_out, whole=whole)
            tokens_in, tokens_out = billed.input, billed.output
        price, source = _price(usage, billed, info)
        return counted_by, counted_in, counted_out, usage, tokens_in, tokens_out, price, source

    def _from_count(
        self, model: str, counted_in: int, counted_out: int, info: ModelInfo | None
    ) -> tuple[int, int, float | None, str | None]:
        """Without a report: our count as the provider would probably have put it, its price, the evidence's name."""
        calibrated = self.drift.calibrate(model, counted_in, counted_out)
        tokens_in, tokens_out = calibrated or (counted_in, counted_out)
        price = cost(info, Usage(fresh_input=tokens_in, output=tokens_out))
        source = "tiktoken" if calibrated is None else "tiktoken_calibrated"
        return tokens_in, tokens_out, price, None if price is None else source

    def _is_sample(self) -> bool:
        self._since_sample += 1
        if self._since_sample < _SAMPLE_EVERY:
            return False
        self._since_sample = 0
        return True

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


def interrupted_record(request_id: str, started: float, client: str, model: str) -> LedgerRecord:
    """The record of a request that its process did not live to finish; what it cost is unknown."""
    provider, slash, _ = model.partition("/")
    known = bool(slash) and provider != "router"
    booking = Booking(
        request_id,
        started,
        client=client,
        model=model if known else "",
        provider=provider if known else "",
        outcome="interrupted",
        status=0,
    )
    return _record(booking, Answer(), _UNKNOWN, {})._replace(total_ms=None)


def _read(paid: Booking | SideCost, thorough: bool) -> Answer:
    """The answer; if it need not be thorough, only the end of a stream that ends with a report of usage."""
    blocks = paid.answer
    if not blocks:
        return Answer(usage=paid.reported)
    if not paid.answer_is_stream:
        answer = read_completion(blocks[0] if len(blocks) == 1 else b"".join(blocks))
    else:
        answer = Answer() if thorough else read_tail(blocks)
        if thorough or _full(paid.reported or answer.usage) is None:
            answer = read_stream(blocks)
    if paid.reported is not None:
        answer.usage = paid.reported
    return answer


def _count_answer(counter: Counter, answer: Answer) -> _Counted:
    if answer.text and not (answer.reasoning or answer.tool_text or answer.images or answer.audio):
        tokens, _, genuine = counter.lookup(answer.text)
        return tokens, genuine
    tokens, genuine = 0, not (answer.images or answer.audio)
    for text in (answer.text, answer.reasoning, answer.tool_text):
        more, sure = counter.text(text)
        tokens += more
        genuine = genuine and sure
    return tokens, genuine


def _estimate_prompt(paid: Booking | SideCost) -> int:
    if len(paid.request) < paid.request_bytes:
        return paid.request_bytes // 4
    return estimate_bytes(paid.request)


def _scale(tokens: int, booking: Booking, kept: int) -> int:
    """The tokens of an answer of which so many bytes were kept: at the rate of that part, if it could be read."""
    if tokens:
        return round(tokens * booking.answer_bytes / kept)
    return booking.answer_bytes // (_STREAM_BYTES_A_TOKEN if booking.answer_is_stream else _BYTES_A_TOKEN)


def _size(blocks: Sequence[bytes]) -> int:
    return len(blocks[0]) if len(blocks) == 1 else sum(map(len, blocks))


def _completed(usage: Usage, counted_in: int, counted_out: int, *, whole: bool) -> Usage:
    """Reported usage, with our count where the report lacks a side that cannot have been empty.

    The report of an answer that broke off may be older than its last words: Anthropic's first event speaks of one
    token of output, and the next report would have come with the end.
    """
    if usage.input == 0 and counted_in:
        usage = usage._replace(fresh_input=counted_in, cache_read=0, cache_write=0, cache_write_1h=0)
    if counted_out > usage.output and (usage.output == 0 or not whole):
        usage = usage._replace(output=counted_out)
    return usage


def _price(usage: Usage, billed: Usage, info: ModelInfo | None) -> tuple[float | None, str | None]:
    """What a reported answer cost, and by which evidence; `billed` is the report or what was made of it."""
    price = usage.provider_cost
    if price is not None:
        return price, "provider_cost"
    price = cost(info, billed)
    return price, None if price is None else "provider_usage" if billed is usage else "tiktoken"


def _full(usage: Usage | None) -> Usage | None:
    """The report, if it lacks neither side."""
    return usage if usage is not None and usage.output and usage.input else None


def _as_reported(usage: Usage, info: ModelInfo | None) -> Evidence:
    """What was reported and not counted."""
    return None, None, None, usage, usage.input, usage.output, *_price(usage, usage, info)


def _record(
    booking: Booking, answer: Answer, evidence: Evidence, kinds: _Kinds, sides: Sequence[tuple[SideCost, Evidence]] = ()
) -> LedgerRecord:
    counted_by, counted_in, counted_out, usage, input_tokens, output_tokens, price, source = evidence
    fresh, read, write, output, reasoning, write_1h, _ = _NO_REPORT if usage is None else usage
    side_price = side_json = None
    if sides:
        side_price, side_json = _sum_sides(sides)
        price = None if price is None or side_price is None else price + side_price
        source = None if price is None else source or _source_of(sides)
    attempts = booking.attempts
    finish = answer.finish_reasons
    ended = (finish[0] if 0 in finish else finish[min(finish)]) if finish else None
    first_byte_ms = booking.first_byte_ms
    parts = (
        booking.category,
        booking.mode,
        booking.model,
        booking.provider,
        1 if booking.stream else 0,
        booking.client,
        booking.outcome,
        booking.status,
        booking.failure or None,
        len(attempts) if booking.outcome != "failed" else sum([attempt.was_made for attempt in attempts]),
        ended and ended[:_NAME_CHARS],
        answer.model and answer.model[:_NAME_CHARS],
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
        input_tokens,
        output_tokens,
        counted_in,
        counted_out,
        price,
        fresh,
        read,
        write,
        output,
        reasoning,
        write_1h,
        side_price,
        side_json,
        attempts,
        kinds.get(parts) or _new_kind(kinds, parts),
    )
    # Past the check of its length, which is constant here.
    return _tuple(LedgerRecord, record)


def _new_kind(kinds: _Kinds, parts: tuple[Any, ...]) -> Kind:
    if len(kinds) >= _MAX_KINDS:
        kinds.clear()
    kind = kinds[parts] = Kind(*parts)
    return kind


def _microseconds(ms: float) -> float:
    """Milliseconds with three decimals; `round` would take ten times as long to get the last bit right."""
    return int(ms * 1000.0 + 0.5) / 1000.0


_NO_REPORT = (None,) * len(Usage._fields)


def _source_of(sides: Sequence[tuple[SideCost, Evidence]]) -> str | None:
    """The evidence for a bill that has nothing but side costs."""
    return next((evidence[-1] for _, evidence in sides if evidence[-1] is not None), None)


def _sum_sides(sides: Sequence[tuple[SideCost, Evidence]]) -> tuple[float | None, str]:
    total: float | None = 0.0
    rows: list[dict[str, Any]] = []
    for side, (_, _, _, _, input_tokens, output_tokens, price, source) in sides:
        total = None if total is None or price is None else total + price
        rows.append(
            {
                "kind": side.kind,
                "model": side.model,
                "input_tokens": input_tokens,
                "output_tokens": output_tokens,
                "cost_usd": price,
                "cost_source": source,
            }
        )
    return total, as_json(rows)
