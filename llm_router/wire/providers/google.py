"""Gemini's own API, for what its OpenAI-compatible endpoint loses: thinking budgets, safety blocks, inline data."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from llm_router.wire.chat import ChatRequest, dump
from llm_router.wire.providers.base import Completion, Misfit, Target, UpstreamCall, with_given
from llm_router.wire.providers.chunks import whole_answer
from llm_router.wire.providers.google_answer import completion
from llm_router.wire.providers.google_request import misfit, request_body
from llm_router.wire.providers.google_stream import GeminiTranslator

_VERSIONED = re.compile(r"/v\d\w*$")


class GeminiAdapter:
    """The dialect `google-generative-ai`. `clock` gives Unix time, for the `created` field of answers."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def misfit(self, chat: ChatRequest) -> Misfit | None:
        """Foreign file ids, several choices, spoken answers."""
        return misfit(chat)

    def call(self, chat: ChatRequest, target: Target) -> UpstreamCall:
        """`POST {base}/models/{model}:generateContent`, or its streaming sister."""
        headers = {"content-type": "application/json"}
        if target.key:
            headers["x-goog-api-key"] = target.key  # never in the address, where logs would show it
        body = request_body(chat, target.model, target.info, target.provider.options)
        url = model_url(target.provider.base_url, target.model, stream=chat.stream)
        return UpstreamCall(url, with_given(headers, target.provider.headers), dump(body))

    def translator(self, chat: ChatRequest, target: Target) -> GeminiTranslator:
        """State for one streamed answer."""
        return GeminiTranslator(target.model, int(self._clock()), wants_usage=chat.wants_usage)

    def completion(self, chat: ChatRequest, target: Target, body: bytes) -> Completion:
        """The completion in a whole answer. Raises AttemptFailed if it is an error or nothing known."""
        answer = whole_answer(body, lambda found: not {"candidates", "promptFeedback"}.isdisjoint(found))
        return completion(answer, model=target.model, created=int(self._clock()))


def model_url(base: str, model: str, *, stream: bool) -> str:
    """The address of a model's method; the base may name a version or the compatibility endpoint."""
    base = base.rstrip("/").removesuffix("/openai")
    if not _VERSIONED.search(base):
        base += "/v1beta"
    kind, slash, name = model.partition("/")
    if not slash or kind not in ("models", "tunedModels"):
        kind, name = "models", model
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"{base}/{kind}/{quote(name, safe='')}:{method}"
