"""Conversations that stay put: on the model that served them, for its prompt cache, its tool-call ids, its signatures.

Pure, with bounded memory; `now` is Unix time. A conversation is known by a name of its own, or by how it began.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm_router.routing.decision import Decision
from llm_router.routing.plan import Candidate, Plan
from llm_router.wire.chat import ChatRequest

IDLE_SECONDS = 300.0
CONVERSATIONS_MOST = 10_000
# A new category must be this sure before it takes a conversation off its model.
CLEARLY = 0.7
_SESSION_FIELDS = ("session_id", "sessionId", "session", "conversation_id", "thread_id")
_FIRST_TEXT = 8192


@dataclass(frozen=True, slots=True)
class Stay:
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
        """An answer ended whole."""
        self._stays[key] = Stay(model, category, now)
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
    named = session or _named(chat.body)
    text = f"s\0{named}" if named else _beginning(chat)
    if text is None:
        return None
    return hashlib.blake2b(f"{client}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


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


def _beginning(chat: ChatRequest) -> str | None:
    """The first message that a person sent: what follows it changes from turn to turn in agents' requests."""
    for message in chat.messages:
        if message.get("role") == "user":
            content = message.get("content")
            return f"b\0{content[:_FIRST_TEXT] if isinstance(content, str) else repr(content)[:_FIRST_TEXT]}"
    return None


def begins(chat: ChatRequest) -> bool:
    """Whether the request starts a conversation: nobody has answered in it yet."""
    return "assistant" not in [message.get("role") for message in chat.messages]


def stay_in_category(decision: Decision, stay: Stay, chains: Mapping[str, tuple[str, ...]]) -> Decision:
    """Keeps the conversation's category unless a new one is clear."""
    if decision.decided or decision.category == stay.category or decision.confidence >= CLEARLY:
        return decision
    chain = chains.get(stay.category)
    if chain is None:
        return decision
    evidence = (f"the conversation is about {stay.category}", *decision.evidence)
    return replace(decision, category=stay.category, chain=chain, mode="sticky", evidence=evidence)


def stay_on_model(plan: Plan, stay: Stay, chain: tuple[str, ...]) -> Plan | None:
    """The plan with the conversation's model first; None where the conversation leaves it."""
    at = next((i for i, candidate in enumerate(plan.candidates) if candidate.model == stay.model), None)
    if at is None:
        return None
    staying, first = plan.candidates[at], plan.candidates[0]
    if first.model == chain[0] and first is not staying and _cheaper(first, staying):
        return None
    return replace(plan, candidates=(staying, *plan.candidates[:at], *plan.candidates[at + 1 :]))


def _cheaper(first: Candidate, staying: Candidate) -> bool:
    return (
        first.estimated_cost is not None
        and staying.estimated_cost is not None
        and first.estimated_cost < staying.estimated_cost
    )
