"""The API described for machines (OpenAPI 3.1), served at /openapi.json and tested against the routes."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from llm_router import __version__
from llm_router.accounting.report import DIMENSIONS
from llm_router.server.schemas import SCHEMAS

Node = dict[str, Any]

_CHAT_HEADERS: Final = {
    "x-request-id": "the id of the request, for `GET /v1/requests/{request_id}`",
    "x-router-category": "the category",
    "x-router-mode": "how the category was found",
    "x-router-model": "the full id of the model that answered",
    "x-router-provider": "its provider",
    "x-router-attempts": "how many models were asked",
}
_ERRORS: Final = {
    400: "The request is malformed; `param` names the field",
    401: "A key is missing or wrong",
    403: "Foreign host name or web page, or a change without the right to make it; the message names the setting",
    404: "There is no such thing",
    405: "Not with this method; `Allow` lists those that there are",
    408: "The body stopped coming",
    413: "The body is too long",
    415: "The body is compressed, or a browser sent it as something else than JSON",
    417: "An expectation other than 100-continue",
    429: "Every model of the chain is rate limited; `Retry-After` is the smallest remaining wait",
    500: "A fault of the router, or a change that could not be saved",
    503: "No model could answer (`attempts` says why), or the router is too busy or draining",
}
_TEXT: Final[Node] = {"type": "string"}
_MAX_PRICE: Final[Node] = {
    "name": "x-router-max-price",
    "in": "header",
    "description": "the most that the request may cost, in USD, as estimated",
    "schema": {"type": "number", "minimum": 0},
}
_SINCE: Final[Node] = {
    "type": "string",
    "anyOf": [
        {"pattern": "^[0-9]{1,6}[smhdw]$"},
        {"format": "date"},
        {"format": "date-time"},
        {"pattern": "^[0-9]{10}$"},
    ],
}
_GUARD: Final = (400, 401, 403)
_BODY: Final = (408, 413, 415, 417)


@cache
def description() -> Node:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llm-router",
            "version": __version__,
            "summary": "An OpenAI-compatible proxy that picks the model for each request",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {}],
        "paths": _paths(),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "responses": {str(status): _error(text) for status, text in _ERRORS.items()},
        },
    }


def _paths() -> Node:
    chat = _chat()
    models = _get("What may be written as `model`", "ModelList")
    model = {**_get("One of them", "Model", errors=(*_GUARD, 404)), "parameters": [_in_path("model")]}
    return {
        "/": {"get": _front()},
        "/health": {"get": {**_get("Is the process alive", "Health", errors=(400, 403)), "security": [{}]}},
        "/ready": {
            "get": {
                **_get("Could a request be answered now", "Ready", errors=(400, 403)),
                "security": [{}],
                "responses": {
                    **_responses(200, "Ready", (400, 403)),
                    "503": _json("Draining, or no chain has an able candidate", "Ready"),
                },
            }
        },
        "/metrics": {"get": _metrics()},
        "/providers": {"get": _get("The providers, and which of them are configured", "Providers")},
        "/models": {"get": models},
        "/v1/models": {"get": models},
        "/models/{model}": {"get": model},
        "/v1/models/{model}": {"get": model},
        "/chat/completions": {"post": chat},
        "/v1/chat/completions": {"post": chat},
        "/v1/explain": {"post": _explain()},
        "/v1/requests/{request_id}": {"get": _ledger_request()},
        "/v1/usage": {"get": _usage()},
        "/config": {"get": _get("The configuration in force, without secrets", "Config")},
        "/config/category": {"post": _change("Add or change a category", "CategoryChange")},
        "/config/model-mapping": {"post": _change("Give a category another chain", "MappingChange", 404)},
        "/config/category/{name}": {"delete": _change("Remove a category", None, 404, parameters=[_in_path("name")])},
        "/config/reload": {"post": _change("Read the configuration file again", None)},
        "/circuit-breaker": {"get": _get("The circuits", "Circuits")},
        "/circuit-breaker/reset/{model}": {
            "post": _change("Close the circuit of a model", None, parameters=[_in_path("model")])
        },
        "/circuit-breaker/reset-all": {"post": _change("Close all circuits", None)},
        "/openapi.json": {"get": _get("This description", "Any")},
    }


def _chat() -> Node:
    operation = _post("Chat completion, streamed or not", "ChatRequest", "ChatCompletion", 404, 429, 503)
    operation["parameters"] = [
        _header("x-request-id", "an id of your own for this request"),
        _header("x-session-id", "the conversation that it belongs to"),
        _MAX_PRICE,
        _header("x-router-dry-run", "`1`: answer what /v1/explain would"),
    ]
    answer = operation["responses"]["200"]
    answer["content"]["text/event-stream"] = {"schema": {"description": "chunks as `data:` events, `[DONE]` last"}}
    answer["headers"] = {name: {"description": text, "schema": _TEXT} for name, text in _CHAT_HEADERS.items()}
    return operation


def _explain() -> Node:
    summary = "What would be chosen for a chat request, and why; calls nobody"
    return {**_post(summary, "ChatRequest", "Explanation", 404), "parameters": [_MAX_PRICE]}


def _front() -> Node:
    operation = _get("What this is and where the docs are", "Any")
    operation["responses"]["200"]["content"]["text/html"] = {"schema": _TEXT}
    return operation


def _metrics() -> Node:
    operation = _get("Figures; Prometheus text for those who ask for text rather than JSON", "Metrics")
    for kind in ("text/plain", "application/openmetrics-text"):
        operation["responses"]["200"]["content"][kind] = {"schema": _TEXT}
    return operation


def _ledger_request() -> Node:
    operation = _get("The ledger record of a request", "LedgerRecord", errors=(*_GUARD, 404))
    operation["parameters"] = [_in_path("request_id")]
    operation["responses"]["202"] = _json("It is not settled yet", "Pending")
    return operation


def _usage() -> Node:
    operation = _get("Sums over the ledger", "Usage")
    span = "`30m`, `24h`, `7d`, `4w` ago, an ISO date or time, or a Unix time"
    operation["parameters"] = [
        {"name": "by", "in": "query", "schema": {"enum": list(DIMENSIONS), "default": "model"}},
        {"name": "since", "in": "query", "description": span, "schema": _SINCE},
    ]
    return operation


def _change(summary: str, body: str | None, *errors: int, parameters: list[Node] | None = None) -> Node:
    """A change of configuration or circuits."""
    operation: Node = {"summary": summary, "responses": _responses(200, "Changed", (*_GUARD, *errors, 500))}
    if body is not None:
        operation = _post(summary, body, "Changed", *errors, 500)
    if parameters:
        operation["parameters"] = parameters
    return operation


def _post(summary: str, body: str, answer: str, *errors: int) -> Node:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(body)}}},
        "responses": _responses(200, answer, (*_GUARD, *_BODY, *errors)),
    }


def _get(summary: str, answer: str, errors: tuple[int, ...] = _GUARD) -> Node:
    return {"summary": summary, "responses": _responses(200, answer, errors)}


def _responses(status: int, answer: str, errors: tuple[int, ...]) -> Node:
    found: Node = {str(status): _json("OK", answer)}
    return found | {str(error): {"$ref": f"#/components/responses/{error}"} for error in sorted({*errors})}


def _json(text: str, schema: str) -> Node:
    return {"description": text, "content": {"application/json": {"schema": _ref(schema)}}}


def _error(text: str) -> Node:
    return _json(text, "Error")


def _ref(schema: str) -> Node:
    return {"$ref": f"#/components/schemas/{schema}"}


def _header(name: str, text: str) -> Node:
    return {"name": name, "in": "header", "description": text, "schema": _TEXT}


def _in_path(name: str) -> Node:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
