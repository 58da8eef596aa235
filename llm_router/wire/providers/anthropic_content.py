"""Messages and content parts in Anthropic's form, and the parts that it cannot take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_router.wire.providers.history import Conversation, Result, Turn, result_text
from llm_router.wire.providers.parts import IMAGE_TYPES, file_data, image_url, inline_data, text_of

Block = dict[str, Any]
CONTINUE: Block = {"type": "text", "text": "Continue."}


def unfit(part: Mapping[str, Any]) -> str | None:
    """Why Claude cannot take a content part; None if it can."""
    kind = part.get("type")
    url = image_url(part)
    if url is not None:
        data = inline_data(url)
        if data is not None and data.media_type not in IMAGE_TYPES:
            return f"Claude takes no images of type {data.media_type}"
        return None
    if kind == "file":
        data = file_data(part)
        if data is None:
            return "a file id of another provider cannot be read by Anthropic; send file_data"
        if data.media_type == "application/pdf" or data.media_type in IMAGE_TYPES:
            return None
        if data.media_type.startswith("text/") and data.text() is not None:
            return None
        return f"Claude takes no files of type {data.media_type}"
    if kind == "input_audio":
        return "Claude takes no audio"
    return f"Claude takes no content part of type {kind!r}"


def block(part: Mapping[str, Any]) -> Block | None:
    """A content part as a block; None for a part that Claude cannot take."""
    made = _block(part)
    if made is not None and part.get("cache_control"):
        made["cache_control"] = part["cache_control"]
    return made


def _block(part: Mapping[str, Any]) -> Block | None:
    text = text_of(part)
    if text is not None:
        return {"type": "text", "text": text}
    url = image_url(part)
    data = file_data(part) if url is None else inline_data(url)
    if data is None:
        return None if url is None else {"type": "image", "source": {"type": "url", "url": url}}
    if data.media_type in IMAGE_TYPES:
        source = {"type": "base64", "media_type": data.media_type, "data": data.base64}
        return {"type": "image", "source": source}
    if data.media_type == "application/pdf":
        source = {"type": "base64", "media_type": data.media_type, "data": data.base64}
    else:
        source = {"type": "text", "media_type": "text/plain", "data": data.text() or ""}
    document: Block = {"type": "document", "source": source}
    file = part.get("file")
    if isinstance(file, dict) and isinstance(file.get("filename"), str):
        document["title"] = file["filename"]
    return document


def blocks(parts: Iterable[Mapping[str, Any]]) -> list[Block]:
    """All parts that Claude can take, as blocks."""
    return [made for part in parts if (made := block(part)) is not None]


def messages(conversation: Conversation, *, thinking: bool, prefill: bool) -> list[dict[str, Any]]:
    """The conversation as Anthropic's messages.

    Signed thinking goes along only while thinking is on. Where the model takes no prefilled answer, a conversation
    that ends with the assistant is asked to go on.
    """
    made = [_message(turn, thinking=thinking) for turn in conversation.turns]
    last = made[-1]
    if last["role"] == "assistant":
        if not prefill or thinking:
            made.append({"role": "user", "content": [dict(CONTINUE)]})
        elif last["content"][-1]["type"] == "text":
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
    return made


def _message(turn: Turn, *, thinking: bool) -> dict[str, Any]:
    content: list[Block] = [_result(result) for result in turn.results]
    if thinking:
        content += [dict(signed) for signed in turn.thinking]
    # Of an assistant's turn the provider takes only text back.
    said = turn.parts if turn.role == "user" else [part for part in turn.parts if text_of(part) is not None]
    content += blocks(said)
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)} for call in turn.calls
    ]
    return {"role": turn.role, "content": content or [{"type": "text", "text": "."}]}


def _result(result: Result) -> Block:
    # A mark belongs to the result as a whole; only a block of the message itself may carry one.
    mark = next((part["cache_control"] for part in reversed(result.parts) if part.get("cache_control")), None)
    content = [{key: value for key, value in one.items() if key != "cache_control"} for one in blocks(result.parts)]
    plain = all(one["type"] == "text" for one in content)
    made: Block = {
        "type": "tool_result",
        "tool_use_id": result.call.id,
        "content": result_text(result) if plain else content,
    }
    if result.failed:
        made["is_error"] = True
    if mark is not None:
        made["cache_control"] = mark
    return made
