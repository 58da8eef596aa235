"""What every provider dialect offers: a call to send, and a reading of the answer; refusals are read alike (`errors`).

An adapter is a stateless object; a translator is the state of one streamed answer. Both are sans-IO: bytes in, bytes
out, the clock is an argument. Adapters of OpenAI-shaped providers have no translator: their bytes pass untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_router.accounting.pricing import ModelInfo
from llm_router.config.values import Provider
from llm_router.wire.chat import ChatRequest
from llm_router.wire.usage import Usage


@dataclass(frozen=True, slots=True)
class Target:
    """Where one attempt goes. `model` is the provider's own id; `info` is None where the price table has no row."""

    provider: Provider
    model: str
    key: str | None = field(default=None, repr=False)
    info: ModelInfo | None = None

    @property
    def id(self) -> str:
        """The full id `provider/model`."""
        return f"{self.provider.name}/{self.model}"


def with_given(headers: dict[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Headers with those that the configuration gives, which win however they are spelled: nothing is said twice."""
    if given:
        said = {name.lower() for name in given}
        headers = {name: value for name, value in headers.items() if name not in said} | dict(given)
    return headers


@dataclass(slots=True, eq=False)
class UpstreamCall:
    """One POST to a provider. `headers` hold the key: never log or repr them.

    Nobody changes it, nor its `headers`, whose bytes are remembered; not frozen, since one is made per attempt.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a provider cannot take a request at all; `field` is the request field that stands in the way."""

    field: str
    reason: str


class StreamTranslator(Protocol):
    """Turns one provider's stream into OpenAI-shaped server-sent events.

    What comes out is always whole events. An error in the stream comes out as `data: {"error": {...}}`; a cut
    stream simply lacks its finish_reason and `[DONE]`. `usage` is what the provider reported so far, whether or not
    the client asked for a usage chunk.
    """

    @property
    def usage(self) -> Usage | None:
        """What was reported so far."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Takes bytes as they were read, cut anywhere; gives the events that are complete."""
        ...

    def close(self) -> bytes:
        """The upstream ended cleanly: gives what was still held back."""
        ...


@dataclass(slots=True)
class Completion:
    """A whole, non-streamed answer in OpenAI's shape, and the usage in normal form where it was reported.

    `parsed` is the body's JSON where it had to be read anyway, None otherwise. Nobody changes it; not frozen, since
    one is made per answer.
    """

    body: bytes
    usage: Usage | None = None
    parsed: Any = field(default=None, repr=False, compare=False)


class Adapter(Protocol):
    """One provider dialect."""

    def misfit(self, chat: ChatRequest) -> Misfit | None:
        """Whether this request has something that the dialect cannot carry; asked before the first try."""
        ...

    def call(self, chat: ChatRequest, target: Target) -> UpstreamCall:
        """The HTTP request for this chat request."""
        ...

    def translator(self, chat: ChatRequest, target: Target) -> StreamTranslator | None:
        """State for one streamed answer; None where the provider's bytes pass through."""
        ...

    def completion(self, chat: ChatRequest, target: Target, body: bytes) -> Completion:
        """The OpenAI-shaped form of a non-streamed 200 answer. Raises AttemptFailed if it holds none."""
        ...
