"""Prices: which row an id leads to, and invoices to the cent."""

import orjson
import pytest

from llm_router import shipped
from llm_router.accounting.pricing import ModelInfo, Prices, PriceTable, cost
from llm_router.wire.usage import Usage, from_openai

SHIPPED = shipped.prices()


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return PriceTable.parse(SHIPPED, {})


def small_table(rows, overrides=None, **options) -> PriceTable:
    return PriceTable.parse(orjson.dumps({"_meta": {}, **rows}), overrides or {}, **options)


def dollars(table: PriceTable, model: str, usage: Usage) -> float:
    value = cost(table.info(model), usage)
    assert value is not None
    return round(value, 9)


def test_every_shipped_row_can_be_read(table):
    """No row of the shipped table is unreadable, and each has both prices and a window."""
    assert len(table.models()) == 149
    for model in table.models():
        info = table.info(model)
        assert info is not None
        assert info.prices.input is not None, model
        assert info.prices.output is not None, model
        assert info.context, model


@pytest.mark.parametrize(
    ("model", "same_as"),
    [
        ("anthropic/claude-3-sonnet", "anthropic/claude-3-sonnet-20240229"),
        ("openai/gpt-5-2026-01-31", "openai/gpt-5"),
        ("openai/gpt-4o-20241120", "openai/gpt-4o"),
        ("anthropic/claude-3-5-sonnet-latest", "anthropic/claude-3-5-sonnet-20241022"),
        ("openrouter/z-ai/glm-5:nitro", "openrouter/z-ai/glm-5"),
        ("openrouter/z-ai/glm-5:exacto", "openrouter/z-ai/glm-5"),
        ("google/models/gemini-2.5-pro", "google/gemini-2.5-pro"),
    ],
)
def test_other_names_of_a_model_lead_to_its_row(table, model, same_as):
    """Aliases, dated snapshots and OpenRouter's equal-price variants cost what the listed id costs."""
    assert table.info(model) == table.info(same_as)
    assert table.info(model) is not None


def test_a_listed_snapshot_keeps_its_own_row(table):
    """The date of an id that is listed with it is not cut off."""
    assert table.info("openai/gpt-4o-2024-05-13").prices.input == 5.0
    assert table.info("openai/gpt-4o").prices.input == 2.5


def test_free_variant_costs_nothing_but_keeps_the_abilities(table):
    """`:free` is a real price of zero, with the base model's window."""
    info = table.info("openrouter/z-ai/glm-5:free")
    assert cost(info, Usage(fresh_input=1000, cache_read=5, output=1000)) == 0.0
    assert info.context == table.info("openrouter/z-ai/glm-5").context


def test_a_variant_of_unknown_price_keeps_the_abilities(table):
    """What OpenRouter sells otherwise has the base model's window, and no price at all."""
    info = table.info("openrouter/z-ai/glm-5:batch")
    assert info.context == table.info("openrouter/z-ai/glm-5").context
    assert info.prices == Prices()


def test_only_googles_ids_have_models_in_front(table):
    """`models/` is how Google's own API calls its models; nobody else's id leads to Google's price."""
    name = next(model for model in table.models() if model.startswith("google/")).removeprefix("google/")
    assert table.info(f"google/models/{name}") == table.info(f"google/{name}")
    assert table.info(f"vllm/models/{name}") is None
    assert table.info("google/nobody-knows-it") is None


@pytest.mark.parametrize(
    "model",
    [
        "openai/gpt-99",
        "groq/llama-3.3-70b",
        "ollama/glm-5:cloud",
        "ollama/gpt-oss:120b-cloud",
        "openrouter/z-ai/glm-5:batch",
    ],
)
def test_unknown_price_is_none(table, model):
    """A model whose price no rule gives costs None, never 0; Ollama's cloud models are such."""
    assert cost(table.info(model), Usage(fresh_input=10, output=10)) is None


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("openai/gpt-4-0613", "cl100k_base"),
        ("openai/gpt-4-32k", "cl100k_base"),
        ("openai/gpt-3.5-turbo-16k", "cl100k_base"),
        ("azure/gpt-35-turbo", "cl100k_base"),
        ("openrouter/openai/gpt-4-0314", "cl100k_base"),
    ],
)
def test_older_models_without_a_row_keep_their_tokenizer(table, model, encoding):
    """Snapshots of GPT-4 and GPT-3.5 that the table does not list are counted with their own encoding, unpriced."""
    info = table.info(model)
    assert info.encoding == encoding
    assert cost(info, Usage(fresh_input=10, output=10)) is None


def test_newer_names_are_not_taken_for_older_ones(table):
    """Names that only begin like the older ones have no row, or their own."""
    assert table.info("vllm/gpt-4x") is None
    assert table.info("openai/gpt-4o-2030-01-01").encoding == "o200k_base"


def test_local_ollama_is_free(table):
    """A model on the user's own machine costs 0, which is known."""
    assert cost(table.info("ollama/llama3.1:8b"), Usage(fresh_input=10, output=10)) == 0.0


def test_free_providers_can_be_named():
    """Where Ollama is remote nothing is free, and other local servers can be."""
    table = small_table({}, free_providers=["vllm"])
    assert table.info("ollama/llama3.1") is None
    assert table.info("vllm/qwen3").prices == Prices(input=0.0, output=0.0)


def test_openrouter_borrows_abilities_but_no_price(table):
    """An OpenRouter id that only the vendor's row describes has its window and no price."""
    info = table.info("openrouter/openai/o3")
    assert info.context == table.info("openai/o3").context
    assert info.prices == Prices()


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("openai/gpt-5.2", True),
        ("openai/gpt-4", False),
        ("google/gemini-2.5-pro", True),
        ("anthropic/claude-opus-5-5", None),
    ],
)
def test_json_schema_is_claimed_only_where_certain(table, model, known):
    """The table has no column for schemas: what is not certain stays None and counts as able."""
    assert table.info(model).json_schema is known


def test_override_replaces_the_fields_it_names():
    """The user's price wins, the rest of the row stays, and the shipped tier goes with the shipped price."""
    row = {"input": 1, "output": 2, "cached_input": 0.1, "context": 1000, "above": {"threshold": 10, "input": 9}}
    table = small_table({"openai/m": row}, {"openai/m": {"input": 3}})
    info = table.info("openai/m")
    assert (info.prices.input, info.prices.output, info.prices.cached_input, info.context) == (3.0, 2.0, 0.1, 1000)
    assert info.above is None
    assert table.info("openai/m-2026-01-01") == info


def test_override_of_a_capability_keeps_the_tier():
    """An override that says nothing about prices leaves all prices alone."""
    row = {"input": 1, "output": 2, "above": {"threshold": 10, "input": 9}}
    info = small_table({"openai/m": row}, {"openai/m": {"tools": False, "context": 5}}).info("openai/m")
    assert (info.tools, info.context, info.above) == (False, 5, Prices(input=9.0, output=2.0))


def test_override_prices_a_model_that_nobody_lists():
    """A custom provider's model has the price that the configuration gives."""
    table = small_table({}, {"groq/llama-3.3-70b": {"input": 0.59, "output": 0.79}})
    assert dollars(table, "groq/llama-3.3-70b", Usage(fresh_input=1_000_000, output=2_000_000)) == 2.17
    assert table.models() == ("groq/llama-3.3-70b",)


def test_override_may_make_a_price_unknown():
    """An explicit null says that the shipped price does not hold."""
    table = small_table({"openai/m": {"input": 1, "output": 2}}, {"openai/m": {"output": None}})
    assert cost(table.info("openai/m"), Usage(fresh_input=1)) is None


@pytest.mark.parametrize("nonsense", ["1", True, -1, float("nan"), [], {}])
def test_nonsense_prices_are_unknown(nonsense):
    """A price that is no non-negative number is treated as unknown instead of crashing the bill."""
    info = PriceTable({}, {}, {"a/b": {"input": nonsense, "output": 1}}, ()).info("a/b")
    assert info.prices.input is None


def test_what_clients_name_is_remembered_within_bounds(table):
    """Ids by the thousand and ids of a megabyte neither grow the table nor recurse."""
    small = small_table({"openai/m": {"input": 1, "output": 1}})
    for number in range(10_000):
        small.info(f"openai/x{number}")
    assert len(small._known) <= 4096
    assert small.info("openai/m" + "-latest" * 100_000) is None
    assert small.info("openrouter/m" + ":a" * 100_000) is None
    assert small.info("openai/m" + "-latest" * 30) is not None


# Invoices. Each is worked out by hand from the vendor's way of reporting and the table's price per million.


def test_invoice_openai_cached_tokens_are_inside_the_prompt(table):
    """gpt-5 at 1.25 / 0.125 / 10: 2006 prompt tokens of which 1920 cached, 300 out with 200 of reasoning."""
    usage = from_openai(
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920},
            "completion_tokens_details": {"reasoning_tokens": 200},
        }
    )
    assert dollars(table, "openai/gpt-5", usage) == round((86 * 1.25 + 1920 * 0.125 + 300 * 10) / 1e6, 9) == 0.0033475


def test_invoice_openai_cache_write(table):
    """gpt-5.6 at 4 / 0.4 / 5 / 20: reads and writes are both inside the prompt."""
    usage = from_openai(
        {
            "prompt_tokens": 10_000,
            "completion_tokens": 1000,
            "prompt_tokens_details": {"cached_tokens": 6000, "cache_write_tokens": 3000},
        }
    )
    assert dollars(table, "openai/gpt-5.6", usage) == 0.0414


def test_invoice_anthropic_cache_is_beside_the_input(table):
    """claude-sonnet-4-5 at 3 / 0.3 / 3.75 / 6 / 15, with writes of both lifetimes."""
    usage = Usage(fresh_input=50, cache_read=100_000, cache_write=2_500, cache_write_1h=500, output=503)
    expected = (50 * 3 + 100_000 * 0.3 + 2_000 * 3.75 + 500 * 6 + 503 * 15) / 1e6
    assert dollars(table, "anthropic/claude-sonnet-4-5", usage) == round(expected, 9) == 0.048195


def test_invoice_google_thoughts_are_output(table):
    """gemini-2.5-pro at 1.25 / 0.125 / 10: thoughts are part of the output."""
    usage = Usage(fresh_input=700, cache_read=300, output=450, reasoning=400)
    assert dollars(table, "google/gemini-2.5-pro", usage) == 0.0054125


def test_invoice_without_cache_prices_bills_plain_input(table):
    """openrouter/openai/gpt-oss-120b at 0.1 / 0.5 names no cache prices: cached tokens cost plain input."""
    usage = Usage(fresh_input=1000, cache_read=1000, cache_write=1000, cache_write_1h=400, output=1000)
    assert dollars(table, "openrouter/openai/gpt-oss-120b", usage) == 0.0008


def test_long_context_tier_applies_to_the_whole_request(table):
    """gemini-2.5-pro: one token past 200000 (cached ones count) doubles every token's price."""
    at_limit = Usage(fresh_input=150_000, cache_read=50_000, output=1000)
    past_limit = Usage(fresh_input=150_001, cache_read=50_000, output=1000)
    assert dollars(table, "google/gemini-2.5-pro", at_limit) == 0.20375
    assert dollars(table, "google/gemini-2.5-pro", past_limit) == 0.4025025


def test_a_tier_leaves_the_prices_it_does_not_list():
    """Only the prices that a tier names replace the base ones."""
    tier = {"threshold": 10, "input": 2.0}
    table = small_table({"a/m": {"input": 1, "output": 1, "cached_input": 0.5, "above": tier}})
    assert dollars(table, "a/m", Usage(fresh_input=10, cache_read=10, output=10)) == round((20 + 5 + 10) / 1e6, 9)


def test_more_hour_writes_than_writes_are_not_billed_twice():
    """A report whose parts exceed its whole is billed for the whole."""
    info = ModelInfo(prices=Prices(input=1.0, output=1.0, cache_write=2.0, cache_write_1h=4.0))
    assert cost(info, Usage(cache_write=10, cache_write_1h=99)) == 10 * 4 / 1e6
