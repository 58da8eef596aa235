"""Which adapter speaks for a provider."""

from __future__ import annotations

from collections.abc import Callable

from llm_router.config.values import Provider
from llm_router.wire.providers.anthropic import AnthropicAdapter
from llm_router.wire.providers.base import Adapter
from llm_router.wire.providers.google import GeminiAdapter
from llm_router.wire.providers.ollama import OllamaAdapter
from llm_router.wire.providers.openai import OpenAIShaped

_NATIVE: dict[str, Callable[[Callable[[], float]], Adapter]] = {
    "anthropic-messages": AnthropicAdapter,
    "google-generative-ai": GeminiAdapter,
    "ollama": OllamaAdapter,
}


def adapter_for(provider: Provider, clock: Callable[[], float]) -> Adapter:
    """By the provider's `api`. `clock` (Unix time) stamps answers of providers that give no time of their own.

    OpenAI-shaped providers differ in how requests are adapted; built-in ones are known by name.
    """
    native = _NATIVE.get(provider.api)
    if native is not None:
        return native(clock)
    return OpenAIShaped(provider.name if provider.builtin else "custom")
