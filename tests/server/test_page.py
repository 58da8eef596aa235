"""The page at `/`: what it may do, what it asks for, and what a real browser makes of it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from base64 import b64encode
from html import unescape
from pathlib import Path

import pytest

from llm_router import __version__
from llm_router.accounting.booking import Attempt, Booking
from llm_router.errors import Failure, FailureKind
from tests.server.conftest import Served, StartRouter

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HTML = {"Accept": "text/html,*/*;q=0.8"}
HOSTILE = "<img src=x onerror=\"document.title='taken over'\">"


async def page_of(served: Served) -> str:
    """The page as a browser gets it."""
    answer = await served.ask("GET", "/", headers=HTML | {"Host": f"127.0.0.1:{served.port}"})
    assert (answer.status, (answer.header("content-type") or "").partition(";")[0]) == (200, "text/html")
    return answer.body.decode()


async def test_a_page_for_people_and_json_for_programs(serve: StartRouter) -> None:
    """Browsers get a page that names the version, the reader's own address and the docs; everybody else gets JSON."""
    served = await serve()
    page = await page_of(served)
    assert f"llm-router {__version__}" in page
    assert f"curl -N http://127.0.0.1:{served.port}/v1/chat/completions" in page
    assert "docs/API.md" in page
    assert "{{" not in page
    told = (await served.ask("GET", "/")).json()
    assert told["version"] == __version__
    assert "docs/" in told["docs"]


async def test_the_policy_allows_what_stands_in_the_page_and_nothing_else(serve: StartRouter) -> None:
    """The browser is told to run this script and this style alone, and to ask nobody but the router."""
    served = await serve()
    answer = await served.ask("GET", "/", headers=HTML)
    policy = dict(part.split(" ", 1) for part in (answer.header("content-security-policy") or "").split("; "))
    page = answer.body.decode()
    for name in ("script", "style"):
        (inline,) = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy.pop(f"{name}-src") == f"'sha256-{digest}'"
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.header("x-content-type-options") == "nosniff"


async def test_the_page_loads_nothing_from_elsewhere(serve: StartRouter) -> None:
    """No address but the router's own stands in the page, and what it shows is set as text, never as markup."""
    served = await serve()
    page = await page_of(served)
    assert set(re.findall(r"https?://[^\s/'\"]+", page)) == {f"http://127.0.0.1:{served.port}"}
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", " src="):
        assert word not in page


async def test_what_the_page_links_to_and_reads_is_there(serve: StartRouter) -> None:
    """Every route that the page names answers."""
    served = await serve()
    page = await page_of(served)
    linked = re.findall(r'href="(/[^"]*)"', page)
    read = re.findall(r'"(/[a-z]+)"', page.partition("<script>")[2])
    assert len(linked) > 5
    assert {"/metrics", "/ready", "/health"} <= set(read)
    for path in [*linked, *read, "/v1/usage?by=model&since=30d", "/v1/usage?by=day&since=30d"]:
        assert (await served.ask("GET", path)).status == 200


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
async def test_a_browser_shows_the_figures(serve: StartRouter, tmp_path: Path) -> None:
    """A real browser runs the page under its policy and shows figures, models and requests; hostile names stay text.

    Who is left out is told beside the state.
    """
    served = await serve()
    circuits, then = served.router.circuits, served.router.clock() - 30
    for _ in range(circuits.settings.failure_threshold):
        permit = circuits.admit("a/m2", ("key",), then)
        assert permit is not None
        circuits.failed(permit, Failure(FailureKind.SERVER_ERROR, "down"), then)
    keeper = served.router.bookkeeper
    for number, (model, failure) in enumerate((("a/m1", ""), (HOSTILE, "idle_timeout"), ("", "all_candidates_failed"))):
        booking = Booking(
            request_id=f"r-{number}",
            started=served.router.started,
            category="code",
            model=model,
            provider="a",
            outcome="completed" if not failure else "cut" if model else "failed",
            attempts=(Attempt("a/m2", "skipped_circuit", None, 0),) if not model else (),
            failure=failure,
            status=200,
            first_byte_ms=40.0,
            total_ms=2500.0,
        )
        booking.ticket = keeper.enter(booking.request_id, booking.started)
        keeper.submit(booking)
    assert await asyncio.to_thread(keeper.flush)
    assert BROWSER is not None
    browser = await asyncio.create_subprocess_exec(
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-sync",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=3000",
        "--dump-dom",
        f"http://127.0.0.1:{served.port}/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(90):
        shown, _ = await browser.communicate()
    page = shown.decode()
    assert '<main id="live">' in page
    assert re.search(r'id="state"[^>]*>ready, 1 of \d+ models left out<', page)
    assert re.search(r'id="since"[^>]*>up for \d+ s, routing mode local<', page)
    assert "<img" not in page
    cells = {unescape(cell) for cell in re.findall(r"<td[^>]*>([^<]*)</td>", page)}
    assert {
        HOSTILE,
        "a/m1",
        "code",
        "completed",
        "cut (idle_timeout)",
        "a/m2:skipped_circuit",
        "2.5 s",
        "40 ms",
        "open (server_error), again in 4 min",
    } <= cells
