"""Reading providers' error answers in every dialect."""

from __future__ import annotations

import json
import time

import pytest

from llm_router.errors import FailureKind as K
from llm_router.wire.error_objects import ErrorSeen, upstream_error
from llm_router.wire.providers.errors import read_failure, request_trouble

NOW = 1_800_000_000.0


def body(**error: object) -> bytes:
    """An OpenAI-shaped error body."""
    return json.dumps({"error": error}).encode()


CASES = [
    (500, body(message="the request exceeds the available context size.", code=500), K.CONTEXT_LENGTH),
    (401, body(message="Incorrect API key", code="invalid_api_key"), K.AUTHENTICATION),
    (402, body(message="Insufficient credits", code=402), K.QUOTA_EXCEEDED),
    (403, body(message="Country not supported"), K.AUTHENTICATION),
    (403, body(message="Your input was flagged", code=403, metadata={"reasons": ["x"]}), K.CONTENT_POLICY),
    (403, body(message="blocked by guardrail policy"), K.CONTENT_POLICY),
    (403, body(message="Project `p` does not have access to model `gpt-9`", code="model_not_found"), K.MODEL_NOT_FOUND),
    (403, body(message="You don't have access to the model with the specified model ID."), K.MODEL_NOT_FOUND),
    (403, body(message="blocked for the project", code="model_permission_blocked_project"), K.MODEL_NOT_FOUND),
    (400, body(message="The provided model identifier is invalid."), K.MODEL_NOT_FOUND),
    (404, body(message="The model does not exist", code="model_not_found"), K.MODEL_NOT_FOUND),
    (404, b'{"error":"model \'x\' not found"}', K.MODEL_NOT_FOUND),
    (400, body(message="foo is not a valid model ID", code=400), K.MODEL_NOT_FOUND),
    (408, b"", K.SERVER_ERROR),
    (409, body(message="conflict"), K.INVALID_REQUEST),
    (413, body(message="too big"), K.INVALID_REQUEST),
    (429, body(message="slow down", code="rate_limit_exceeded"), K.RATE_LIMITED),
    (429, body(message="You exceeded your current quota", code="insufficient_quota"), K.QUOTA_EXCEEDED),
    (500, b"<html>oops</html>", K.SERVER_ERROR),
    (503, body(message="overloaded"), K.OVERLOADED),
    (503, body(message="Slow down", type="server_error", code="slow_down"), K.RATE_LIMITED),
    (503, body(message="please slow_down, rate_limit ahead"), K.OVERLOADED),
    (529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', K.OVERLOADED),
    (524, b"", K.SERVER_ERROR),
    (302, b"", K.REDIRECT),
    (400, body(message="Invalid value: 'x'", code="invalid_value", param="messages"), K.INVALID_REQUEST),
    (400, body(message="m", code="context_length_exceeded"), K.CONTEXT_LENGTH),
    (400, body(message="This model's maximum context length is 8192 tokens"), K.CONTEXT_LENGTH),
    (400, body(message="prompt is too long: 9 tokens > 8 maximum"), K.CONTEXT_LENGTH),
    (400, body(message="request exceeds", type="exceed_context_size_error", code=400), K.CONTEXT_LENGTH),
    (400, b'[{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT","details":[{"reason":'
          b'"API_KEY_INVALID"}]}}]', K.AUTHENTICATION),
    (400, b'[{"error":{"code":400,"message":"The input token count (9) exceeds the maximum number of tokens allowed '
          b'(8)."}}]', K.CONTEXT_LENGTH),
    (400, body(message="Unsupported parameter: 'max_tokens'", code="unsupported_parameter"), K.UNSUPPORTED),
    (400, body(message="`temperature` is deprecated for this model."), K.UNSUPPORTED),
    (400, body(message="this model does not support tools"), K.UNSUPPORTED),
    (422, body(message="unknown parameter: foo"), K.UNSUPPORTED),
    (400, body(message="rejected", code="content_policy_violation"), K.CONTENT_POLICY),
    (400, body(message="Provider returned error", code=400, metadata={"error_type": "refusal"}), K.CONTENT_POLICY),
    (400, body(message="'refusal' is no field of a user message"), K.INVALID_REQUEST),
    (429, body(message="You exceeded your current quota, please check your plan and billing details.", code=429,
               status="RESOURCE_EXHAUSTED"), K.RATE_LIMITED),
    (429, body(message="Rate limit reached. Add a payment method: https://platform.openai.com/account/billing.",
               type="requests", code="rate_limit_exceeded"), K.RATE_LIMITED),
    (429, body(message="You exceeded your current quota", type="insufficient_quota"), K.QUOTA_EXCEEDED),
    (404, body(message="models/gemini-1.5-pro is not found for API version v1beta, or is not supported for "
               "generateContent.", status="NOT_FOUND", code=404), K.MODEL_NOT_FOUND),
    (400, body(message="The model `x` has been decommissioned and is no longer supported.",
               code="model_decommissioned"), K.MODEL_NOT_FOUND),
    (410, b"gone", K.MODEL_NOT_FOUND),
    (400, body(message="User location is not supported for the API use.", status="FAILED_PRECONDITION"),
     K.AUTHENTICATION),
    (400, body(message="Gemini API free tier is not available in your country. Please enable billing on your project",
               status="FAILED_PRECONDITION"), K.QUOTA_EXCEEDED),
    (400, body(message="You have reached your specified API usage limits. You will regain access on 2026-12-01.",
               type="invalid_request_error"), K.QUOTA_EXCEEDED),
    (400, body(message="input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"),
     K.CONTEXT_LENGTH),
    (400, body(message="the input length exceeds the context length"), K.CONTEXT_LENGTH),
    (500, body(message="Internal", code=500, metadata={"error_type": "context_length_exceeded"}), K.CONTEXT_LENGTH),
    (400, body(message="Provider returned error", code=400, metadata={
        "raw": '{"error":{"message":"This model\'s maximum context length is 4096 tokens."}}'}), K.CONTEXT_LENGTH),
    (400, body(message="Provider returned error", code=400, metadata={"error_type": "max_tokens_exceeded"}),
     K.UNSUPPORTED),
    (403, body(message="no", code=403, metadata={"error_type": "refusal"}), K.CONTENT_POLICY),
    (403, body(message="no", code=403, metadata={"error_type": "authentication"}), K.AUTHENTICATION),
    (400, body(message="Output blocked by content filtering policy"), K.CONTENT_POLICY),
    (400, body(message="To use function tools, use /v1/responses or set reasoning_effort to 'none'."), K.UNSUPPORTED),
    (400, body(message="'messages.2' : property 'reasoning_content' is unsupported"), K.UNSUPPORTED),
    (422, b'{"object":"error","message":{"detail":[{"loc":["body"],"msg":"Extra inputs are not permitted"}]}}',
     K.UNSUPPORTED),
    (400, body(message="Corrupted thought signature."), K.UNSUPPORTED),
    (400, body(message="invalid image input", type="invalid_request_error"), K.UNSUPPORTED),
    (413, body(message="Request too large for model `x` on tokens per minute", code="rate_limit_exceeded"),
     K.UNSUPPORTED),
    (429, body(message="Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 60000.",
               type="tokens", code="rate_limit_exceeded"), K.UNSUPPORTED),
    (405, b"Method Not Allowed", K.SERVER_ERROR),
    (499, body(message="The operation was cancelled.", status="CANCELLED"), K.CANCELLED),
]  # fmt: skip


@pytest.mark.parametrize(("status", "answer", "kind"), CASES)
def test_every_dialect_is_understood(status: int, answer: bytes, kind: K) -> None:
    """Status and words lead to the right kind."""
    assert read_failure(status, {}, answer, NOW).kind is kind


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("This model's maximum prompt length is 131072 but the request contains 537812 tokens.", K.CONTEXT_LENGTH),
        ("Please reduce the length of the messages or completion.", K.CONTEXT_LENGTH),
        ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", K.CONTEXT_LENGTH),
        ("Invalid request: Your request exceeded model token limit: 8192", K.CONTEXT_LENGTH),
        ("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens", K.CONTEXT_LENGTH),
        ("Invalid content type. image_url is only supported by certain models.", K.UNSUPPORTED),
        ("This model is only supported in v1/responses and not in v1/chat/completions.", K.UNSUPPORTED),
        ("This is not a chat model and thus not supported in the v1/chat/completions endpoint.", K.UNSUPPORTED),
        ("Function calling is not enabled for models/gemma-3-27b-it", K.UNSUPPORTED),
        ("Budget 0 is invalid. This model only works in thinking mode.", K.UNSUPPORTED),
        ("this model is missing data required for image input", K.UNSUPPORTED),
        ("messages[0]: unknown variant `image_url`, expected `text` at line 1", K.UNSUPPORTED),
        ("invalid temperature: only 1 is allowed for this model", K.UNSUPPORTED),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", K.UNSUPPORTED),
        ("max_tokens must be less than or equal to 8192, the maximum is less than the `context_window`", K.UNSUPPORTED),
        ("tools param requires --jinja flag", K.UNSUPPORTED),
        ("Access denied, please make sure your account is in good standing.", K.QUOTA_EXCEEDED),
        ("Insufficient balance", K.QUOTA_EXCEEDED),
        ("Incorrect API key provided", K.AUTHENTICATION),
        ("'messages[0].content' must be a string", K.INVALID_REQUEST),
        ("max_tokens must be at least 1", K.INVALID_REQUEST),
    ],
)
def test_words_of_a_400_that_is_not_the_clients_fault(words: str, kind: K) -> None:
    """Hosts of open models have no codes for a prompt that is too long, a model that cannot, an unpaid account."""
    assert read_failure(400, {}, body(message=words), NOW).kind is kind


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Invalid schema for function 'get_billing_info': 'required' is missing", K.INVALID_REQUEST),
        ("tools[0].function_declarations[0].parameters.properties[billing_address].items: missing", K.INVALID_REQUEST),
        ("properties[billing].items: missing field", K.INVALID_REQUEST),
        ('Invalid JSON payload received. Unknown name "billing" at \'tools[0]\': Cannot find field', K.UNSUPPORTED),
        ("Tool choice 'billing' is not in `tools`", K.INVALID_REQUEST),
        ("Tool `invalid_api_key` is declared twice", K.INVALID_REQUEST),
        ("Error while downloading https://billing.example.org/a.png", K.INVALID_REQUEST),
        ("Image https://example.org/models/a.png not found", K.INVALID_REQUEST),
        ("[{'loc': ('body', 'x'), 'msg': 'Input should be a list', 'input': 'an incorrect API key?'}]",
         K.INVALID_REQUEST),
        ("Input should be a string [type=string_type, input_value={'text': 'no such model'}]", K.INVALID_REQUEST),
        ("[{'msg': 'Input should be a list', 'input': 'My context window'}]", K.INVALID_REQUEST),
    ],
)  # fmt: skip
def test_what_a_client_wrote_shuts_nobody_out(words: str, kind: K) -> None:
    """A refusal that repeats names, links or values of the request is no word about our account or the model."""
    assert read_failure(400, {}, body(message=words), NOW).kind is kind


@pytest.mark.parametrize(
    ("headers", "answer", "seconds"),
    [
        ({"retry-after": "7"}, b"", 7.0),
        ({"retry-after": "0"}, b"", 0.0),
        ({"retry-after": "-5"}, b"", 0.0),
        ({"retry-after": "1.5"}, b"", 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, b"", 0.25),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, b"", 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, b"", 0.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30"}, b"", 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 -0000"}, b"", 30.0),
        ({"retry-after": "soon"}, b"", None),
        ({"retry-after": "nan"}, b"", None),
        ({"retry-after": "1e999"}, b"", None),
        ({"retry-after": "٣"}, b"", None),
        ({}, body(details=[{"@type": "RetryInfo", "retryDelay": "17s"}]), 17.0),
        ({}, body(details=[{"retryDelay": "17.5s"}, 3]), 17.5),
        ({}, body(details="odd"), None),
    ],
)
def test_the_wait_is_read_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], answer: bytes, seconds: float | None
) -> None:
    """Seconds, milliseconds, HTTP dates and RetryInfo give seconds; junk gives none and never crashes."""
    with monkeypatch.context() as elsewhere:  # HTTP's dates are GMT, wherever the router stands
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        found = read_failure(429, headers, answer, NOW).retry_after
    time.tzset()
    assert found == seconds


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "You do not have permission to access the File k3xq9 or it may not exist."),
        (403, "CachedContent not found (or permission denied)"),
        (404, "Cached content cachedContents/9 was not found"),
        (404, "No such File object: file-abc"),
        (404, "File file-9ab was not found"),
    ],
)
def test_a_file_that_is_gone_shuts_nobody_out(status: int, words: str) -> None:
    """Files and cached prefixes of old conversations expire: that is no word about our key, nor about the model."""
    assert read_failure(status, {}, body(message=words, code=status), NOW).kind is K.INVALID_REQUEST


def test_a_wrong_address_is_not_the_clients_fault() -> None:
    """A server that has no such route may call it a file."""
    assert read_failure(404, {}, b"File not found", NOW).kind is K.MODEL_NOT_FOUND


def test_an_in_flight_budget_is_a_rate_limit() -> None:
    """OpenRouter's 402 about requests in flight passes by itself where it says when; every other 402 is the bill."""
    in_flight = body(message="budget", code=402, metadata={"limit_source": "openrouter_in_flight_budget"})
    assert read_failure(402, {"retry-after": "2"}, in_flight, NOW).kind is K.RATE_LIMITED
    assert read_failure(402, {}, in_flight, NOW).kind is K.QUOTA_EXCEEDED
    assert read_failure(402, {"retry-after": "2"}, body(message="Insufficient credits"), NOW).kind is K.QUOTA_EXCEEDED


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'{"detail":[{"loc":["body","n"],"msg":"must be 1"},{"msg":"odd"}]}', "body.n: must be 1; odd"),
        (b'{"object":"error","message":{"detail":[{"loc":["body"],"msg":"weird"}]}}', "body: weird"),
        (b'{"detail":["1","2","3","4","5","6","7"]}', "1; 2; 3; 4; 5"),
        (b'{"errors":[{"message":"one"},{"message":"two"}]}', "one; two"),
        (b'{"error":["one"]}', "one"),
        (b'"a string"', "a string"),
        (b'{"error":{"message":"line 1\n\tline 2 \\ud83d","code":NaN}}', "line 1\n\tline 2 \ufffd"),
        (b"null", "the provider answered with status 400"),
        (
            b'{"error":{"message":' + b"[" * 500 + b'"deep"' + b"]" * 500 + b"}}",
            "the provider answered with status 400",
        ),
    ],
)
def test_words_are_found_in_odd_bodies(answer: bytes, words: str) -> None:
    """Errors of validation come as lists and objects: their words reach the client all the same."""
    assert read_failure(400, {}, answer, NOW).message == words


def test_the_kind_of_an_error_inside_a_200_is_read() -> None:
    """OpenRouter says in its metadata what went wrong, also where the status was 200 already."""
    error = {"code": 400, "message": "Provider returned error", "metadata": {"error_type": "context_length_exceeded"}}
    assert request_trouble(upstream_error(ErrorSeen(error))) is K.CONTEXT_LENGTH
    assert request_trouble(upstream_error(ErrorSeen({"code": 502, "message": "Provider returned error"}))) is None


@pytest.mark.parametrize(
    "error",
    [
        {"code": 429, "message": "Too many tokens in the context window of a minute"},
        {"code": "rate_limit_exceeded", "message": "Too many tokens"},
        {"code": "ThrottlingException", "message": "Too many tokens, please wait before trying again."},
        {"message": "Too many tokens per day, please wait before trying again."},
    ],
)
def test_a_rate_limit_inside_a_200_is_no_long_prompt(error: dict[str, object]) -> None:
    """Tokens that are too many for a minute are the provider's trouble: a model of the same size may answer."""
    assert request_trouble(upstream_error(ErrorSeen(error))) is None


@pytest.mark.parametrize("field", ["type", "code"])
def test_only_so_much_of_a_word_is_searched(field: str) -> None:
    """A provider may send megabytes as the type of an error: what is searched for in them must not hold the loop."""
    said = {"message": "no", "code": "403", field: "403" + "violat" * 100_000}
    began = time.process_time()
    assert request_trouble(upstream_error(ErrorSeen(said))) is None
    assert read_failure(400, {}, body(**said), NOW).kind is K.INVALID_REQUEST
    assert time.process_time() - began < 3.0


def test_a_code_is_masked_before_it_is_cut() -> None:
    """Of a secret that was cut in two, the half would stay."""
    code = "x" * 190 + " sk-secret-0123456789"
    assert read_failure(400, {}, body(code=code), NOW).code == code


def test_the_words_of_the_provider_are_kept() -> None:
    """Message, code and param of the provider reach the client; pages of HTML do not."""
    failure = read_failure(400, {}, body(message="bad tool", code="x", param="tools[0]"), NOW)
    assert (failure.message, failure.code, failure.param) == ("bad tool", "x", "tools[0]")
    assert "<" not in read_failure(502, {}, b"<html>nginx</html>", NOW).message
    assert read_failure(400, {}, b"y" * 5000, NOW).message == "y" * 5000  # the masker cuts it


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (403, "Input flagged by moderation", K.CONTENT_POLICY),
        (500, "The moderation service is out of order", None),
        (403, "Country not supported", None),
        (429, "maximum context length exceeded", None),
    ],
)
def test_what_a_200_says_about_the_content(code: int, message: str, kind: K | None) -> None:
    """An error inside a 200 is the request's own fault where its code and words say so, and no other one is."""
    assert request_trouble(upstream_error(ErrorSeen({"code": code, "message": message}))) is kind
