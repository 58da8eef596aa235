"""Reported usage: one normal form whatever the host's habits, and no nonsense on a bill."""

import pytest

from llm_router.wire.usage import Usage, from_openai, to_openai


def test_cached_tokens_are_taken_out_of_the_prompt():
    """OpenAI counts cache reads and writes inside the prompt; the normal form keeps them apart."""
    usage = from_openai(
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
            "completion_tokens_details": {"reasoning_tokens": 15},
        }
    )
    assert usage == Usage(fresh_input=10, cache_read=60, cache_write=30, output=20, reasoning=15)
    assert usage.input == 100


@pytest.mark.parametrize("details", [None, [], "x", 7])
def test_details_of_any_type_are_survived(details):
    """A host that sends null or nonsense for the details still gets its totals read."""
    usage = from_openai(
        {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "prompt_tokens_details": details,
            "completion_tokens_details": details,
        }
    )
    assert (usage.fresh_input, usage.output) == (3, 4)


@pytest.mark.parametrize("number", [None, -5, "12", True, 10**30, [], 1e300, float("nan"), float("inf")])
def test_absurd_numbers_count_as_nothing(number):
    """What cannot be a number of tokens is 0 and never reaches the bill."""
    assert from_openai({"prompt_tokens": number, "completion_tokens": number}) == Usage()


def test_whole_numbers_sent_as_floats_are_read():
    """Some hosts serialise counts as floats."""
    assert from_openai({"prompt_tokens": 12.0, "completion_tokens": 3.0}) == Usage(fresh_input=12, output=3)


def test_more_cached_than_prompt_is_bounded_by_the_prompt():
    """Contradicting details never make fresh input negative."""
    usage = from_openai({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 40}})
    assert (usage.fresh_input, usage.cache_read, usage.cache_write) == (0, 10, 0)


@pytest.mark.parametrize(("hits", "read"), [(60, 60), (0, 0), (500, 100), (None, 0), ("60", 0)])
def test_deepseeks_cache_hits_are_cached_input(hits, read):
    """DeepSeek says beside the prompt's tokens how many of them were hits of its cache."""
    usage = from_openai({"prompt_tokens": 100, "prompt_cache_hit_tokens": hits, "prompt_cache_miss_tokens": 40})
    assert (usage.fresh_input, usage.cache_read, usage.input) == (100 - read, read, 100)


def test_cached_tokens_told_twice_are_taken_once():
    """Hosts that name the same hits in OpenAI's way and in DeepSeek's are read by OpenAI's."""
    told = {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 64}, "prompt_cache_hit_tokens": 60}
    assert from_openai(told) == Usage(fresh_input=36, cache_read=64)


def test_thoughts_that_only_the_total_shows_are_output():
    """Gemini's compatible endpoint leaves thoughts out of completion_tokens; they are billed as output."""
    usage = from_openai({"prompt_tokens": 8, "completion_tokens": 9, "total_tokens": 563})
    assert (usage.output, usage.reasoning) == (555, 546)


def test_a_prompt_that_only_the_total_shows_is_input():
    """What is missing between the completion and the total is the prompt where no prompt was told, and no thoughts."""
    usage = from_openai({"completion_tokens": 9, "total_tokens": 563})
    assert (usage.fresh_input, usage.output, usage.reasoning) == (554, 9, 0)
    thoughts = {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 25}
    assert from_openai({"prompt_tokens": 0, **thoughts}) == Usage(output=25, reasoning=20)


def test_reasoning_beside_the_completion_is_added_once():
    """xAI reports reasoning tokens beside completion_tokens, OpenAI inside: the total tells which."""
    beside = {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 20}}
    assert from_openai({**beside, "total_tokens": 35}).output == 25
    inside = {"prompt_tokens": 10, "completion_tokens": 25, "completion_tokens_details": {"reasoning_tokens": 20}}
    assert from_openai({**inside, "total_tokens": 35}) == Usage(fresh_input=10, output=25, reasoning=20)


def test_there_are_no_more_thoughts_than_output():
    """Reasoning is a part of the output, whatever a host says."""
    usage = from_openai({"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 20}})
    assert (usage.output, usage.reasoning) == (5, 5)


def test_openrouters_cost_is_taken_as_charged():
    """`usage.cost` is USD."""
    assert from_openai({"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.0125}).provider_cost == 0.0125


def test_cost_with_a_key_of_ones_own_adds_the_upstreams():
    """With BYOK the cost is only a fee; what the upstream charges is added, and unknown without it."""
    usage = {"cost": 0.001, "is_byok": True}
    assert from_openai({**usage, "cost_details": {"upstream_inference_cost": 0.02}}).provider_cost == 0.021
    assert from_openai(usage).provider_cost is None
    assert from_openai({**usage, "cost_details": "?"}).provider_cost is None


@pytest.mark.parametrize("cost", [-1, "0.1", True, float("inf"), float("nan"), 10**400, 10**6 + 1, None])
def test_absurd_costs_are_unknown(cost):
    """A cost that cannot be one falls back to tokens times price."""
    assert from_openai({"prompt_tokens": 1, "cost": cost}).provider_cost is None


def test_what_is_shown_reads_back_the_same():
    """A translated answer's usage object says the same as the usage it was made from."""
    usage = Usage(fresh_input=5, cache_read=6, cache_write=7, output=8, reasoning=2)
    assert from_openai(to_openai(usage)) == usage
