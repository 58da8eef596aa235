"""Who may ask, what a web page may not, and that no secret ever leaves."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.chunks import error, error_event, role, text
from tests.support.client import Answer, Connection, chat_body, request_bytes
from tests.support.fixtures import Stage
from tests.support.router import KEYS
from tests.support.upstream import raw, reply, stream
from tests.support.waiting import until

Own = Callable[..., Awaitable[Stage]]

ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("GET", "/health", None),
    ("GET", "/ready", None),
    ("GET", "/metrics", None),
    ("GET", "/providers", None),
    ("GET", "/config", None),
    ("GET", "/v1/models", None),
    ("GET", "/models", None),
    ("GET", "/circuit-breaker", None),
    ("GET", "/v1/usage", None),
    ("GET", "/v1/requests/x", None),
    ("GET", "/openapi.json", None),
    ("GET", "/nosuch", None),
    ("POST", "/v1/chat/completions", chat_body("router/ab", False)),
    ("POST", "/chat/completions", chat_body("router/ab", True)),
    ("POST", "/v1/explain", chat_body("router/ab", False)),
    ("POST", "/config/category", {"name": "evil", "models": ["a/m1"]}),
    ("POST", "/config/model-mapping", {"category": "ab", "models": ["c/m3"]}),
    ("DELETE", "/config/category/only", None),
    ("POST", "/config/reload", None),
    ("POST", "/circuit-breaker/reset-all", None),
    ("POST", "/circuit-breaker/reset/a/m1", None),
    ("POST", "/v1/responses", {"model": "x"}),
    ("POST", "/nosuch", {}),
]
CHANGES = [route for route in ROUTES if route[1].startswith(("/config/", "/circuit-breaker/"))]
names = [f"{method}{path}" for method, path, _ in ROUTES]


def assert_refused(got: Answer, *settings: str) -> None:
    """A 4xx in JSON that names the setting which would allow it, and no CORS permission."""
    assert 400 <= got.status < 500, got.raw
    assert got.status != 404
    assert got.header("access-control-allow-origin") is None
    message = got.error["message"]
    assert any(setting in message for setting in settings), message


@pytest.mark.parametrize("route", ROUTES, ids=names)
async def test_dns_rebinding_is_refused_everywhere(stage: Stage, route: tuple[str, str, Any]) -> None:
    """A foreign Host is refused on every route, unknown ones too, by the name of its setting."""
    method, path, body = route
    for host in ("evil.example", "evil.example:3456", "127.0.0.1.evil.example", "localhost.evil.example", "evil.com."):
        got = await stage.router.ask(method, path, body, headers={"Host": host})
        assert_refused(got, "ROUTER_ALLOWED_HOSTS")
    assert stage.a.count == 0


@pytest.mark.parametrize("route", ROUTES, ids=names)
async def test_cross_site_requests_are_refused_everywhere(stage: Stage, route: tuple[str, str, Any]) -> None:
    """A foreign Origin, a look-alike of ours, `null`, or a cross-site fetch is refused on every route."""
    method, path, body = route
    port = stage.router.port
    attacks: list[dict[str, str | None]] = [
        {"Origin": "http://evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{port}.evil.example"},
        {"Origin": f"http://127.0.0.1.evil.example:{port}"},
        {"Origin": f"http://localhost.evil.example:{port}"},
        {"Origin": f"http://evil.example/127.0.0.1:{port}"},
        {"Origin": f"http://127.0.0.1:{port}@evil.example"},
        {"Origin": "file://"},
        {"Origin": "chrome-extension://abcdef"},
        {"Origin": "http://"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
    ]
    for headers in attacks:
        got = await stage.router.ask(method, path, body, headers=headers)
        assert_refused(got, "ROUTER_ALLOWED_ORIGINS")
    assert stage.a.count == 0


async def test_own_hosts_are_allowed(stage: Stage) -> None:
    """Loopback names, IP literals, single labels and `.internal` names are allowed, with and without a port."""
    for host in (
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "192.168.1.7",
        "[fe80::1]",
        "router",
        "llm-router",
        "host.docker.internal",
        "router.prod.internal",
    ):
        for shown in (host, f"{host}:{stage.router.port}"):
            got = await stage.router.ask("GET", "/v1/models", headers={"Host": shown})
            assert got.status == 200, (shown, got.raw)


@pytest.mark.parametrize("host", ["", " ", "a b", "evil.example,127.0.0.1", "127.0.0.1 evil.example", "[::1", "@", "é"])
async def test_odd_hosts(stage: Stage, host: str) -> None:
    """A Host that is none is refused, never a 5xx."""
    got = await stage.router.ask("GET", "/config", headers={"Host": host})
    assert 400 <= got.status < 500


async def test_own_origins_are_allowed(stage: Stage) -> None:
    """The server's own origin may ask; tools that send Sec-Fetch headers without a site are no browsers."""
    for headers in (
        {"Origin": f"http://127.0.0.1:{stage.router.port}", "Host": f"127.0.0.1:{stage.router.port}"},
        {"Origin": f"http://localhost:{stage.router.port}", "Host": f"localhost:{stage.router.port}"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Mode": "cors"},
    ):
        got = await stage.chat("router/ab", headers=headers)
        assert got.status == 200, (headers, got.raw)


async def test_a_browsers_body_must_say_that_it_is_json(stage: Stage) -> None:
    """With an Origin shown only JSON content types are read: a form cannot smuggle a chat."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None):
        got = await stage.chat(
            "router/ab", headers={"Origin": f"http://127.0.0.1:{stage.router.port}",
                                  "Host": f"127.0.0.1:{stage.router.port}", "Content-Type": kind}
        )  # fmt: skip
        assert got.status in (400, 403, 415), got.raw
    assert stage.a.count == 0


async def test_preflights_get_no_permission(stage: Stage) -> None:
    """A CORS preflight is not answered with a permission."""
    for path in ("/v1/chat/completions", "/config/category", "/circuit-breaker/reset-all"):
        for origin in ("http://evil.example", f"http://127.0.0.1:{stage.router.port}"):
            got = await stage.router.ask(
                "OPTIONS",
                path,
                headers={
                    "Origin": origin,
                    "Access-Control-Request-Method": "POST",
                    "Access-Control-Request-Private-Network": "true",
                },
            )
            assert got.status >= 400 or got.header("access-control-allow-origin") is None
            assert got.header("access-control-allow-private-network") is None


async def test_hosts_and_origins_can_be_allowed(own: Own) -> None:
    """The settings that the refusals name do allow what they say, and nothing more."""
    stage = await own(
        env={"ROUTER_ALLOWED_HOSTS": "my.example, other.example", "ROUTER_ALLOWED_ORIGINS": "https://app.example"}
    )
    for host in ("my.example", "other.example:443", "127.0.0.1"):
        assert (await stage.router.ask("GET", "/config", headers={"Host": host})).status == 200
    for host in ("sub.my.example", "my.example.evil", "evil.example"):
        assert (await stage.router.ask("GET", "/config", headers={"Host": host})).status >= 400
    got = await stage.chat("router/ab", headers={"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"})
    assert got.status == 200
    for origin in (
        "http://app.example",
        "https://app.example.evil",
        "https://app.example:8443",
        "https://sub.app.example",
    ):
        assert (await stage.chat("router/ab", headers={"Origin": origin})).status >= 400


GOOD = "client-key-one-000000000000"
OTHER = "client-key-two-000000000000"
ADMIN = "admin-key-00000000000000000"


def bearer(key: str) -> dict[str, str | None]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


async def test_a_key_is_wanted_everywhere(own: Own) -> None:
    """With ROUTER_API_KEY set every route but `/health` and `/ready` wants a key, unknown routes too."""
    stage = await own(env={"ROUTER_API_KEY": f"{GOOD}, {OTHER}"})
    bad: list[dict[str, str | None]] = [
        {},
        bearer("wrong"),
        bearer(""),
        bearer(GOOD[:-1]),
        bearer(GOOD + "0"),
        bearer(GOOD.upper()),
        bearer(f"{GOOD}, {OTHER}"),
        bearer(f"{GOOD},{OTHER}"),
        bearer("é" * 20),
        {"Authorization": f"Basic {GOOD}"},
        {"Authorization": GOOD},
        {"X-Api-Key": GOOD},
        {"Cookie": f"key={GOOD}"},
    ]
    for method, path, body in ROUTES:
        if path in ("/health", "/ready"):
            assert (await stage.router.ask(method, path, body)).status == 200
            continue
        for headers in bad:
            got = await stage.router.ask(method, path, body, headers=headers)
            assert got.status == 401, (method, path, headers, got.raw)
            assert got.error["message"]
            assert "ROUTER_API_KEY" in got.error["message"]
    assert stage.a.count == 0
    for key in (GOOD, OTHER):
        assert (await stage.chat("router/ab", headers=bearer(key))).status == 200
        assert (await stage.chat("router/ab", headers={"Authorization": f"bearer {key}"})).status in (200, 401)
        assert (await stage.router.ask("GET", "/config", headers=bearer(key))).status == 200
    assert (await stage.router.ask("GET", "/nosuch", headers=bearer(GOOD))).status == 404
    assert GOOD not in str([exchange.request.headers for exchange in stage.a.exchanges])


async def test_a_key_in_the_query_is_no_key(own: Own) -> None:
    """Keys are taken from the header alone."""
    stage = await own(env={"ROUTER_API_KEY": GOOD})
    for query in (f"?key={GOOD}", f"?api_key={GOOD}", f"?Authorization=Bearer%20{GOOD}"):
        assert (await stage.router.ask("GET", f"/config{query}")).status == 401


@pytest.mark.parametrize("api_key", [True, False])
async def test_changes_want_the_admin_key(own: Own, api_key: bool) -> None:
    """With ROUTER_ADMIN_KEY set changes want it, an API key is not enough; the admin key passes everywhere."""
    stage = await own(env={"ROUTER_ADMIN_KEY": ADMIN} | ({"ROUTER_API_KEY": GOOD} if api_key else {}))
    for method, path, body in CHANGES:
        for headers in ({}, bearer(GOOD), bearer("wrong")):
            got = await stage.router.ask(method, path, body, headers=headers)
            assert got.status in (401, 403), (path, got.raw)
            assert "ROUTER_ADMIN_KEY" in got.error["message"] or "ROUTER_API_KEY" in got.error["message"]
    assert (await stage.chat("router/ab", headers=bearer(ADMIN))).status == 200
    got = await stage.router.ask("POST", "/circuit-breaker/reset-all", headers=bearer(ADMIN))
    assert got.status == 200
    got = await stage.router.ask("POST", "/config/category", {"name": "x", "models": ["a/m1"]}, headers=bearer(ADMIN))
    assert got.status == 200


async def test_changes_with_an_api_key_alone(own: Own) -> None:
    """Without an admin key an API key is enough for changes."""
    stage = await own(env={"ROUTER_API_KEY": GOOD})
    got = await stage.router.ask("POST", "/circuit-breaker/reset-all", headers=bearer(GOOD))
    assert got.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "10.0.0.1"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Forwarded-For": ""},
        {"x-forwarded-for": "::1"},
    ],
    ids=str,
)
async def test_a_proxied_request_is_never_loopback(stage: Stage, headers: dict[str, str | None]) -> None:
    """Without keys changes are for loopback alone, and a forwarded request is never that, whatever it claims."""
    for method, path, body in CHANGES:
        got = await stage.router.ask(method, path, body, headers=headers)
        assert got.status in (401, 403), (path, got.raw)
        assert "ROUTER_A" in got.error["message"]
    assert (await stage.chat("router/ab", headers=headers)).status == 200


async def test_a_client_sees_its_own_requests(own: Own) -> None:
    """A client key sees its own requests in the ledger, the admin key all."""
    stage = await own(env={"ROUTER_API_KEY": f"{GOOD},{OTHER}", "ROUTER_ADMIN_KEY": ADMIN})
    name = f"mine-{uuid.uuid4()}"
    await stage.chat("router/ab", headers=bearer(GOOD) | {"x-request-id": name})
    for _ in range(400):
        got = await stage.router.ask("GET", f"/v1/requests/{name}", headers=bearer(GOOD))
        if got.status == 200:
            break
        await asyncio.sleep(0.05)
    assert got.status == 200
    assert (await stage.router.ask("GET", f"/v1/requests/{name}", headers=bearer(ADMIN))).status == 200
    assert (await stage.router.ask("GET", f"/v1/requests/{name}", headers=bearer(OTHER))).status in (403, 404)


MARKER = "zebra-prompt-marker-4711"
ANSWER = "giraffe-answer-marker-4712"
PLANTED = [*KEYS.values(), GOOD, ADMIN, "hunter2secret", MARKER, ANSWER]


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_secrets_are_nowhere(own: Own, log_format: str) -> None:
    """Keys, prompts and answers are in no response of another route, log, file of the state folder or process list."""
    stage = await own(
        env={
            "ROUTER_API_KEY": GOOD,
            "ROUTER_ADMIN_KEY": ADMIN,
            "ROUTER_LOG_LEVEL": "debug",
            "ROUTER_LOG_FORMAT": log_format,
        }
    )
    echo = f"bad key {KEYS['a']} Bearer {KEYS['b']} at https://user:hunter2secret@host/v1"
    scripts = [
        stream([role(), text(ANSWER), error_event(echo)]),
        stream([role(), text(ANSWER)], headers={"x-generation-id": KEYS["a"]}),
        stream([role(), error_event(echo)]),
        reply(401, error(echo)),
        reply(500, error(echo)),
        reply(400, error(echo)),
        reply(404, error(echo)),
        reply(429, error(echo), {"Retry-After": "1"}),
        reply(302, b"", {"Location": f"http://x/?key={KEYS['a']}"}),
        reply(200, echo),
        raw(f"HTTP/1.1 200 {echo}\r\n\r\n".encode()),
        raw(echo.encode()),
        stream([role(), text(ANSWER)], end="reset"),
    ]
    everything = b""
    for script in scripts:
        for streamed in (True, False):
            for model in ("router/ab", "a/m1", "router"):
                await stage.router.ask("POST", "/circuit-breaker/reset-all", headers=bearer(ADMIN))
                stage.a.script = script
                got = await stage.chat(model, streamed, content=f"say {MARKER}", headers=bearer(GOOD))
                everything += got.raw.replace(ANSWER.encode(), b"")
    for headers in (bearer("wrong-key-99999999"), {"Authorization": f"Bearer {GOOD}x"}):
        everything += (await stage.chat("router/ab", headers=headers)).raw
    bad = {"name": "x", "models": ["nosuch/x"], "keywords": [KEYS["a"]]}
    await stage.router.ask("POST", "/config/category", bad, headers=bearer(ADMIN))
    await asyncio.sleep(1.2)
    for _, path, _ in [route for route in ROUTES if route[0] == "GET"]:
        for accept in ("application/json", "text/plain", "application/openmetrics-text"):
            everything += (await stage.router.ask("GET", path, headers=bearer(ADMIN) | {"Accept": accept})).raw
    explained = await stage.router.ask(
        "POST", "/v1/explain", chat_body("router", content=f"say {MARKER}"), headers=bearer(GOOD)
    )
    everything += explained.raw.replace(MARKER.encode(), b"") if explained.status == 200 else b""
    for secret in PLANTED:
        assert secret.encode() not in everything, f"{secret} in an answer"
        assert secret not in stage.router.log(), f"{secret} in the log"
        for path in stage.router.state.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), f"{secret} in {path.name}"
        for folder in ("cmdline",):
            assert secret.encode() not in Path(f"/proc/{stage.router.pid}/{folder}").read_bytes()  # noqa: ASYNC240
    assert "Traceback" not in stage.router.log()


async def test_the_log_cannot_be_forged(own: Own) -> None:
    """Names with newlines and control characters make no lines of their own in the log."""
    stage = await own(env={"ROUTER_LOG_FORMAT": "text"})
    evil = "a\nFORGED line\r\nFORGED \x1b[31mred\u2028FORGED"
    for model in (evil, f"a/{evil}", f"router/{evil}", f"{evil}/x"):
        for streamed in (True, False):
            await stage.chat(model, streamed, user=evil, metadata={"session_id": evil})
    await stage.chat("router/ab", headers={"x-request-id": "x\tFORGED", "x-session-id": "FORGED\x1b"})
    stage.a.script = reply(500, error(f"{evil} from the provider", evil))
    await stage.chat("router/ab")
    stage.a.script = raw(b"HTTP/1.1 500 FORGED\r\nContent-Length: 0\r\n\r\n")
    await stage.chat("router/ab")
    for path in ("/FORGED%0aFORGED", "/v1/requests/x%0d%0aFORGED", "/circuit-breaker/reset/a%0aFORGED"):
        await stage.router.ask("GET", path)
    await asyncio.sleep(1.2)
    log = stage.router.log()
    assert not [line for line in log.splitlines() if line.lstrip("\x1b[31m ").startswith("FORGED")]
    assert "\x1b" not in log


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_one_log_line_per_request(own: Own, log_format: str) -> None:
    """Each chat leaves one line with its id; as JSON every line parses."""
    stage = await own(env={"ROUTER_LOG_FORMAT": log_format})
    names = [f"line-{uuid.uuid4()}" for _ in range(5)]
    for name in names:
        await stage.chat("router/ab", headers={"x-request-id": name})
    await until(lambda: all(name in stage.router.log() for name in names))
    await asyncio.sleep(0.5)
    lines = stage.router.log().splitlines()
    for name in names:
        assert len([line for line in lines if name in line]) == 1
    if log_format == "json":
        for line in lines:
            json.loads(line)


async def test_nothing_is_asked_unasked(own: Own) -> None:
    """The running router calls no provider unless a request asks: no warm-up, no polling."""
    stage = await own()
    await asyncio.sleep(2)
    for path in ("/health", "/ready", "/metrics", "/providers", "/v1/models", "/config"):
        await stage.router.ask("GET", path)
    await stage.router.ask("POST", "/v1/explain", chat_body("router"))
    assert not stage.a.connections
    assert not stage.b.connections


async def test_answers_carry_no_cors(stage: Stage) -> None:
    """No answer carries a CORS permission."""
    for method, path, body in ROUTES[:16]:
        got = await stage.router.ask(method, path, body)
        assert not [name for name, _ in got.headers if name.lower().startswith("access-control")], path


async def test_a_request_head_with_a_foreign_target_host(stage: Stage) -> None:
    """An absolute target with a foreign host is a foreign host too, or plainly ours: never a proxy to it."""
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes("GET", "http://evil.example/config", headers={"Host": "127.0.0.1"}))
    got = await connection.answer(3)
    connection.close()
    assert got.status in (200, 400, 403, 404, 421)
    assert stage.a.count == 0
