"""Which adapter speaks for a provider."""

from __future__ import annotations

from llm_router.config.values import Provider
from llm_router.wire.providers.base import Adapter
from llm_router.wire.providers.openai import OpenAIShaped


def adapter_for(provider: Provider) -> Adapter:
    """By the provider's `api`; OpenAI-shaped providers differ in how requests are adapted, by name."""
    return OpenAIShaped(provider.name if provider.builtin else "custom")
