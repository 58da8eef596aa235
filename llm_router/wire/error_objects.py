"""What is wrong inside a 200 answer: errors, in any of the forms seen in the wild, and answers that are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llm_router.errors import Failure, FailureKind
from llm_router.wire.loose import load_carelessly, load_loosely
from llm_router.wire.sse import BOM, data_event

_OPENERS = (b"{", b"[")
_BARE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class ErrorSeen:
    """A provider's error inside a 200 answer: its object, as it came."""

    error: Mapping[str, Any]

    @property
    def message(self) -> str:
        """The provider's words, not masked yet."""
        message = self.error.get("message")
        return message if isinstance(message, str) and message else "the provider reported an error"


def error_in(chunk: Any, name: bytes = b"") -> ErrorSeen | None:
    """The error that a chunk or body reports, in any of the forms seen in the wild; `name` is its event's."""
    if isinstance(chunk, list) and len(chunk) == 1:
        chunk = chunk[0]
    if not isinstance(chunk, dict):
        return ErrorSeen({"message": chunk}) if name == b"error" and isinstance(chunk, str) else None
    error = chunk.get("error")
    if error:
        return _told(error) or ErrorSeen(chunk)
    if chunk.get("object") == "error" or chunk.get("type") == "error" or name == b"error":
        return ErrorSeen(chunk)
    choices = chunk.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and choice.get("finish_reason") == "error":
                return _told(choice.get("error")) or ErrorSeen({})
    return None


def _told(error: Any) -> ErrorSeen | None:
    """What the value of an `error` field says; None where it is no more than a sign that there is one."""
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        return ErrorSeen(error)
    return ErrorSeen({"message": error}) if isinstance(error, str) and error else None


def event_value(name: bytes, data: bytes) -> Any:
    """What the data of an event are where they are no plain JSON: an error may be told in words alone."""
    value = load_loosely(data)
    if value is None and b'"error"' in data:
        value = _careless_error(data)
    return data.decode("utf-8", "replace") if value is None and name == b"error" else value


def _careless_error(data: bytes) -> Any:
    """An error whose writer did not escape tabs and other control characters, or wrote numbers that JSON has not.

    Nothing but errors: content that no client can parse is none, but the words of an error are masked whatever they
    look like.
    """
    if len(data) > _BARE_BYTES:
        return None
    value = load_carelessly(data)
    return value if error_in(value) is not None else None


def bare_error(raw: bytes) -> ErrorSeen | None:
    """The error in a piece of a stream that is JSON without a field name, as Google's servers write it in between."""
    bare = raw.removeprefix(BOM).strip()
    if bare[:1] not in _OPENERS or len(bare) > _BARE_BYTES:
        return None
    try:
        return error_in(orjson.loads(bare))
    except orjson.JSONDecodeError:
        return error_in(event_value(b"", bare))


def bare_error_event(rest: bytes) -> bytes:
    """The same, from behind the last blank line of a stream that has ended, as an event; nothing where it is none."""
    seen = bare_error(rest)
    return b"" if seen is None else data_event(orjson.dumps({"error": {**seen.error, "message": seen.message}}))


def error_type(error: Mapping[str, Any]) -> Any:
    """The provider's word for the kind of an error: what OpenRouter's metadata say, `type`, or Google's `status`."""
    metadata = error.get("metadata")
    told = metadata.get("error_type") if isinstance(metadata, dict) else None
    return told or error.get("type") or error.get("status")


def upstream_error(seen: ErrorSeen) -> Failure:
    """The failure for an error that came inside a 200 answer."""
    code, kind = seen.error.get("code"), error_type(seen.error)
    return Failure(
        FailureKind.UPSTREAM_ERROR,
        seen.message,
        status=200,
        code=str(code) if isinstance(code, str | int) and not isinstance(code, bool) else None,
        type=kind if isinstance(kind, str) else None,
    )


def nothing_said() -> Failure:
    """The failure for a 200 that says nothing."""
    return Failure(FailureKind.EMPTY_COMPLETION, "the provider answered 200 with nothing in it", 200)


def no_completion() -> Failure:
    """The failure for a 200 that holds something else."""
    return Failure(FailureKind.INVALID_RESPONSE, "the provider answered 200 without a completion in it", 200)
