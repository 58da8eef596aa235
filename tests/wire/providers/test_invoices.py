"""Golden invoices: each vendor's reported usage, billed to the cent at the shipped prices."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router import shipped
from llm_router.accounting.pricing import PriceTable, cost
from llm_router.wire.providers.anthropic_answer import from_anthropic
from llm_router.wire.providers.google_answer import from_gemini
from llm_router.wire.providers.ollama_stream import from_ollama
from llm_router.wire.usage import Usage, from_openai, to_openai

PRICES = PriceTable.parse(shipped.prices(), {})


@pytest.mark.parametrize(
    ("model", "reported", "dollars"),
    [
        # 1000 fresh at 3, 20000 read at 0.30, 5000 written at 3.75, 400 out at 15 per million: exclusive counting
        ("anthropic/claude-sonnet-4-5",
         {"input_tokens": 1000, "cache_read_input_tokens": 20_000, "cache_creation_input_tokens": 5000,
          "output_tokens": 400}, 0.003 + 0.006 + 0.01875 + 0.006),
        # of the 5000 written, 2000 live for an hour and cost 6
        ("anthropic/claude-sonnet-4-5",
         {"input_tokens": 1000, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 5000,
          "cache_creation": {"ephemeral_5m_input_tokens": 3000, "ephemeral_1h_input_tokens": 2000},
          "output_tokens": 400}, 0.003 + 0.01125 + 0.012 + 0.006),
        # 150000 tokens of prompt are above the tier of 100000: 0.5 in, 0.05 read, 2.5 out for the whole request
        ("anthropic/claude-haiku-5-5",
         {"input_tokens": 50_000, "cache_read_input_tokens": 100_000, "output_tokens": 1000},
         0.025 + 0.005 + 0.0025),
        # thinking is inside the output already
        ("anthropic/claude-opus-4-5",
         {"input_tokens": 10, "output_tokens": 2000, "output_tokens_details": {"thinking_tokens": 1800}},
         0.00005 + 0.05),
        # inclusive counting: 10000 of the 12000 are cached at 0.05; thoughts are billed as output beside the answer
        ("google/gemini-3-flash-preview",
         {"promptTokenCount": 12_000, "cachedContentTokenCount": 10_000, "candidatesTokenCount": 500,
          "thoughtsTokenCount": 1500, "totalTokenCount": 14_000}, 0.001 + 0.0005 + 0.006),
        # above 200000 the tier prices hold for the whole request: 2.5 in, 15 out
        ("google/gemini-2.5-pro",
         {"promptTokenCount": 300_000, "toolUsePromptTokenCount": 1000, "candidatesTokenCount": 1000}, 0.7525 + 0.015),
        # inclusive counting with a cached half
        ("openai/gpt-4o",
         {"prompt_tokens": 2000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 1024}},
         0.00244 + 0.00128 + 0.001),
        ("ollama/qwen3", {"prompt_eval_count": 1000, "eval_count": 1000}, 0.0),
    ],
)  # fmt: skip
def test_bills(model: str, reported: dict[str, Any], dollars: float) -> None:
    """What the vendor would charge, from the vendor's own figures."""
    read = {"anthropic": from_anthropic, "google": from_gemini, "openai": from_openai, "ollama": from_ollama}
    usage = read[model.split("/")[0]](reported)
    assert usage is not None
    assert cost(PRICES.info(model), usage) == pytest.approx(dollars, abs=1e-9)


@pytest.mark.parametrize("value", [None, True, "7", -1, [], {}, 10**15])
def test_absurd_figures_are_not_billed(value: Any) -> None:
    """What cannot be a number of tokens counts as nothing."""
    assert from_anthropic({"input_tokens": value, "output_tokens": value, "cache_creation": value}) == Usage()
    assert from_gemini({"promptTokenCount": value, "candidatesTokenCount": value}) == Usage()
    assert from_ollama({"prompt_eval_count": value or 0, "eval_count": value}) == Usage()


def test_a_prompt_that_was_not_counted_leaves_that_half_to_us() -> None:
    """Ollama leaves the prompt's count out when it was served from its cache; what it says of the answer stays."""
    assert from_ollama({"eval_count": 5}) == Usage(output=5)
    assert from_ollama({"done": True}) is None


def test_what_clients_are_told_adds_up_openais_way() -> None:
    """A translated usage is inclusive: cached tokens are inside the prompt's."""
    usage = from_anthropic({"input_tokens": 1, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 3})
    assert to_openai(usage)["prompt_tokens"] == 6
    assert from_openai(to_openai(usage)) == usage
