"""What is valid and yet looks like a mistake; sentences for `llm-router check`, without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from llm_router.config.fields import nearest
from llm_router.config.options import DIALECTS
from llm_router.config.providers import BUILTINS
from llm_router.config.urls import ip_of
from llm_router.config.values import BUILTIN_CATEGORIES, Provider, Snapshot, split_model

_SHORT_KEY = 12
_QUOTES = ("'", '"', "`", "“", "”", "‘", "’")
_PLACEHOLDER = re.compile(r"your[-_ ]|[-_]here$|^<.*>$|^\$\{?\w+\}?$|x{6,}|\.\.\.$|^changeme$", re.IGNORECASE)
# How the keys of vendors begin; the first that fits tells.
_VENDORS = {"sk-or-": "openrouter", "sk-ant-": "anthropic", "sk-proj-": "openai", "AIza": "google", "gsk_": "groq"}


def advice(snapshot: Snapshot) -> list[str]:
    """Warnings of the load first, then what was noticed about keys, addresses and chains."""
    found = list(snapshot.warnings)
    for provider in snapshot.providers.values():
        found.extend(_about_keys(provider))
        found.extend(_about_address(provider))
        found.extend(_about_options(provider))
    found.extend(_about_access(snapshot))
    if not any(provider.configured for provider in snapshot.providers.values() if provider.name != "ollama"):
        found.append("no provider key is set, for example OPENROUTER_API_KEY: only Ollama can answer")
    found.extend(_about_chains(snapshot))
    found.extend(_about_categories(snapshot))
    found.extend(_about_classifier(snapshot))
    if snapshot.access.allow_unauthenticated and _is_open(snapshot, snapshot.host):
        found.append(
            f"serving {snapshot.host} without a key: whoever reaches it can spend yours; "
            "publishing it wider needs ROUTER_API_KEY"
        )
    return found


def unguarded(snapshot: Snapshot, bound: str | None = None) -> str | None:
    """Why this address may not be bound, or may not stay so: anybody on the network could spend the keys.

    `bound` is the address of a router that runs: what the snapshot says of it holds from the next start on.
    """
    host = snapshot.host if bound is None else bound
    if snapshot.access.allow_unauthenticated or not _is_open(snapshot, host):
        return None
    return (
        f"refusing to {'bind' if bound is None else 'go on at'} {host}, which is reachable from other machines, "
        "without a key: set ROUTER_API_KEY, or say --allow-unauthenticated (ROUTER_ALLOW_UNAUTHENTICATED=1)"
    )


def _is_open(snapshot: Snapshot, host: str) -> bool:
    """Whether other machines can reach the router, and need no key."""
    return not snapshot.access.api_keys and _is_reachable(host)


def _is_reachable(host: str) -> bool:
    """Whether it may be the address of more than this machine's loopback."""
    if host.lower() == "localhost":
        return False
    address = ip_of(host)
    return address is None or not address.is_loopback


def _about_access(snapshot: Snapshot) -> Iterator[str]:
    access = snapshot.access
    keys = [*access.api_keys, *filter(None, [access.admin_key])]
    if any(map(looks_quoted, keys)):
        yield "ROUTER_API_KEY or ROUTER_ADMIN_KEY begins or ends with a quotation mark; remove the quotes"
    if access.admin_key in access.api_keys:
        yield "ROUTER_ADMIN_KEY is one of ROUTER_API_KEY, too: whoever may ask may change the configuration with it"
    if _is_reachable(snapshot.host) and any(len(key) < _SHORT_KEY for key in keys):
        yield (
            f"ROUTER_API_KEY or ROUTER_ADMIN_KEY has fewer than {_SHORT_KEY} characters, and {snapshot.host} can be "
            "reached by those who guess; make a long one, as `openssl rand -hex 24` does"
        )


def looks_quoted(key: str) -> bool:
    """Whether quotation marks became part of a key, as `docker --env-file` and systemd files make them."""
    return key.startswith(_QUOTES) or key.endswith(_QUOTES)


def _about_keys(provider: Provider) -> Iterator[str]:
    for key in provider.keys:
        if looks_quoted(key.value):
            yield f"{key.variable} begins or ends with a quotation mark: the quotes are sent as part of the key"
        elif key.value.startswith(f"{key.variable}="):
            yield f"{key.variable} holds its own name: set it to what stands behind the equals sign"
        elif _PLACEHOLDER.search(key.value):
            yield f"{key.variable} looks like a placeholder rather than a key"
        elif vendor := _other_vendor(provider, key.value):
            yield f"{key.variable} looks like a key of {vendor}, but it is sent to {provider.shown_url}"
    values = [key.value for key in provider.keys]
    if len(set(values)) < len(values):
        yield f"two of the variables of {provider.name} hold the same key"


def _other_vendor(provider: Provider, key: str) -> str | None:
    """Whose key it looks like, where it is sent to another vendor's own address."""
    builtin = BUILTINS.get(provider.name)
    if builtin is None or provider.base_url != builtin.base_url:
        return None
    vendor = next((name for start, name in _VENDORS.items() if key.startswith(start)), provider.name)
    return vendor if vendor != provider.name else None


def _about_options(provider: Provider) -> Iterator[str]:
    for option in provider.options:
        if provider.api != DIALECTS[option]:
            yield (
                f"providers.{provider.name}.options.{option} has no effect: {provider.name} is spoken to as "
                f'{provider.api}; write "api": "{DIALECTS[option]}" beside it, or remove it'
            )


def _about_address(provider: Provider) -> Iterator[str]:
    parts = urlsplit(provider.base_url)
    if provider.keys and parts.scheme == "http" and not _is_local(parts.hostname or ""):
        yield f"the key of {provider.name} travels unencrypted to {provider.shown_url}; use https"


def _is_local(host: str) -> bool:
    if host == "localhost" or ("." not in host and ":" not in host) or host.endswith((".internal", ".localhost")):
        return True
    address = ip_of(host)
    return address is not None and (address.is_loopback or address.is_private)


def _about_chains(snapshot: Snapshot) -> Iterator[str]:
    for category in snapshot.categories.values():
        providers = [snapshot.providers[split_model(model)[0]] for model in category.models]
        if not any(provider.configured for provider in providers):
            variables = dict.fromkeys(name for provider in providers for name in provider.key_variables)
            yield f"no model of the category {category.name} can answer: set {' or '.join(variables)}"


def _about_categories(snapshot: Snapshot) -> Iterator[str]:
    for category in snapshot.categories.values():
        if not category.custom or category.keywords:
            continue
        if snapshot.routing_mode == "keywords":
            yield f"the category {category.name} has no keywords: only router/{category.name} leads to it"
        elif not category.description and not category.examples:
            yield (
                f"the category {category.name} has no description, examples or keywords: only its name speaks for it"
                f"{_near_builtin(category.name)}"
            )


def _about_classifier(snapshot: Snapshot) -> Iterator[str]:
    mode, model = snapshot.routing_mode, snapshot.classifier.api_model
    provider = snapshot.providers[split_model(model)[0]]
    if mode in ("api", "hybrid") and not provider.configured:
        yield f"{model} cannot be asked for the category (mode {mode}): set {' or '.join(provider.key_variables)}"


def _near_builtin(name: str) -> str:
    near = nearest(name.lower(), BUILTIN_CATEGORIES)
    return f"; did you mean {near}?" if near else ""
