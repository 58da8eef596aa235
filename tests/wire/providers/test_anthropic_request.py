"""Requests to Anthropic: what is mapped, repaired, marked for the cache and refused."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pytest
from anthropic.types.message_create_params import MessageCreateParamsBase, MessageCreateParamsNonStreaming
from pydantic import TypeAdapter, ValidationError

from llm_router.accounting.pricing import ModelInfo, PriceTable
from llm_router.wire.chat import parse_chat
from llm_router.wire.providers.anthropic import messages_url
from llm_router.wire.providers.anthropic_models import traits
from llm_router.wire.providers.base import Misfit
from tests.wire.providers.dialects import ADAPTERS, KEY, TOOL, make_chat, make_target, sent

CLIENTS = Path(__file__).parents[2] / "clients" / "data"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
JUDGE: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
OPUS_5 = ModelInfo(
    max_output=128_000, sampling=False, adaptive_thinking=True, prefill=False, reasoning=True, context=1_000_000
)
OPUS_5_5 = ModelInfo(
    max_output=128_000, sampling=False, adaptive_thinking=True, prefill=False, reasoning=True,
    thinking_always_on=True, forced_tool_choice=False,
)  # fmt: skip
OPUS_4_6 = ModelInfo(max_output=128_000, adaptive_thinking=True, prefill=False, reasoning=True)
SONNET_4_5 = ModelInfo(max_output=64_000, reasoning=True)
OPUS_3 = ModelInfo(max_output=4096, reasoning=False)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}
WANTS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
MARK = {"type": "ephemeral"}


def body(
    *messages: Any,
    info: ModelInfo | None = SONNET_4_5,
    model: str = "claude-sonnet-4-5",
    option: Any = None,
    **fields: Any,
) -> dict[str, Any]:
    """The body sent for a chat, accepted by the types of Anthropic's own client."""
    options = {} if option is None else {"cache": option}
    made = sent("anthropic", make_chat(*messages, **fields), make_target("anthropic", model, info=info, **options))
    judge(made)
    return made


def judge(made: dict[str, Any]) -> None:
    """Anthropic's own client knows every field, and every value has a type that it allows."""
    mine = {name: value for name, value in made.items() if name not in (*SAMPLING, "stream")}
    assert mine.keys() <= MessageCreateParamsBase.__annotations__.keys()
    _consume(JUDGE.validate_python(mine))


def test_the_judge_refuses_what_anthropic_would() -> None:
    """A judge that lets everything pass would prove nothing."""
    content: dict[str, Any] = {"type": "tool_result", "content": "x"}
    with pytest.raises(ValidationError):
        judge({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [content]}]})


def _consume(value: Any) -> None:
    """Iterables are checked by pydantic only while they are read."""
    if isinstance(value, dict):
        for one in value.values():
            _consume(one)
    elif hasattr(value, "__iter__") and not isinstance(value, str | bytes):
        for one in value:
            _consume(one)


# The client package speaks the newer version of the API, which has no sampling fields; ours does.
SAMPLING = ("temperature", "top_p", "top_k")


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


def _tool_turns() -> list[dict[str, Any]]:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
    return [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call.a", **call}, {"id": "call|b", **call}]},
        {"role": "tool", "tool_call_id": "call|b", "content": "rain"},
        {"role": "tool", "tool_call_id": "call.a", "content": [{"type": "text", "text": "sun"}]},
        {"role": "user", "content": "So?"},
    ]


def test_tool_results_come_first_in_one_user_turn() -> None:
    """All results of a step, in the order of its calls, before the person's words; ids are made acceptable on both
    sides (traps 20, 21)."""
    made = body(*_tool_turns(), tools=[TOOL])
    assistant, user = made["messages"][1:]
    assert [block["type"] for block in assistant["content"]] == ["tool_use", "tool_use"]
    assert [block["id"] for block in assistant["content"]] == ["call_a", "call_b"]
    assert assistant["content"][0]["input"] == {"city": "Paris"}
    assert [block["type"] for block in user["content"]] == ["tool_result", "tool_result", "text"]
    assert [block["tool_use_id"] for block in user["content"][:2]] == ["call_a", "call_b"]
    assert [block["content"] for block in user["content"][:2]] == ["sun", "rain"]


def test_bad_arguments_in_history_do_not_fail_the_request() -> None:
    """What is no JSON object is kept as text (trap 22)."""
    turns = _tool_turns()
    turns[1]["tool_calls"][0]["function"] = {"name": "get_weather", "arguments": '{"city": "Par'}
    made = body(*turns, tools=[TOOL])
    assert made["messages"][1]["content"][0]["input"] == {"_raw": '{"city": "Par'}


def test_a_call_without_a_result_gets_one() -> None:
    """Every call needs its result in the next turn, or the request is refused."""
    turns = [turn for turn in _tool_turns() if turn.get("tool_call_id") != "call.a"]
    first = body(*turns, tools=[TOOL])["messages"][2]["content"][0]
    assert first["tool_use_id"] == "call_a"
    assert first["is_error"] is True


def test_tool_definitions_and_choice() -> None:
    """Name, description, schema (never missing, always an object at the top), and every form of choice."""
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"anyOf": [SCHEMA]}}}
    made = body(tools=[tool, {"type": "function", "function": {"name": "g"}}])
    assert made["tools"][0]["description"] == "d"
    assert made["tools"][0]["input_schema"] == {"type": "object", "properties": SCHEMA["properties"]}
    assert made["tools"][1]["input_schema"] == {"type": "object", "properties": {}}
    assert "tool_choice" not in made
    choices = {
        "auto": {"type": "auto"},
        "none": {"type": "none"},
        "required": {"type": "any"},
    }
    for ours, theirs in choices.items():
        assert body(tools=[tool], tool_choice=ours)["tool_choice"] == theirs
    named = {"type": "function", "function": {"name": "f"}}
    assert body(tools=[tool], tool_choice=named)["tool_choice"] == {"type": "tool", "name": "f"}
    alone = body(tools=[tool], parallel_tool_calls=False)["tool_choice"]
    assert alone == {"type": "auto", "disable_parallel_tool_use": True}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    made = body(tools=[tool, TOOL], tool_choice=allowed)
    assert [one["name"] for one in made["tools"]] == ["f"]
    assert made["tool_choice"] == {"type": "any"}


def test_forced_choice_is_lifted_where_the_model_refuses_it() -> None:
    """Models that always think, and thinking that was asked for, take no forced tool."""
    assert body(tools=[TOOL], tool_choice="required", info=OPUS_5_5)["tool_choice"] == {"type": "auto"}
    made = body(tools=[TOOL], tool_choice="required", reasoning_effort="high")
    assert made["tool_choice"] == {"type": "auto"}


def test_a_history_with_calls_keeps_its_tools() -> None:
    """A request without tools after a tool loop names the tools that were used, and forbids new calls."""
    made = body(*_tool_turns())
    assert [tool["name"] for tool in made["tools"]] == ["get_weather"]
    assert made["tool_choice"] == {"type": "none"}


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


@pytest.mark.parametrize(
    ("info", "effort", "thinking", "output"),
    [
        (SONNET_4_5, "high", {"type": "enabled", "budget_tokens": 4096}, None),
        (SONNET_4_5, "minimal", {"type": "enabled", "budget_tokens": 1024}, None),
        (SONNET_4_5, "none", None, None),
        (OPUS_4_6, "high", {"type": "adaptive"}, {"effort": "high"}),
        (OPUS_4_6, "xhigh", {"type": "adaptive"}, {"effort": "high"}),
        (OPUS_5, "xhigh", {"type": "adaptive", "display": "summarized"}, {"effort": "xhigh"}),
        (OPUS_5, "minimal", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        (OPUS_5, "none", {"type": "disabled"}, None),
        (OPUS_5_5, "none", None, {"effort": "low"}),
        (OPUS_3, "high", None, None),
    ],
)
def test_reasoning_effort_becomes_thinking(info: ModelInfo, effort: str, thinking: Any, output: Any) -> None:
    """A budget for older models, adaptive thinking with an effort for newer ones, nothing where there is none."""
    made = body(info=info, reasoning_effort=effort)
    assert made.get("thinking") == thinking
    assert made.get("output_config") == output


def test_a_budget_fits_below_max_tokens() -> None:
    """A budget as large as the whole answer is refused, so thinking gives way."""
    assert body(reasoning_effort="max", max_tokens=3000)["thinking"]["budget_tokens"] == 2999
    assert "thinking" not in body(reasoning_effort="max", max_tokens=1000)
    assert body(reasoning={"max_tokens": 5000})["thinking"]["budget_tokens"] == 5000
    assert body(reasoning={"effort": "low"})["thinking"]["budget_tokens"] == 1024
    assert "thinking" not in body(reasoning={"enabled": False})


def test_anthropics_own_thinking_field_is_understood() -> None:
    """What clients send to Anthropic's compatibility endpoint works here too; OpenAI's fields come before it."""
    assert body(thinking={"type": "enabled", "budget_tokens": 5000})["thinking"]["budget_tokens"] == 5000
    assert body(thinking={"type": "enabled"})["thinking"]["budget_tokens"] == 2048
    assert body(info=OPUS_4_6, thinking={"type": "adaptive"})["thinking"] == {"type": "adaptive"}
    assert body(info=OPUS_5, thinking={"type": "disabled"})["thinking"] == {"type": "disabled"}
    both = body(thinking={"type": "enabled", "budget_tokens": 5000}, reasoning_effort="low")
    assert both["thinking"]["budget_tokens"] == 1024


def test_signed_thinking_comes_back_in_a_tool_loop() -> None:
    """What an answer carried out in `reasoning_details` goes back as thinking blocks, in front."""
    details = [
        {
            "type": "reasoning.encrypted",
            "id": "call.a",
            "format": "unknown",
            "data": 'anthropic:[{"type":"thinking","thinking":"Hm","signature":"c2ln"},'
            '{"type":"redacted_thinking","data":"ZGF0YQ=="}]',
        }
    ]
    turns = _tool_turns()[:4]
    turns[1]["reasoning_details"] = details
    content = body(*turns, tools=[TOOL], reasoning_effort="low")["messages"][1]["content"]
    assert content[:2] == [
        {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    ]
    assert body(*turns, tools=[TOOL])["messages"][1]["content"][0]["type"] == "tool_use"


def test_only_a_tool_loop_gets_its_thinking_back() -> None:
    """What led to an answer in words is not needed any more, and would be paid for again."""
    signed = [{"type": "thinking", "thinking": "Hm", "signature": "c2ln"}]
    answered = {"role": "assistant", "content": "Hello", "thinking_blocks": signed}
    content = body("Hi", answered, "And now?", reasoning_effort="low")["messages"][1]["content"]
    assert [block["type"] for block in content] == ["text"]


def test_a_loop_without_its_signatures_goes_on_without_thinking() -> None:
    """Clients drop unknown fields: then older models must not think in that loop, newer ones still may."""
    turns = _tool_turns()[:4]
    turns[1]["reasoning_content"] = "unsigned"
    assert "thinking" not in body(*turns, tools=[TOOL], reasoning_effort="low")
    assert body(*turns, tools=[TOOL], reasoning_effort="low", info=OPUS_5)["thinking"]["type"] == "adaptive"


@pytest.mark.parametrize(
    "signed",
    [
        {"reasoning_details": [
            {"type": "reasoning.text", "text": "Hm", "signature": "c2ln", "format": "anthropic-claude-v1"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm", "signature": "c2ln"}]},
    ],
)  # fmt: skip
def test_other_gateways_ways_of_carrying_thinking_are_read(signed: dict[str, Any]) -> None:
    """OpenRouter's and LiteLLM's forms of signed thinking become blocks too."""
    turns = _tool_turns()[:4]
    turns[1] |= signed
    content = body(*turns, tools=[TOOL], reasoning_effort="low")["messages"][1]["content"]
    assert content[0] == {"type": "thinking", "thinking": "Hm", "signature": "c2ln"}


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


def _marked(made: dict[str, Any]) -> list[str]:
    found = []
    for place in ("tools", "system"):
        found += [f"{place}{i}" for i, one in enumerate(made.get(place, ())) if "cache_control" in one]
    for number, message in enumerate(made["messages"]):
        found += [f"{number}.{i}" for i, block in enumerate(message["content"]) if "cache_control" in block]
    return found


def test_the_cache_is_used_from_the_second_turn_on_or_with_tools() -> None:
    """A one-shot prompt would only pay the price of writing."""
    system = {"role": "system", "content": "s"}
    again = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And?"}]
    assert _marked(body(system, "Hi")) == []
    assert _marked(body(system, "Hi", tools=[TOOL, TOOL])) == ["tools1", "system0"]
    assert _marked(body(system, "Hi", *again)) == ["system0", "1.0"]
    assert _marked(body(*_tool_turns(), tools=[TOOL])) == ["tools0", "2.1"]
    assert _marked(body(system, "Hi", *again, option=False)) == []
    longer = body(system, "Hi", *again, option="1h")
    assert longer["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize(
    "marked",
    [
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "s", "cache_control": MARK}]}, "Hi"]},
        {"messages": [{"role": "user", "content": "Hi", "cache_control": MARK}]},
        {"messages": ["Hi"], "tools": [{**TOOL, "cache_control": MARK}]},
        {"messages": ["Hi"], "cache_control": MARK},
    ],
)
def test_the_clients_own_marks_stand(marked: dict[str, Any]) -> None:
    """Whoever marks the prefix knows better: the marks pass, and none is added."""
    messages = marked.pop("messages")
    rest = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And?"}]
    made = body(*messages, *rest, **{"tools": [TOOL], **marked})
    assert len(_marked(made)) + ("cache_control" in made) == 1


def test_marks_in_tool_results_belong_to_the_result() -> None:
    """A mark on a part of a tool message becomes the mark of its result; blocks inside carry none."""
    turns = _tool_turns()
    turns[3]["content"] = [{"type": "text", "text": "sun", "cache_control": MARK}]
    result = body(*turns, tools=[TOOL])["messages"][2]["content"][0]
    assert result["cache_control"] == MARK
    assert result["content"] == "sun"


def test_the_prefix_of_a_growing_conversation_is_stable() -> None:
    """The next request begins with the bytes of this one up to the marks, or the cache would never be read."""
    turns: list[Any] = [{"role": "system", "content": "s"}, *_tool_turns()]
    before = body(*turns[:-1], tools=[TOOL])
    after = body(*turns, {"role": "assistant", "content": "Take a coat."}, "Thanks", tools=[TOOL])
    for made in (before, after):
        for block in [*made["tools"], *made["system"], *(b for m in made["messages"] for b in m["content"])]:
            block.pop("cache_control", None)
    assert after["tools"] == before["tools"]
    assert after["system"] == before["system"]
    assert after["messages"][2]["content"][:2] == before["messages"][2]["content"][:2]


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
    misfit = ADAPTERS["anthropic"].misfit(make_chat(**fields), make_target("anthropic"))
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
    misfit = ADAPTERS["anthropic"].misfit(chat, make_target("anthropic"))
    assert isinstance(misfit, Misfit)
    assert misfit.field == "messages[1].content[1]"
    assert misfit.reason
    assert ADAPTERS["anthropic"].call(chat, make_target("anthropic")).body


def test_the_name_of_a_claude_tells_what_the_table_tells() -> None:
    """Models younger than the price table are read by their name; for the known ones both ways agree."""
    table = PriceTable.parse(files("llm_router").joinpath("data/prices.json").read_bytes(), {})
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
