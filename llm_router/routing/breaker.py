"""Circuits: which models, providers and keys are left alone for a while, and who may try them again.

A pure state machine: every method takes `now` (Unix time, so that saved state survives a restart without being
forgotten or prolonged) and nothing here waits, writes or reads a clock. Three things can be closed to traffic:

- a *circuit*, per model and per provider: open after failures in a row, half-open after the recovery time, when one
  permit (the probe) is handed out; connection failures are counted for the provider, all others for the model;
- a *cooldown*, per model and account: a 429's wait, never probed early;
- an *account* (a provider's base URL and key, as a hash): refused or out of credit, for the recovery time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_router.config.values import BreakerSettings, split_model
from llm_router.errors import Failure, FailureKind

COOLDOWN_WITHOUT_WORD = 10.0
COOLDOWN_MOST = 3600.0
EARLY_PROBE_EVERY = 1.0
# Explicit models come from clients: their circuits must not grow without bound.
CIRCUITS_MOST = 4096

_CONNECTION = frozenset({FailureKind.CONNECT_ERROR, FailureKind.CONNECT_TIMEOUT})
_ACCOUNT = frozenset({FailureKind.AUTHENTICATION, FailureKind.QUOTA_EXCEEDED})
_COUNTED = frozenset(
    {
        FailureKind.FIRST_BYTE_TIMEOUT,
        FailureKind.IDLE_TIMEOUT,
        FailureKind.CONNECTION_LOST,
        FailureKind.PROTOCOL_ERROR,
        FailureKind.RESPONSE_TOO_LARGE,
        FailureKind.REDIRECT,
        FailureKind.SERVER_ERROR,
        FailureKind.OVERLOADED,
        FailureKind.INVALID_RESPONSE,
        FailureKind.UPSTREAM_ERROR,
        FailureKind.EMPTY_COMPLETION,
        FailureKind.TRUNCATED,
    }
)


@dataclass(slots=True)
class Circuit:
    """Failures in a row, and until when nobody may pass. `open_until` 0 means closed.

    `words` are ours for a connection that could not be made; they are not kept over a restart.
    """

    failures: int = 0
    open_until: float = 0.0
    kind: str = ""
    probing: bool = False
    last_attempt: float = 0.0
    words: str = ""

    @property
    def why(self) -> str:
        """The kind of failure that opened it, with the words to it."""
        return f"{self.kind}: {self.words}" if self.words else self.kind

    def state(self, now: float) -> str:
        """closed, open or half-open."""
        if not self.open_until:
            return "closed"
        return "open" if now < self.open_until else "half-open"

    def passable(self, now: float) -> bool:
        """Whether a permit may be handed out."""
        return not self.open_until or (now >= self.open_until and not self.probing)

    def fail(
        self, kind: FailureKind, now: float, settings: BreakerSettings, *, at_once: bool = False, words: str = ""
    ) -> None:
        """Counts one failure; opens at the threshold, and again when a probe failed."""
        self.failures += 1
        if at_once or self.open_until or self.failures >= settings.failure_threshold:
            self.open_until = max(self.open_until, now + settings.recovery_timeout_sec)
            self.kind, self.words = kind.value, words


@dataclass(frozen=True, slots=True)
class Block:
    """Why a model may not be tried now. `by_failures` tells an open circuit from a cooldown or an account."""

    kind: str  # "open", "cooldown" or "account"
    until: float
    reason: str
    failure: str  # the kind of failure that it comes from
    by_failures: bool = False


@dataclass(slots=True)
class Permit:
    """Leave to make one attempt at `model` with `account`; settled exactly once.

    `probe` holds the half-open circuits of model and provider, `tries_key` an account that was refused before.
    """

    model: str
    account: str
    probe: bool
    settled: bool = field(default=False)
    tries_key: bool = field(default=False)

    @property
    def tries(self) -> bool:
        """Whether others have to wait for what this attempt finds out."""
        return self.probe or self.tries_key


class Circuits:
    """All circuits, cooldowns and accounts. `version` grows with each change that is worth saving."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.version = 0
        self._models: dict[str, Circuit] = {}
        self._providers: dict[str, Circuit] = {}
        self._cooldowns: dict[tuple[str, str], float] = {}
        self._accounts: dict[str, tuple[float, str]] = {}
        self._tried: set[str] = set()  # those whose waiting time is over and that one attempt tries now

    def __repr__(self) -> str:
        return f"<Circuits models={len(self._models)} cooldowns={len(self._cooldowns)}>"

    # --- asking ---------------------------------------------------------------------------------------------------

    def usable_account(self, model: str, accounts: Sequence[str], now: float) -> str | None:
        """The first of a provider's accounts that is neither refused nor cooling down for `model`."""
        if not self._accounts and not self._cooldowns:
            return accounts[0] if accounts else None
        for account in accounts:
            if account in self._tried and account in self._accounts:
                continue
            if self._account_until(account) <= now and self._cooldowns.get((model, account), 0.0) <= now:
                return account
        return None

    def is_quiet(self) -> bool:
        """Whether nothing is known against anybody: the usual case, in which nobody need be looked up."""
        return not (self._models or self._providers or self._cooldowns or self._accounts)

    def block(self, model: str, accounts: Sequence[str], now: float) -> Block | None:
        """Why `model` may not be tried now; None if it may."""
        if self.is_quiet():
            return None
        provider = split_model(model)[0]
        for name, circuit in ((model, self._models.get(model)), (provider, self._providers.get(provider))):
            if circuit is not None and not circuit.passable(now):
                until = max(circuit.open_until, now)
                doing = "is being probed" if circuit.probing and now >= circuit.open_until else "is open"
                reason = f"the circuit of {name} {doing} ({circuit.why})"
                return Block("open", until, reason, circuit.kind, by_failures=True)
        if not accounts or self.usable_account(model, accounts, now) is not None:
            return None
        waits = [
            (max(self._account_until(account), self._cooldowns.get((model, account), 0.0)), account)
            for account in accounts
        ]
        until, account = min(waits)
        if self._account_until(account) >= until:
            failure = self._accounts[account][1]
            return Block("account", until, f"the provider refused the key ({failure})", failure)
        return Block("cooldown", until, "the provider asked to wait (rate limit)", FailureKind.RATE_LIMITED.value)

    def last_attempt(self, model: str) -> float:
        """When what is open of the circuits of `model` and its provider last failed or was probed; 0 if nothing is."""
        circuits = (self._models.get(model), self._providers.get(split_model(model)[0]))
        return max((circuit.last_attempt for circuit in circuits if circuit and circuit.open_until), default=0.0)

    def is_gone(self, model: str) -> bool:
        """Whether the circuit of `model` is open because its provider does not know it."""
        circuit = self._models.get(model)
        return circuit is not None and bool(circuit.open_until) and circuit.kind == FailureKind.MODEL_NOT_FOUND.value

    def _account_until(self, account: str) -> float:
        return self._accounts.get(account, (0.0, ""))[0]

    # --- trying ---------------------------------------------------------------------------------------------------

    def admit(self, model: str, accounts: Sequence[str], now: float, *, early: bool = False) -> Permit | None:
        """A permit for one attempt, or None. `early` lets the probe of an open circuit go ahead of its time."""
        if accounts and not (self._models or self._providers or self._cooldowns or self._accounts):
            return Permit(model, accounts[0], False)
        return self._admit(model, accounts, now, early)

    def _admit(self, model: str, accounts: Sequence[str], now: float, early: bool) -> Permit | None:
        """The same where something is known against somebody."""
        provider = split_model(model)[0]
        circuits = [c for c in (self._models.get(model), self._providers.get(provider)) if c is not None]
        probe = any(circuit.open_until for circuit in circuits)
        for circuit in circuits:
            if circuit.passable(now):
                continue
            if not early or circuit.probing or now - circuit.last_attempt < EARLY_PROBE_EVERY:
                return None
        account = self.usable_account(model, accounts, now)
        if account is None:
            return None
        if probe:
            for circuit in circuits:
                if circuit.open_until:
                    circuit.probing = True
                    circuit.last_attempt = now
        tries_key = account in self._accounts
        if tries_key:
            self._tried.add(account)
        return Permit(model, account, probe, tries_key=tries_key)

    def connected(self, permit: Permit) -> None:
        """An answer's head came in: whatever follows, the provider can be reached."""
        if self._providers:
            self._connected(permit)

    def _connected(self, permit: Permit) -> None:
        circuit = self._providers.get(split_model(permit.model)[0])
        if circuit is not None and circuit.failures and not circuit.open_until:
            circuit.failures = 0
            self.version += 1

    def committed(self, permit: Permit) -> None:
        """The answer carries meaning: a half-open circuit closes, its permit is free again, and so is the key."""
        if permit.probe or permit.tries_key:
            self._committed(permit)

    def _committed(self, permit: Permit) -> None:
        if permit.tries_key:
            self._tried.discard(permit.account)
            self._accounts.pop(permit.account, None)
            self.version += 1
            permit.tries_key = False
        if not permit.probe:
            return
        for circuit in self._of(permit):
            if circuit.open_until and circuit.probing:
                circuit.open_until = 0.0
                circuit.probing = False
                self.version += 1
        permit.probe = False

    def completed(self, permit: Permit) -> None:
        """The answer ended whole: the row of failures starts anew."""
        if self._settle(permit) and (self._models or self._providers):
            self._completed(permit)

    def _completed(self, permit: Permit) -> None:
        for circuit in self._of(permit):
            if circuit.failures and not circuit.open_until:
                circuit.failures = 0
                circuit.kind = ""
                self.version += 1

    def released(self, permit: Permit) -> None:
        """The attempt ended without a verdict on the upstream (the client left, the request was at fault)."""
        if self._settle(permit):
            self._free(permit)

    def failed(self, permit: Permit, failure: Failure, now: float, *, in_chain: bool = True) -> None:
        """Books a failed attempt on whatever it speaks about; not everything that fails is the upstream's fault."""
        if not self._settle(permit):
            return
        self._free(permit)
        kind = failure.kind
        provider = split_model(permit.model)[0]
        if kind in _CONNECTION or kind in _ACCOUNT:
            self._circuit(self._models, permit.model)  # so that the report names the model: it may be in no chain
        if kind in _CONNECTION:
            words = failure.message if kind is FailureKind.CONNECT_ERROR else ""
            self._circuit(self._providers, provider).fail(kind, now, self.settings, words=words)
        elif kind in _ACCOUNT:
            self._accounts[permit.account] = (now + self.settings.recovery_timeout_sec, kind.value)
        elif kind is FailureKind.RATE_LIMITED:
            wait = COOLDOWN_WITHOUT_WORD if failure.retry_after is None else failure.retry_after
            key = (permit.model, permit.account)
            self._cooldowns[key] = max(self._cooldowns.get(key, 0.0), now + min(wait, COOLDOWN_MOST))
        elif kind is FailureKind.MODEL_NOT_FOUND:
            if in_chain:
                self._circuit(self._models, permit.model).fail(kind, now, self.settings, at_once=True)
        elif kind in _COUNTED:
            self._circuit(self._models, permit.model).fail(kind, now, self.settings)
        else:
            return
        for circuit in self._of(permit):
            circuit.last_attempt = now
        self._forget_expired(now)
        self.version += 1

    def _settle(self, permit: Permit) -> bool:
        if permit.settled:
            return False
        permit.settled = True
        if permit.tries_key:
            self._tried.discard(permit.account)
        return True

    def _free(self, permit: Permit) -> None:
        if permit.probe:
            for circuit in self._of(permit):
                circuit.probing = False

    def _of(self, permit: Permit) -> Iterable[Circuit]:
        for circuit in (self._models.get(permit.model), self._providers.get(split_model(permit.model)[0])):
            if circuit is not None:
                yield circuit

    def _circuit(self, circuits: dict[str, Circuit], name: str) -> Circuit:
        circuit = circuits.get(name)
        if circuit is None:
            if len(circuits) >= CIRCUITS_MOST:
                closed = next(
                    (known for known, other in circuits.items() if not other.open_until), next(iter(circuits))
                )
                del circuits[closed]
            circuit = circuits[name] = Circuit()
        return circuit

    def _forget_expired(self, now: float) -> None:
        if len(self._cooldowns) > CIRCUITS_MOST:
            running = [(key, until) for key, until in self._cooldowns.items() if until > now]
            # Clients may name any model. Who is let go of too soon says so once more.
            self._cooldowns = dict(running[-CIRCUITS_MOST:])
        self._accounts = {key: entry for key, entry in self._accounts.items() if entry[0] + COOLDOWN_MOST > now}

    # --- operating ------------------------------------------------------------------------------------------------

    def reset(self, model: str) -> None:
        """Clears the circuit, cooldown and failure count of `model`, and lets go of its provider."""
        provider = split_model(model)[0]
        self._models.pop(model, None)
        self._providers.pop(provider, None)
        self._cooldowns = {key: until for key, until in self._cooldowns.items() if key[0] != model}
        self.version += 1

    def reset_accounts(self, accounts: Iterable[str]) -> None:
        """Forgets that these accounts were refused."""
        for account in accounts:
            self._accounts.pop(account, None)
            self._tried.discard(account)
        self.version += 1

    def reset_all(self) -> None:
        """Clears everything."""
        self._models.clear()
        self._providers.clear()
        self._cooldowns.clear()
        self._accounts.clear()
        self._tried.clear()
        self.version += 1

    def known_models(self) -> set[str]:
        """Every model that has failed: it has a circuit or a cooldown."""
        return {*self._models, *(model for model, _ in self._cooldowns)}

    def left_out(self) -> dict[tuple[str, str], tuple[str, float]]:
        """What is not simply asked, cooldowns aside: ("model", "provider" or "account", name), why and until when."""
        circuits = {"model": self._models, "provider": self._providers}
        found = {
            (scope, name): (circuit.why, circuit.open_until)
            for scope, known in circuits.items()
            for name, circuit in known.items()
            if circuit.open_until
        }
        return found | {("account", name): (kind, until) for name, (until, kind) in self._accounts.items()}

    def report(self, models: Mapping[str, Sequence[str]], now: float) -> dict[str, Any]:
        """The state of `models` (id -> accounts): `{"open_circuits": [model], "circuits": {model: {...}}}`."""
        circuits = {model: self._describe(model, accounts, now) for model, accounts in models.items()}
        return {
            "open_circuits": [model for model, about in circuits.items() if about["state"] == "open"],
            "circuits": circuits,
        }

    def _describe(self, model: str, accounts: Sequence[str], now: float) -> dict[str, Any]:
        own = self._models.get(model) or Circuit()
        provider = self._providers.get(split_model(model)[0]) or Circuit()
        worst = max((own, provider), key=lambda circuit: circuit.open_until)
        block = self.block(model, accounts, now)
        state, kind, words = worst.state(now), worst.kind, worst.words
        if block is not None and not block.by_failures:
            # No circuit stands in the way, or one that is half-open, to which nobody gets now.
            state, kind, words = "open" if block.kind == "account" else "cooldown", block.failure, ""
        elif not worst.open_until:
            kind = words = ""
        until = block.until if block is not None else worst.open_until
        return {
            "state": state,
            "failures": own.failures,
            "provider_failures": provider.failures,
            "kind": kind,
            "words": words,
            "retry_in_s": round(max(0.0, until - now), 3) if until else 0.0,
        }

    # --- keeping --------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """What is worth keeping over a restart, as JSON values."""
        return {
            "version": 1,
            "models": {name: _dump_circuit(circuit) for name, circuit in self._models.items()},
            "providers": {name: _dump_circuit(circuit) for name, circuit in self._providers.items()},
            "cooldowns": [[model, account, until] for (model, account), until in self._cooldowns.items()],
            "accounts": {account: list(entry) for account, entry in self._accounts.items()},
        }

    def load(self, saved: Mapping[str, Any], now: float) -> None:
        """Takes over a dump; raises ValueError, TypeError, KeyError or AttributeError if it is none."""
        models = {str(name): _load_circuit(entry) for name, entry in saved["models"].items()}
        providers = {str(name): _load_circuit(entry) for name, entry in saved["providers"].items()}
        cooldowns = {
            (str(model), str(account)): float(until)
            for model, account, until in saved["cooldowns"]
            if float(until) > now
        }
        accounts = {
            str(account): (float(until), str(kind))
            for account, (until, kind) in saved["accounts"].items()
            if float(until) > now
        }
        self._models, self._providers = models, providers
        self._cooldowns, self._accounts = cooldowns, accounts
        self.bound_waits(now)

    def bound_waits(self, now: float) -> None:
        """Nobody waits for longer than was ever meant: the clock may have been set back since."""
        latest = now + self.settings.recovery_timeout_sec
        for circuit in (*self._models.values(), *self._providers.values()):
            circuit.open_until = min(circuit.open_until, latest)
            circuit.last_attempt = min(circuit.last_attempt, now)
        self._cooldowns = {key: min(until, now + COOLDOWN_MOST) for key, until in self._cooldowns.items()}
        self._accounts = {key: (min(until, latest), kind) for key, (until, kind) in self._accounts.items()}


def _dump_circuit(circuit: Circuit) -> dict[str, Any]:
    return {"failures": circuit.failures, "open_until": circuit.open_until, "kind": circuit.kind}


def _load_circuit(entry: Mapping[str, Any]) -> Circuit:
    return Circuit(failures=int(entry["failures"]), open_until=float(entry["open_until"]), kind=str(entry["kind"]))
