"""Reading the parts of a message's content: text, images, files, and what a vendor cannot take."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from llm_router.wire.chat import ChatRequest, dump
from llm_router.wire.providers.base import Misfit
from llm_router.wire.providers.reasoning import is_thinking

_DATA_URI = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
# The first bytes of the formats that vendors take, as base64 shows them.
_SIGNATURES = (("/9j/", "image/jpeg"), ("iVBORw0KGgo", "image/png"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp"))
IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


@dataclass(frozen=True, slots=True)
class Data:
    """Inline data of a part: its media type and the base64 text."""

    media_type: str
    base64: str

    def text(self) -> str | None:
        """The data as UTF-8 text, None if it is none."""
        try:
            return b64decode(self.base64, validate=False).decode()
        except (binascii.Error, ValueError):
            return None


def content_parts(content: Any) -> list[Mapping[str, Any]]:
    """A message's content as a list of parts; texts without anything to read in them are left out."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    if not isinstance(content, list):
        return [{"type": "text", "text": dump(content).decode()}]
    parts: list[Mapping[str, Any]] = []
    for part in content:
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, dict):
            continue
        text = text_of(part)
        if text is None or text.strip():
            parts.append(part)
    return parts


def text_of(part: Mapping[str, Any]) -> str | None:
    """The text of a text part (or of a refusal, which is text too); None for other parts."""
    for kind in ("text", "refusal"):
        if part.get("type", "text") in (kind, "input_text", "output_text"):
            text = part.get(kind)
            if isinstance(text, str):
                return text
    return None


def plain_text(parts: Iterable[Mapping[str, Any]]) -> str:
    """All texts of `parts`, one after the other."""
    return "\n".join(text for part in parts if (text := text_of(part)) is not None)


def image_url(part: Mapping[str, Any]) -> str | None:
    """The URL of an image part (a link or a data URI), None for other parts."""
    if part.get("type") not in ("image_url", "input_image"):
        return None
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    return url if isinstance(url, str) else None


def inline_data(url: str) -> Data | None:
    """The data in a `data:` URI, base64 whatever its writing there; None for links."""
    head = _DATA_URI.match(url)
    if head is None:
        return None
    media_type, encoded = head[1].lower() or "text/plain", url[head.end() :]
    if ";base64" not in head[2].lower():
        encoded = binascii.b2a_base64(unquote_to_bytes(encoded), newline=False).decode()
    elif "\n" in encoded or "\r" in encoded or " " in encoded:
        encoded = "".join(encoded.split())
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        # Clients name the wrong type often enough, and vendors refuse a mismatch.
        media_type = next((real for start, real in _SIGNATURES if encoded.startswith(start)), media_type)
    return Data("image/jpeg" if media_type == "image/jpg" else media_type, encoded)


def file_data(part: Mapping[str, Any]) -> Data | None:
    """The inline data of a `file` part; None if it has none (for example only a file id)."""
    file = part.get("file")
    value = file.get("file_data") if isinstance(file, dict) else None
    if not isinstance(value, str) or not value:
        return None
    data = inline_data(value)
    return data if data is not None else Data("application/pdf", value)


def audio_data(part: Mapping[str, Any]) -> Data | None:
    """The inline data of an `input_audio` part."""
    audio = part.get("input_audio")
    value = audio.get("data") if isinstance(audio, dict) else None
    if not isinstance(audio, dict) or not isinstance(value, str):
        return None
    kind = audio.get("format")
    return Data(f"audio/{kind if isinstance(kind, str) else 'wav'}", value)


def content_misfit(chat: ChatRequest, unfit: Callable[[Mapping[str, Any]], str | None]) -> Misfit | None:
    """The first part, neither text nor thought, for which `unfit` has a reason, at its place as clients write it."""
    for number, message in enumerate(chat.messages):
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for index, part in enumerate(content):
            if not isinstance(part, dict) or text_of(part) is not None or is_thinking(part):
                continue
            reason = unfit(part)
            if reason is not None:
                return Misfit(f"messages[{number}].content[{index}]", reason)
    return None
