"""Circuits and conversations that several workers have in common. Pure: who keeps the common state is handed in.

Each worker has all of it in memory and decides from there, as a single process does. What happens is also noted as a
*change*, which the keeper of the common state applies to the common rows with the same state machine, so that failures
in a row add up over all workers; the rows that come of it find their way back into every worker's memory. The one
thing that memory may not decide is who probes, a circuit or a key that was refused: that permit is claimed from the
common rows at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from llm_router.config.values import BreakerSettings, split_model
from llm_router.errors import Failure
from llm_router.routing.breaker import Circuits, Permit
from llm_router.routing.sticky import IDLE_SECONDS, Conversations, Stay

Scope = Literal["model", "provider", "cooldown", "account"]
Key = tuple[Scope, str]
# What stays with its model needs no telling at each request, if it is told well before anybody forgets it.
_TELL_AGAIN_AFTER = IDLE_SECONDS / 10
EVERY_MODEL = ""
_BETWEEN = "\0"
_NOWHERE = Stay("", "", 0.0)


class Row(NamedTuple):
    """One circuit, cooldown or account; `gone` means none. `prober` is the worker that probes or tries it, or 0."""

    scope: Scope
    name: str
    failures: int = 0
    until: float = 0.0
    kind: str = ""
    prober: int = 0
    last_attempt: float = 0.0
    gone: bool = False
    words: str = ""

    @property
    def key(self) -> Key:
        """What it is about."""
        return self.scope, self.name


class Change(NamedTuple):
    """Something that happened: the rows that it may touch, and how. `cooldowns_of` adds all cooldowns of a model.

    `at` tells what happened first, by a clock of all workers; `resets` is the model that is as new from then on, or
    `EVERY_MODEL`.
    """

    keys: tuple[Key, ...]
    apply: Callable[[Circuits], None]
    cooldowns_of: str | None = None
    everything: bool = False
    resets: str | None = None
    at: float = 0.0


class StayRow(NamedTuple):
    """Where a conversation stays, or (`model` is empty) that it does no longer."""

    key: bytes
    model: str
    category: str
    used: float


class RowCircuits(Circuits):
    """Circuits that can be taken apart into rows and put together again."""

    def row(self, key: Key, prober: int) -> Row:
        """The row of `key` as it stands; `prober` is who holds the probe if anybody does."""
        scope, name = key
        if scope == "cooldown":
            model, _, account = name.partition(_BETWEEN)
            until = self._cooldowns.get((model, account))
            return Row(scope, name, gone=True) if until is None else Row(scope, name, until=until)
        if scope == "account":
            entry = self._accounts.get(name)
            if entry is None:
                return Row(scope, name, gone=True)
            until, kind = entry
            return Row(scope, name, until=until, kind=kind, prober=prober if name in self._tried else 0)
        circuit = (self._models if scope == "model" else self._providers).get(name)
        if circuit is None:
            return Row(scope, name, gone=True)
        held = prober if circuit.probing else 0
        failures, until, kind = circuit.failures, circuit.open_until, circuit.kind
        return Row(scope, name, failures, until, kind, held, circuit.last_attempt, words=circuit.words)

    def take(self, row: Row, *, free_for: int = 0) -> None:
        """Puts a row in the place of what is known; a probe that `free_for` holds counts as free."""
        scope, name = row.scope, row.name
        is_held = row.prober not in (0, free_for)
        if scope == "cooldown":
            model, _, account = name.partition(_BETWEEN)
            if row.gone:
                self._cooldowns.pop((model, account), None)
            else:
                self._cooldowns[model, account] = row.until
        elif scope == "account":
            if row.gone:
                self._accounts.pop(name, None)
            else:
                self._accounts[name] = (row.until, row.kind)
            (self._tried.add if is_held and not row.gone else self._tried.discard)(name)
        else:
            circuits = self._models if scope == "model" else self._providers
            if row.gone:
                circuits.pop(name, None)
                return
            circuit = self._circuit(circuits, name)
            circuit.failures, circuit.open_until, circuit.kind = row.failures, row.until, row.kind
            circuit.probing = is_held
            circuit.last_attempt, circuit.words = row.last_attempt, row.words

    def rows(self) -> list[Row]:
        """All of them, without probes."""
        keys: list[Key] = [("model", name) for name in self._models]
        keys += [("provider", name) for name in self._providers]
        keys += [cooldown_key(model, account) for model, account in self._cooldowns]
        keys += [("account", name) for name in self._accounts]
        return [self.row(key, 0) for key in keys]


Claim = Callable[[tuple[Key, ...], Callable[[Circuits], Permit | None]], tuple[Permit | None, list[Row]] | None]


class SharedCircuits(RowCircuits):
    """One worker's view. `note` is told each change; `claim` decides about a probe on the common rows.

    `claim` gives the permit and the rows as they are then, or None where the common state cannot be reached: then this
    worker decides alone, since a probe too many does less harm than none.
    """

    def __init__(self, settings: BreakerSettings, note: Callable[[Change], None], claim: Claim) -> None:
        super().__init__(settings)
        self._note_change = note
        self._claim = claim
        self._unsaved: Counter[Key] = Counter()

    # --- what happens here ------------------------------------------------------------------------------------------
    # Where nothing is known against anybody, requests come by none of these.

    def _admit(self, model: str, accounts: Sequence[str], now: float, early: bool) -> Permit | None:
        """As ever, but that a probe is this worker's only if the common rows say so."""
        # Keys that are tried here at this moment are nobody's to claim.
        free = [account for account in accounts if account not in self._tried]
        permit = super()._admit(model, accounts, now, early)
        if permit is None or not permit.tries:
            return permit
        keys: list[Key] = [("model", model), ("provider", split_model(model)[0])]
        for account in free:
            keys += [("account", account), cooldown_key(model, account)]
        claimed = self._claim(tuple(keys), lambda common: common.admit(model, free, now, early=early))
        if claimed is None:
            return permit
        granted, rows = claimed
        for row in rows:
            self.take(row)
        self.version += 1
        return granted

    def _connected(self, permit: Permit) -> None:
        before = self.version
        super()._connected(permit)
        if self.version != before:
            self._note(permit, lambda common: common.connected(permit))

    def _committed(self, permit: Permit) -> None:
        before = _unsettled(permit)
        super()._committed(permit)
        self._note(permit, lambda common: common.committed(replace(before)))

    def _completed(self, permit: Permit) -> None:
        before = self.version
        super()._completed(permit)
        if self.version != before:
            self._note(permit, lambda common: common.completed(_unsettled(permit)))

    def released(self, permit: Permit) -> None:
        """As ever."""
        before = _unsettled(permit)
        held = permit.tries and not permit.settled
        super().released(permit)
        if held:
            self._note(permit, lambda common: common.released(replace(before)))

    def failed(self, permit: Permit, failure: Failure, now: float, *, in_chain: bool = True) -> None:
        """As ever."""
        version, before, settled = self.version, _unsettled(permit), permit.settled
        super().failed(permit, failure, now, in_chain=in_chain)
        if not settled and (before.tries or self.version != version):
            self._note(permit, lambda common: common.failed(replace(before), failure, now, in_chain=in_chain))

    def reset(self, model: str) -> None:
        """As ever."""
        super().reset(model)
        keys: tuple[Key, ...] = (("model", model), ("provider", split_model(model)[0]))
        self._note_keys(Change(keys, lambda common: common.reset(model), cooldowns_of=model, resets=model))

    def reset_accounts(self, accounts: Iterable[str]) -> None:
        """As ever."""
        names = tuple(accounts)
        super().reset_accounts(names)
        keys: tuple[Key, ...] = tuple(("account", name) for name in names)
        self._note_keys(Change(keys, lambda common: common.reset_accounts(names)))

    def reset_all(self) -> None:
        """As ever."""
        super().reset_all()
        self._note_keys(Change((), Circuits.reset_all, everything=True, resets=EVERY_MODEL))

    def bound_waits(self, now: float) -> None:
        """As ever."""
        super().bound_waits(now)
        self._note_keys(Change((), lambda common: common.bound_waits(now), everything=True))

    def _note(self, permit: Permit, apply: Callable[[Circuits], None]) -> None:
        model, account = permit.model, permit.account
        keys: tuple[Key, ...] = (
            ("model", model),
            ("provider", split_model(model)[0]),
            ("account", account),
            cooldown_key(model, account),
        )
        self._note_keys(Change(keys, apply))

    def _note_keys(self, change: Change) -> None:
        self._unsaved.update(change.keys)
        self._note_change(change)

    # --- what is heard ----------------------------------------------------------------------------------------------

    def hear(self, rows: Iterable[Row], saved: Iterable[Change]) -> None:
        """Takes over common rows. Where changes of ours are still on their way, what comes of those will follow."""
        for change in saved:
            self._unsaved.subtract(change.keys)
        self._unsaved = +self._unsaved
        for row in rows:
            if row.key not in self._unsaved:
                self.take(row)
                self.version += 1


def cooldown_key(model: str, account: str) -> Key:
    """The key of a cooldown's row."""
    return "cooldown", f"{model}{_BETWEEN}{account}"


def cooldowns_between(model: str) -> tuple[str, str]:
    """The bounds (the second one excluded) of the names of all cooldowns of `model`."""
    return f"{model}{_BETWEEN}", f"{model}\1"


def _unsettled(permit: Permit) -> Permit:
    """A permit as this one is now, to be settled on the common rows: each time anew, should it take several tries."""
    return replace(permit, settled=False)


class SharedConversations(Conversations):
    """One worker's view of the conversations of all; `note` is told what changes."""

    def __init__(self, note: Callable[[StayRow], None]) -> None:
        super().__init__()
        self._note = note
        # Whoever was served since then need not be told of again.
        self._told = 0.0

    def served(self, key: bytes, model: str, category: str, now: float) -> None:
        """As ever; told unless the others know that much, give or take a part of the time that idling is allowed."""
        if now - self._told > _TELL_AGAIN_AFTER:
            self._told = now
        known_model, known_category, used = self._stays.get(key, _NOWHERE)
        Conversations.served(self, key, model, category, now)
        if used < self._told or known_model != model or known_category != category:
            self._note(StayRow(key, model, category, now))

    def left(self, key: bytes) -> None:
        """As ever."""
        known = self._stays.get(key)
        super().left(key)
        if known is not None:
            self._note(StayRow(key, "", "", known.used))

    def hear(self, rows: Iterable[StayRow]) -> None:
        """Takes over what other workers told, where it is newer."""
        for row in rows:
            known = self._stays.get(row.key)
            if not row.model:
                if known is not None and known.used <= row.used:
                    super().left(row.key)
            elif known is None or known.used < row.used:
                super().served(row.key, row.model, row.category, row.used)
