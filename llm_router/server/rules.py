"""Who may ask: the decision, pure, over the facts of a request. `guard` gathers them and carries it out.

A router on localhost can be reached by every web page that its user opens. Three things tell such requests from
those of programs: a foreign name in `Host` (DNS rebinding), a foreign `Origin`, and `Sec-Fetch-Site`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, Literal, NamedTuple

from llm_router.config.urls import ip_of
from llm_router.config.values import Access
from llm_router.errors import CLOSE, ApiError

ANONYMOUS: Final = ""  # the client of requests that bring no key

_OPEN_PATHS = frozenset({"/health", "/ready"})
_ADMIN_PATHS = ("/config", "/circuit-breaker")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK_ORIGINS = ("localhost", "127.0.0.1", "[::1]")
_OWN_SITES = frozenset({"same-origin", "none"})
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.~%-]*)?\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5})?)?", re.ASCII)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\s]*)", re.ASCII)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_REMEMBERED = 256
_DIGEST_KEY = secrets.token_bytes(32)
_EXPOSED = (
    "x-request-id, x-router-category, x-router-mode, x-router-model, x-router-provider, x-router-attempts, "
    "retry-after, x-should-retry"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: the role that its key gives, and a short name for the ledger that does not tell the key.

    `cors` is the configured foreign origin whose scripts may read the answer, empty for all others.
    """

    role: Literal["admin", "client", "anonymous"]
    client: str
    cors: str = ""


class Facts(NamedTuple):
    """What the decision needs to know of a request; header values as they were sent, None where absent.

    `path` is decoded. `target` is the authority of an absolute request target. `peer` is the address of the
    other end ("" for a local socket), `port` the one that was connected to. A tuple, since one is made per request.
    """

    method: str
    path: str
    hosts: Sequence[str]
    target: str | None = None
    origin: str | None = None
    sec_fetch_site: str | None = None
    authorization: str | None = None
    forwarded: bool = False
    peer: str | None = None
    port: int = 0
    content_type: str | None = None
    has_body: bool = False


class Rules:
    """The settings of `Access`, prepared for many decisions. `host` is the configured name to bind to."""

    def __init__(self, access: Access, host: str = "127.0.0.1") -> None:
        self.access = access
        self._hosts = frozenset(name.strip().lower().rstrip(".") for name in (*access.allowed_hosts, host))
        self._origins = frozenset(_plain_origin(origin) or origin for origin in access.allowed_origins)
        self._good_hosts: set[str] = set()
        self._programs: dict[tuple[str, str | None], Identity] = {}
        self._strangers: dict[str | None, Identity] = {None: Identity("anonymous", ANONYMOUS)}
        # Keys are looked up by a digest under a secret of this process: the time that a look-up takes tells nothing
        # about a key, and does not grow with their number.
        self._keys = {_digest(key): Identity("client", client_name(key)) for key in access.api_keys if key}
        if access.admin_key:
            self._keys[_digest(access.admin_key)] = Identity("admin", client_name(access.admin_key))

    def judge(self, facts: Facts) -> ApiError | Identity:
        """The refusal, or who it is that may ask."""
        refusal = self._judge_host(facts)
        if refusal is not None:
            return refusal
        cors = ""
        if _is_browser(facts):
            verdict = self._judge_browser(facts)
            if isinstance(verdict, ApiError):
                return verdict
            cors = verdict
            if cors and facts.method == "OPTIONS":
                return Identity("anonymous", ANONYMOUS, cors)  # browsers send no key with a preflight
        asker = self._judge_asker(facts)
        if not cors:
            return asker
        if isinstance(asker, ApiError):
            asker.headers = {**asker.headers, **cors_headers(cors)}  # else the page sees a network error
            return asker
        return Identity(asker.role, asker.client, cors)

    def _judge_asker(self, facts: Facts) -> ApiError | Identity:
        if _is_browser(facts) and facts.method not in _READING and not _is_json(facts):
            message = "A browser must send its body as Content-Type: application/json"
            return ApiError(415, message, code="unsupported_content_type")
        identity = self._identify(facts)
        if isinstance(identity, Identity) and facts.method not in _READING and facts.path.startswith(_ADMIN_PATHS):
            return self._judge_change(facts, identity) or identity
        return identity

    def admit(self, host: str, authorization: str | None) -> Identity | None:
        """Who it is that asks for a chat with these headers, no target of its own and none of a browser's headers.

        None where `judge` has to say why not. Nothing else counts for such a request, so what was found is remembered.
        """
        known = self._programs.get((host, authorization))
        if known is not None:
            return known
        verdict = self.judge(Facts("POST", "/v1/chat/completions", (host,), authorization=authorization))
        if isinstance(verdict, ApiError):
            return None
        if len(self._programs) >= _REMEMBERED:
            self._programs.clear()
        self._programs[host, authorization] = verdict
        return verdict

    def _judge_host(self, facts: Facts) -> ApiError | None:
        if len(facts.hosts) > 1:
            return ApiError(400, "The request has more than one Host header", code="invalid_host", headers=CLOSE)
        if not facts.hosts:  # HTTP/1.0; browsers always send one
            return None
        host = facts.hosts[0]
        if facts.target is not None and facts.target.lower() != host.lower():
            message = "The request target and the Host header name different hosts"
            return ApiError(400, message, code="invalid_host", headers=CLOSE)
        if host in self._good_hosts:
            return None
        found = _HOST.fullmatch(host)
        if found is None or int(found[2] or 0) > 65535:
            return ApiError(400, "The Host header is not a host name", code="invalid_host", headers=CLOSE)
        name = found[1].lower().rstrip(".")
        if not (_is_private_name(name) or "*" in self._hosts or name in self._hosts or host.lower() in self._hosts):
            return ApiError(
                403,
                f"This router does not answer to the host name {_shown(name)}, which protects it from DNS rebinding. "
                "If the name is its own, add it to ROUTER_ALLOWED_HOSTS.",
                "permission_error",
                "host_not_allowed",
            )
        if len(self._good_hosts) >= _REMEMBERED:
            self._good_hosts.clear()
        self._good_hosts.add(host)
        return None

    def _judge_browser(self, facts: Facts) -> ApiError | str:
        """A refusal, or the configured foreign origin that asks (empty for our own)."""
        cors = ""
        if facts.origin is not None:
            origin = _plain_origin(facts.origin) or facts.origin
            if origin in self._origins or "*" in self._origins:
                cors = facts.origin
            elif not self._is_own(origin, facts):
                return _foreign(f"the origin {_shown(facts.origin)}")
        site = facts.sec_fetch_site
        if not cors and site is not None and site not in _OWN_SITES and "*" not in self._origins:
            return _foreign(f"a {_shown(site)} page")
        return cors

    def _is_own(self, origin: str, facts: Facts) -> bool:
        """Whether the origin is this server: the name it was called by, or loopback at its own port."""
        scheme, _, authority = origin.partition("://")
        if scheme not in _DEFAULT_PORTS:
            return False
        if facts.hosts and origin == _plain_origin(f"{scheme}://{facts.hosts[0].lower()}"):
            return True
        own = (_plain_origin(f"{scheme}://{name}:{facts.port}") for name in _LOOPBACK_ORIGINS)
        return bool(authority) and facts.port > 0 and origin in own

    def _identify(self, facts: Facts) -> ApiError | Identity:
        if self._keys:
            found = self._keys.get(_digest(_bearer(facts.authorization)))
            if found is not None:
                return found
            if self.access.api_keys and facts.path not in _OPEN_PATHS:
                wanted = "one of the keys in ROUTER_API_KEY (or ROUTER_ADMIN_KEY)"
                return _unauthorized("wrong" if facts.authorization else "missing", wanted)
        stranger = self._strangers.get(facts.authorization)
        return stranger if stranger is not None else self._meet(facts.authorization)

    def _meet(self, authorization: str | None) -> Identity:
        """Where no key is asked for, what a client sends as one still tells it from others."""
        token = _bearer(authorization)
        if len(self._strangers) >= _REMEMBERED:
            self._strangers.clear()
        identity = Identity("anonymous", client_name(token) if token else ANONYMOUS)
        return self._strangers.setdefault(authorization, identity)

    def _judge_change(self, facts: Facts, identity: Identity) -> ApiError | None:
        """Changes to configuration and circuits need more than reading does."""
        if self.access.admin_key:
            if identity.role == "admin":
                return None
            if identity.role == "anonymous":
                return _unauthorized("wrong" if facts.authorization else "missing", "the key in ROUTER_ADMIN_KEY")
            message = "Changes to configuration and circuits need the key in ROUTER_ADMIN_KEY"
        elif self.access.api_keys or (not facts.forwarded and _is_loopback(facts.peer)):
            return None
        else:
            message = (
                "Without a key, changes to configuration and circuits are taken from this machine alone; "
                "set ROUTER_ADMIN_KEY (or ROUTER_API_KEY) and send it to make them from elsewhere"
            )
        return ApiError(403, message, "permission_error", "admin_required")


def cors_headers(origin: str) -> dict[str, str]:
    """What lets the scripts of a configured origin read an answer, also an error."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": _EXPOSED,
        "Vary": "Origin",
    }


def client_name(key: str) -> str:
    """The name by which the ledger knows the holder of `key`; the same in every process."""
    return "key-" + hashlib.sha256(b"llm-router client " + key.encode(errors="surrogateescape")).hexdigest()[:12]


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogateescape"), key=_DIGEST_KEY, digest_size=16).digest()


def _bearer(authorization: str | None) -> str:
    if authorization is None:
        return ""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _unauthorized(state: str, wanted: str) -> ApiError:
    message = f"The API key is {state}; send 'Authorization: Bearer KEY' with {wanted}"
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _foreign(who: str) -> ApiError:
    message = (
        f"Requests from {who} are refused: web pages must not use this router unasked. "
        "To let a page use it, add its origin to ROUTER_ALLOWED_ORIGINS."
    )
    return ApiError(403, message, "permission_error", "origin_not_allowed")


def _shown(text: str) -> str:
    return ascii(text[:80])


def _is_private_name(name: str) -> bool:
    """Names that no stranger's DNS can point at this machine."""
    if "." not in name and ":" not in name:
        return bool(name)
    if name.endswith((".internal", ".localhost")) or name == "localhost.localdomain":
        return True
    return ip_of(name.strip("[]")) is not None


def _is_loopback(peer: str | None) -> bool:
    if not peer:
        return peer == ""  # a local socket has no address
    address = ip_of(peer)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and address.is_loopback


def _plain_origin(origin: str) -> str | None:
    """`scheme://host[:port]` in lower case without a default port; None if it is no such origin."""
    found = _ORIGIN.fullmatch(origin.strip().lower().rstrip("/"))
    if found is None:
        return None
    scheme, authority = found[1], found[2]
    return f"{scheme}://{authority.removesuffix(f':{port}') if (port := _DEFAULT_PORTS.get(scheme)) else authority}"


def _is_browser(facts: Facts) -> bool:
    return facts.origin is not None or facts.sec_fetch_site is not None


def _is_json(facts: Facts) -> bool:
    if facts.content_type is None:
        return not facts.has_body
    return facts.content_type.partition(";")[0].strip().lower() == "application/json"
