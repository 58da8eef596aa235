"""Requests to Gemini in its native dialect."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from google.genai import types
from pydantic import BaseModel, ConfigDict

from llm_router.accounting.pricing import ModelInfo
from llm_router.wire.providers.google import model_url
from llm_router.wire.providers.google_models import DUMMY_SIGNATURE
from tests.wire.providers.dialects import (
    ADAPTERS,
    KEY,
    TOOL,
    make_chat,
    make_target,
    read_stream,
    read_whole,
    sent,
    tool_turns,
    translate,
)

FLASH_25, PRO_25, FLASH_3, PRO_3 = "gemini-2.5-flash", "gemini-2.5-pro", "gemini-3-flash-preview", "gemini-3.1-pro"


class _Request(BaseModel):
    """Gemini's request in the types of Google's own client, which knows every field by its wire name."""

    model_config = ConfigDict(extra="forbid")

    contents: list[types.Content]
    systemInstruction: types.Content | None = None
    tools: list[types.Tool] | None = None
    toolConfig: types.ToolConfig | None = None
    generationConfig: types.GenerationConfig | None = None
    safetySettings: list[types.SafetySetting] | None = None
    cachedContent: str | None = None


def body(*messages: Any, model: str = FLASH_3, info: ModelInfo | None = None, **fields: Any) -> dict[str, Any]:
    """The body sent for a chat, accepted by the types of Google's own client (which refuse unknown fields)."""
    made = sent("google", make_chat(*messages, **fields), make_target("google", model, info=info))
    _Request.model_validate(made)
    return made


def test_the_key_is_in_its_header_and_never_in_the_address() -> None:
    """Addresses end up in logs (trap 28)."""
    call = ADAPTERS["google"].call(make_chat(), make_target("google", FLASH_3))
    assert call.url == (
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-3-flash-preview:streamGenerateContent?alt=sse"
    )
    assert call.headers["x-goog-api-key"] == KEY
    whole = ADAPTERS["google"].call(make_chat(stream=False), make_target("google", FLASH_3))
    assert whole.url.endswith("models/gemini-3-flash-preview:generateContent")
    assert b'"stream"' not in whole.body


@pytest.mark.parametrize(
    ("base", "model", "url"),
    [
        ("https://g/", "m", "https://g/v1beta/models/m:generateContent"),
        ("https://g/v1", "models/m", "https://g/v1/models/m:generateContent"),
        ("https://g/v1beta/openai/", "tunedModels/m", "https://g/v1beta/tunedModels/m:generateContent"),
        ("https://g/v1beta", "../x?y#z", "https://g/v1beta/models/..%2Fx%3Fy%23z:generateContent"),
    ],
)
def test_addresses(base: str, model: str, url: str) -> None:
    """Any way of writing the base leads there; nothing in a model's name can change the route."""
    assert model_url(base, model, stream=False) == url


def test_a_tool_loop() -> None:
    """Calls and responses match in name, number and order; objects stay objects, words are wrapped."""
    made = body(*tool_turns(), tools=[TOOL])
    assert made["systemInstruction"] == {"parts": [{"text": "s"}]}
    user, model, results, words = made["contents"]
    assert [content["role"] for content in made["contents"]] == ["user", "model", "user", "user"]
    assert user["parts"] == [{"text": "Weather?"}]
    assert model["parts"][0] == {"text": "Looking"}
    assert model["parts"][1]["functionCall"] == {"id": "a", "name": "get_weather", "args": {"city": "Paris"}}
    assert [part["functionResponse"]["response"] for part in results["parts"]] == [{"sun": True}, {"output": "rain"}]
    assert {part["functionResponse"]["name"] for part in results["parts"]} == {"get_weather"}
    assert words["parts"] == [{"text": "So?"}]


def test_missing_signatures_are_filled_where_they_are_demanded() -> None:
    """The first call of a foreign step gets Google's documented dummy from version 3 on."""
    parts = body(*tool_turns(), tools=[TOOL])["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, DUMMY_SIGNATURE, None]
    older = body(*tool_turns(), tools=[TOOL], model=PRO_25)["contents"][1]["parts"]
    assert not any("thoughtSignature" in part for part in older)


@pytest.mark.parametrize(
    "carried",
    [
        {"call": {"extra_content": {"google": {"thought_signature": "c2ln"}}}},
        {"message": {"reasoning_details": [
            {"type": "reasoning.encrypted", "id": "a", "format": "google-gemini-v1", "data": "c2ln"}]}},
        {"message": {"reasoning_details": [
            {"type": "reasoning.encrypted", "id": "call_a", "format": "google-gemini-v1", "data": "c2ln"}]}},
    ],
)  # fmt: skip
def test_signatures_come_back(carried: dict[str, Any]) -> None:
    """From Google's own place, or from `reasoning_details`, also where the client rewrote the ids of its calls."""
    turns = tool_turns()
    turns[2] |= carried.get("message", {})
    turns[2]["tool_calls"][0] |= carried.get("call", {})
    for model in (FLASH_3, PRO_25):
        parts = body(*turns, tools=[TOOL], model=model)["contents"][1]["parts"]
        assert [part.get("thoughtSignature") for part in parts] == [None, "c2ln", None]


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        (FLASH_25, "none", {"thinkingBudget": 0}),
        (FLASH_25, "minimal", {"includeThoughts": True, "thinkingBudget": 1}),
        (PRO_25, "none", {"thinkingBudget": 128}),
        (PRO_25, "high", {"includeThoughts": True, "thinkingBudget": 4096}),
        ("gemini-2.5-flash-lite", "minimal", {"includeThoughts": True, "thinkingBudget": 512}),
        (FLASH_3, "none", {"thinkingLevel": "MINIMAL"}),
        (FLASH_3, "medium", {"includeThoughts": True, "thinkingLevel": "MEDIUM"}),
        (PRO_3, "minimal", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        (PRO_3, "none", {"thinkingLevel": "LOW"}),
        ("gemini-flash-latest", "max", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ("gemini-2.0-flash", "high", None),
        ("gemma-3-27b-it", "high", None),
    ],
)
def test_reasoning_effort_by_family(model: str, effort: str, config: Any) -> None:
    """A budget for version 2.5, a level from version 3 on, never both, nothing for models that do not think."""
    made = body(reasoning_effort=effort, model=model).get("generationConfig", {})
    assert made.get("thinkingConfig") == config


def test_a_budget_is_never_below_what_a_model_must_think() -> None:
    """Google refuses less; what is above is the client's own choice."""
    for tokens, budget in ((50, 128), (300, 300)):
        made = body(reasoning={"max_tokens": tokens}, model=PRO_25)["generationConfig"]
        assert made["thinkingConfig"]["thinkingBudget"] == budget


@pytest.mark.parametrize("reason", ["SAFETY", "A_WORD_OF_TOMORROW"])
def test_a_blocked_prompt_is_filtered_whatever_the_reason(reason: str) -> None:
    """It comes as a 200 without candidates; the client learns that it was no plain end, and why."""
    answer = {"promptFeedback": {"blockReason": reason}}
    event = b"data: " + orjson.dumps(answer) + b"\r\n\r\n"
    whole = ADAPTERS["google"].completion(make_chat(stream=False), make_target("google"), orjson.dumps(answer))
    for read in (read_stream(translate("google", event)), read_whole(whole.body)):
        assert read.finish == "content_filter"
        assert reason in (read.refusal or "")


def test_googles_own_wishes_pass() -> None:
    """What clients send to the compatibility endpoint under `extra_body.google` works here too."""
    made = body(
        extra_body={"google": {"thinking_config": {"thinking_budget": 7}, "cached_content": "cachedContents/x"}}
    )
    assert made["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 7}
    assert made["cachedContent"] == "cachedContents/x"
    settings = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    target = make_target("google", FLASH_3, safety_settings=settings)
    assert sent("google", make_chat(), target)["safetySettings"] == settings


def test_sampling_limits_and_stops() -> None:
    """Google's names; at most five stops; nothing that it does not know; no sampling where the model refuses it."""
    fields: dict[str, Any] = {
        "temperature": 3, "top_p": 0.5, "top_k": 4, "seed": 7, "presence_penalty": 1, "frequency_penalty": 1,
        "max_completion_tokens": 90, "stop": ["a", "b", "c", "d", "e", "f", " "], "user": "u", "logprobs": True,
        "store": True, "parallel_tool_calls": False, "stream_unknown": 1,
    }  # fmt: skip
    made = body(**fields)
    assert made.keys() == {"contents", "generationConfig"}
    assert made["generationConfig"] == {
        "temperature": 2.0, "topP": 0.5, "topK": 4, "seed": 7, "presencePenalty": 1.0, "frequencyPenalty": 1.0,
        "maxOutputTokens": 90, "stopSequences": ["a", "b", "c", "d", "e"],
    }  # fmt: skip
    bare = body(**fields, info=ModelInfo(sampling=False, max_output=50))["generationConfig"]
    assert bare == {"seed": 7, "maxOutputTokens": 50, "stopSequences": ["a", "b", "c", "d", "e"]}


def test_tools_and_choice() -> None:
    """Schemas travel as JSON schema; every form of choice is mapped; Google's own tools pass."""
    made = body(tools=[TOOL, {"google_search": {}}], tool_choice="required")
    assert made["tools"][0]["functionDeclarations"][0] == {
        "name": "get_weather",
        "parametersJsonSchema": {"type": "object", "properties": {}},
    }
    assert made["tools"][1] == {"google_search": {}}
    assert made["toolConfig"]["functionCallingConfig"] == {"mode": "ANY"}
    named = body(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "get_weather"}})
    assert named["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["get_weather"]}
    assert body(tools=[TOOL], tool_choice="none")["toolConfig"]["functionCallingConfig"] == {"mode": "NONE"}
    assert "toolConfig" not in body(tools=[TOOL])


def test_a_flat_tool_is_declared_once() -> None:
    """A function in the form of the Responses API is none of Google's own tools, also where its type is missing."""
    flat = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    (only,) = body(tools=[flat])["tools"]
    assert [declared["name"] for declared in only["functionDeclarations"]] == ["f"]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        *((reason, "content_filter") for reason in (
            "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION", "OTHER",
            "MODEL_ARMOR", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "NO_IMAGE",
        )),
        *((reason, "stop") for reason in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "A_WORD_OF_TOMORROW")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("called", [False, True])
def test_every_finish_of_googles_is_one_of_openais(reason: str, finish: str, called: bool) -> None:
    """Tool calls end with STOP; what was cut or filtered is never called a plain end; Google's own word stays."""
    parts = [{"functionCall": {"name": "f", "args": {}}}] if called else [{"text": "x"}]
    answer = {"candidates": [{"content": {"parts": parts}, "finishReason": reason}]}
    event = b"data: " + orjson.dumps(answer) + b"\r\n\r\n"
    adapter, target = ADAPTERS["google"], make_target("google")
    whole = adapter.completion(make_chat(stream=False), target, orjson.dumps(answer))
    (choice,) = orjson.loads(whole.body)["choices"]
    expected = "tool_calls" if called and finish == "stop" else finish
    assert choice["finish_reason"] == read_stream(translate("google", event)).finish == expected
    assert choice.get("native_finish_reason", reason) == reason
    assert ("native_finish_reason" in choice) is (reason not in ("STOP", "MAX_TOKENS"))


def test_json_answers() -> None:
    """By schema; together with tools older models take it in words alone."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert body(response_format=wanted)["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
    assert body(response_format={"type": "json_object"})["generationConfig"] == {"responseMimeType": "application/json"}
    assert "responseJsonSchema" in body(response_format=wanted, tools=[TOOL])["generationConfig"]
    older = body(response_format=wanted, tools=[TOOL], model=FLASH_25)
    assert "generationConfig" not in older
    assert '"integer"' in older["systemInstruction"]["parts"][0]["text"]


def test_inline_data_and_links() -> None:
    """Images, sound and files travel in the request; links by address."""
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.webp?x=1"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "mp3"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "file", "file": {"file_id": "https://generativelanguage.googleapis.com/v1beta/files/x"}},
    ]
    made = body({"role": "user", "content": parts})["contents"][0]["parts"]
    assert made[0] == {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    assert made[1] == {"fileData": {"fileUri": "https://example.com/a.webp?x=1", "mimeType": "image/webp"}}
    assert made[2]["inlineData"]["mimeType"] == "audio/mp3"
    assert made[3]["inlineData"]["mimeType"] == "application/pdf"
    assert made[4]["fileData"] == {"fileUri": parts[4]["file"]["file_id"]}  # type: ignore[index]
    pictures = body("Draw", modalities=["text", "image"])["generationConfig"]
    assert pictures["responseModalities"] == ["TEXT", "IMAGE"]


@pytest.mark.parametrize(
    ("fields", "part", "place"),
    [
        ({"n": 2}, None, "n"),
        ({"modalities": ["audio"]}, None, "modalities"),
        ({}, {"type": "file", "file": {"file_id": "file-abc"}}, "messages[0].content[0]"),
        ({}, {"type": "video_url", "video_url": {"url": "https://h/v"}}, "messages[0].content[0]"),
        ({}, None, None),
        ({}, {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}, None),
    ],
)
def test_what_gemini_cannot_take(fields: dict[str, Any], part: Any, place: str | None) -> None:
    """Foreign file ids, several choices and the like; sound it takes."""
    message = "Hi" if part is None else {"role": "user", "content": [part]}
    misfit = ADAPTERS["google"].misfit(make_chat(message, **fields))
    assert (misfit.field if misfit else None) == place
