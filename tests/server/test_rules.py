"""Who may ask: the decision over every fact that it looks at."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.config.values import Access
from llm_router.errors import ApiError
from llm_router.server.rules import Facts, Identity, Rules, client_name

OPEN = Access()
KEYED = Access(api_keys=("alpha", "beta"))
ADMIN = Access(admin_key="root")
BOTH = Access(api_keys=("alpha", "beta"), admin_key="root")


def facts(**given: Any) -> Facts:
    """A program on this machine that asks for the metrics."""
    known: dict[str, Any] = {"method": "GET", "path": "/metrics", "hosts": ["localhost:3456"], "peer": "127.0.0.1"}
    if key := given.pop("key", None):
        given["authorization"] = f"Bearer {key}"
    return Facts(**{**known, **given})


def refusal(access: Access = OPEN, **given: Any) -> ApiError:
    """The refusal that is expected."""
    verdict = Rules(access).judge(facts(**given))
    assert isinstance(verdict, ApiError), verdict
    return verdict


def admitted(access: Access = OPEN, **given: Any) -> Identity:
    """The identity of a caller that is expected to pass."""
    verdict = Rules(access).judge(facts(**given))
    assert isinstance(verdict, Identity), verdict
    return verdict


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:3456", "localhost.", "api.localhost", "localhost.localdomain", "127.0.0.1",
        "127.0.0.1:1", "[::1]:3456", "[::1]", "192.168.1.20:3456", "10.0.0.1", "[fe80::1%25eth0]:3456",
        "[2001:db8::1]", "8.8.8.8", "router", "llm_router:3456", "my-box:80", "host.docker.internal:3456",
        "router.internal", "router.internal.",
    ],
)  # fmt: skip
def test_own_and_private_host_names_pass(host: str) -> None:
    """Loopback names, IP literals, single labels and .internal names cannot be pointed at us by a stranger's DNS."""
    assert admitted(hosts=[host])


@pytest.mark.parametrize(
    "host",
    [
        "evil.com", "localhost.evil.com", "127.0.0.1.evil.com:3456", "evil.com:3456", "127.0.0.1.nip.io",
        "internal.evil.com", "notinternal.com", "evilinternal.co", "router.internal.evil.com", "1.2.3.4.5",
        "evil.com.", "127.1.evil", "xn--80ak6aa92e.com",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/health", "/", "/v1/chat/completions", "/nowhere"])
def test_foreign_host_names_are_refused(host: str, path: str) -> None:
    """DNS rebinding: a foreign Host is 403 on every route, and the answer names the setting that would allow it."""
    error = refusal(hosts=[host], path=path)
    assert (error.status, error.code) == (403, "host_not_allowed")
    assert "ROUTER_ALLOWED_HOSTS" in error.message


@pytest.mark.parametrize(
    "host",
    [
        "", " ", "a b", "user@localhost", "localhost:port", "localhost:99999", "localhost/x", "[::1", "::1",
        "lo\ncal", "é.internal", "localhost:1:2",
    ],
)  # fmt: skip
def test_broken_host_is_a_bad_request(host: str) -> None:
    """A Host that is no host name is 400 and ends the connection."""
    error = refusal(hosts=[host])
    assert (error.status, error.headers["Connection"]) == (400, "close")


def test_two_hosts_are_a_bad_request() -> None:
    """Two Host headers are refused, even where both would pass."""
    assert refusal(hosts=["localhost", "localhost"]).status == 400


def test_no_host_passes() -> None:
    """HTTP/1.0 knows no Host; a browser never leaves it out."""
    assert admitted(hosts=[])


def test_absolute_target_must_agree_with_host() -> None:
    """`GET http://evil.com/` with a harmless Host does not get past the host check."""
    assert refusal(target="evil.com").status == 400
    assert admitted(target="LocalHost:3456")


@pytest.mark.parametrize(
    ("allowed", "host", "passes"),
    [
        ("router.example.com", "router.example.com", True),
        ("router.example.com", "Router.Example.com.:443", True),
        ("Router.Example.com.", "router.example.com", True),
        ("router.example.com:8443", "router.example.com:8443", True),
        ("router.example.com:8443", "router.example.com:80", False),
        ("router.example.com", "evil.router.example.com", False),
        ("example.com", "evilexample.com", False),
        ("*", "anything.example.org", True),
    ],
)
def test_configured_hosts(allowed: str, host: str, passes: bool) -> None:
    """ROUTER_ALLOWED_HOSTS adds names, exactly these, with or without a port; "*" adds all."""
    verdict = Rules(Access(allowed_hosts=(allowed,))).judge(facts(hosts=[host]))
    assert isinstance(verdict, Identity) is passes


def test_the_name_bound_to_is_ours() -> None:
    """The host name that the router was told to bind to is one that it answers to."""
    assert isinstance(Rules(OPEN, "ai.example.com").judge(facts(hosts=["ai.example.com:3456"])), Identity)


def test_many_host_names_are_not_kept() -> None:
    """A flood of different good names costs no memory without bound, and later ones are still judged."""
    rules = Rules(OPEN)
    for number in range(2000):
        assert isinstance(rules.judge(facts(hosts=[f"box{number}"])), Identity)
    assert len(rules._good_hosts) <= 256


def test_many_strangers_are_not_kept() -> None:
    """A flood of made-up keys costs no memory without bound."""
    rules = Rules(OPEN)
    for number in range(2000):
        assert isinstance(rules.judge(facts(key=f"made-up-{number}")), Identity)
    assert len(rules._strangers) <= 256


def test_many_programs_are_not_kept() -> None:
    """Nor do the pairs of host and key that came by the short way; each is admitted all the same."""
    rules = Rules(OPEN)
    for number in range(2000):
        assert rules.admit(f"box{number % 40}", f"Bearer made-up-{number}") is not None
    assert len(rules._programs) <= 256


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3456", "localhost:3456"),
        ("HTTP://LOCALHOST:3456", "localhost:3456"),
        ("http://127.0.0.1:3456", "127.0.0.1:3456"),
        ("http://[::1]:3456", "[::1]:3456"),
        ("http://localhost:3456", "127.0.0.1:3456"),
        ("http://router", "router"),
        ("http://router:80", "router"),
        ("https://router.internal", "router.internal:443"),
    ],
)
def test_own_origins_pass(origin: str, host: str) -> None:
    """A page that came from this router may talk to it; an origin without its default port is the same origin."""
    assert admitted(origin=origin, hosts=[host], port=3456, sec_fetch_site="same-origin").cors == ""


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.com", "https://evil.com", "null", "", "http://localhost.evil.com",
        "http://localhost.evil.com:3456", "http://127.0.0.1.evil.com:3456", "http://localhost:8080",
        "http://localhost", "https://localhost", "http://evil.com:3456", "http://localhost:3456.evil.com",
        "http://localhost:3456@evil.com", "http://evil.com#localhost:3456", "file://", "http://xlocalhost:3456",
        "chrome-extension://abcdef", "http://[::1]:80", "ftp://localhost:3456", "//localhost:3456", "localhost:3456",
        "http://localhost:3456, http://evil.com", "http://192.168.1.7:3456", "http://router:3456",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_foreign_and_look_alike_origins_are_refused(origin: str, method: str) -> None:
    """A web page from elsewhere, also from another port of this machine, is 403 with the setting's name."""
    error = refusal(origin=origin, method=method, port=3456, content_type="application/json")
    assert (error.status, error.code) == (403, "origin_not_allowed")
    assert "ROUTER_ALLOWED_ORIGINS" in error.message


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/v1/chat/completions", "/nowhere"])
@pytest.mark.parametrize("site", ["cross-site", "same-site", "CROSS-SITE", "", "same-origin, cross-site"])
def test_cross_site_requests_are_refused(site: str, path: str) -> None:
    """What a browser marks as coming from another site is refused on every route, without an Origin too."""
    error = refusal(sec_fetch_site=site, path=path)
    assert (error.status, error.code) == (403, "origin_not_allowed")
    assert "ROUTER_ALLOWED_ORIGINS" in error.message


@pytest.mark.parametrize("site", ["none", "same-origin"])
def test_addresses_typed_by_the_user_pass(site: str) -> None:
    """Opening the router's own pages in a browser works."""
    assert admitted(sec_fetch_site=site)


def test_own_origin_does_not_excuse_a_cross_site_request() -> None:
    """Where Origin and Sec-Fetch-Site contradict one another the request is refused."""
    assert refusal(origin="http://localhost:3456", sec_fetch_site="cross-site").status == 403


@pytest.mark.parametrize(
    "configured", ["https://chat.example.com", "https://chat.example.com/", "https://CHAT.example.com:443"]
)
def test_configured_origins_pass(configured: str) -> None:
    """ROUTER_ALLOWED_ORIGINS lets a page in although the browser calls it cross-site, and lets it read the answer."""
    access = Access(allowed_origins=(configured,))
    given = {"origin": "https://chat.example.com", "sec_fetch_site": "cross-site"}
    assert admitted(access, **given).cors == "https://chat.example.com"
    assert refusal(access, **{**given, "origin": "https://evil.example.com"}).status == 403


def test_every_origin_can_be_allowed() -> None:
    """ "*" is the user's own decision, opaque origins and requests without one included."""
    access = Access(allowed_origins=("*",))
    assert admitted(access, origin="null").cors == "null"
    assert admitted(access, sec_fetch_site="cross-site").cors == ""


def test_preflight_of_a_configured_origin_needs_no_key() -> None:
    """Browsers send no Authorization with a preflight; for any other origin it stays refused."""
    access = Access(api_keys=("alpha",), allowed_origins=("https://chat.example.com",))
    assert admitted(access, method="OPTIONS", origin="https://chat.example.com", path="/v1/chat/completions").cors
    assert refusal(access, method="OPTIONS", origin="https://evil.com").status == 403
    assert refusal(access, method="OPTIONS").status == 401


@pytest.mark.parametrize(
    "given",
    [
        {"method": "POST"}, {"authorization": "Bearer wrong"}, {"content_type": "text/plain", "has_body": True},
        {"path": "/config/reload", "authorization": "Bearer alpha"},
    ],
    ids=["no key", "wrong key", "content type", "no admin"],
)  # fmt: skip
def test_a_configured_origin_may_read_why_it_was_refused(given: dict[str, Any]) -> None:
    """A page whose key is wrong is told so; without the headers its user would see a network error."""
    access = Access(api_keys=("alpha",), admin_key="root", allowed_origins=("https://chat.example.com",))
    given = {"method": "POST", "path": "/v1/chat/completions", **given}
    headers = refusal(access, origin="https://chat.example.com", **given).headers
    assert headers["Access-Control-Allow-Origin"] == "https://chat.example.com"
    assert headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Origin" not in refusal(access, origin="https://evil.com", **given).headers
    assert "Access-Control-Allow-Origin" not in refusal(access, **{**given, "content_type": None}).headers


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 0), ("application/json; charset=utf-8", 0), ("Application/JSON", 0), ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415), ("multipart/form-data; boundary=x", 415), (None, 415), ("", 415),
        ("application/json-seq", 415), ("text/plain; application/json", 415),
    ],
)  # fmt: skip
def test_browsers_must_send_json_as_json(content_type: str | None, status: int) -> None:
    """Where Origin or Sec-Fetch-Site shows a browser, a body is taken as application/json only."""
    given = {"method": "POST", "path": "/v1/chat/completions", "content_type": content_type, "has_body": True}
    verdict = Rules(OPEN).judge(facts(sec_fetch_site="same-origin", **given))
    assert (verdict.status if isinstance(verdict, ApiError) else 0) == status
    assert admitted(**given)


def test_programs_send_json_as_they_like() -> None:
    """curl -d says x-www-form-urlencoded, node's fetch sends Sec-Fetch-Mode alone: both are programs."""
    assert admitted(method="POST", content_type="application/x-www-form-urlencoded", has_body=True)


@pytest.mark.parametrize(
    "path", ["/metrics", "/v1/chat/completions", "/config", "/", "/nowhere", "/healthy", "/health/"]
)
@pytest.mark.parametrize(
    "authorization",
    [
        None, "", "Bearer", "Bearer ", "Bearer alpha2", "Bearer alph", "Bearer ALPHA", "Basic alpha", "alpha",
        "Bearer alpha, Bearer beta", "Bearer\talpha", "Bearer alpha beta",
    ],
)  # fmt: skip
def test_keys_are_wanted_everywhere(path: str, authorization: str | None) -> None:
    """With ROUTER_API_KEY set a missing or wrong key is 401 with a challenge, on unknown paths too."""
    error = refusal(KEYED, path=path, authorization=authorization)
    assert (error.status, error.code, error.headers["WWW-Authenticate"]) == (401, "invalid_api_key", "Bearer")
    assert "ROUTER_API_KEY" in error.message
    assert "alpha" not in error.message


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health_needs_no_key(path: str) -> None:
    """/health and /ready answer everybody, whatever key they bring."""
    assert admitted(BOTH, path=path).role == "anonymous"
    assert admitted(BOTH, path=path, key="wrong").role == "anonymous"


@pytest.mark.parametrize("authorization", ["Bearer beta", "bearer beta", "BEARER  beta "])
def test_a_key_passes(authorization: str) -> None:
    """Any of the configured keys passes; the scheme's case does not matter."""
    identity = admitted(KEYED, authorization=authorization)
    assert (identity.role, identity.client) == ("client", client_name("beta"))


def test_the_admin_key_passes_too() -> None:
    """The admin key opens what a client's key opens."""
    assert admitted(BOTH, key="root").role == "admin"
    assert admitted(ADMIN, key="root").role == "admin"


def test_empty_keys_open_nothing() -> None:
    """An empty configured key is no key that somebody could send."""
    assert refusal(Access(api_keys=("", "alpha"))).status == 401
    assert refusal(Access(api_keys=("", "alpha")), authorization="Bearer ").status == 401


def test_keys_beyond_ascii() -> None:
    """A key may hold any text; bytes that are no text are a wrong key, not a crash."""
    assert admitted(Access(api_keys=("schlüssel",)), key="schlüssel").role == "client"
    assert refusal(KEYED, key="\udcff\udcfe").status == 401


def test_clients_are_told_apart_without_their_keys() -> None:
    """The ledger's name of a client is stable, differs by key and does not contain it."""
    names = [admitted(OPEN, key=key).client for key in ("alpha", "beta", "alpha")]
    assert names[0] == names[2] != names[1]
    assert "alpha" not in names[0]
    assert admitted(OPEN).client == ""


CHANGES = [
    ("POST", "/config/category"),
    ("POST", "/config/model-mapping"),
    ("DELETE", "/config/category/creative"),
    ("POST", "/config/reload"),
    ("POST", "/circuit-breaker/reset-all"),
    ("POST", "/circuit-breaker/reset/openai/gpt-4o"),
    ("PUT", "/config/unknown"),
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_changes_want_the_admin_key_where_there_is_one(method: str, path: str) -> None:
    """With ROUTER_ADMIN_KEY a client's key may read but not change (403), and no key at all is 401."""
    given = {"method": method, "path": path}
    assert admitted(BOTH, key="root", peer="8.8.8.8", **given).role == "admin"
    assert (refusal(BOTH, key="alpha", **given).status, refusal(ADMIN, **given).status) == (403, 401)
    assert "ROUTER_ADMIN_KEY" in refusal(BOTH, key="alpha", **given).message
    assert "ROUTER_ADMIN_KEY" in refusal(ADMIN, **given).message
    assert refusal(ADMIN, key="alpha", **given).status == 401


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_changes_want_an_api_key_where_there_is_no_admin_key(method: str, path: str) -> None:
    """With ROUTER_API_KEY alone its holders may change things, from anywhere."""
    assert admitted(KEYED, key="alpha", peer="8.8.8.8", forwarded=True, method=method, path=path)
    assert refusal(KEYED, method=method, path=path).status == 401


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    ("peer", "passes"),
    [
        ("127.0.0.1", True), ("127.8.9.10", True), ("::1", True), ("::ffff:127.0.0.1", True), ("", True),
        ("192.168.1.9", False), ("172.17.0.1", False), ("::ffff:10.0.0.1", False), ("fe80::1%eth0", False),
        (None, False), ("not an address", False), ("0.0.0.0", False),
    ],
)  # fmt: skip
def test_changes_without_keys_come_from_this_machine(method: str, path: str, peer: str | None, passes: bool) -> None:
    """Without any key a change is taken from a loopback peer alone; the refusal names the setting."""
    given = {"method": method, "path": path, "peer": peer}
    if passes:
        assert admitted(OPEN, **given)
        assert "ROUTER_ADMIN_KEY" in refusal(OPEN, forwarded=True, **given).message
    else:
        assert (refusal(OPEN, **given).status, refusal(OPEN, **given).code) == (403, "admin_required")


def test_reading_needs_no_admin_key() -> None:
    """GET /config and GET /circuit-breaker stay readable, and chats stay possible, with an admin key set."""
    for method, path in [("GET", "/config"), ("HEAD", "/circuit-breaker"), ("POST", "/v1/chat/completions")]:
        assert admitted(ADMIN, method=method, path=path, peer="8.8.8.8", forwarded=True)


def test_many_keys_cost_no_more_than_few() -> None:
    """A key among ten thousand is found as fast as a key among ten: it is looked up, not searched."""
    rules = Rules(Access(api_keys=tuple(f"key-{number}" for number in range(10_000))))
    assert len(rules._keys) == 10_000
    verdict = rules.judge(facts(key="key-9999"))
    assert isinstance(verdict, Identity)
    assert verdict.client == client_name("key-9999")


def test_refusals_show_what_was_sent_only_in_short() -> None:
    """A refusal quotes foreign names shortened and in ASCII."""
    message = refusal(origin="http://" + "é" * 5000).message
    assert len(message) < 800
    assert message.isascii()


TEXT = st.one_of(st.none(), st.text(), st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
HOSTS = st.lists(st.one_of(st.text(), st.sampled_from(["localhost:3456", "evil.com", "[::1]"])), max_size=3)


@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "OPTIONS", "TRACE"]),
    path=st.one_of(st.text(), st.sampled_from(["/health", "/config/reload", "/v1/chat/completions"])),
    hosts=HOSTS,
    target=TEXT,
    origin=TEXT,
    sec_fetch_site=TEXT,
    authorization=TEXT,
    peer=TEXT,
    content_type=TEXT,
)
def test_any_facts_are_judged(**given_facts: Any) -> None:
    """Whatever is sent, there is a verdict: a 4xx whose text can be sent and holds no key, or an identity."""
    for access in (OPEN, BOTH):
        verdict = Rules(access).judge(Facts(**given_facts))
        if isinstance(verdict, ApiError):
            assert verdict.status in (400, 401, 403, 415)
            assert verdict.message.isascii()
            assert not {"alpha", "root"} & set(verdict.message.split())
        elif access is BOTH and given_facts["path"] not in ("/health", "/ready"):
            assert verdict.role in ("client", "admin")


@given(origin=st.from_regex(r"https?://[a-z0-9.@:-]{1,30}", fullmatch=True))
def test_no_invented_origin_is_ours(origin: str) -> None:
    """No origin but our own names at our own port gets in."""
    verdict = Rules(OPEN).judge(facts(origin=origin, port=3456))
    own = {f"{scheme}://{name}:3456" for scheme in ("http", "https") for name in ("localhost", "127.0.0.1", "[::1]")}
    assert isinstance(verdict, Identity) == (origin in own)
