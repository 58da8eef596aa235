"""Settling: which evidence the bill rests on, and that nothing unknown is ever priced as nothing."""

import orjson
import pytest

from llm_router.accounting import settle
from llm_router.accounting.booking import Attempt, SideCost
from llm_router.accounting.drift import DriftBook
from llm_router.accounting.pricing import ModelInfo, Prices
from llm_router.accounting.settle import Settler, interrupted_record
from llm_router.wire.usage import Usage
from tests.accounting.conftest import INFO, REQUEST, USAGE, booking, completion, stream


@pytest.fixture
def settler(find_encoding) -> Settler:
    return Settler(find_encoding, DriftBook())


def test_reported_usage_is_believed_over_the_count(settler):
    """Tokens as reported are billed, and our own count stands beside them."""
    record = settler.settle(booking())
    assert (record.input_tokens, record.output_tokens) == (12, 3)
    assert (record.cost_usd, record.kind.cost_source) == ((12 * 1 + 3 * 2) / 1e6, "provider_usage")
    assert (record.counted_input, record.counted_output, record.kind.counted_by) == (10, 2, "tiktoken")
    assert (record.reported_fresh_input, record.reported_output) == (12, 3)
    assert (record.kind.finish_reason, record.kind.reported_model) == ("stop", "m-1")


@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_provider_calls_itself_is_cut(settler, streamed):
    """Names of megabytes would fill memory and disk: thousands of them are remembered, and all are written."""
    body = {"model": "m" * 5000, "choices": [{"message": {"content": "Hi"}, "finish_reason": "f" * 5000}]}
    answer = [b"data: " + orjson.dumps(body) + b"\n\n"] if streamed else [orjson.dumps(body)]
    kind = settler.settle(booking(answer=answer, answer_is_stream=streamed)).kind
    assert (kind.reported_model, kind.finish_reason) == ("m" * 256, "f" * 256)


def test_openrouters_cost_is_believed_over_the_price(settler):
    """What the provider says that it charged is the cost, also where no price is known."""
    answer = [completion(usage={**USAGE, "cost": 0.125})]
    record = settler.settle(booking(answer=answer, price_info=None))
    assert (record.cost_usd, record.kind.cost_source) == (0.125, "provider_cost")


def test_without_a_report_the_count_is_billed(settler):
    """No usage: prompt and answer are counted and priced."""
    record = settler.settle(booking(answer=stream("Hello", " there"), answer_is_stream=True))
    assert (record.counted_input, record.counted_output) == (10, 2)
    assert (record.input_tokens, record.output_tokens, record.kind.cost_source) == (10, 2, "tiktoken")
    assert record.cost_usd == (10 * 1 + 2 * 2) / 1e6
    assert record.reported_output is None


def test_reasoning_and_tool_calls_are_output(settler):
    """Everything that was generated is counted, not only the text."""
    message = {"content": "Hi", "reasoning_content": "Hi", "tool_calls": [{"function": {"name": "Hi"}}]}
    answer = [orjson.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})]
    assert settler.settle(booking(answer=answer)).counted_output == 3


def test_unknown_price_is_none(settler):
    """Tokens without a price cost None, and name no source."""
    for info in (None, ModelInfo()):
        record = settler.settle(booking(price_info=info))
        assert (record.cost_usd, record.kind.cost_source, record.input_tokens) == (None, None, 12)


def test_usage_beside_the_answer_is_used(settler):
    """A translator's usage counts although the client was sent none, with cache figures and one-hour writes."""
    usage = Usage(fresh_input=1, cache_read=2, cache_write=3, output=4, reasoning=2, cache_write_1h=1)
    record = settler.settle(booking(answer=[completion()], reported=usage))
    assert record.input_tokens == 6
    assert (record.reported_cache_read, record.reported_cache_write, record.reported_cache_write_1h) == (2, 3, 1)
    assert record.reported_reasoning == 2


def test_a_report_without_prompt_tokens_is_completed(settler):
    """Ollama leaves the prompt out when it was cached: our count fills in, and the source says so."""
    answer = [completion(usage={"prompt_tokens": 0, "completion_tokens": 3})]
    record = settler.settle(booking(answer=answer))
    assert (record.input_tokens, record.output_tokens, record.kind.cost_source) == (10, 3, "tiktoken")


@pytest.mark.parametrize("outcome", ["cut", "cancelled"])
def test_what_was_generated_before_the_end_is_booked(settler, outcome):
    """A cut or cancelled answer costs its prompt and the words that came."""
    answer = stream("Hello", finish=None)[:-1]
    record = settler.settle(booking(answer=answer, answer_is_stream=True, outcome=outcome))
    assert (record.kind.outcome, record.output_tokens, record.kind.cost_source) == (outcome, 1, "tiktoken")
    assert record.cost_usd == (10 * 1 + 1 * 2) / 1e6


def test_a_refused_request_costs_nothing(settler):
    """Nobody charges for an error: a failed request costs 0, which is known, with or without a model."""
    for model in ("", "openai/m"):
        attempts = (Attempt("openai/m", "rate_limited", 429, 3),)
        failed = booking(model=model, outcome="failed", status=503, failure="all_candidates_failed", attempts=attempts)
        failed.answer, failed.answer_bytes = [b'{"error":{"message":"no"}}'], 26
        record = settler.settle(failed)
        assert (record.cost_usd, record.kind.cost_source, record.input_tokens) == (0.0, None, None)
        assert (record.kind.failure, record.kind.status, record.kind.attempt_count) == ("all_candidates_failed", 503, 1)
        assert record.attempts == attempts


def test_hedges_and_classifier_calls_are_added(settler):
    """What was paid for beside the answer is in the cost and listed; an unknown part makes the whole unknown."""
    classifier = SideCost("classifier", "x/c", REQUEST, [completion(usage=USAGE)], price_info=INFO)
    record = settler.settle(booking(side_costs=(classifier,)))
    assert record.cost_usd == pytest.approx(2 * 18e-6)
    assert record.side_cost_usd == pytest.approx(18e-6)
    (listed,) = orjson.loads(record.side_costs)
    assert (listed["kind"], listed["model"], listed["output_tokens"]) == ("classifier", "x/c", 3)
    loser = SideCost("hedge", "x/h", REQUEST, stream("Hel", finish=None)[:-1], answer_is_stream=True)
    record = settler.settle(booking(side_costs=(classifier, loser)))
    assert (record.cost_usd, record.side_cost_usd, record.kind.cost_source) == (None, None, None)


def test_who_was_still_asked_when_the_router_ended_is_paid(settler):
    """A request that the drain gave up is booked as one whose client left: its prompt was sent."""
    given_up = booking(outcome="failed", status=503, failure="shutting_down", answer=[])
    record = settler.settle(given_up)
    assert (record.input_tokens, record.output_tokens, record.kind.cost_source) == (10, 0, "tiktoken")


def test_a_bill_of_side_costs_alone_names_their_evidence(settler):
    """Where nobody answered but somebody was paid, the cost has a source."""
    classifier = SideCost("classifier", "x/c", REQUEST, [completion(usage=USAGE)], price_info=INFO)
    record = settler.settle(booking(model="", answer=[], outcome="failed", side_costs=(classifier,)))
    assert (record.cost_usd, record.kind.cost_source) == (pytest.approx(18e-6), "provider_usage")
    assert settler.settle(booking(model="", answer=[], outcome="failed")).kind.cost_source is None


@pytest.mark.parametrize("mode", ["always", "when_missing"])
def test_what_a_hedge_had_reported_when_it_lost_is_not_its_whole_bill(settler, mode):
    """The first report of a stream that was given up is older than its words: these are billed, and teach nothing."""
    settler.mode = mode
    early = Usage(fresh_input=10, output=1)
    loser = SideCost("hedge", "x/h", REQUEST, stream("a b c d", finish=None)[:-1], True, early, INFO)
    for _ in range(9):
        record = settler.settle(booking(side_costs=(loser,)))
    (listed,) = orjson.loads(record.side_costs)
    assert (listed["input_tokens"], listed["output_tokens"]) == (10, 4)
    assert settler.drift.ratio("x/h") == (None, None)


def test_drift_is_learned_and_applied(settler):
    """After five reports of half as many tokens again, a count without report is billed at that rate."""
    for _ in range(5):
        settler.settle(booking(answer=[completion("a b c d", usage={"prompt_tokens": 15, "completion_tokens": 6})]))
    assert settler.drift.ratio("openai/m") == (1.5, 1.5)
    record = settler.settle(booking(answer=[completion("a b c d")]))
    assert (record.counted_input, record.counted_output) == (10, 4)
    assert (record.input_tokens, record.output_tokens, record.kind.cost_source) == (15, 6, "tiktoken_calibrated")
    other = settler.settle(booking(model="openai/other", answer=[completion("a b c d")]))
    assert other.kind.cost_source == "tiktoken"


def test_only_whole_answers_and_real_counts_teach(settler):
    """Cut answers, and counts with an estimate in them, say nothing about drift."""
    image = orjson.dumps(
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}
    )
    for _ in range(9):
        settler.settle(booking(outcome="cut"))
        settler.settle(booking(request=image))
        settler.settle(booking(), estimate=True)
    assert settler.drift.ratios() == {}


def test_a_few_answers_teach_no_drift():
    """Four answers may be chance: only with the fifth is the ratio used."""
    drift = DriftBook()
    for number in range(1, 6):
        drift.learn("x/m", 100, 150, 10, 20)
        assert drift.ratio("x/m") == ((1.5, 2.0) if number == 5 else (None, None))


def test_drift_memory_is_bounded():
    """Clients may name models without end; what is learned about them has a bound, and the ratio sane limits."""
    drift = DriftBook()
    for number in range(2000):
        for _ in range(5):
            drift.learn(f"x/{number}", 1, 10**6, 10, 0)
    assert len(drift.rows()) == 512
    assert drift.ratio("x/1999") == (20.0, None)
    assert DriftBook(drift.rows()).ratio("x/1999") == (20.0, None)


def test_old_drift_fades():
    """A provider that changes its tokenizer is followed: old sums are halved on the way."""
    drift = DriftBook()
    for _ in range(100):
        drift.learn("a/b", 100_000, 100_000, 0, 0)
    for _ in range(100):
        drift.learn("a/b", 100_000, 200_000, 0, 0)
    ratio, _ = drift.ratio("a/b")
    assert ratio > 1.9


def test_without_ranks_the_bill_is_an_estimate():
    """No tokenizer: the record still has tokens and a cost, and says that they are an estimate."""
    settler = Settler(lambda name: None, DriftBook())
    record = settler.settle(booking(answer=[completion("Hello there")]))
    assert record.kind.counted_by == "estimate"
    assert record.cost_usd > 0


def test_another_encoding_stands_in_until_its_own_is_built(encoding):
    """A model of an encoding that is not built is counted with the default one, which is an estimate; then its own."""
    built = {"o200k_base": encoding}
    asked = []

    def find(name):
        asked.append(name)
        return built.get(name)

    settler = Settler(find, DriftBook())
    old = ModelInfo(prices=Prices(1.0, 1.0), encoding="cl100k_base")
    record = settler.settle(booking(price_info=old))
    assert (record.counted_input, record.kind.counted_by) == (10, "estimate")
    assert asked == ["cl100k_base", "o200k_base"]

    class Letters:
        def count(self, text):
            return len(text.encode())

    built["cl100k_base"] = Letters()
    record = settler.settle(booking(price_info=old))
    assert (record.counted_input, record.kind.counted_by) == (3 + 4 + len("Say hello."), "tiktoken")
    harmony = ModelInfo(prices=Prices(1.0, 1.0), encoding="o200k_harmony")
    record = settler.settle(booking(price_info=harmony))
    assert (record.counted_input, record.kind.counted_by) == (10, "tiktoken")


class CountingEncoding:
    """A tokenizer that notes how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self, text: str) -> int:
        self.calls += 1
        return len(text.split())


@pytest.mark.parametrize("as_stream", [True, False])
def test_when_missing_counts_only_a_share_of_what_was_reported(as_stream):
    """`when_missing` trusts reports, counts where there is none, and keeps every sixteenth count for the drift."""
    encoding = CountingEncoding()
    settler = Settler(lambda name: encoding, DriftBook())
    settler.mode = "when_missing"
    counted = 0
    for number in range(160):
        text = f"answer {number}"
        answer = stream(text, usage=USAGE) if as_stream else [completion(text, usage=USAGE)]
        record = settler.settle(booking(answer=answer, answer_is_stream=as_stream))
        assert (record.input_tokens, record.kind.cost_source) == (12, "provider_usage")
        counted += record.counted_input is not None
    assert counted == 10
    assert encoding.calls <= 11
    missing = settler.settle(booking(answer=[completion("no report")]))
    assert (missing.counted_output, missing.kind.cost_source) == (2, "tiktoken_calibrated")


@pytest.mark.parametrize("as_stream", [True, False])
@pytest.mark.parametrize(("lacking", "tokens"), [("prompt_tokens", (10, 7)), ("completion_tokens", (7, 2))])
def test_when_missing_counts_the_side_that_a_report_lacks(settler, as_stream, lacking, tokens):
    """A report of half the answer is not the whole bill: the other half is counted, as it is with `always`."""
    settler.mode = "when_missing"
    usage = {"prompt_tokens": 7, "completion_tokens": 7} | {lacking: 0}
    answer = stream("no report", usage=usage) if as_stream else [completion("no report", usage=usage)]
    record = settler.settle(booking(answer=answer, answer_is_stream=as_stream))
    assert (record.input_tokens, record.output_tokens, record.kind.cost_source) == (*tokens, "tiktoken")


def test_when_missing_counts_all_of_a_stream_without_a_report(settler):
    """The end of a stream is enough only where it has a report: without one every word is billed."""
    settler.mode = "when_missing"
    record = settler.settle(booking(answer=stream(*["word "] * 40), answer_is_stream=True))
    assert record.counted_output >= 40


def test_encodings_that_count_alike_share_what_was_counted():
    """A conversation that goes on with a model of the same ranks is not counted anew."""
    encoding = CountingEncoding()
    settler = Settler(lambda name: encoding, DriftBook())
    for name in ("o200k_base", "o200k_harmony"):
        record = settler.settle(booking(answer=[completion("no report")], price_info=ModelInfo(encoding=name)))
        assert record.kind.counted_by == "tiktoken"
    once = CountingEncoding()
    Settler(lambda name: once, DriftBook()).settle(booking(answer=[completion("no report")]))
    assert encoding.calls == once.calls


def test_estimates_say_so(settler):
    """With no time to count nothing is tokenised, the record says estimate, and the figure is shown."""
    record = settler.settle(booking(answer=stream("Hello there"), answer_is_stream=True), estimate=True)
    assert (record.kind.counted_by, record.kind.cost_source) == ("estimate", "tiktoken")
    assert record.counted_input == len(REQUEST) // 4
    assert settler.degraded == 1


def test_a_request_that_was_let_go_is_estimated_from_its_size(settler):
    """Bytes that memory had no room for still count by their number."""
    let_go = booking(request=b"x" * 4000)
    let_go.request = b""
    record = settler.settle(let_go, estimate=True)
    assert (record.counted_input, record.request_bytes) == (1000, 4000)


def test_an_answer_of_which_a_part_was_kept_is_scaled(settler):
    """Past the tap's bound the kept part's rate stands for the whole, and the count is an estimate."""
    answer = stream(*["word "] * 50, finish=None)[:-1]
    kept = sum(map(len, answer))
    whole = settler.settle(booking(answer=answer, answer_is_stream=True))
    record = settler.settle(booking(answer=answer, answer_bytes=kept * 10, answer_is_stream=True))
    assert record.counted_output == whole.counted_output * 10
    assert record.kind.counted_by == "estimate"
    nothing_kept = booking(answer=[], answer_bytes=15_000, answer_is_stream=True)
    assert settler.settle(nothing_kept).counted_output == 100


def test_a_cut_request_keeps_its_first_report(settler):
    """A usage that came before the cut is believed as far as it goes."""
    answer = stream("Hello", usage={"prompt_tokens": 12, "completion_tokens": 1}, finish=None)[:-1]
    record = settler.settle(booking(answer=answer, answer_is_stream=True, outcome="cut"))
    assert (record.input_tokens, record.output_tokens, record.kind.cost_source) == (12, 1, "provider_usage")


@pytest.mark.parametrize("mode", ["always", "when_missing"])
@pytest.mark.parametrize("outcome", ["cut", "cancelled"])
def test_a_report_older_than_the_last_words_is_completed(settler, mode, outcome):
    """Anthropic's first event reports one token of output: a client that leaves later pays for what it was sent."""
    settler.mode = mode
    started = Usage(fresh_input=7, cache_read=5, output=1)
    answer = stream("many ", "more ", "words", finish=None)[:-1]
    left = booking(answer=answer, answer_is_stream=True, outcome=outcome, reported=started)
    record = settler.settle(left)
    assert (record.input_tokens, record.output_tokens, record.kind.cost_source) == (12, 3, "tiktoken")
    assert (record.reported_cache_read, record.reported_output) == (5, 1)


def test_an_interrupted_request_knows_no_cost():
    """A record of a killed process has what was admitted, and None for what nobody can know."""
    record = interrupted_record("r-9", 5.0, "client", "openai/gpt-5")
    assert (record.kind.outcome, record.kind.model, record.kind.provider) == ("interrupted", "openai/gpt-5", "openai")
    assert (record.cost_usd, record.total_ms, record.input_tokens) == (None, None, None)
    assert interrupted_record("r-9", 5.0, "", "router/code").kind.model == ""


def test_requests_of_one_kind_share_it(settler, monkeypatch):
    """Like requests have one object for what they have in common; names without end do not fill the memory."""
    first, second = (settler.settle(booking(f"r-{number}")) for number in range(2))
    assert first.kind is second.kind
    assert settler.settle(booking(status=201)).kind is not first.kind
    monkeypatch.setattr(settle, "_MAX_KINDS", 8)
    found = [settler.settle(booking(model=f"openai/m{number}")).kind.model for number in range(60)]
    assert found == [f"openai/m{number}" for number in range(60)]
    assert len(settler._kinds) <= 8
