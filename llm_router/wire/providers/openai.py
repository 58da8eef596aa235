"""OpenAI-shaped providers: OpenAI, OpenRouter, compatibility endpoints of others, and custom hosts.

Their streams pass through byte for byte; their requests are the client's own, changed only where a provider would
refuse them or a field means nothing there. docs/PROVIDERS.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llm_router.errors import AttemptFailed, Failure, FailureKind
from llm_router.wire.answer import read_completion
from llm_router.wire.chat import ChatRequest, dump
from llm_router.wire.loose import load_loosely
from llm_router.wire.providers.base import Completion, Misfit, StreamTranslator, Target, UpstreamCall, with_given
from llm_router.wire.providers.google_compat import GoogleCompatTranslator, compat_body, mended_completion
from llm_router.wire.providers.reasoning import has_packed_thinking, without_packed_thinking

# Families whose every member refuses max_tokens, for models younger than the price table.
_REASONING_NAMES = re.compile(r"o\d|gpt-(?:[5-9]|\d\d)")

# OpenRouter's own fields; OpenAI answers 400 unknown_parameter to them.
_OPENROUTER_FIELDS = frozenset(
    {"provider", "models", "route", "transforms", "plugins", "reasoning", "usage", "session_id", "trace", "debug",
     "min_p", "top_a", "top_k", "repetition_penalty"}
)  # fmt: skip
_KNOWN_MOST = 1024
_CONTAINERS = (dict, list)

Changes = dict[str, Any]  # field -> new value; REMOVED takes the field out
REMOVED: Any = object()


@dataclass(frozen=True, slots=True)
class _Known:
    """What calls to one target have in common. The target is kept, so that its id stays its own.

    `adapted` are the fields of a request that would have to be changed.
    """

    target: Target
    url: str
    headers: dict[str, str]
    adapted: frozenset[str]


class OpenAIShaped:
    """The adapter for everything that speaks chat completions; `kind` says whose rules of adaptation apply."""

    def __init__(self, kind: str) -> None:
        self._adapt: Callable[[ChatRequest, Target], Changes] = _ADAPTATIONS.get(kind, _adapt_other)
        self._kind = kind
        self._known: dict[int, _Known] = {}

    def __repr__(self) -> str:
        return f"<OpenAIShaped {self._kind}>"

    def misfit(self, chat: ChatRequest) -> Misfit | None:
        """Nothing: whatever OpenAI's shape can say, these providers judge themselves."""
        return None

    def call(self, chat: ChatRequest, target: Target) -> UpstreamCall:
        """The client's request with `model` replaced and the few documented changes."""
        known = self._known.get(id(target))
        if known is None:
            known = self._know(target)
        roles = chat.roles
        if (
            known.adapted.isdisjoint(chat.body)
            and "developer" not in roles
            and ("assistant" not in roles or not has_packed_thinking(chat.messages))
        ):
            return UpstreamCall(known.url, known.headers, chat.with_model(target.model))
        return UpstreamCall(known.url, known.headers, self._body(chat, target))

    def _know(self, target: Target) -> _Known:
        if len(self._known) >= _KNOWN_MOST:
            self._known.clear()
        headers, adapted = self._headers(target), _adapted_fields(self._kind, target)
        known = self._known[id(target)] = _Known(target, chat_url(target, self._kind), headers, adapted)
        return known

    def _body(self, chat: ChatRequest, target: Target) -> bytes:
        """The body of a request that may have to be adapted."""
        if self._kind == "google":
            return dump(compat_body(chat, target.model, target.info))
        changes = self._adapt(chat, target)
        if "models" in chat.body and chat.is_routed:
            changes["models"] = REMOVED  # it was the chain, in our ids
        if has_packed_thinking(chat.messages):
            messages = changes.get("messages", chat.messages)
            if (cleaned := without_packed_thinking(messages)) is not messages:
                changes["messages"] = cleaned
        if not changes:
            return chat.with_model(target.model)
        body = {**chat.body, "model": target.model, **changes}
        return dump({name: value for name, value in body.items() if value is not REMOVED})

    def _headers(self, target: Target) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if target.key:
            headers["authorization"] = f"Bearer {target.key}"
        return with_given(headers, target.provider.headers)

    def translator(self, chat: ChatRequest, target: Target) -> StreamTranslator | None:
        """None, the provider's bytes pass through; but for Google, whose parallel tool calls need numbers."""
        return GoogleCompatTranslator() if self._kind == "google" and chat.tools else None

    def completion(self, chat: ChatRequest, target: Target, body: bytes) -> Completion:
        """The body as it came; the gate judges it. Raises AttemptFailed for what is no JSON object."""
        try:
            parsed = orjson.loads(body)  # and not `load_json`: a call less for nearly every whole answer
        except orjson.JSONDecodeError:
            parsed = load_loosely(body)
        if not isinstance(parsed, _CONTAINERS):
            raise AttemptFailed(
                Failure(FailureKind.INVALID_RESPONSE, "the provider answered 200 without JSON in it", 200)
            )
        if self._kind == "google":
            body = mended_completion(parsed) or body
        # The stream that it becomes reports usage only to a client that asked; the books want it all the same.
        usage = read_completion(body).usage if chat.stream else None
        return Completion(body, usage, parsed)


def chat_url(target: Target, kind: str) -> str:
    """The address of chat completions under a base URL that may or may not name the version."""
    base = target.provider.base_url.rstrip("/")
    if base.endswith("/chat/completions"):
        return base
    if kind == "ollama" and not base.endswith("/v1"):
        base += "/v1"
    elif kind == "google" and not base.endswith("/openai"):
        base += "/openai"
    elif kind == "anthropic" and not base.endswith("/v1"):
        base += "/v1"
    return f"{base}/chat/completions"


def _adapt_openai(chat: ChatRequest, target: Target) -> Changes:
    changes: Changes = {}
    if not _OPENROUTER_FIELDS.isdisjoint(chat.body):
        changes = dict.fromkeys(_OPENROUTER_FIELDS.intersection(chat.body), REMOVED)
    if "max_tokens" in chat.body and _is_reasoning(target):
        changes["max_tokens"] = REMOVED
        named = chat.body.get("max_completion_tokens")
        changes["max_completion_tokens"] = chat.body["max_tokens"] if named is None else named
    return changes


def _is_reasoning(target: Target) -> bool:
    if target.info is not None and target.info.reasoning is not None:
        return target.info.reasoning
    return _REASONING_NAMES.match(target.model) is not None


def _adapt_openrouter(chat: ChatRequest, target: Target) -> Changes:
    return {}


def _adapt_other(chat: ChatRequest, target: Target) -> Changes:
    changes: Changes = {}
    if "max_completion_tokens" in chat.body:
        changes["max_completion_tokens"] = REMOVED
        named = chat.body["max_completion_tokens"]
        changes["max_tokens"] = chat.body.get("max_tokens") if named is None else named
    if "developer" in chat.roles:
        changes["messages"] = [
            {**message, "role": "system"} if message.get("role") == "developer" else message
            for message in chat.messages
        ]
    return changes


def _adapted_fields(kind: str, target: Target) -> frozenset[str]:
    """The fields without which a request for `target` can go as it came, but for its roles and its thinking."""
    if kind == "google":
        return frozenset({"messages"})  # each one is looked at
    fields = {"models"}
    if kind == "openai":
        fields |= _OPENROUTER_FIELDS | ({"max_tokens"} if _is_reasoning(target) else set())
    elif kind != "openrouter":
        fields.add("max_completion_tokens")
    return frozenset(fields)


_ADAPTATIONS: Mapping[str, Callable[[ChatRequest, Target], Changes]] = {
    "openai": _adapt_openai,
    "openrouter": _adapt_openrouter,
}
