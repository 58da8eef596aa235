"""Thinking that must come back: what a tool loop needs on its next turn, carried through OpenAI-shaped clients.

Clients echo what they know: some the whole message, some only `reasoning_details` entries of the type
`reasoning.encrypted` that name a tool call, many nothing at all. So thinking travels in one such entry, once per
answer with tool calls (no other answer needs its thinking later), and a history without it must work too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from llm_router.wire.providers.fields import objects

# Entries of ours are told from a provider's own by this mark; other providers see an entry of unknown format.
_MARK = "anthropic:"
_GOOGLE_FORMAT = "google-gemini-v1"


def pack_thinking(blocks: Sequence[Mapping[str, Any]], call: str) -> list[dict[str, Any]]:
    """`reasoning_details` that carry Anthropic's thinking blocks (with signature) on the tool call `call`."""
    signed = [block for block in blocks if block.get("signature") or block.get("data")]
    if not signed:
        return []
    data = _MARK + orjson.dumps(signed).decode()
    return [{"type": "reasoning.encrypted", "id": call, "format": "unknown", "index": 0, "data": data}]


def thinking_blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Anthropic's thinking blocks of an assistant message, from any of the forms that clients send; none without
    a signature, because the provider refuses those."""
    blocks: list[dict[str, Any]] = []
    for detail in objects(message.get("reasoning_details")):
        if _is_ours(detail):
            blocks += _unpack(detail["data"].removeprefix(_MARK))
        elif detail.get("format") == "anthropic-claude-v1":
            blocks.append(_from_detail(detail))
    for place in ("thinking_blocks", "content"):
        if not blocks:
            blocks = [dict(block) for block in objects(message.get(place))]
    return [clean for block in blocks if (clean := _signed(block)) is not None]


def has_packed_thinking(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a request may hold an entry of ours; a cheap look before the careful one."""
    return any(["reasoning_details" in message for message in messages])  # noqa: C419 - half the time of a generator


def without_packed_thinking(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Messages without the entries that `pack_thinking` gave to the client: another provider cannot read them.

    The same ones where there are none of ours.
    """
    cleaned: list[Mapping[str, Any]] = []
    found = False
    for message in messages:
        details = message.get("reasoning_details")
        if isinstance(details, list):
            rest = [detail for detail in details if not _is_ours(detail)]
            if len(rest) < len(details):
                found = True
                message = {name: value for name, value in message.items() if name != "reasoning_details"}
                message |= {"reasoning_details": rest} if rest else {}
        cleaned.append(message)
    return cleaned if found else messages


def _is_ours(detail: Any) -> bool:
    data = detail.get("data") if isinstance(detail, dict) else None
    return isinstance(data, str) and data.startswith(_MARK)


def _unpack(data: str) -> list[dict[str, Any]]:
    try:
        return [dict(block) for block in objects(orjson.loads(data))]
    except orjson.JSONDecodeError:
        return []


def _from_detail(detail: Mapping[str, Any]) -> dict[str, Any]:
    if detail.get("type") == "reasoning.encrypted":
        return {"type": "redacted_thinking", "data": detail.get("data")}
    return {"type": "thinking", "thinking": detail.get("text"), "signature": detail.get("signature")}


def is_thinking(part: Mapping[str, Any]) -> bool:
    """Whether a content part is what a model thought, as Anthropic's and Mistral's clients keep it among the parts."""
    return part.get("type") in ("thinking", "redacted_thinking")


def _signed(block: Mapping[str, Any]) -> dict[str, Any] | None:
    if block.get("type") == "redacted_thinking":
        data = block.get("data")
        return {"type": "redacted_thinking", "data": data} if isinstance(data, str) and data else None
    text, signature = block.get("thinking"), block.get("signature")
    if isinstance(text, str) and isinstance(signature, str) and signature:
        return {"type": "thinking", "thinking": text, "signature": signature}
    return None


def reasoning_text(message: Mapping[str, Any]) -> str:
    """The thinking of an assistant message as plain text, where the client sent it back."""
    for name in ("reasoning_content", "reasoning", "reasoning_text"):
        text = message.get(name)
        if isinstance(text, str) and text:
            return text
    return ""


def google_details(signature: str, call: str, index: int) -> dict[str, Any]:
    """A `reasoning_details` entry that carries Google's thought signature on the tool call `call`."""
    return {"type": "reasoning.encrypted", "id": call, "format": _GOOGLE_FORMAT, "index": index, "data": signature}


def google_signatures(message: Mapping[str, Any]) -> dict[str, str]:
    """Google's thought signatures of an assistant message by tool call id, as the client sent that id."""
    found: dict[str, str] = {}
    for detail in objects(message.get("reasoning_details")):
        call, data = detail.get("id"), detail.get("data")
        if detail.get("format") == _GOOGLE_FORMAT and isinstance(call, str) and isinstance(data, str) and data:
            found[call] = data
    for call in objects(message.get("tool_calls")):
        signature = extra_signature(call)
        if signature and isinstance(call.get("id"), str):
            found[call["id"]] = signature
    return found


def extra_signature(call: Mapping[str, Any]) -> str | None:
    """The thought signature in Google's own place on a tool call, `extra_content.google.thought_signature`."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None
