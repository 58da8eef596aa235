"""docs/PROVIDERS.md says what happens to each field; here it has to be true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from llm_router.config.options import OPTIONS
from llm_router.config.values import Provider
from llm_router.wire.providers.base import Adapter, Target
from llm_router.wire.providers.openai import OpenAIShaped
from tests.wire.providers.dialects import ADAPTERS, KEY, TOOL, make_chat, make_target

DOCUMENT = (Path(__file__).parents[3] / "docs" / "PROVIDERS.md").read_text()
COLUMNS = ("openai", "openrouter", "google", "compatible", "anthropic", "gemini", "ollama")
_COMPATIBLE = Provider("groq", "https://groq.example/v1", builtin=False)
WHERE: dict[str, tuple[Adapter, Target]] = {
    "openai": (ADAPTERS["openai"], make_target("openai")),
    "openrouter": (ADAPTERS["openrouter"], make_target("openrouter")),
    "google": (ADAPTERS["google_compat"], make_target("google_compat")),
    "compatible": (OpenAIShaped("custom"), Target(_COMPATIBLE, "m", KEY)),
    "anthropic": (ADAPTERS["anthropic"], make_target("anthropic")),
    "gemini": (ADAPTERS["google"], make_target("google")),
    "ollama": (ADAPTERS["ollama"], make_target("ollama")),
}
_NAMED = {"type": "function", "function": {"name": "get_weather"}}
_OTHER = {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}}
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}}}
# A value for each field, and what else the request needs for the field to make sense.
SAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "max_tokens": (77, {}), "max_completion_tokens": (77, {}), "temperature": (0.5, {}), "top_p": (0.5, {}),
    "top_k": (7, {}), "min_p": (0.1, {}), "presence_penalty": (0.5, {}), "frequency_penalty": (0.5, {}),
    "repetition_penalty": (1.1, {}), "seed": (7, {}), "stop": (["END"], {}), "n": (2, {}), "logprobs": (True, {}),
    "logit_bias": ({"1": 1}, {}), "user": ("u", {}), "metadata": ({"a": "b"}, {}), "store": (True, {}),
    "service_tier": ("auto", {}), "verbosity": ("low", {}), "prediction": ({"type": "content", "content": "x"}, {}),
    "prompt_cache_key": ("k", {}), "modalities": (["text", "audio"], {}), "tools": ([TOOL], {}),
    "tool_choice": (_NAMED, {"tools": [TOOL, _OTHER]}), "parallel_tool_calls": (False, {"tools": [TOOL]}),
    "functions": ([{"name": "f"}], {}), "response_format": (_SCHEMA, {}), "reasoning_effort": ("high", {}),
    "reasoning": ({"effort": "high"}, {}), "thinking": ({"type": "enabled", "budget_tokens": 2048}, {}),
    "cache_control": ({"type": "ephemeral"}, {}),
    "extra_body": ({"google": {"thinking_config": {"thinking_budget": 1}, "cached_content": "c",
                               "safety_settings": [{"category": "c", "threshold": "t"}]}}, {}),
    "stream_options": ({"include_usage": True}, {}),
}  # fmt: skip


def _rows() -> dict[str, list[str]]:
    table = DOCUMENT.split("## Fields of the request")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:2] == "| "]
    header, *fields = rows
    assert tuple(header[1:]) == COLUMNS
    return {row[0].strip("`"): row[1:] for row in fields}


ROWS = _rows()


def _body(column: str, fields: dict[str, Any]) -> dict[str, Any]:
    adapter, target = WHERE[column]
    body: dict[str, Any] = orjson.loads(adapter.call(make_chat(usage=False, **fields), target).body)
    return body


def _at(body: Any, path: str) -> Any:
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def test_every_field_has_a_row() -> None:
    """The table and the samples name the same fields."""
    assert ROWS.keys() == SAMPLES.keys()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("field", sorted(ROWS))
def test_the_table_is_true(field: str, column: str) -> None:
    """same: the value is there; dropped: nothing changes; refused: a misfit names the field; else it is where the
    table says."""
    says = re.sub(r" \(\d+\)", "", ROWS[field][COLUMNS.index(column)])
    value, needs = SAMPLES[field]
    adapter, _ = WHERE[column]
    misfit = adapter.misfit(make_chat(usage=False, **needs, **{field: value}))
    assert (misfit is not None) == says.startswith("refused")
    if misfit is not None:
        assert misfit.field == field
        return
    before, after = _body(column, needs), _body(column, {**needs, field: value})
    if says.startswith("same"):
        assert after[field] == value
    elif says == "dropped":
        assert after == before
    else:
        assert after != before
        for path in re.findall(r"`([\w.]+)`", says):
            if path != field:
                found = _at(after, path) if "." in path else after.get(path, _at(after, f"generationConfig.{path}"))
                assert found is not None or path == "google", path


@pytest.mark.parametrize("column", COLUMNS)
def test_an_explicit_model_gives_the_choices_that_it_has(column: str) -> None:
    """Who named the model is not refused for asking for more than one; the router's own choice goes to another."""
    adapter, target = WHERE[column]
    explicit = make_chat(n=2, model=target.id)
    assert adapter.misfit(explicit) is None
    kept = orjson.loads(adapter.call(explicit, target).body).get("n")
    assert kept == (None if ROWS["n"][COLUMNS.index(column)].startswith("refused") else 2)


def test_every_option_of_a_dialect_has_a_row() -> None:
    """What the configuration takes is explained."""
    table = DOCUMENT.split("## Settings of a dialect")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(OPTIONS)
