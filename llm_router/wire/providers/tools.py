"""Tools and tool choice of a chat request, read once for all dialects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llm_router.wire.chat import ChatRequest


@dataclass(frozen=True, slots=True)
class Choice:
    """`mode` None: nothing was said. `name`: the function that must be called. `allowed`: the only ones to offer."""

    mode: Literal["auto", "none", "required"] | None = None
    name: str | None = None
    allowed: frozenset[str] | None = None


def functions(chat: ChatRequest) -> list[dict[str, Any]]:
    """The function tools, each `{name, description?, parameters?, strict?, cache_control?}`.

    The flat form of the Responses API is read too: some clients send it here.
    """
    found = []
    for tool in chat.tools:
        if not isinstance(tool, dict) or tool.get("type", "function") != "function":
            continue
        function = tool.get("function", tool)
        if isinstance(function, dict) and isinstance(function.get("name"), str) and function["name"]:
            mark = tool.get("cache_control") or function.get("cache_control")
            found.append({**function, "cache_control": mark})
    return found


def offered_functions(chat: ChatRequest, choice: Choice) -> list[dict[str, Any]]:
    """The function tools that `choice` leaves to the model."""
    return [tool for tool in functions(chat) if choice.allowed is None or tool["name"] in choice.allowed]


def tool_choice(body: Mapping[str, Any]) -> Choice:
    """The tool choice; a form that is not known counts as nothing said."""
    choice = body.get("tool_choice")
    if isinstance(choice, str):
        return Choice(_mode(choice))
    if not isinstance(choice, dict):
        return Choice()
    if choice.get("type") == "allowed_tools":
        described = choice.get("allowed_tools", choice)
        tools = described.get("tools") if isinstance(described, dict) else None
        listed = tools if isinstance(tools, list) else ()
        names = frozenset(name for tool in listed if (name := _name(tool)) is not None)
        mode = described.get("mode") if isinstance(described, dict) else None
        return Choice(_mode(mode) or "auto", allowed=names or None)
    name = _name(choice)
    return Choice("required", name) if name is not None else Choice()


def _mode(value: Any) -> Literal["auto", "none", "required"] | None:
    if value == "any":
        return "required"
    return value if value in ("auto", "none", "required") else None


def _name(choice: Any) -> str | None:
    if not isinstance(choice, dict):
        return None
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) and name else None
