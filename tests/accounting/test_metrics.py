"""Live figures: the contract's names, all of one request together, and text that Prometheus takes."""

import re
import shutil
import subprocess
import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from llm_router.accounting.booking import Attempt, SideCost
from llm_router.accounting.metrics import Metrics
from llm_router.accounting.sums import SECONDS, Histogram
from llm_router.wire.usage import Usage
from tests.accounting.conftest import INFO, settled, stream


def mixed() -> list:
    two = (Attempt("openai/a", "rate_limited", 429, 3), Attempt("openai/m", "ok", 200, 4))
    return [
        settled("r-1"),
        settled("r-2", attempts=two, category="code", stream=True, answer=stream("a"), answer_is_stream=True),
        settled("r-3", outcome="cancelled", price_info=None, model="x/unknown", provider="x", total_ms=13.0),
        settled("r-4", outcome="cut", category="code"),
        settled("r-5", outcome="failed", model="", provider="", answer=[], status=503, attempts=two[:1]),
    ]


def test_json_has_the_contracts_names():
    """Every figure that the contract fixes is there, and total is the sum of its parts."""
    metrics = Metrics("1.2.3")
    metrics.circuits = lambda: {"open_circuits": ["openai/a"], "circuits": {"openai/a": {"state": "open"}}}
    metrics.observe(mixed())
    figures = metrics.to_json()
    assert figures["requests"] == {"total": 5, "success": 2, "failed": 2, "cancelled": 1}
    assert figures["avg_latency_ms"] == pytest.approx((7 * 4 + 13) / 5, abs=0.01)
    assert figures["total_cost_usd"] == pytest.approx(sum(one.cost_usd or 0 for one in mixed()))
    assert figures["unknown_cost_requests"] == 1
    assert figures["failovers"] == 1
    assert figures["model_distribution"] == {"openai/m": 3, "x/unknown": 1}
    assert figures["category_distribution"] == {"conversation": 3, "code": 2}
    assert figures["provider_distribution"] == {"openai": 3, "x": 1}
    assert figures["circuit_breaker"]["open_circuits"] == ["openai/a"]
    assert [one["request_id"] for one in figures["recent_requests"]] == ["r-5", "r-4", "r-3", "r-2", "r-1"]


def test_before_the_first_request_all_names_are_there():
    """An idle router shows zeros, not gaps."""
    figures = Metrics().to_json()
    assert figures["requests"] == {"total": 0, "success": 0, "failed": 0, "cancelled": 0}
    assert figures["avg_latency_ms"] == 0.0
    assert figures["total_cost_usd"] == 0.0
    assert figures["circuit_breaker"] == {"open_circuits": [], "circuits": {}}
    assert figures["recent_requests"] == []


def test_recent_requests_hold_nothing_that_was_said():
    """The list of recent requests is bounded and has neither prompt nor answer nor client."""
    metrics = Metrics()
    metrics.observe([settled(f"r-{number}", client="somebody") for number in range(200)])
    recent = metrics.to_json()["recent_requests"]
    assert len(recent) == 50
    assert not re.search("Say hello|Hello there|somebody", str(recent))


def test_a_recent_request_that_nobody_answered_names_whom_it_met():
    """Of a failed request there is no model to be named: who failed, and who was not asked, is."""
    attempts = (Attempt("a/m", "server_error", 500, 1), *(Attempt("b/m", "skipped_circuit", None, 0),) * 9)
    metrics = Metrics()
    failed = {"model": "", "provider": "", "outcome": "failed", "status": 503, "failure": "all_candidates_failed"}
    metrics.observe([settled("r-1"), settled("r-2", attempts=attempts, **failed)])
    newest, before = metrics.to_json()["recent_requests"]
    assert newest["in_vain"] == ["a/m:server_error", *["b/m:skipped_circuit"] * 4]
    assert (newest["model"], newest["failure"], newest["attempts"]) == (None, "all_candidates_failed", 1)
    assert (before["in_vain"], before["failure"]) == ([], None)


def test_figures_of_a_request_appear_together():
    """Whoever looks while requests are being settled sees sums that fit one another."""
    metrics = Metrics()
    batch = mixed()
    done = threading.Event()

    def feed():
        for _ in range(300):
            metrics.observe(batch)
        done.set()

    thread = threading.Thread(target=feed)
    thread.start()
    looks = 0
    while not done.is_set() or not looks:
        figures = metrics.to_json()
        requests = figures["requests"]
        assert requests["total"] == sum(figures["category_distribution"].values())
        assert requests["total"] == requests["success"] + requests["failed"] + requests["cancelled"]
        looks += 1
    thread.join()
    assert metrics.to_json()["requests"]["total"] == 1500


def test_when_somebody_looks_makes_no_difference():
    """Requests are added up many at a time: the figures are those of requests that were added one by one."""
    requests = [one for number in range(60) for one in mixed()[number % 3 :]]
    together, alone, in_parts = Metrics("1"), Metrics("1"), Metrics("1")
    together.observe(requests)
    for one in requests:
        alone.observe([one])
        alone.to_json()
    for start in range(0, len(requests), 7):
        in_parts.observe(requests[start : start + 7])
    expected, text = together.to_json(), own_samples(together)
    assert (expected["requests"]["total"], expected["failovers"]) == (len(requests), 40)
    cost = pytest.approx(expected["total_cost_usd"])
    for metrics in (alone, in_parts):
        assert metrics.to_json() == {**expected, "total_cost_usd": cost}
        assert own_samples(metrics) == pytest.approx(text)


def test_what_was_paid_where_nobody_answered_is_in_every_sum():
    """Side costs of a request that no model answered, known or not, are told of by JSON and Prometheus alike."""
    usage = Usage(10, 0, 0, 5)
    known = SideCost("classifier", "x/c", reported=usage, price_info=INFO)
    unknown = SideCost("classifier", "x/u", reported=usage)
    nobody = {"model": "", "provider": "", "answer": [], "outcome": "failed", "status": 503}
    metrics = Metrics()
    metrics.observe([settled(side_costs=(known,), **nobody), settled(side_costs=(unknown,), **nobody)])
    figures, text = metrics.to_json(), own_samples(metrics)
    assert figures["total_cost_usd"] == pytest.approx(20e-6)
    assert text["llm_router_cost_usd_total", (("model", ""), ("source", "provider_usage"))] == pytest.approx(20e-6)
    assert figures["unknown_cost_requests"] == 1
    assert text["llm_router_unknown_cost_requests_total", (("model", ""),)] == 1
    assert figures["model_distribution"] == figures["provider_distribution"] == {}


def test_names_that_clients_choose_are_bounded():
    """A flood of model names makes at most a hundred labels, the rest is counted as one; nothing is lost."""
    metrics = Metrics()
    metrics.observe([settled(f"r-{n}", model=f"x/m{n}", provider="x") for n in range(500)])
    distribution = metrics.to_json()["model_distribution"]
    assert len(distribution) <= 101
    assert sum(distribution.values()) == 500
    assert distribution["other"] >= 400


def test_models_that_are_counted_as_one_have_one_provider():
    """What is not told apart by model is not told apart by provider either: the sums fit one another."""
    metrics = Metrics()
    metrics.observe([settled(f"r-{n}", model=f"x{n}/m", provider=f"x{n}", attempts=()) for n in range(150)])
    figures = metrics.to_json()
    assert figures["provider_distribution"]["other"] == figures["model_distribution"]["other"] == 50


def test_a_request_that_nobody_was_asked_for_is_no_failover():
    """Failovers are tries beyond the first, and those of one request do not make up for the others'."""
    metrics = Metrics()
    tries = (Attempt("a/m", "server_error", 500, 1), Attempt("b/m", "ok", 200, 1))
    metrics.observe([settled("r-1", attempts=()), settled("r-2", attempts=()), settled("r-3", attempts=tries)])
    assert metrics.to_json()["failovers"] == 1


def test_what_is_as_large_as_a_bound_is_within_it():
    """Buckets hold what is at most their bound, as Prometheus reads them."""
    histogram = Histogram((1.0, 2.0))
    histogram.observe([1.0])
    histogram.observe([2.0, 1.0, 3.0])
    assert histogram.cumulative() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]


def test_no_name_of_a_client_hides_a_category():
    """Categories come from the configuration: each is told apart, however many there are and models were named."""
    metrics = Metrics()
    metrics.observe([settled(f"r-{n}", model=f"x/m{n}", provider="x", category="explicit") for n in range(200)])
    metrics.observe([settled(f"s-{n}", category=f"c{n}") for n in range(150)])
    distribution = metrics.to_json()["category_distribution"]
    assert distribution == {"explicit": 200, **{f"c{n}": 1 for n in range(150)}}


class Watched:
    in_flight, queued, unwritten, lost, degraded = 3, 2, 1, 4, 5

    def drift_ratios(self):
        return {"openai/m": (1.25, None)}


def full_metrics() -> Metrics:
    metrics = Metrics("1.2.3")
    metrics.circuits = lambda: {"open_circuits": [], "circuits": {"openai/a": {"state": "half-open"}}}
    metrics.watched = Watched()
    metrics.observe(mixed())
    return metrics


def samples(text: str, parse=parse_text) -> dict:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def own_samples(metrics: Metrics) -> dict:
    body, _ = metrics.prometheus("text/plain")
    return {key: value for key, value in samples(body.decode()).items() if key[0].startswith("llm_router")}


def test_prometheus_text():
    """Counters, histograms and gauges say what the records said."""
    body, content_type = full_metrics().prometheus("text/plain")
    assert content_type.startswith("text/plain; version=0.0.4")
    found = samples(body.decode())
    ended = {("category", "code"), ("model", "openai/m"), ("outcome", "cut")}
    assert found["llm_router_requests_total", tuple(sorted(ended))] == 1
    assert found["llm_router_attempts_total", (("kind", "rate_limited"), ("model", "openai/a"))] == 2
    assert found["llm_router_failovers_total", ()] == 1
    assert found["llm_router_first_byte_seconds_count", (("model", "openai/m"),)] == 3
    assert found["llm_router_first_byte_seconds_bucket", (("le", "0.05"), ("model", "openai/m"))] == 3
    assert found["llm_router_request_duration_seconds_sum", (("category", "code"),)] == pytest.approx(0.014)
    assert found["llm_router_tokens_total", (("direction", "input"), ("model", "openai/m"))] > 24
    assert found["llm_router_unknown_cost_requests_total", (("model", "x/unknown"),)] == 1
    assert found["llm_router_circuit_state", (("model", "openai/a"), ("state", "half_open"))] == 1
    assert found["llm_router_circuit_state", (("model", "openai/a"), ("state", "open"))] == 0
    assert found["llm_router_in_flight_requests", ()] == 3
    assert found["llm_router_unsettled_requests", ()] == 2
    assert found["llm_router_ledger_waiting_records", ()] == 1
    assert found["llm_router_ledger_lost_records_total", ()] == 4
    assert found["llm_router_degraded_counts_total", ()] == 5
    assert found["llm_router_token_drift_ratio", (("direction", "input"), ("model", "openai/m"))] == 1.25
    assert found["llm_router_build_info", (("version", "1.2.3"),)] == 1
    assert found["process_resident_memory_bytes", ()] > 1e6


@pytest.mark.parametrize("version", ["x", '"1.0"', "²", "9" * 5000])
def test_a_version_that_is_none_is_not_minded(version):
    """The figures come as plain text; an Accept header is no reason for a 500 and a stack trace in the log."""
    body, content_type = full_metrics().prometheus(f"text/plain; version={version}")
    assert body.startswith(b"# HELP")
    assert content_type.startswith("text/plain")


def test_openmetrics_on_request():
    """A scraper that asks for OpenMetrics gets it, with the same figures."""
    metrics = full_metrics()
    body, content_type = metrics.prometheus("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    found = samples(body.decode(), parse_openmetrics)
    text = samples(metrics.prometheus("text/plain")[0].decode())
    for (name, labels), value in text.items():
        if name.startswith("llm_router"):
            assert found[name, labels] == value


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing():
    """Names, units and help texts are as Prometheus wants them."""
    body, _ = full_metrics().prometheus("text/plain")
    done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_labels_cannot_break_the_text():
    """A model name with quotes, newlines and braces stays one label."""
    metrics = Metrics()
    name = 'x/"}\nllm_router_requests_total{model="forged"} 1\\'
    metrics.observe([settled(model=name, provider="x")])
    found = samples(metrics.prometheus("text/plain")[0].decode())
    assert found["llm_router_unknown_cost_requests_total", (("model", name),)] == 0
    assert not any(dict(labels).get("model") == "forged" for _, labels in found)


def test_a_histogram_counts_each_value_once():
    """A value on a bound belongs to that bucket, and what is above all bounds to the last."""
    histogram = Histogram(SECONDS)
    histogram.observe([0.0, 0.05, 0.051])
    histogram.observe([599.0, 600.0, 1e9])
    buckets = dict(histogram.cumulative())
    assert (buckets["0.05"], buckets["0.1"], buckets["600.0"], buckets["+Inf"]) == (2, 3, 5, 6)
    assert histogram.sum == pytest.approx(0.101 + 1199 + 1e9)
