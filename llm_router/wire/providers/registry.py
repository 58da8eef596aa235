"""Which adapter speaks for a provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llm_router.config.values import Provider
from llm_router.wire.providers.base import Adapter
from llm_router.wire.providers.openai import OpenAIShaped


def speaks_openai(provider: Provider) -> bool:
    """Whether requests and answers need no translation."""
    return provider.api == "openai-completions"


def adapter_for(provider: Provider, clock: Callable[[], float]) -> Adapter:
    """By the provider's `api`. `clock` (Unix time) stamps answers of providers that give no time of their own.

    OpenAI-shaped providers differ in how requests are adapted; built-in ones are known by name. Another dialect is
    loaded when its first adapter is made, which takes some milliseconds.
    """
    match provider.api:
        case "anthropic-messages":
            from llm_router.wire.providers.anthropic import AnthropicAdapter

            return AnthropicAdapter(clock)
        case "google-generative-ai":
            from llm_router.wire.providers.google import GeminiAdapter

            return GeminiAdapter(clock)
        case "ollama":
            from llm_router.wire.providers.ollama import OllamaAdapter

            return OllamaAdapter(clock)
        case _:
            return OpenAIShaped(provider.name if provider.builtin else "custom")


class Adapters(dict[str, Adapter]):
    """The adapters of a configuration's providers, each made when it is first asked for."""

    def __init__(self, providers: Mapping[str, Provider], clock: Callable[[], float]) -> None:
        super().__init__()
        self._providers = providers
        self._clock = clock

    def __missing__(self, name: str) -> Adapter:
        made = self[name] = adapter_for(self._providers[name], self._clock)
        return made
