"""One configuration at work: a snapshot and what follows from it, made once and shared by all its requests."""

from __future__ import annotations

import hashlib
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from llm_router.accounting.pricing import PriceTable
from llm_router.config.timeouts import effective_timeouts
from llm_router.config.values import Provider, Snapshot, Timeouts
from llm_router.routing.classify import Brain, Classification, Roster, classify_by_keywords
from llm_router.routing.plan import Candidate
from llm_router.routing.turns import Turns
from llm_router.wire.masking import Masker
from llm_router.wire.providers.base import Adapter, Target
from llm_router.wire.providers.registry import Adapters

_TIMEOUTS_MOST = 1024


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
    _timeouts: dict[tuple[object, ...], Timeouts] = field(default_factory=dict)
    _targets: dict[tuple[str, str], Target] = field(default_factory=dict)

    def classify(self, turns: Turns) -> Classification:
        """The category of what the person said, in the snapshot's mode, without asking anyone."""
        if self.snapshot.routing_mode == "keywords":
            return classify_by_keywords(turns, self.roster)
        return self.brain.classify(turns, self.roster)

    def target(self, candidate: Candidate, account: str) -> Target:
        """Where an attempt at `candidate` with the key behind `account` goes."""
        known = self._targets.get((candidate.model, account))
        if known is None:
            keys = candidate.provider.keys
            key = keys[candidate.accounts.index(account)].value if keys else None
            if len(self._targets) >= _TIMEOUTS_MOST:
                self._targets.clear()
            known = Target(candidate.provider, candidate.upstream_model, key, candidate.info)
            self._targets[candidate.model, account] = known
        return known

    def timeouts(self, candidate: Candidate, category: str, *, stream: bool, effort: bool) -> Timeouts:
        """The clocks of an attempt at `candidate` in `category` (or "explicit")."""
        key = (candidate.model, category, stream, effort)
        known = self._timeouts.get(key)
        if known is None:
            if len(self._timeouts) >= _TIMEOUTS_MOST:  # explicit models come from clients
                self._timeouts.clear()
            known = self._timeouts[key] = effective_timeouts(
                self.snapshot,
                candidate.provider,
                self.snapshot.categories.get(category),
                candidate.upstream_model,
                stream=stream,
                reasoning=bool(candidate.info and candidate.info.reasoning),
                effort=effort,
            )
        return known


def go_live(snapshot: Snapshot, shipped_prices: bytes, brain: Brain, before: Live | None = None) -> Live:
    """Prepares `snapshot` for work; what has not changed since `before` is taken over, with what it has learned."""
    same = before is not None and before.snapshot.categories == snapshot.categories
    providers = snapshot.providers
    adapters = Adapters(providers, time.time)
    for model in {model for category in snapshot.categories.values() for model in category.models}:
        adapters[model.partition("/")[0]]  # made before a request needs it
    secrets = [key.value for provider in providers.values() for key in provider.keys]
    secrets += snapshot.access.api_keys
    if snapshot.access.admin_key:
        secrets.append(snapshot.access.admin_key)
    for provider in providers.values():
        secrets += _url_secrets(provider.base_url)
    return Live(
        snapshot=snapshot,
        prices=PriceTable.parse(shipped_prices, snapshot.prices, free_providers=_free_providers(snapshot)),
        adapters=adapters,
        accounts={name: accounts_of(provider) for name, provider in providers.items()},
        mask=Masker(secrets),
        brain=brain,
        roster=before.roster if before is not None and same else brain.roster(snapshot.categories.values()),
    )


def _free_providers(snapshot: Snapshot) -> tuple[str, ...]:
    """Ollama costs nothing where it is the user's own; the hosted one does."""
    host = urlsplit(snapshot.providers["ollama"].base_url).hostname or ""
    return () if host == "ollama.com" or host.endswith(".ollama.com") else ("ollama",)


def _url_secrets(url: str) -> list[str]:
    """The password in an address, as it stands there, as it is meant, and as Basic authorization sends it."""
    userinfo, at, _ = urlsplit(url).netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    if not at or not password:
        return []
    plain = unquote(password)
    return [password, plain, b64encode(f"{unquote(user)}:{plain}".encode()).decode()]


def accounts_of(provider: Provider) -> tuple[str, ...]:
    """A stable name for each key of a provider that gives nothing away; one for a provider without keys."""
    keys = [key.value for key in provider.keys] or [""]
    return tuple(
        hashlib.sha256(f"{provider.name}\0{provider.base_url}\0{key}".encode()).hexdigest()[:16] for key in keys
    )
