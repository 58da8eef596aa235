"""Ollama's own API: messages, options, and a window that holds the prompt."""

from __future__ import annotations

from typing import Any

import pytest
from ollama import Options
from ollama._types import ChatRequest as OllamaRequest

from llm_router.accounting.pricing import ModelInfo
from llm_router.wire.providers.ollama import chat_url
from llm_router.wire.sse import MAX_EVENT_BYTES, EventTooLarge
from llm_router.wire.usage import Usage
from tests.wire.providers.dialects import (
    ADAPTERS,
    KEY,
    TOOL,
    make_chat,
    make_target,
    read_stream,
    read_whole,
    sent,
    translate,
)


def body(
    *messages: Any, model: str = "qwen3:8b", info: ModelInfo | None = None, options: Any = None, **fields: Any
) -> dict[str, Any]:
    """The body sent for a chat, accepted by the types of Ollama's own client."""
    made = sent("ollama", make_chat(*messages, **fields), make_target("ollama", model, info=info, **(options or {})))
    OllamaRequest.model_validate(made)
    assert made.keys() <= OllamaRequest.model_fields.keys()
    # The client package knows most options; the server takes `min_p` as well.
    assert made["options"].keys() <= Options.model_fields.keys() | {"min_p"}
    Options.model_validate(made["options"])
    return made


@pytest.mark.parametrize(
    "base", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/api", "http://h:1/api/chat"]
)
def test_the_base_url_may_be_written_any_way(base: str) -> None:
    """The address is that of the native route."""
    assert chat_url(base) == "http://h:1/api/chat"


def test_a_key_is_sent_to_hosted_ollama() -> None:
    """As a bearer token; without one there is no such header."""
    target = make_target("ollama")
    assert ADAPTERS["ollama"].call(make_chat(), target).headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("stream", [True, False])
def test_stream_is_always_said(stream: bool) -> None:
    """Ollama streams unless told otherwise (trap 16)."""
    assert body(stream=stream)["stream"] is stream


def test_messages() -> None:
    """System prompts are joined, images lose their prefix, arguments are objects, results name their tool."""
    call = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
    made = body(
        {"role": "developer", "content": "one"},
        {"role": "system", "content": "two"},
        {"role": "user", "content": [
            {"type": "text", "text": "What?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}}]},
        {"role": "assistant", "content": None, "reasoning_content": "Hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
        tools=[TOOL],
    )  # fmt: skip
    assert made["messages"] == [
        {"role": "system", "content": "one\ntwo"},
        {"role": "user", "content": "What?\nhi", "images": ["iVBORw0KGgo="]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "Hm",
            "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}],
        },
        {"role": "tool", "tool_name": "get_weather", "content": "sun"},
    ]
    assert made["tools"] == [TOOL]


def test_thinking_of_earlier_turns_stays_out() -> None:
    """Only the running tool loop needs it."""
    old = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm"}
    assert "thinking" not in body("Hi", old, "And?")["messages"][1]


def test_options() -> None:
    """Ollama's names; what it does not know is left out (trap 17)."""
    made = body(
        max_completion_tokens=9, temperature=0.5, top_p=0.5, top_k=4, min_p=0.1, seed=7, stop="END",
        presence_penalty=1, frequency_penalty=1, repetition_penalty=1.1, user="u", logit_bias={}, store=True,
        options={"keep_alive": "30m"},
    )  # fmt: skip
    assert made["options"] == {
        "num_ctx": 4096, "num_predict": 9, "temperature": 0.5, "top_p": 0.5, "top_k": 4, "min_p": 0.1, "seed": 7,
        "stop": ["END"], "presence_penalty": 1.0, "frequency_penalty": 1.0, "repeat_penalty": 1.1,
    }  # fmt: skip
    assert made["keep_alive"] == "30m"
    assert made.keys() == {"model", "messages", "stream", "options", "keep_alive"}


@pytest.mark.parametrize(
    ("model", "effort", "default", "think"),
    [
        ("qwen3", None, None, None),
        ("qwen3", None, True, True),
        ("qwen3", "none", True, False),
        ("qwen3", "low", None, True),
        ("gpt-oss:20b", "minimal", None, "low"),
        ("gpt-oss:20b", "max", None, "high"),
    ],
)
def test_think(model: str, effort: str | None, default: Any, think: Any) -> None:
    """Levels for the one family that knows them, yes or no for the others."""
    fields = {} if effort is None else {"reasoning_effort": effort}
    assert body(model=model, options={"think": default}, **fields).get("think") == think


def test_format_and_choice() -> None:
    """A schema is the format itself; tools that may not be called are not offered."""
    schema = {"type": "object", "properties": {}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert body(response_format=wanted)["format"] == schema
    assert body(response_format={"type": "json_object"})["format"] == "json"
    assert "tools" not in body(tools=[TOOL], tool_choice="none")
    other = {"type": "function", "function": {"name": "g", "parameters": schema}}
    named = body(tools=[TOOL, other], tool_choice={"type": "function", "function": {"name": "g"}})
    assert [tool["function"]["name"] for tool in named["tools"]] == ["g"]


@pytest.mark.parametrize(
    ("chars", "fields", "options", "info", "window"),
    [
        (10, {}, {}, None, 4096),
        (10, {}, {"num_ctx": 2000}, None, 2000),
        (30_000, {}, {}, None, 16_384),
        (30_000, {"max_tokens": 9000}, {}, None, 32_768),
        (3_000_000, {}, {}, None, 131_072),
        (3_000_000, {}, {"context": 20_000}, None, 20_000),
        (3_000_000, {}, {}, ModelInfo(context=8192), 8192),
    ],
)
def test_the_window_holds_the_prompt(chars: int, fields: Any, options: Any, info: Any, window: int) -> None:
    """As configured, else the next step that holds prompt and answer: Ollama cuts silently what does not fit."""
    assert body("x" * chars, options=options, info=info, **fields)["options"]["num_ctx"] == window


def test_images_do_not_count_as_text() -> None:
    """A large picture is a thousand tokens, not a million bytes of prompt."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBO" * 100_000}}
    assert body({"role": "user", "content": [picture]})["options"]["num_ctx"] == 4096
    assert body({"role": "user", "content": [picture] * 4})["options"]["num_ctx"] == 8192


@pytest.mark.parametrize(
    ("part", "fits"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, False),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}, True),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}}, False),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}}, True),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, False),
    ],
)
def test_what_ollama_cannot_take(part: dict[str, Any], fits: bool) -> None:
    """Links, sound and files other than text name their place."""
    misfit = ADAPTERS["ollama"].misfit(make_chat({"role": "user", "content": [part]}))
    assert (misfit is None) is fits
    if misfit is not None:
        assert misfit.field == "messages[0].content[0]"
    assert ADAPTERS["ollama"].misfit(make_chat(n=2)) is not None


def test_a_last_line_without_its_end_counts() -> None:
    """The end of the stream ends the line."""
    line = b'{"model":"m","message":{"content":"Hi"},"done":true,"done_reason":"stop","prompt_eval_count":1}'
    read = read_stream(translate("ollama", line))
    assert (read.text, read.finish, read.done) == ("Hi", "stop", True)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_is_told_no_prompt_of_nothing(streamed: bool) -> None:
    """Where the prompt's count is missing the client gets no usage, and the books get the half that was reported."""
    line = b'{"model":"m","message":{"content":"Hi"},"done":true,"done_reason":"stop","eval_count":298}'
    chat, target = make_chat(stream=streamed), make_target("ollama")
    if streamed:
        translator = ADAPTERS["ollama"].translator(chat, target)
        assert translator is not None
        read, usage = read_stream(translator.feed(line + b"\n")), translator.usage
    else:
        whole = ADAPTERS["ollama"].completion(chat, target, line)
        read, usage = read_whole(whole.body), whole.usage
    assert (read.text, read.usage) == ("Hi", None)
    assert usage == Usage(output=298)


def test_an_endless_line_is_refused() -> None:
    """Memory is bounded whatever a provider sends."""
    translator = ADAPTERS["ollama"].translator(make_chat(), make_target("ollama"))
    assert translator is not None
    block = b"x" * (1024 * 1024)
    for _ in range(MAX_EVENT_BYTES // len(block)):
        assert translator.feed(block) == b""
    with pytest.raises(EventTooLarge):
        translator.feed(block)


def test_answers_without_a_time_are_stamped_by_the_clock() -> None:
    """Proxies that speak Ollama's dialect leave fields out."""
    out = translate("ollama", b'{"message":{"content":"Hi"},"done":true}\n')
    assert b'"created":1795398787,"model":"qwen3:8b"' in out
