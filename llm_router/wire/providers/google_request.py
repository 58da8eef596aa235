"""An OpenAI-shaped chat request as a body for Gemini's `generateContent`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llm_router.accounting.pricing import ModelInfo
from llm_router.wire.chat import ChatRequest, dump
from llm_router.wire.loose import load_exactly
from llm_router.wire.providers.base import Misfit
from llm_router.wire.providers.fields import (
    common_misfit,
    effort,
    number,
    response_schema,
    response_type,
    stops,
    whole,
)
from llm_router.wire.providers.google_models import DUMMY_SIGNATURE, GeminiTraits, gemini_traits, thinking_config
from llm_router.wire.providers.history import Part, Result, Turn, read_conversation, result_text
from llm_router.wire.providers.parts import audio_data, content_misfit, file_data, image_url, inline_data, text_of
from llm_router.wire.providers.schemas import object_schema
from llm_router.wire.providers.tools import offered_functions, tool_choice

Json = dict[str, Any]
_FILES = "https://generativelanguage.googleapis.com/"
_MODALITIES = frozenset({"text", "image"})
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_MAX_STOPS = 5
# What a link most likely leads to, by its ending.
_TYPES = {"png": "image/png", "gif": "image/gif", "webp": "image/webp", "heic": "image/heic", "pdf": "application/pdf"}
_NUMBERS = {"top_p": "topP", "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty"}
_THINKING_NAMES = {
    "include_thoughts": "includeThoughts",
    "thinking_budget": "thinkingBudget",
    "thinking_level": "thinkingLevel",
}


def misfit(chat: ChatRequest) -> Misfit | None:
    """What of this request Gemini cannot take."""
    return common_misfit(chat, "Gemini", _MODALITIES) or content_misfit(chat, _unfit)


def _unfit(part: Part) -> str | None:
    if _part(part) is not None:
        return None
    if part.get("type") == "file":
        return "a file id of another provider cannot be read by Google; send file_data"
    return f"Gemini takes no content part of type {part.get('type')!r}"


def request_body(chat: ChatRequest, model: str, info: ModelInfo | None, options: Mapping[str, Any]) -> Json:
    """The body. `options` are the provider's settings: `safety_settings`, in Google's own form."""
    traits = gemini_traits(model)
    conversation = read_conversation(chat.messages)
    body: Json = {"contents": [content for turn in conversation.turns for content in _contents(turn, traits)]}
    system = [part for one in conversation.system if (part := _part(one)) is not None]
    tools = _tools(chat)
    config = _config(chat, traits, info)
    if tools and "responseMimeType" in config and not traits.levels:
        # Models before version 3 refuse a JSON answer together with tools; words have to do.
        del config["responseMimeType"]
        schema = config.pop("responseJsonSchema", None)
        system.append({"text": _json_instruction(schema)})
    if system:
        body["systemInstruction"] = {"parts": system}
    body |= tools
    if config:
        body["generationConfig"] = config
    extra = _extra(chat.body)
    safety = extra.get("safety_settings") or options.get("safety_settings")
    if isinstance(safety, list):
        body["safetySettings"] = safety
    if isinstance(extra.get("cached_content"), str):
        body["cachedContent"] = extra["cached_content"]
    return body


def _json_instruction(schema: Any) -> str:
    words = "Give your final answer as one valid JSON object and nothing else"
    return f"{words}, fitting this JSON schema: {dump(schema).decode()}" if schema else f"{words}."


def _extra(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The client's Google-only wishes, in the place where Google's compatibility endpoint takes them."""
    extra = body.get("extra_body")
    google = extra.get("google") if isinstance(extra, dict) else None
    return google if isinstance(google, dict) else {}


def _contents(turn: Turn, traits: GeminiTraits) -> list[Json]:
    """A turn as contents. Tool results stand alone: Gemini counts them against the calls before."""
    made: list[Json] = []
    if turn.results:
        made.append({"role": "user", "parts": [_response(result) for result in turn.results]})
    shown = [part for result in turn.results for part in result.parts if text_of(part) is None]
    parts = [made_part for one in (*shown, *turn.parts) if (made_part := _part(one)) is not None]
    for index, call in enumerate(turn.calls):
        called: Json = {"functionCall": {"id": call.id, "name": call.name, "args": dict(call.arguments)}}
        if call.signature or (index == 0 and traits.signatures):
            called["thoughtSignature"] = call.signature or DUMMY_SIGNATURE
        parts.append(called)
    if parts:
        made.append({"role": "model" if turn.role == "assistant" else "user", "parts": parts})
    return made or [{"role": "user", "parts": [{"text": "."}]}]


def _response(result: Result) -> Json:
    text = result_text(result)
    answer: Any = {"error": text} if result.failed else _object(text)
    return {"functionResponse": {"id": result.call.id, "name": result.call.name, "response": answer}}


def _object(text: str) -> Json:
    try:
        value = load_exactly(text)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"output": text}


def _part(part: Part) -> Json | None:
    """A content part in Gemini's form; None for one that it cannot take."""
    text = text_of(part)
    if text is not None:
        return {"text": text}
    url = image_url(part)
    data = inline_data(url) if url is not None else audio_data(part) or file_data(part)
    if data is not None:
        return {"inlineData": {"mimeType": data.media_type, "data": data.base64}}
    file = part.get("file")
    if url is None and isinstance(file, dict):
        id = file.get("file_id")
        url = id if isinstance(id, str) and id.startswith(_FILES) else None
    if url is None:
        return None
    named: Json = {"fileUri": url}
    if not url.startswith(_FILES):
        ending = url.partition("?")[0].rpartition(".")[2].lower()
        named["mimeType"] = _TYPES.get(ending, "image/jpeg")
    return {"fileData": named}


def _tools(chat: ChatRequest) -> Json:
    choice = tool_choice(chat.body)
    offered = offered_functions(chat, choice)
    tools: list[Json] = [{"functionDeclarations": [_declaration(tool) for tool in offered]}] if offered else []
    tools += [dict(tool) for tool in chat.tools if isinstance(tool, dict) and _is_googles_own(tool)]
    if not tools:
        return {}
    made: Json = {"tools": tools}
    if choice.mode is not None and offered:
        calling: Json = {"mode": _MODES[choice.mode]}
        if choice.name is not None:
            calling["allowedFunctionNames"] = [choice.name]
        made["toolConfig"] = {"functionCallingConfig": calling}
    return made


def _is_googles_own(tool: Mapping[str, Any]) -> bool:
    """Whether this is a tool of Google's (search, code execution), which travels in its own form: it has no name."""
    return {"type", "function", "name"}.isdisjoint(tool)


def _declaration(tool: Mapping[str, Any]) -> Json:
    made: Json = {"name": tool["name"]}
    if isinstance(tool.get("description"), str) and tool["description"]:
        made["description"] = tool["description"]
    if tool.get("parameters"):
        made["parametersJsonSchema"] = object_schema(tool["parameters"])
    return made


def _config(chat: ChatRequest, traits: GeminiTraits, info: ModelInfo | None) -> Json:
    body, config = chat.body, _sampling(chat, info)
    limit = chat.output_limit
    if limit is not None:
        largest = info.max_output if info is not None else None
        config["maxOutputTokens"] = max(1, min(limit, largest) if largest else limit)
    sequences = stops(body)[:_MAX_STOPS]
    if sequences:
        config["stopSequences"] = sequences
    if response_type(body) in ("json_object", "json_schema"):
        config["responseMimeType"] = "application/json"
        schema = response_schema(body)
        if schema is not None:
            config["responseJsonSchema"] = schema
    thinking = _thinking(body, traits)
    if thinking is not None:
        config["thinkingConfig"] = thinking
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "image" in modalities:
        config["responseModalities"] = [str(one).upper() for one in modalities]
    return config


def _thinking(body: Mapping[str, Any], traits: GeminiTraits) -> Json | None:
    own = _extra(body).get("thinking_config")
    if isinstance(own, dict):
        return {_THINKING_NAMES.get(str(name), str(name)): value for name, value in own.items()}
    return thinking_config(effort(body), traits)


def _sampling(chat: ChatRequest, info: ModelInfo | None) -> Json:
    config: Json = {}
    seed = whole(chat.body.get("seed"))
    if seed is not None:
        config["seed"] = seed
    if info is not None and not info.sampling:
        return config
    temperature = number(chat.body.get("temperature"))
    if temperature is not None:
        config["temperature"] = min(max(temperature, 0.0), 2.0)
    for name, theirs in _NUMBERS.items():
        value = number(chat.body.get(name))
        if value is not None:
            config[theirs] = value
    top_k = whole(chat.body.get("top_k"))
    if top_k is not None and top_k > 0:
        config["topK"] = top_k
    return config
