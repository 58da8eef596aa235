"""What the log says of a running router: a configuration that was taken over, circuits that opened and closed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from llm_router.config.advice import advice
from llm_router.config.values import Snapshot
from llm_router.errors import ApiError
from llm_router.proxy.dispatch import Router
from llm_router.proxy.live import accounts_of

log = logging.getLogger("llm_router")

# What a running process cannot change any more: file key and field of the snapshot.
_FOR_THE_NEXT_START = {
    "server.host": "host",
    "server.port": "port",
    "server.workers": "workers",
    "log.level": "log_level",
    "log.format": "log_format",
    "state_dir": "state_dir",
}


async def take_over(router: Router, read: Callable[[], Awaitable[Snapshot]]) -> Snapshot:
    """Has the configuration read again, and says what came of it. Raises ApiError."""
    before = router.snapshot
    try:
        after = await read()
    except ApiError as error:
        log.error("%s", error.message)
        raise
    known = advice(before)
    for problem in advice(after):
        if problem not in known:
            log.warning("%s", problem)
    for key, name in _FOR_THE_NEXT_START.items():
        if getattr(after, name) != getattr(before, name):
            log.warning("%s was changed: that takes a restart", key)
    log.info("the configuration was reloaded")
    return after


Key = tuple[str, str, str]  # whose circuits, scope, name
_CLASSIFIERS = "for finding the category: "


class Outages:
    """Says once of each model, provider and key of the configuration that it is left out, and once that it is back.

    It looks from time to time: however many requests meet a dead provider, and however often, nobody need tell it.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._known: Mapping[Key, str] = {}

    def __repr__(self) -> str:
        return f"<Outages known={len(self._known)}>"

    def look(self) -> None:
        """Compares what is left out now with what was when it last looked."""
        router = self._router
        if not self._known and router.circuits.is_quiet() and router.classifier_circuits.is_quiet():
            return
        now = router.clock()
        names = self._names()
        found = {}
        for whose, circuits in (("", router.circuits), (_CLASSIFIERS, router.classifier_circuits)):
            for (scope, which), (kind, until) in circuits.left_out().items():
                if (name := names.get((scope, which))) is None:
                    continue  # named by a client alone, or by a configuration that is gone
                found[key := (whose, scope, which)] = f"{whose}{name}"
                if key not in self._known:
                    log.warning("%s is left out (%s); %s", found[key], kind, _when_tried(until - now))
        for key, name in self._known.items():
            if key not in found:
                log.info("%s is no longer left out", name)
        self._known = found

    def _names(self) -> dict[tuple[str, str], str]:
        snapshot = self._router.snapshot
        models = {model for category in snapshot.categories.values() for model in category.models}
        models |= {snapshot.classifier.ollama_model, snapshot.classifier.api_model}
        names = {("model", model): f"model {model}" for model in models}
        for provider in snapshot.providers.values():
            names["provider", provider.name] = f"provider {provider.name}"
            variables = [f"the key {key.variable} of {provider.name}" for key in provider.keys]
            for account, name in zip(
                accounts_of(provider), variables or [f"{provider.name} without a key"], strict=True
            ):
                names["account", account] = name
        return names


def _when_tried(wait: float) -> str:
    """When a model that is left out is asked again; a circuit that a restart found may have waited long enough."""
    return f"it is tried again in {wait:.0f} s" if wait > 0 else "the next request tries it"
