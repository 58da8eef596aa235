"""What is valid and yet looks like a mistake; sentences for `llm-router check`, without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from llm_router.config.values import Provider, Snapshot

_QUOTES = ("'", '"', "`", "“", "”", "‘", "’")
_PLACEHOLDER = re.compile(r"your[-_ ]|[-_]here$|^<.*>$|^\$\{?\w+\}?$|x{6,}|\.\.\.$|^changeme$", re.IGNORECASE)
_BEARER = re.compile(r"^bearer\s", re.IGNORECASE)


def advice(snapshot: Snapshot) -> list[str]:
    """Warnings of the load first, then what was noticed about keys, addresses and chains."""
    found = list(snapshot.warnings)
    for provider in snapshot.providers.values():
        found.extend(_about_keys(provider))
        found.extend(_about_address(provider))
    for key in (*snapshot.access.api_keys, *filter(None, [snapshot.access.admin_key])):
        if looks_quoted(key):
            found.append("ROUTER_API_KEY or ROUTER_ADMIN_KEY begins or ends with a quotation mark; remove the quotes")
            break
    if not any(provider.configured for provider in snapshot.providers.values() if provider.name != "ollama"):
        found.append("no provider key is set, for example OPENROUTER_API_KEY: only Ollama can answer")
    found.extend(_about_chains(snapshot))
    return found


def looks_quoted(key: str) -> bool:
    """Whether quotation marks became part of a key, as `docker --env-file` and systemd files make them."""
    return key.startswith(_QUOTES) or key.endswith(_QUOTES)


def _about_keys(provider: Provider) -> Iterator[str]:
    for key in provider.keys:
        if looks_quoted(key.value):
            yield f"{key.variable} begins or ends with a quotation mark: the quotes are sent as part of the key"
        elif _PLACEHOLDER.search(key.value):
            yield f"{key.variable} looks like a placeholder rather than a key"
    values = [key.value for key in provider.keys]
    if len(set(values)) < len(values):
        yield f"two of the variables of {provider.name} hold the same key"


def _about_address(provider: Provider) -> Iterator[str]:
    parts = urlsplit(provider.base_url)
    if provider.keys and parts.scheme == "http" and not _is_local(parts.hostname or ""):
        yield f"the key of {provider.name} travels unencrypted to {provider.shown_url}; use https"


def _is_local(host: str) -> bool:
    if host == "localhost" or ("." not in host and ":" not in host) or host.endswith((".internal", ".localhost")):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private


def _about_chains(snapshot: Snapshot) -> Iterator[str]:
    for category in snapshot.categories.values():
        providers = [snapshot.providers[model.partition("/")[0]] for model in category.models]
        if not any(provider.configured for provider in providers):
            variables = dict.fromkeys(name for provider in providers for name in provider.key_variables)
            yield f"no model of the category {category.name} can answer: set {' or '.join(variables)}"
