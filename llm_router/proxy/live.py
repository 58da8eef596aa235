"""One configuration at work: a snapshot and what follows from it, made once and shared by all its requests."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from urllib.parse import urlsplit

from llm_router.accounting.pricing import PriceTable
from llm_router.config.timeouts import effective_timeouts
from llm_router.config.urls import secrets_in
from llm_router.config.values import Provider, Snapshot
from llm_router.routing.classify import Brain, Classification, Roster, classify_by_keywords
from llm_router.routing.plan import Candidate
from llm_router.routing.turns import Turns
from llm_router.wire.masking import Masker
from llm_router.wire.providers.base import Adapter, Target
from llm_router.wire.providers.registry import Adapters

_KNOWN_MOST = 1024
# Keys do not belong into a provider's further headers; what looks like one is kept secret all the same.
_SECRET_HEADER = re.compile(r"auth|key|token|secret|password|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Way:
    """How a candidate is asked with one of its keys. Clocks are in seconds, infinite where there is no limit."""

    adapter: Adapter
    target: Target
    connect: float
    first_byte: float
    idle: float


@dataclass(frozen=True, slots=True)
class Live:
    """A request keeps the one that it started with."""

    snapshot: Snapshot
    prices: PriceTable
    adapters: Mapping[str, Adapter]
    accounts: Mapping[str, tuple[str, ...]]  # provider -> one hash of base URL and key for each of its keys
    mask: Masker
    brain: Brain
    roster: Roster
    _ways: dict[tuple[str, str, str, bool, bool], Way] = field(default_factory=dict)
    _targets: dict[tuple[str, str], Target] = field(default_factory=dict)

    def classify(self, turns: Turns) -> Classification:
        """The category of what the person said, in the snapshot's mode, without asking anyone."""
        if self.snapshot.routing_mode == "keywords":
            return classify_by_keywords(turns, self.roster)
        return self.brain.classify(turns, self.roster)

    def way(self, candidate: Candidate, account: str, category: str, stream: bool, effort: bool) -> Way:
        """How an attempt at `candidate` goes, with the key behind `account`, in `category` (or "explicit")."""
        key = (candidate.model, account, category, stream, effort)
        known = self._ways.get(key)
        if known is None:
            if len(self._ways) >= _KNOWN_MOST:  # explicit models come from clients
                self._ways.clear()
            known = self._ways[key] = self._find_way(candidate, account, category, stream, effort)
        return known

    def _find_way(self, candidate: Candidate, account: str, category: str, stream: bool, effort: bool) -> Way:
        timeouts = effective_timeouts(
            self.snapshot,
            candidate.provider,
            self.snapshot.categories.get(category),
            candidate.upstream_model,
            stream=stream,
            thinks=effort or bool(candidate.info and candidate.info.reasoning),
        )
        return Way(
            self.adapters[candidate.provider.name],
            self._target(candidate, account),
            timeouts.connect or inf,
            timeouts.first_byte or inf,
            timeouts.idle or inf,
        )

    def _target(self, candidate: Candidate, account: str) -> Target:
        known = self._targets.get((candidate.model, account))
        if known is None:
            keys = candidate.provider.keys
            key = keys[candidate.accounts.index(account)].value if keys else None
            if len(self._targets) >= _KNOWN_MOST:
                self._targets.clear()
            known = Target(candidate.provider, candidate.upstream_model, key, candidate.info)
            self._targets[candidate.model, account] = known
        return known


def go_live(
    snapshot: Snapshot, shipped_prices: bytes, brain: Brain, before: Live | None = None, secrets: Iterable[str] = ()
) -> Live:
    """Prepares `snapshot` for work; what has not changed since `before` is taken over, with what it has learned.

    `secrets` are those that it does not know of, and that nobody shall read either.
    """
    same = before is not None and before.snapshot.categories == snapshot.categories
    providers = snapshot.providers
    adapters = Adapters(providers, time.time)
    for model in {model for category in snapshot.categories.values() for model in category.models}:
        adapters[model.partition("/")[0]]  # made before a request needs it
    return Live(
        snapshot=snapshot,
        prices=PriceTable.parse(shipped_prices, snapshot.prices, free_providers=_free_providers(snapshot)),
        adapters=adapters,
        accounts={name: accounts_of(provider) for name, provider in providers.items()},
        mask=masker_for(snapshot, secrets),
        brain=brain,
        roster=before.roster if before is not None and same else brain.roster(snapshot.categories.values()),
    )


def masker_for(snapshot: Snapshot, further: Iterable[str] = ()) -> Masker:
    """Knows every secret of a configuration: keys, the router's own too, and what addresses and headers hold."""
    secrets = [*further, *snapshot.access.api_keys, snapshot.access.admin_key or ""]
    for provider in snapshot.providers.values():
        secrets += [key.value for key in provider.keys]
        secrets += secrets_in(provider.base_url)
        secrets += [value for name, value in provider.headers.items() if _SECRET_HEADER.search(name)]
    return Masker(secrets)


def _free_providers(snapshot: Snapshot) -> tuple[str, ...]:
    """Ollama costs nothing where it is the user's own; the hosted one does."""
    host = urlsplit(snapshot.providers["ollama"].base_url).hostname or ""
    return () if host == "ollama.com" or host.endswith(".ollama.com") else ("ollama",)


def accounts_of(provider: Provider) -> tuple[str, ...]:
    """A stable name for each key of a provider that gives nothing away; one for a provider without keys."""
    keys = [key.value for key in provider.keys] or [""]
    return tuple(
        hashlib.sha256(f"{provider.name}\0{provider.base_url}\0{key}".encode()).hexdigest()[:16] for key in keys
    )
