"""Conversations that stay put: on the model that served them, for its prompt cache, its tool-call ids, its signatures.

Pure, with bounded memory; `now` is Unix time. A conversation is known by a name of its own, or by how it began.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from llm_router.config.values import Category
from llm_router.routing.classify_evidence import Evidence
from llm_router.routing.decision import Decision
from llm_router.routing.plan import Candidate, Plan, needs_of
from llm_router.wire.chat import ChatRequest

IDLE_SECONDS = 300.0
CONVERSATIONS_MOST = 10_000
# A new category must be this sure before it takes a conversation off its model.
CLEARLY = 0.7
_SESSION_FIELDS = ("session_id", "sessionId", "session", "conversation_id", "thread_id")
_FIRST_TEXT = 8192  # characters of a first text that count; of a long one its ends
_END = 1024
_PARTS = 16  # parts of a first content that count, and how deep they are looked into
_DEPTH = 4
_REMEMBERED = 8192  # characters; a client can make what its conversation goes by as long as a body


class Stay(NamedTuple):
    """Where a conversation was served last."""

    model: str
    category: str
    used: float


class Conversations:
    """The latest conversations and their models."""

    def __init__(self) -> None:
        self._stays: OrderedDict[bytes, Stay] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Conversations {len(self._stays)}>"

    def find(self, key: bytes | None, now: float) -> Stay | None:
        """Where the conversation stays; None where it is new, or has been idle for too long."""
        stay = self._stays.get(key) if key is not None else None
        return stay if stay is not None and now - stay.used <= IDLE_SECONDS else None

    def served(self, key: bytes, model: str, category: str, now: float) -> None:
        """An answer ended whole, or was stopped by who asked for it."""
        self._stays[key] = tuple.__new__(Stay, (model, category, now))  # half of what a call of the class costs
        self._stays.move_to_end(key)
        if len(self._stays) > CONVERSATIONS_MOST:
            self._stays.popitem(last=False)

    def left(self, key: bytes) -> None:
        """An attempt failed or an answer was cut: the next request is planned afresh."""
        self._stays.pop(key, None)


def key_of(chat: ChatRequest, client: str, session: str) -> bytes | None:
    """The name of a conversation, scoped to the client; the same for all its requests. None if it has nothing to go by.

    `session` is the request's `x-session-id`. A `user` field names a person, not a conversation, and is not used.
    """
    body = chat.body
    if session or "prompt_cache_key" in body or "metadata" in body:
        named = session or _named(body)
        if named:
            return (_digest if len(named) <= _REMEMBERED else _digest_anew)(client, "s", named)
    if "user" not in chat.roles:
        return None
    # The first message that a person sent: what follows it changes from turn to turn in agents' requests.
    content = chat.messages[chat.roles.index("user")].get("content")
    beginning = _ends(content) if type(content) is str else _gist(content, _DEPTH)
    return (_digest if len(beginning) <= _REMEMBERED else _digest_anew)(client, "b", beginning)


@lru_cache(maxsize=1024)
def _digest(client: str, kind: str, text: str) -> bytes:
    # Every request of a conversation brings its name, or its beginning, again.
    return hashlib.blake2b(f"{client}\0{kind}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


_digest_anew = _digest.__wrapped__


def _named(body: Mapping[str, Any]) -> str:
    cache_key = body.get("prompt_cache_key")
    if isinstance(cache_key, str) and cache_key:
        return cache_key
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        for name in _SESSION_FIELDS:
            value = metadata.get(name)
            if isinstance(value, str) and value:
                return value
    return ""


def _ends(text: str) -> str:
    if len(text) <= 2 * _END:
        return text
    size = min(len(text), _FIRST_TEXT)
    return f"{size}\0{text[:_END]}\0{text[size - _END : size]}"


def _gist(value: Any, depth: int) -> str:
    """What tells one list of parts from another, images too, without reading megabytes."""
    if type(value) is str:
        return _ends(value)
    if type(value) is dict:
        value = [*value, *value.values()]
    elif type(value) is not list:
        return str(value)[:_END]
    return "\0".join([_gist(inner, depth - 1) for inner in value[:_PARTS]]) if depth else ""


def begins(chat: ChatRequest) -> bool:
    """Whether the request starts a conversation: nobody has answered in it yet."""
    return "assistant" not in chat.roles


def stay_in_category(decision: Decision, stay: Stay, categories: Mapping[str, Category]) -> Decision:
    """Keeps the conversation's category unless a new one is clear."""
    if decision.decided or decision.category == stay.category or decision.confidence >= CLEARLY:
        return decision
    category = categories.get(stay.category)
    if category is None:
        return decision
    evidence = Evidence(lambda: (f"the conversation is about {stay.category}", *decision.evidence))
    return decision._replace(category=stay.category, chain=category.models, mode="sticky", evidence=evidence)


def stay_on_model(plan: Plan, stay: Stay, chain: tuple[str, ...], chat: ChatRequest) -> Plan | None:
    """The plan with the conversation's model first; None where the conversation leaves it."""
    candidates = plan.candidates
    if candidates and candidates[0].model == stay.model:
        return plan
    at = next((i for i, candidate in enumerate(candidates) if candidate.model == stay.model), None)
    if at is None:
        return None
    staying, first = candidates[at], candidates[0]
    if first.model == chain[0] and _cheaper(first, staying, plan, chat):
        return None
    return Plan((staying, *candidates[:at], *candidates[at + 1 :]), plan.skipped, plan.cost)


def _cheaper(first: Candidate, staying: Candidate, plan: Plan, chat: ChatRequest) -> bool:
    needs = needs_of(chat)
    ours, theirs = plan.cost_of(first, needs), plan.cost_of(staying, needs)
    return ours is not None and theirs is not None and ours < theirs
