"""Reading a provider's error answer, in whatever dialect, into one `Failure`.

Sources: the vendors' documented error bodies and what their SDKs accept. Only what the text says decides; nothing here
knows which provider sent it, because gateways pass foreign errors on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from llm_router.errors import Failure, FailureKind
from llm_router.wire.error_objects import error_type
from llm_router.wire.loose import load_carelessly, load_json
from llm_router.wire.masking import MESSAGE_CHARS

_CERTAIN_CONTEXT_WORDS = re.compile(r"context_length_exceeded|exceed_context_size|exceeds the available context size")
_CONTEXT_WORDS = re.compile(
    r"context_(?:length|window)_exceeded|exceed_context_size|context (?:length|window|limit|size)|prompt is too long"
    r"|exceeds the maximum number of tokens|input is too long|too many (?:input )?tokens(?! per|, please wait)"
    # As hosts and servers of open models say it.
    r"|maximum (?:prompt|model) length|max_prompt_tokens_exceeded|prompt token count of \d+ exceeds"
    r"|exceeded model token limit|more than max tokens allowed|reduce the length of (?:the|your)"
    r"|range of input length should be|`inputs` (?:tokens \+|must have less than)",
    re.IGNORECASE,
)
_POLICY_WORDS = re.compile(
    r"content[_ ]policy|content[_ ]filter|moderation|guardrail|flagged|safety (?:system|policy)|usage policies"
    r"|\brefusal\b|violat\w{1,9} (?:our|the) .{0,40}polic",
    re.IGNORECASE,
)
_REFUSED_CONTENT = re.compile(r"content_policy_violation|content[_ ]filter", re.IGNORECASE)
# A rate limit may well advise to buy more, so a code that says which of the two it is goes before the words.
_QUOTA_CODES = re.compile(r"insufficient_quota|credit_balance|billing|payment_required")
_RATE_CODES = re.compile(r"rate_limit|resource_exhausted|slow_down", re.IGNORECASE)
_QUOTA_WORDS = re.compile(
    r"insufficient_quota|credit_balance|billing|insufficient credits|exceeded your current quota|payment required"
    r"|credit balance is too low|insufficient balance|account .{0,60}(?:not active|suspended)",
    re.IGNORECASE,
)
# What is wrong with our account, said with a status that would blame the request.
_UNPAID_WORDS = re.compile(
    r"(?<![\w\".[])billing(?![\w\"\]])|billing_(?:error|hard_limit|not_active)|credit balance is too low"
    r"|insufficient balance|spend(?:ing)? limit|budget has been exceeded|reached your specified .{0,20}usage limit"
    r"|account is in good standing",
    re.IGNORECASE,
)
_KEY_WORDS = re.compile(
    r"api[_ ]key[_ ](?:not[_ ](?:valid|found)|invalid|expired)|(?:invalid|incorrect)[_ ]api[_ ]key"
    r"|location is not supported",
    re.IGNORECASE,
)
# A file or a cached prefix that the request names and that is gone: they expire, and no key and no model is at fault.
_GONE_WORDS = re.compile(
    r"the file \S+ or it may not exist|cached ?content\b.{0,80}not found|no such file object"
    r"|file:? \S*\d\S* (?:was |is )?not found",
    re.IGNORECASE,
)
_MODEL_GONE_WORDS = re.compile(
    r"model_not_found|not a valid model|no such model|(?:unknown|invalid) model|no endpoints found for|decommissioned"
    r"|model identifier is invalid"
    r"|models?[ /].{0,80}(?:not exist|not found|is not available|no longer (?:supported|available))",
    re.IGNORECASE,
)
_NO_ACCESS_WORDS = re.compile(r"model_not_found|model_permission|access (?:to )?(?:the |this )?model", re.IGNORECASE)
_UNSUPPORTED_CODES = frozenset(
    {"unsupported_parameter", "unsupported_value", "unknown_parameter", "max_tokens_exceeded", "unsupported_model"}
)
_UNSUPPORTED_WORDS = re.compile(
    r"(?:is|are) (?:not supported|unsupported)|not supported (?:with|by|for|on) (?:this|the) model"
    r"|only supported (?:by|for|in|on|with)|not enabled for (?:this model|models)|not a (?:chat|multi-?modal) model"
    r"|unsupported (?:parameter|value|model)|does(?: not|n't) support|do(?: not|n't) support"
    r"|no endpoints found that support|unknown parameter|unrecognized (?:request )?argument|unknown name \""
    r"|extra inputs are not permitted"
    r"|max_?(?:completion_|output_?)?tokens.{0,60}(?:too large|exceeds|maximum|at most|valid range|supported range)"
    r"|maximum (?:allowed )?(?:number of )?output tokens|is deprecated for this model"
    r"|only the default .{0,20}value is supported|thought[_ ]signature|use /v1/responses|requires --\w"
    r"|invalid image input|required for image input|at most 0 image|unknown variant `image_url`"
    r"|allowed for this model|only works in thinking mode|response_format type is unavailable",
    re.IGNORECASE,
)
# What servers repeat of a request: the value that they refuse, to the end; and its names and addresses.
_ECHO = re.compile(r"(?:['\"]input['\"]: ?|input_value=).*", re.DOTALL)
_NAMES = re.compile(r"https?://\S+|(['`])[^\s'`]+\1")
# With these the request itself is refused; any other status below 500 tells of a wrong address or a broken server.
_REQUEST_STATUSES = frozenset({400, 409, 413, 414, 422})
_MOST_WORDS = 5  # of a list of errors
_WORD_CHARS = 200
_DEEPEST = 4
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)s$")


def read_failure(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
    """The failure that a non-200 answer stands for. Names of `headers` are in lower case; `now` is Unix time.

    Message and code are not masked yet, so they are not cut: of a secret that was cut in two, the half would stay.
    """
    error = error_object(body)
    message = _message(error, body, status)
    code, kind = _word(error.get("code")), _word(error_type(error))
    param = error.get("param")
    return Failure(
        _kind(status, headers, error, _said(code, kind, message)),
        _with_inner_words(message, error),
        status=status,
        code=code,
        type=kind,
        param=param if isinstance(param, str) else None,
        retry_after=retry_after(headers, error, now),
    )


def request_trouble(failure: Failure) -> FailureKind | None:
    """Whether an error that came inside a 200 is about the length or the content of the request; else None."""
    said = _said(failure.code, failure.type, failure.message)
    if failure.code == "429" or _RATE_CODES.search(said.codes):
        return None  # too many tokens a minute are no long prompt
    if failure.code == "403" and _POLICY_WORDS.search(said.text):
        return FailureKind.CONTENT_POLICY
    kind = _request_kind(400, {}, said)
    return kind if kind in (FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_POLICY) else None


class _Said(NamedTuple):
    """What a provider said about an error; empty where it said nothing."""

    code: str
    type: str
    message: str

    @property
    def codes(self) -> str:
        """What no client can have written."""
        return f"{self.code} {self.type}"

    @property
    def text(self) -> str:
        """All of it, to search in."""
        return " ".join(filter(None, self))


def _said(code: str | None, type: str | None, message: str) -> _Said:
    """As much of it as is searched."""
    return _Said((code or "")[:_WORD_CHARS], (type or "")[:_WORD_CHARS], message[:MESSAGE_CHARS])


def error_object(body: bytes) -> dict[str, Any]:
    """The error object of a body in any dialect, however careless its JSON is; empty where there is none."""
    return _object_in(load_json(body) or load_carelessly(body))


def _object_in(parsed: Any) -> dict[str, Any]:
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    if isinstance(parsed, str):
        return {"message": parsed}
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str | list):
        return {"message": error}
    if parsed.get("message"):
        return parsed
    return {"message": parsed.get("detail") or parsed.get("errors")}


def _message(error: Mapping[str, Any], body: bytes, status: int) -> str:
    message = _words(error.get("message"))
    if message:
        return message
    text = body.decode("utf-8", "replace").strip()
    if text and text != "null" and not text.startswith(("<", "{", "[", '"')):
        return text
    return f"the provider answered with status {status}"


def _with_inner_words(message: str, error: Mapping[str, Any]) -> str:
    """The message, and behind it what the provider behind OpenRouter said: its own is the same whatever that was."""
    raw = _metadata(error).get("raw")
    if isinstance(raw, str) and raw.lstrip().startswith(("{", "[", '"')):
        inner = error_object(raw.encode(errors="replace"))
    else:
        inner = _object_in(raw)
    words = _words(inner.get("message"))
    return message if not words or words.startswith("<") or words in message else f"{message}: {words}"


def _words(value: Any, depth: int = _DEEPEST) -> str:
    """The words of a message: a text, or an object or a list of them, as errors of validation are."""
    if isinstance(value, str):
        return value.strip()
    if not depth:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_words(one, depth - 1) for one in value[:_MOST_WORDS])))
    if not isinstance(value, dict):
        return ""
    found = (_words(value.get(name), depth - 1) for name in ("message", "msg", "detail"))
    words, place = next(filter(None, found), ""), value.get("loc")
    return f"{'.'.join(map(str, place))}: {words}" if words and isinstance(place, list) else words


def _word(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) or None


def _kind(status: int, headers: Mapping[str, str], error: Mapping[str, Any], said: _Said) -> FailureKind:
    if 300 <= status < 400:
        return FailureKind.REDIRECT
    if status == 401:
        return FailureKind.AUTHENTICATION
    if status == 402:
        return FailureKind.RATE_LIMITED if _frees_itself(headers, error) else FailureKind.QUOTA_EXCEEDED
    if status in (403, 404) and _GONE_WORDS.search(said.message):
        return FailureKind.INVALID_REQUEST
    if status == 403:
        return _forbidden(error, said)
    if status == 404:
        misfit = _request_kind(status, error, said) is FailureKind.UNSUPPORTED
        return FailureKind.UNSUPPORTED if misfit else FailureKind.MODEL_NOT_FOUND
    if status == 410:
        return FailureKind.MODEL_NOT_FOUND
    # A prompt over the tokens that the account may send in a minute is too large for this model alone, at any time.
    if said.code == "rate_limit_exceeded" and (status == 413 or said.message.startswith("Request too large")):
        return FailureKind.UNSUPPORTED
    if status == 429:
        return FailureKind.QUOTA_EXCEEDED if _is_out_of_quota(said) else FailureKind.RATE_LIMITED
    if status == 499:
        return FailureKind.CANCELLED  # by somebody on the provider's side: the client still waits
    if status in _REQUEST_STATUSES:
        return _request_kind(status, error, said)
    if _CERTAIN_CONTEXT_WORDS.search(said.text):
        return FailureKind.CONTEXT_LENGTH  # gateways and older servers give it the status of a broken upstream
    if _RATE_CODES.search(said.codes):
        return FailureKind.RATE_LIMITED  # OpenAI says `slow_down` with a 503, too
    return FailureKind.OVERLOADED if status in (503, 529) else FailureKind.SERVER_ERROR


def _frees_itself(headers: Mapping[str, str], error: Mapping[str, Any]) -> bool:
    """Whether a 402 is OpenRouter's budget for requests in flight, which says when there is room again."""
    source = str(_metadata(error).get("limit_source"))
    return "in_flight" in source and ("retry-after" in headers or "retry-after-ms" in headers)


def _is_out_of_quota(said: _Said) -> bool:
    if _QUOTA_CODES.search(said.codes):
        return True
    return not _RATE_CODES.search(said.codes) and _QUOTA_WORDS.search(said.message) is not None


def _forbidden(error: Mapping[str, Any], said: _Said) -> FailureKind:
    """What a 403 forbids: this content, one model (a good key may be without it), or everything."""
    if _about_content(error, said.text):
        return FailureKind.CONTENT_POLICY
    return FailureKind.MODEL_NOT_FOUND if _NO_ACCESS_WORDS.search(said.text) else FailureKind.AUTHENTICATION


def _about_content(error: Mapping[str, Any], text: str) -> bool:
    metadata = _metadata(error)
    return "reasons" in metadata or "flagged_input" in metadata or _POLICY_WORDS.search(text) is not None


def _request_kind(status: int, error: Mapping[str, Any], said: _Said) -> FailureKind:
    """What is wrong with a request, or rather with our account or the model that it names."""
    # OpenRouter's own message is the same for whatever the provider behind it said.
    words = _ECHO.sub("", f"{said.message} {_words(_metadata(error).get('raw'))[:MESSAGE_CHARS]}")
    text = f"{said.codes} {words}"
    # Nobody may shut an account or a model out for all others by how a tool or a file is called.
    own = f"{said.codes} {_NAMES.sub(' ', words)}"
    if _KEY_WORDS.search(own) or _has_reason(error, "API_KEY_INVALID"):
        return FailureKind.AUTHENTICATION
    if _CONTEXT_WORDS.search(text):
        return FailureKind.CONTEXT_LENGTH
    if status == 400 and (_REFUSED_CONTENT.search(text) or said.type == "refusal"):
        return FailureKind.CONTENT_POLICY
    if status == 400 and _UNPAID_WORDS.search(own):
        return FailureKind.QUOTA_EXCEEDED
    if _MODEL_GONE_WORDS.search(own):
        return FailureKind.MODEL_NOT_FOUND
    if not _UNSUPPORTED_CODES.isdisjoint(said) or _UNSUPPORTED_WORDS.search(text):
        return FailureKind.UNSUPPORTED
    return FailureKind.INVALID_REQUEST


def _metadata(error: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = error.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


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
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:  # HTTP's dates are GMT, also where the word is missing
            date = date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
