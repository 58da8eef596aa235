"""An OpenAI-shaped chat request as a body for Ollama's `/api/chat`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_router.accounting.pricing import ModelInfo
from llm_router.wire.chat import ChatRequest, dump
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
from llm_router.wire.providers.history import Part, Turn, read_conversation, result_text
from llm_router.wire.providers.parts import content_misfit, file_data, image_url, inline_data, plain_text
from llm_router.wire.providers.schemas import object_schema
from llm_router.wire.providers.tools import offered_functions, tool_choice

# Ollama's own default. Every change of the window makes it load the model anew, so the steps are wide.
SMALLEST_WINDOW = 4096
_LARGEST_WINDOW = 131_072
# Fewer bytes to a token than any usual text has: a window that is too large costs memory, one too small the prompt.
_BYTES_PER_TOKEN = 3
_IMAGE_TOKENS = 1024
_USUAL_OUTPUT = 2048
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty")


def misfit(chat: ChatRequest) -> Misfit | None:
    """What of this request Ollama cannot take."""
    return common_misfit(chat, "Ollama") or content_misfit(chat, _unfit)


def _unfit(part: Mapping[str, Any]) -> str | None:
    url = image_url(part)
    if url is not None:
        return None if inline_data(url) is not None else "Ollama takes images as data URIs, not as links"
    if part.get("type") == "file":
        data = file_data(part)
        if data is not None and data.media_type.startswith("text/") and data.text() is not None:
            return None
        return "Ollama takes no files but text"
    return f"Ollama takes no content part of type {part.get('type')!r}"


def request_body(chat: ChatRequest, model: str, info: ModelInfo | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body. `options` are the provider's settings: `num_ctx`, `context`, `keep_alive`, `think`."""
    body: dict[str, Any] = {"model": model, "messages": _messages(chat), "stream": chat.stream}
    choice = tool_choice(chat.body)
    if choice.mode != "none":
        tools = [_tool(tool) for tool in offered_functions(chat, choice) if choice.name in (None, tool["name"])]
        if tools:
            body["tools"] = tools
    answer_format = _format(chat)
    if answer_format is not None:
        body["format"] = answer_format
    think = _think(chat, model, options.get("think"))
    if think is not None:
        body["think"] = think
    if options.get("keep_alive") is not None:
        body["keep_alive"] = options["keep_alive"]
    body["options"] = {"num_ctx": window(chat, body, info, options), **_options(chat)}
    return body


def _messages(chat: ChatRequest) -> list[dict[str, Any]]:
    conversation = read_conversation(chat.messages)
    made: list[dict[str, Any]] = []
    system = plain_text(conversation.system)
    if system:
        made.append({"role": "system", "content": system})
    loop = conversation.loop_start
    for index, turn in enumerate(conversation.turns):
        made += _turn(turn, in_loop=index >= loop)
    return made


def _turn(turn: Turn, *, in_loop: bool) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [
        {"role": "tool", "tool_name": result.call.name, "content": result_text(result)} for result in turn.results
    ]
    images = [image for result in turn.results for image in _images(result.parts)] + _images(turn.parts)
    text = _text(turn.parts)
    if not text and not images and not turn.calls:
        return made
    message: dict[str, Any] = {"role": turn.role, "content": text}
    if images:
        message["images"] = images
    if turn.reasoning and in_loop:
        message["thinking"] = turn.reasoning
    if turn.calls:
        message["tool_calls"] = [
            {"function": {"name": call.name, "arguments": dict(call.arguments)}} for call in turn.calls
        ]
    return [*made, message]


def _images(parts: tuple[Part, ...]) -> list[str]:
    urls = [url for part in parts if (url := image_url(part)) is not None]
    return [data.base64 for url in urls if (data := inline_data(url)) is not None]


def _text(parts: tuple[Part, ...]) -> str:
    files = [data.text() or "" for part in parts if (data := file_data(part)) is not None]
    return "\n".join(filter(None, [plain_text(parts), *files]))


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": object_schema(tool.get("parameters"))}
    if isinstance(tool.get("description"), str):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _format(chat: ChatRequest) -> Any:
    schema = response_schema(chat.body)
    if schema is not None:
        return schema
    return "json" if response_type(chat.body) in ("json_object", "json_schema") else None


def _think(chat: ChatRequest, model: str, default: Any) -> bool | str | None:
    wanted = effort(chat.body)
    if wanted is None:
        return default if isinstance(default, bool | str) else None
    if wanted.level == "none":
        return False
    # Levels are known to one family; the others can only think or not.
    return _LEVELS[wanted.level] if "gpt-oss" in model else True


def _options(chat: ChatRequest) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in _NUMBERS:
        value = number(chat.body.get(name))
        if value is not None:
            made[name] = value
    for name in ("top_k", "seed"):
        given = whole(chat.body.get(name))
        if given is not None:
            made[name] = given
    repeat = number(chat.body.get("repetition_penalty"))
    if repeat is not None:
        made["repeat_penalty"] = repeat
    if chat.output_limit is not None:
        made["num_predict"] = max(1, chat.output_limit)
    sequences = stops(chat.body)
    if sequences:
        made["stop"] = sequences
    return made


def window(chat: ChatRequest, body: Mapping[str, Any], info: ModelInfo | None, options: Mapping[str, Any]) -> int:
    """`num_ctx` in tokens: as configured, else large enough for prompt and answer; a smaller one would cut the
    prompt's beginning without a word. `options["context"]` or the price table bound it."""
    fixed, largest = whole(options.get("num_ctx")), whole(options.get("context"))
    if fixed is not None and fixed > 0:
        return fixed
    if largest is None:
        largest = info.context if info is not None and info.context else _LARGEST_WINDOW
    needed = _prompt_tokens(body) + (chat.output_limit or _USUAL_OUTPUT)
    fitted = SMALLEST_WINDOW
    while fitted < needed and fitted < largest:
        fitted *= 2
    return min(fitted, largest)


def _prompt_tokens(body: Mapping[str, Any]) -> int:
    images = sum(len(message.get("images", ())) for message in body["messages"])
    texts = [{**message, "images": []} for message in body["messages"]]
    size = len(dump({"messages": texts, "tools": body.get("tools", ())}))
    return size // _BYTES_PER_TOKEN + images * _IMAGE_TOKENS
