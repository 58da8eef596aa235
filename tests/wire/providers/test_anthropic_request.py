"""Requests to Anthropic: what is mapped, repaired and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from llm_router import shipped
from llm_router.accounting.pricing import ModelInfo, PriceTable
from llm_router.wire.chat import parse_chat
from llm_router.wire.providers.anthropic import messages_url
from llm_router.wire.providers.anthropic_models import traits
from llm_router.wire.providers.base import Misfit
from tests.wire.providers.anthropic_body import (
    MARK,
    OPUS_3,
    OPUS_5,
    PNG,
    SCHEMA,
    SONNET_4_5,
    WANTS_SCHEMA,
    body,
    judge,
)
from tests.wire.providers.dialects import ADAPTERS, KEY, TOOL, make_chat, make_target, sent

CLIENTS = Path(__file__).parents[2] / "clients" / "data"


def test_the_judge_refuses_what_anthropic_would() -> None:
    """A judge that lets everything pass would prove nothing."""
    content: dict[str, Any] = {"type": "tool_result", "content": "x"}
    with pytest.raises(ValidationError):
        judge({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [content]}]})


def test_the_call_has_version_key_and_address() -> None:
    """The key goes into its header alone, the version is the one that knows sampling."""
    call = ADAPTERS["anthropic"].call(make_chat(), make_target("anthropic"))
    assert call.url == "https://api.anthropic.com/v1/messages"
    assert call.headers["anthropic-version"] == "2023-06-01"
    assert call.headers["x-api-key"] == KEY
    assert KEY not in call.url
    assert KEY.encode() not in call.body


@pytest.mark.parametrize(
    "base", ["https://h", "https://h/", "https://h/v1", "https://h/v1/", "https://h/v1/messages"]
)  # fmt: skip
def test_the_base_url_may_be_written_any_way(base: str) -> None:
    """With or without version, slash or route, the address is the same."""
    assert messages_url(base) == "https://h/v1/messages"


def test_system_and_developer_messages_become_the_system_prompt() -> None:
    """In order, wherever they stood, with their cache marks (trap 19)."""
    made = body(
        {"role": "system", "content": "one"},
        "Hi",
        {"role": "developer", "content": [{"type": "text", "text": "two", "cache_control": MARK}]},
    )
    assert made["system"] == [{"type": "text", "text": "one"}, {"type": "text", "text": "two", "cache_control": MARK}]
    assert [message["role"] for message in made["messages"]] == ["user"]


def test_a_prompt_of_system_messages_alone_gets_a_user_turn() -> None:
    """Anthropic refuses an empty conversation."""
    assert body({"role": "system", "content": "Be kind"})["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "."}]}
    ]


def test_images_and_documents_become_blocks() -> None:
    """Data and links; the media type is the real one whatever the client says; a PDF is a document."""
    parts = [
        {"type": "text", "text": "what?"},
        {"type": "text", "text": "  "},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}},
    ]
    blocks = body({"role": "user", "content": parts})["messages"][0]["content"]
    assert [block["type"] for block in blocks] == ["text", "image", "image", "document", "document"]
    assert blocks[1]["source"] == {"type": "base64", "media_type": "image/png", "data": PNG}
    assert blocks[2]["source"] == {"type": "url", "url": "https://example.com/a.png"}
    assert blocks[3]["source"]["media_type"] == "application/pdf"
    assert blocks[4]["source"] == {"type": "text", "media_type": "text/plain", "data": "hi"}
    assert blocks[4]["title"] == "a.txt"


@pytest.mark.parametrize(
    ("info", "stream", "asked", "limit"),
    [
        (SONNET_4_5, True, None, 32_000),
        (SONNET_4_5, False, None, 16_000),
        (OPUS_3, True, None, 4096),
        (None, True, None, 8192),
        (SONNET_4_5, True, 100, 100),
        (SONNET_4_5, True, 200_000, 64_000),
        (SONNET_4_5, True, 0, 1),
        (None, True, 200_000, 200_000),
    ],
)
def test_max_tokens_is_always_there(info: ModelInfo | None, stream: bool, asked: int | None, limit: int) -> None:
    """By default as much as the model gives within reason; what is asked for, as far as the model goes (trap 17)."""
    fields = {} if asked is None else {"max_completion_tokens": asked}
    assert body(info=info, stream=stream, **fields)["max_tokens"] == limit
    if asked is not None:
        assert body(info=info, stream=stream, max_tokens=asked)["max_tokens"] == limit


def test_sampling_follows_the_model() -> None:
    """Clamped to 1 for models that take it, gone for those that refuse it or think; never both fields (trap 18)."""
    assert body(temperature=1.7, top_p=0.5)["temperature"] == 1.0
    assert "top_p" not in body(temperature=1.7, top_p=0.5)
    assert body(top_p=0.5, top_k=4)["top_p"] == 0.5
    for made in (
        body(temperature=0.5, top_p=0.5, info=OPUS_5),
        body(temperature=0.5, top_p=0.5, reasoning_effort="low"),
        body(temperature=0.5, info=None, model="claude-opus-4-8"),
    ):
        assert not {"temperature", "top_p", "top_k"} & made.keys()


def test_a_schema_goes_the_way_the_model_takes() -> None:
    """Native output format for newer models, a forced tool for the others, words for a plain JSON object."""
    native = body(response_format=WANTS_SCHEMA, reasoning_effort="low", info=OPUS_5, model="claude-opus-5")
    schema = native["output_config"]["format"]["schema"]
    assert native["output_config"]["effort"] == "low"
    assert schema["additionalProperties"] is False
    assert schema["properties"]["a"] == {"type": "integer", "description": "(minimum: 1)"}
    forced = body(response_format=WANTS_SCHEMA, info=OPUS_3, model="claude-3-opus-20240229")
    assert forced["tool_choice"] == {"type": "tool", "name": "json_answer"}
    assert forced["tools"][0]["input_schema"] == SCHEMA
    assert "output_config" not in forced
    with_tools = body(response_format=WANTS_SCHEMA, tools=[TOOL], info=OPUS_3, model="claude-3-opus-20240229")
    assert with_tools["tool_choice"] == {"type": "any"}
    words = body(response_format={"type": "json_object"})["system"][-1]["text"]
    assert "JSON object" in words


def test_a_conversation_that_ends_with_the_assistant() -> None:
    """A prefilled answer where the model takes it (without white space at its end), else a request to go on."""
    turns = ["Hi", {"role": "assistant", "content": "The answer is "}]
    assert body(*turns)["messages"][-1]["content"][0]["text"] == "The answer is"
    go_on = {"role": "user", "content": [{"type": "text", "text": "Continue."}]}
    assert body(*turns, info=OPUS_5)["messages"][-1] == go_on
    assert body(*turns, reasoning_effort="low")["messages"][-1] == go_on, "nothing can be prefilled before a thought"


def test_user_stop_and_the_rest() -> None:
    """`user` and `stop` are mapped; what Anthropic does not know is left out."""
    made = body(
        user="u-1", stop=["END", " "], seed=1, logprobs=True, logit_bias={"1": 1}, presence_penalty=1, store=True,
        metadata={"a": "b"}, frequency_penalty=1, prompt_cache_key="k", n=1, verbosity="low", stop_unknown=1,
    )  # fmt: skip
    assert made["metadata"] == {"user_id": "u-1"}
    assert body(safety_identifier="s" * 300)["metadata"] == {"user_id": "s" * 256}
    assert made["stop_sequences"] == ["END"]
    assert made.keys() == {"model", "max_tokens", "messages", "metadata", "stop_sequences", "stream"}
    assert "stream" not in body(stream=False)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"n": 2}, "n"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0]"),
    ],
)
def test_fields_that_claude_cannot_serve(fields: dict[str, Any], place: str) -> None:
    """The candidate is left out before the first try, with the field that stands in the way."""
    misfit = ADAPTERS["anthropic"].misfit(make_chat(**fields))
    assert misfit is not None
    assert misfit.field == place


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-abc"}},
        {"type": "file", "file": {"file_data": "data:application/zip;base64,UEs="}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,PHN2Zz4="}},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
    ],
)
def test_parts_that_claude_cannot_take(part: dict[str, Any]) -> None:
    """Audio, foreign file ids and the like name their place."""
    chat = make_chat("Hi", {"role": "user", "content": [{"type": "text", "text": "x"}, part]})
    misfit = ADAPTERS["anthropic"].misfit(chat)
    assert isinstance(misfit, Misfit)
    assert misfit.field == "messages[1].content[1]"
    assert misfit.reason
    assert ADAPTERS["anthropic"].call(chat, make_target("anthropic")).body


def test_the_name_of_a_claude_tells_what_the_table_tells() -> None:
    """Models younger than the price table are read by their name; for the known ones both ways agree."""
    table = PriceTable.parse(shipped.prices(), {})
    claudes = [id for id in table.models() if id.startswith("anthropic/")]
    assert len(claudes) > 20
    for id in claudes:
        known, guessed = traits(id.split("/")[1], table.info(id)), traits(id.split("/")[1], None)
        for trait in ("sampling", "thinking", "adaptive", "prefill", "native_schema"):
            assert getattr(known, trait) == getattr(guessed, trait), (id, trait)
    assert not traits("claude-sonnet-6", None).sampling
    assert traits("kimi-k2", None).sampling


@pytest.mark.parametrize("name", ["openclaw-text-turn", "openclaw-after-two-parallel-tool-calls"])
def test_an_agents_request_as_it_was_recorded(name: str) -> None:
    """OpenClaw's own requests are valid, and their stable part is marked, not the passing context at the end."""
    recorded = orjson.loads((CLIENTS / f"{name}.json").read_bytes())["body"]
    made = sent("anthropic", parse_chat(orjson.dumps(recorded)))
    judge(made)
    assert "cache_control" not in made["messages"][-1]["content"][-1]
    assert "cache_control" in made["tools"][-1]


@pytest.mark.parametrize(("model", "taken"), [("claude-sonnet-4-5", True), ("claude-3-opus-20240229", False)])
def test_a_strict_tool_is_one_where_the_model_knows_of_it(model: str, taken: bool) -> None:
    """Its arguments then fit the schema, which is closed for that; older models are not told what they would refuse."""
    tool = {"type": "function", "function": {**TOOL["function"], "strict": True}}
    (made,) = body(model=model, info=None, tools=[tool])["tools"]
    assert made.get("strict") is (True if taken else None)
    assert made["input_schema"].get("additionalProperties") is (False if taken else None)


@pytest.mark.parametrize(
    ("tier", "sent"), [("auto", "auto"), ("standard_only", "standard_only"), ("flex", None), (5, None)]
)
def test_a_service_tier_that_claude_has_goes_along(tier: Any, sent: str | None) -> None:
    """OpenAI's other tiers are not Anthropic's, and would be refused."""
    assert body(service_tier=tier).get("service_tier") == sent
