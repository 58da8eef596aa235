"""Ollama's own API: the way to set the context window, which its OpenAI-compatible route does not offer."""

from __future__ import annotations

from collections.abc import Callable

from llm_router.wire.chat import ChatRequest, dump
from llm_router.wire.providers.base import Completion, Misfit, Target, UpstreamCall, with_given
from llm_router.wire.providers.chunks import whole_answer
from llm_router.wire.providers.ollama_request import misfit, request_body
from llm_router.wire.providers.ollama_stream import OllamaTranslator, completion


class OllamaAdapter:
    """The dialect `ollama`. `clock` gives Unix time, for answers that do not say when they were made."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def misfit(self, chat: ChatRequest) -> Misfit | None:
        """Audio, files, images behind links, several choices."""
        return misfit(chat)

    def call(self, chat: ChatRequest, target: Target) -> UpstreamCall:
        """`POST {base}/api/chat`."""
        headers = {"content-type": "application/json"}
        if target.key:
            headers["authorization"] = f"Bearer {target.key}"
        body = request_body(chat, target.model, target.info, target.provider.options)
        headers = with_given(headers, target.provider.headers)
        return UpstreamCall(chat_url(target.provider.base_url), headers, dump(body))

    def translator(self, chat: ChatRequest, target: Target) -> OllamaTranslator:
        """State for one streamed answer."""
        return OllamaTranslator(target.model, int(self._clock()), wants_usage=chat.wants_usage)

    def completion(self, chat: ChatRequest, target: Target, body: bytes) -> Completion:
        """The completion in a whole answer. Raises AttemptFailed if it is an error or nothing known."""
        answer = whole_answer(body, lambda found: isinstance(found.get("message"), dict))
        return completion(answer, model=target.model, created=int(self._clock()))


def chat_url(base: str) -> str:
    """The address of `/api/chat` for a base that may name a version or the route."""
    base = base.rstrip("/")
    for suffix in ("/api/chat", "/api", "/v1"):
        base = base.removesuffix(suffix)
    return f"{base}/api/chat"
