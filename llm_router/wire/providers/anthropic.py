"""Anthropic's Messages API, spoken natively."""

from __future__ import annotations

from collections.abc import Callable

from llm_router.wire.chat import ChatRequest, dump
from llm_router.wire.providers.anthropic_answer import completion
from llm_router.wire.providers.anthropic_models import traits
from llm_router.wire.providers.anthropic_request import misfit, request_body, uses_json_tool
from llm_router.wire.providers.anthropic_stream import AnthropicTranslator
from llm_router.wire.providers.base import Completion, Misfit, Target, UpstreamCall, with_given
from llm_router.wire.providers.chunks import ChunkWriter, whole_answer

# The version with sampling parameters; the newer one refuses them for every model.
VERSION = "2023-06-01"


class AnthropicAdapter:
    """The dialect `anthropic-messages`. `clock` gives Unix time, for the `created` field of answers."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def misfit(self, chat: ChatRequest) -> Misfit | None:
        """Audio, foreign file ids, several choices and the like."""
        return misfit(chat)

    def call(self, chat: ChatRequest, target: Target) -> UpstreamCall:
        """`POST {base}/v1/messages`."""
        headers = {
            "anthropic-version": VERSION,
            "content-type": "application/json",
            "accept": "text/event-stream" if chat.stream else "application/json",
        }
        if target.key:
            headers["x-api-key"] = target.key
        body = request_body(chat, target.model, traits(target.model, target.info), target.provider.options)
        headers = with_given(headers, target.provider.headers)
        return UpstreamCall(messages_url(target.provider.base_url), headers, dump(body))

    def translator(self, chat: ChatRequest, target: Target) -> AnthropicTranslator:
        """State for one streamed answer."""
        created = self._created()

        def writer(id: str, model: str) -> ChunkWriter:
            return ChunkWriter(id or f"msg_{created}", created, model or target.model)

        json_tool = uses_json_tool(chat, traits(target.model, target.info))
        return AnthropicTranslator(writer, wants_usage=chat.wants_usage, json_tool=json_tool)

    def completion(self, chat: ChatRequest, target: Target, body: bytes) -> Completion:
        """The completion in a whole answer. Raises AttemptFailed if it is an error or nothing known."""
        answer = whole_answer(body, lambda found: isinstance(found.get("content"), list))
        json_tool = uses_json_tool(chat, traits(target.model, target.info))
        answer = {"id": f"msg_{self._created()}", "model": target.model, **answer}
        return completion(answer, created=self._created(), json_tool=json_tool)

    def _created(self) -> int:
        return int(self._clock())


def messages_url(base: str) -> str:
    """The address of the Messages API for a base that may end with `/v1`, or name the route itself."""
    base = base.rstrip("/")
    if base.endswith("/messages"):
        return base
    return f"{base}/messages" if base.endswith("/v1") else f"{base}/v1/messages"
