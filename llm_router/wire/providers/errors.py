"""Reading a provider's error answer, in whatever dialect, into one `Failure`.

Sources: the vendors' documented error bodies and what their SDKs accept. Only what the text says decides; nothing here
knows which provider sent it, because gateways pass foreign errors on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from llm_router.errors import Failure, FailureKind

MESSAGE_CHARS = 2000

_CONTEXT_WORDS = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|prompt is too long"
    r"|exceeds the maximum number of tokens|exceeds the available context size|context window"
    r"|input is too long|too many input tokens",
    re.IGNORECASE,
)
_POLICY_WORDS = re.compile(
    r"content[_ ]policy|content_filter|moderation|guardrail|flagged|safety (?:system|policy)|usage policies"
    r"|violat\w+ (?:our|the) .{0,40}polic",
    re.IGNORECASE,
)
_QUOTA_WORDS = re.compile(
    r"insufficient_quota|credit_balance|billing|insufficient credits|exceeded your current quota|payment required"
    r"|credit balance is too low",
    re.IGNORECASE,
)
_KEY_WORDS = re.compile(r"api[_ ]key[_ ](?:not[_ ]valid|invalid|expired)|invalid[_ ]api[_ ]key", re.IGNORECASE)
_MODEL_GONE_WORDS = re.compile(
    r"model_not_found|not a valid model|model .{0,80}(?:does not exist|not found|is not available)|no such model"
    r"|unknown model|no endpoints found for",
    re.IGNORECASE,
)
_UNSUPPORTED_CODES = frozenset(
    {"unsupported_parameter", "unsupported_value", "unknown_parameter", "max_tokens_exceeded", "unsupported_model"}
)
_UNSUPPORTED_WORDS = re.compile(
    r"(?:is|are) not supported|not supported (?:with|by|for) (?:this|the) model|unsupported (?:parameter|value|model)"
    r"|does(?: not|n't) support|do(?: not|n't) support|no endpoints found that support|unknown parameter"
    r"|unrecognized (?:request )?argument|unknown name \"|extra inputs are not permitted"
    r"|max_tokens.{0,60}(?:too large|exceeds|maximum|at most)|maximum (?:allowed )?(?:number of )?output tokens"
    r"|is deprecated for this model|only the default .{0,20}value is supported|thought_signature",
    re.IGNORECASE,
)
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)s$")


def read_failure(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
    """The failure that a non-200 answer stands for. `now` is Unix time; the message is not masked yet."""
    error = error_object(body)
    message = _message(error, body, status)
    code, kind = _word(error.get("code")), _word(error.get("type") or error.get("status"))
    param = error.get("param")
    return Failure(
        _kind(status, headers, error, " ".join(filter(None, (code, kind, message)))),
        message,
        status=status,
        code=code,
        type=kind,
        param=param if isinstance(param, str) else None,
        retry_after=retry_after(headers, error, now),
    )


def request_trouble(failure: Failure) -> FailureKind | None:
    """Whether an error that came inside a 200 is about the length or the content of the request; else None."""
    text = " ".join(filter(None, (failure.code, failure.type, failure.message)))
    if failure.code == "403" and _POLICY_WORDS.search(text):
        return FailureKind.CONTENT_POLICY
    kind = _request_kind(400, {}, text)
    return kind if kind in (FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_POLICY) else None


def error_object(body: bytes) -> dict[str, Any]:
    """The error object of a body in any dialect; empty where there is none."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {"message": error}
    if isinstance(parsed.get("message"), str):
        return parsed
    detail = parsed.get("detail")
    return {"message": detail} if isinstance(detail, str) else {}


def _message(error: Mapping[str, Any], body: bytes, status: int) -> str:
    message = error.get("message")
    if isinstance(message, str) and message.strip():
        return message.strip()[:MESSAGE_CHARS]
    text = body[:MESSAGE_CHARS].decode("utf-8", "replace").strip()
    if text and not text.startswith(("<", "{", "[")):
        return text
    return f"the provider answered with status {status}"


def _word(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)[:200] or None


def _kind(status: int, headers: Mapping[str, str], error: Mapping[str, Any], text: str) -> FailureKind:
    if 300 <= status < 400:
        return FailureKind.REDIRECT
    if status == 401:
        return FailureKind.AUTHENTICATION
    if status == 402:
        # OpenRouter's in-flight budget frees itself: it says when.
        waits = "retry-after" in headers or "retry-after-ms" in headers
        return FailureKind.RATE_LIMITED if waits else FailureKind.QUOTA_EXCEEDED
    if status == 403:
        return FailureKind.CONTENT_POLICY if _about_content(error, text) else FailureKind.AUTHENTICATION
    if status == 404:
        misfit = _request_kind(status, error, text) is FailureKind.UNSUPPORTED
        return FailureKind.UNSUPPORTED if misfit else FailureKind.MODEL_NOT_FOUND
    if status == 429:
        return FailureKind.QUOTA_EXCEEDED if _QUOTA_WORDS.search(text) else FailureKind.RATE_LIMITED
    if status in (503, 529):
        return FailureKind.OVERLOADED
    if status == 408 or status >= 500 or status < 300:
        return FailureKind.SERVER_ERROR
    return _request_kind(status, error, text)


def _about_content(error: Mapping[str, Any], text: str) -> bool:
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and ("reasons" in metadata or "flagged_input" in metadata):
        return True
    return _POLICY_WORDS.search(text) is not None


def _request_kind(status: int, error: Mapping[str, Any], text: str) -> FailureKind:
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("error_type"), str):
        text = f"{metadata['error_type']} {text}"
    if _KEY_WORDS.search(text) or _has_reason(error, "API_KEY_INVALID"):
        return FailureKind.AUTHENTICATION
    if _CONTEXT_WORDS.search(text):
        return FailureKind.CONTEXT_LENGTH
    if status == 400 and re.search(r"content_policy_violation|content_filter", text):
        return FailureKind.CONTENT_POLICY
    if status == 400 and re.search(r"billing_error|credit balance is too low|spend limit", text, re.IGNORECASE):
        return FailureKind.QUOTA_EXCEEDED
    if _MODEL_GONE_WORDS.search(text):
        return FailureKind.MODEL_NOT_FOUND
    if _is_unsupported(error, text):
        return FailureKind.UNSUPPORTED
    return FailureKind.INVALID_REQUEST


def _is_unsupported(error: Mapping[str, Any], text: str) -> bool:
    return str(error.get("code")) in _UNSUPPORTED_CODES or _UNSUPPORTED_WORDS.search(text) is not None


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = error.get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _has_reason(error: Mapping[str, Any], reason: str) -> bool:
    return any(detail.get("reason") == reason for detail in _details(error))


def retry_after(headers: Mapping[str, str], error: Mapping[str, Any], now: float) -> float | None:
    """Seconds to wait, from `retry-after-ms`, `Retry-After` (seconds or HTTP date) or Google's RetryInfo."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    if text:
        seconds = _number(text)
        return seconds if seconds is not None else _until(text, now)
    for detail in _details(error):
        found = _DURATION.match(str(detail.get("retryDelay", "")))
        if found:
            return _number(found[1])
    return None


def _number(text: str | None) -> float | None:
    """A finite number that is not negative; a negative wait means no wait."""
    if text is None or not text.strip().isascii():
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def _until(text: str, now: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
