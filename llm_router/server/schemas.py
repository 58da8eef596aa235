"""The JSON that travels, as JSON schemas for the API's description. Unknown fields are always possible."""

from __future__ import annotations

from typing import Any, Final

from llm_router.accounting.report import DIMENSIONS

Node = dict[str, Any]


def _object(required: str = "", **properties: Node) -> Node:
    node: Node = {"type": "object", "properties": properties}
    if required:
        node["required"] = required.split()
    return node


def _list(items: Node, **more: Any) -> Node:
    return {"type": "array", "items": items, **more}


def _map(values: Node) -> Node:
    return {"type": "object", "additionalProperties": values}


def _or_null(kind: str) -> Node:
    return {"type": [kind, "null"]}


def _may_be_null(node: Node) -> Node:
    return {**node, "type": [node["type"], "null"]}


_TEXT: Final[Node] = {"type": "string"}
_NUMBER: Final[Node] = {"type": "number"}
_COUNT: Final[Node] = {"type": "integer"}
_YES_NO: Final[Node] = {"type": "boolean"}
_TEXTS: Final = _list(_TEXT)
_ANYTHING: Final[Node] = {}
_CATEGORY_NAME: Final[Node] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_WORDS: Final = _list({"type": "string", "minLength": 1})
_MODEL: Final[Node] = {"type": "string", "pattern": r"^\S{1,256}$", "description": "`provider/model`"}
_CHAIN: Final = _list(_MODEL, minItems=1)
_ENTRY: Final = _object(
    "id object created owned_by", id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT
)

_MESSAGE: Final[Node] = {
    **_object(
        "role",
        role={"type": "string", "minLength": 1},
        content={"type": ["string", "array", "null"]},
    ),
    "description": "only an assistant's turn may be without content",
    "anyOf": [
        {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
        {"properties": {"role": {"const": "assistant"}}},
    ],
}

SCHEMAS: Final[dict[str, Node]] = {
    "Any": {"type": "object"},
    "Error": _object(
        "error",
        error=_object(
            "message type param code",
            message=_TEXT,
            type=_TEXT,
            param=_or_null("string"),
            code={"type": ["string", "integer", "null"]},
            attempts=_list(_object("model kind", model=_TEXT, kind=_TEXT, status=_or_null("integer"), ms=_NUMBER)),
        ),
    ),
    "ChatRequest": _object(
        "model messages",
        model={
            "type": "string",
            "pattern": r"^(router|auto|router/[A-Za-z0-9_-]{1,64}|[a-z0-9._-]+/[!-~]{1,200})$",
            "description": "`router`, `router/<category>` or `provider/model`",
        },
        messages=_list(_MESSAGE, minItems=1),
        models={**_may_be_null(_TEXTS), "description": "with `router`: the chain to use"},
        stream=_or_null("boolean"),
        tools=_list({"type": "object"}),
    ),
    "ChatCompletion": _object("choices", id=_TEXT, object=_TEXT, model=_TEXT, choices=_list({"type": "object"})),
    "Explanation": _object(
        "category confidence mode scores evidence candidates skipped",
        category=_TEXT,
        confidence=_NUMBER,
        mode=_TEXT,
        scores=_map(_NUMBER),
        evidence=_list(_ANYTHING),
        candidates=_list(
            _object(
                "model estimated_tokens estimated_cost_usd",
                model=_TEXT,
                estimated_tokens=_or_null("integer"),
                estimated_cost_usd=_or_null("number"),
            )
        ),
        skipped=_list(_object("model reason", model=_TEXT, reason=_TEXT)),
    ),
    "Model": _ENTRY,
    "ModelList": _object("object data", object={"const": "list"}, data=_list(_ENTRY)),
    "Health": _object(
        "status version uptime_s routing_mode providers categories",
        status={"const": "healthy"},
        version=_TEXT,
        uptime_s=_NUMBER,
        routing_mode=_TEXT,
        providers=_TEXTS,
        categories=_TEXTS,
    ),
    "Ready": _object("status", status={"enum": ["ready", "draining", "no_able_candidate"]}),
    "Metrics": _object(
        "requests avg_latency_ms total_cost_usd model_distribution category_distribution provider_distribution "
        "circuit_breaker recent_requests",
        requests=_object(
            "total success failed cancelled", total=_COUNT, success=_COUNT, failed=_COUNT, cancelled=_COUNT
        ),
        avg_latency_ms=_or_null("number"),
        total_cost_usd=_or_null("number"),
        model_distribution=_map(_COUNT),
        category_distribution=_map(_COUNT),
        provider_distribution=_map(_COUNT),
        circuit_breaker={"$ref": "#/components/schemas/Circuits"},
        recent_requests=_list({"type": "object"}),
    ),
    "Providers": _object(
        "providers default_provider",
        providers=_map(_object("base_url configured", base_url=_TEXT, configured=_YES_NO)),
        default_provider=_TEXT,
    ),
    "Config": _object(
        "model_mappings keywords custom_categories routing_mode",
        model_mappings=_map(_TEXTS),
        keywords=_map(_TEXTS),
        custom_categories=_map({"type": "object"}),
        routing_mode=_TEXT,
    ),
    "CategoryChange": {
        **_object(
            "name models",
            name=_CATEGORY_NAME,
            models=_CHAIN,
            keywords=_may_be_null(_WORDS),
            description=_or_null("string"),
            examples=_may_be_null(_WORDS),
        ),
        "additionalProperties": False,
    },
    "MappingChange": {
        **_object("category models", category=_CATEGORY_NAME, models=_CHAIN),
        "additionalProperties": False,
    },
    "Changed": _object("status", status={"const": "ok"}),
    "Circuits": _object(
        "open_circuits circuits",
        open_circuits=_TEXTS,
        circuits=_map(_object("state failures", state=_TEXT, failures=_COUNT)),
    ),
    "LedgerRecord": _object(
        "request_id started outcome",
        request_id=_TEXT,
        started=_NUMBER,
        outcome={"enum": ["completed", "cut", "cancelled", "failed", "interrupted"]},
        model=_TEXT,
        cost_usd=_or_null("number"),
    ),
    "Pending": _object("request_id status", request_id=_TEXT, status={"const": "pending"}),
    "Usage": _object(
        "object by since data",
        object={"const": "list"},
        by={"enum": list(DIMENSIONS)},
        since=_or_null("number"),
        data=_list({"type": "object"}),
    ),
}
