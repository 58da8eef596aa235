"""The facts that the guard gathers of a real request, and what it makes of them."""

from __future__ import annotations

import pytest

from llm_router.config.values import Access
from tests.server.conftest import Small, StartSmall


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
async def test_a_page_of_this_machine_may_ask_under_any_of_its_names(small: Small, name: str) -> None:
    """Loopback at the port that was connected to is our own origin, by whatever loopback name the page came."""
    headers = {"Origin": f"http://{name}:{small.port}", "Host": f"localhost:{small.port}"}
    assert (await small.ask(headers=headers)).status == 200
    headers["Origin"] = f"http://{name}:{small.port + 1}"
    assert (await small.ask(headers=headers)).error["code"] == "origin_not_allowed"


async def test_a_chat_that_is_refused_has_the_headers_of_a_chat(small: Small) -> None:
    """Whoever reads `x-router-*` of every answer finds them on this one too; other routes have none."""
    for path, model in (("/v1/chat/completions", "none"), ("/chat/completions", "none"), ("/", None)):
        answer = await small.ask("POST", path, b"{}", headers={"Host": "evil.example"})
        assert (answer.status, answer.error["code"]) == (403, "host_not_allowed")
        assert answer.header("x-router-model") == model
        assert answer.header("x-router-attempts") == (None if model is None else "0")


async def test_an_absolute_target_names_the_same_host(small: Small) -> None:
    """A proxy on the way might go by the one and we by the other."""
    own = f"localhost:{small.port}"
    for target, status in ((f"http://{own}/", b" 200 "), (f"http://{own}/?x", b" 200 "), ("http://evil/", b" 400 ")):
        request = f"GET {target} HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n\r\n"
        answer, _ = await small.raw(request.encode())
        assert status in answer.partition(b"\r\n")[0]


async def test_a_browser_must_say_that_its_body_is_json(small: Small) -> None:
    """A form of a foreign page needs no preflight; without a body nothing is to be said. Programs need not either."""
    own = {"Origin": f"http://localhost:{small.port}"}
    for headers, body, status in (
        ({**own, "Content-Type": "text/plain"}, b"{}", 415),
        ({**own, "Content-Type": "application/json; charset=utf-8"}, b"{}", 200),
        ({"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"}, b"{}", 415),
        (own, None, 200),
        ({"Content-Type": "text/plain"}, b"{}", 200),
    ):
        assert (await small.ask("POST", "/", body, headers=headers)).status == status, headers


async def test_a_forwarded_request_is_not_of_this_machine(start: StartSmall) -> None:
    """Behind a proxy on the same machine everybody's requests come from loopback."""
    small = await start(access=Access())
    for header in ("Forwarded", "X-Forwarded-For"):
        answer = await small.ask("POST", "/config/reload", headers={header: "for=192.0.2.1"})
        assert (answer.status, answer.error["code"]) == (403, "admin_required")
    assert (await small.ask("POST", "/config/reload")).status == 404


async def test_a_preflight_is_answered_for_a_configured_origin(start: StartSmall) -> None:
    """Its scripts learn what they may send, and may read errors; a list of headers that is none is not repeated."""
    small = await start(access=Access(allowed_origins=("https://app.example.org",)))
    own = {"Origin": "https://app.example.org", "Access-Control-Request-Method": "POST"}
    asked = {"Access-Control-Request-Headers": "authorization, x-session-id"}
    private = {"Access-Control-Request-Private-Network": "true"}
    answer = await small.ask("OPTIONS", "/", headers={**own, **asked, **private})
    assert (answer.status, answer.header("access-control-allow-origin")) == (204, own["Origin"])
    assert answer.header("access-control-allow-headers") == asked["Access-Control-Request-Headers"]
    assert answer.header("access-control-allow-private-network") == "true"
    plain = await small.ask("OPTIONS", "/", headers={**own, "Access-Control-Request-Headers": "a;b"})
    assert plain.header("access-control-allow-headers") is None
    assert plain.header("access-control-allow-private-network") is None
    broken = await small.ask("GET", "/broken", headers=own)
    assert (broken.status, broken.header("access-control-allow-origin")) == (500, own["Origin"])
    assert (await small.ask("GET", "/broken")).header("access-control-allow-origin") is None
