"""Which connections go through a proxy."""

from __future__ import annotations

import pytest

from llm_router.proxy.upstream.client import UpstreamClient
from llm_router.proxy.upstream.errors import ConnectFailed
from llm_router.proxy.upstream.proxies import Proxy, is_exempt, is_loopback, parse_proxy, proxy_for, proxy_secrets
from llm_router.proxy.upstream.request import Origin
from llm_router.proxy.upstream.route import MAX_ROUTES, Routes

PLAIN = Origin(False, "api.test", 80)
SECURE = Origin(True, "api.test", 443)
BOTH = {"HTTP_PROXY": "http://plain:1", "HTTPS_PROXY": "http://secure:2"}


def test_each_scheme_has_its_variable() -> None:
    """HTTP_PROXY is for http, HTTPS_PROXY for https; none of them means a direct connection."""
    assert proxy_for(PLAIN, BOTH) == Proxy("plain", 1)
    assert proxy_for(SECURE, BOTH) == Proxy("secure", 2)
    assert proxy_for(PLAIN, {"HTTPS_PROXY": "http://p"}) is None
    assert proxy_for(SECURE, {"HTTP_PROXY": "http://p"}) is None
    assert proxy_for(SECURE, {}) is None


def test_lower_case_wins_and_empty_is_unset() -> None:
    """The lower-case spelling wins, as in curl; an empty variable counts as unset."""
    assert proxy_for(SECURE, {**BOTH, "https_proxy": "http://lower:3"}) == Proxy("lower", 3)
    assert proxy_for(SECURE, {**BOTH, "https_proxy": ""}) == Proxy("secure", 2)
    assert proxy_for(SECURE, {"HTTPS_PROXY": " "}) is None


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback_never_goes_through_a_proxy(host: str) -> None:
    """A local Ollama is on this machine, not on the proxy's."""
    assert is_loopback(host)
    assert proxy_for(Origin(False, host, 11434), BOTH) is None


@pytest.mark.parametrize("host", ["localhost.test", "notlocalhost", "128.0.0.1", "10.0.0.1", "fe80::1"])
def test_other_hosts_do(host: str) -> None:
    """Names that only look local go where every other name goes."""
    assert not is_loopback(host)
    assert proxy_for(Origin(False, host, 80), BOTH) == Proxy("plain", 1)


@pytest.mark.parametrize(
    ("no_proxy", "host", "exempt"),
    [
        ("*", "api.test", True),
        ("api.test", "api.test", True),
        ("API.Test", "api.test", True),
        ("test", "api.test", True),
        (".test", "api.test", True),
        ("*.test", "api.test", True),
        (".api.test", "api.test", True),
        ("a.test, api.test ,b", "api.test", True),
        ("api.test", "api.test.", True),
        ("pi.test", "api.test", False),
        ("api.test", "x-api.test", False),
        ("api.test.evil", "api.test", False),
        ("", "api.test", False),
        (",", "api.test", False),
        (".", "api.test", False),
        ("api.test:443", "api.test", True),
        ("api.test:80", "api.test", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "api.test", False),
        ("10.0.0.0/99", "10.1.2.3", False),
        ("2001:db8::/32", "2001:db8::5", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("2.3", "10.1.2.3", False),
        ("[2001:db8::5]:443", "2001:db8::5", True),
        ("[2001:db8::5]:80", "2001:db8::5", False),
        ("2001:db8::5", "2001:db8:0::5", True),
    ],
)
def test_no_proxy(no_proxy: str, host: str, exempt: bool) -> None:
    """NO_PROXY knows `*`, names with all below them, addresses, networks and ports."""
    assert is_exempt(Origin(True, host, 443), no_proxy) is exempt
    assert (proxy_for(Origin(True, host, 443), {**BOTH, "NO_PROXY": no_proxy}) is None) is exempt


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://p", Proxy("p", 80)),
        ("p:3128", Proxy("p", 3128)),
        ("http://p:8080/", Proxy("p", 8080)),
        ("http://[::1]:8080", Proxy("::1", 8080)),
        ("http://u%40x:p%2F@p", Proxy("p", 80, "Basic dUB4OnAv")),
        ("http://u@p", Proxy("p", 80, "Basic dTo=")),
    ],
)
def test_proxy_urls(url: str, proxy: Proxy) -> None:
    """A proxy's URL may leave out the scheme and hold credentials."""
    assert parse_proxy(url) == proxy


@pytest.mark.parametrize("url", ["socks5://p", "https://p", "http://", "http://p:x", "http://[p"])
def test_proxies_that_we_cannot_use_are_refused(url: str) -> None:
    """Going direct instead would be a silent surprise."""
    with pytest.raises(ConnectFailed):
        proxy_for(SECURE, {"HTTPS_PROXY": url})


def test_credentials_stay_out_of_reprs() -> None:
    """A proxy's password does not get into logs."""
    route = Routes({"HTTP_PROXY": "http://u:hunter2@p"}).find("http://api.test/v1")
    assert route.extra == ("Proxy-Authorization: Basic dTpodW50ZXIy\r\n",)
    assert "Basic" not in repr(route)
    assert "hunter2" not in repr(route)


@pytest.mark.parametrize("url", ["http://me:p%2Bw-x12@proxy:1", "me:p%2Bw-x12@proxy:1"])
async def test_the_secrets_of_proxies_are_known(url: str) -> None:
    """Whoever masks errors must know them: a proxy for plain HTTP answers in the provider's place."""
    found = proxy_secrets({"HTTP_PROXY": url, "https_proxy": "http://tok.5566@proxy"})
    assert found == ["p%2Bw-x12", "p+w-x12", "bWU6cCt3LXgxMg==", "tok.5566", "tok.5566", "dG9rLjU1NjY6"]
    assert UpstreamClient(environ={"HTTP_PROXY": url}).secrets == found[:3]
    assert proxy_secrets({"HTTP_PROXY": "http://[", "HTTPS_PROXY": "http://proxy"}) == []


def test_https_through_a_proxy_keeps_its_secrets_in_the_tunnel() -> None:
    """Only plain requests carry the proxy's authorization and the absolute form."""
    route = Routes({"HTTPS_PROXY": "http://u:p@p"}).find("https://api.test/v1")
    assert route.extra == ()
    assert route.start == "POST /v1 HTTP/1.1\r\nHost: api.test\r\n"


def test_routes_are_remembered_but_bounded() -> None:
    """A URL is taken apart once; many different ones do not fill the memory."""
    routes = Routes({})
    assert routes.find("http://h/a") is routes.find("http://h/a")
    for number in range(2 * MAX_ROUTES):
        routes.find(f"http://h/{number}")
    assert int(repr(routes).partition("known=")[2][:-1]) <= MAX_ROUTES
