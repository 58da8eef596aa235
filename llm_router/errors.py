"""The words for what went wrong: kinds of failed attempts, and errors that a client is told.

Logs, metrics, the ledger and the `attempts` list of an answer all use the same kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class FailureKind(StrEnum):
    """Why an attempt at a candidate failed."""

    CONNECT_ERROR = "connect_error"  # refused, unreachable, DNS, TLS
    CONNECT_TIMEOUT = "connect_timeout"
    NO_RESOURCES = "no_resources"  # our own machine had no descriptor, port or memory for a connection
    QUEUE_TIMEOUT = "queue_timeout"  # our own limit of concurrent requests stayed full
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"  # no meaning before the first-byte clock ran out
    IDLE_TIMEOUT = "idle_timeout"
    CONNECTION_LOST = "connection_lost"  # reset or closed before the answer was whole
    PROTOCOL_ERROR = "protocol_error"  # not HTTP, or broken framing or compression
    RESPONSE_TOO_LARGE = "response_too_large"
    REDIRECT = "redirect"  # never followed
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"  # billing: waiting does not help
    AUTHENTICATION = "authentication"
    MODEL_NOT_FOUND = "model_not_found"
    INVALID_RESPONSE = "invalid_response"  # a 200 that holds no completion
    UPSTREAM_ERROR = "upstream_error"  # a 200 that holds an error
    EMPTY_COMPLETION = "empty_completion"
    TRUNCATED = "upstream_truncated"  # ended after the commit point without a finish
    CONTEXT_LENGTH = "context_length_exceeded"
    CONTENT_POLICY = "content_policy_violation"
    INVALID_REQUEST = "invalid_request"  # the request itself is at fault
    UNSUPPORTED = "unsupported"  # this model cannot take the request
    CANCELLED = "cancelled"  # the client left
    SHUTTING_DOWN = "shutting_down"  # this router ended before the answer did


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt, as the provider's answer (or its absence) was understood.

    `message` is fit for a client: secrets masked, no addresses. `status` is the provider's HTTP status or
    None. `code`, `type` and `param` are the provider's own, if it gave any. `retry_after` is in seconds.
    """

    kind: FailureKind
    message: str
    status: int | None = None
    code: str | None = None
    type: str | None = None
    param: str | None = None
    retry_after: float | None = None


class AttemptFailed(Exception):
    """Raised inside an attempt; carries the `Failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.message}")
        self.failure = failure


# Among the headers of an answer: nothing that follows on the connection is read.
CLOSE: Final = {"Connection": "close"}


@dataclass(slots=True)
class ApiError(Exception):
    """An error answer to a client, in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

    `extra` is merged into the error object (for example `attempts`); `headers` go onto the answer.
    """

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Exception.__init__(self, self.message)

    def payload(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        return {
            "error": {
                "message": _writable(self.message),
                "type": self.type,
                "param": None if self.param is None else _writable(self.param),
                "code": self.code,
                **self.extra,
            }
        }


def _writable(text: str) -> str:
    """A text without halves of surrogate pairs, which a request may hold and no answer can."""
    return text.encode(errors="replace").decode()


def shutting_down() -> ApiError:
    """For what comes too late for this router, or waits too long for its end."""
    headers = {**CLOSE, "Retry-After": "1"}
    return ApiError(503, "The router is shutting down", "server_error", "shutting_down", headers=headers)


class ConfigError(Exception):
    """A setting that cannot be used. `place` is a key path, a variable or a file; the text holds the remedy."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem
