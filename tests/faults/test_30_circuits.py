"""Circuits: what opens them, who may probe, how they come back, and that nobody can use them as a weapon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.faults.circuits import BROKEN, open_circuit, open_circuits, served_by
from tests.support.chunks import DONE, answer, error, finish, role, text
from tests.support.client import Answer, Connection
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, Script, hang, healthy, plain, reply, stream
from tests.support.waiting import PATIENCE, until

Own = Callable[..., Awaitable[Stage]]
QUICK = {"ROUTER_CIRCUIT_RECOVERY": "1"}


async def test_opens_after_three_in_a_row(stage: Stage) -> None:
    """Three failures in a row open the circuit: the model is skipped and seen as open everywhere."""
    stage.a.script = BROKEN
    for _ in range(6):
        assert await served_by(stage) == "b/m2"
    assert stage.a.count == 3
    assert await open_circuits(stage) == ["a/m1"]
    circuits = (await stage.metrics())["circuit_breaker"]["circuits"]
    assert "a/m1" in circuits
    assert "a/m1" in (await stage.router.ask("GET", "/circuit-breaker")).body.decode()


async def test_an_outage_is_in_the_log(own: Own) -> None:
    """At the level `warning`, where requests have no lines, an outage has one, however many requests meet it."""
    stage = await own(env={"ROUTER_LOG_LEVEL": "warning"})
    stage.a.script = BROKEN
    for _ in range(6):
        assert await served_by(stage) == "b/m2"
    await until(lambda: "WARNING model a/m1 is left out (server_error); it is tried again in" in stage.router.log())
    assert stage.router.log().count("left out") == 1
    assert "request id" not in stage.router.log()


async def test_who_was_not_asked_is_on_record(stage: Stage) -> None:
    """Log and ledger of a request that nobody could answer name who was not asked and why, and count only who was."""
    before = (await stage.metrics())["failovers"]
    stage.a.script = BROKEN
    for _ in range(3):
        assert (await stage.chat("a/m1")).status == 503
    answer = await stage.chat("a/m1")
    assert (answer.status, answer.header("x-router-attempts"), stage.a.count) == (503, "0", 3)
    record = await stage.record(answer)
    assert record["attempts"] == [{"model": "a/m1", "kind": "skipped_circuit", "status": None, "ms": 0}]
    assert record["attempt_count"] == 0
    await until(lambda: " attempts=0(a/m1:skipped_circuit) " in stage.router.log())
    text = await stage.router.ask("GET", "/metrics", headers={"Accept": "text/plain"})
    assert b"skipped" not in text.body
    assert (await stage.metrics())["failovers"] == before


async def test_a_whole_answer_resets_the_row(stage: Stage) -> None:
    """Only failures in a row count: one whole answer starts the row anew."""
    for script in (BROKEN, BROKEN, healthy, BROKEN, BROKEN, healthy):
        stage.a.script = script
        await stage.chat("router/ab")
    assert stage.a.count == 6
    assert await open_circuits(stage) == []


async def test_a_commit_alone_does_not_reset_the_row(stage: Stage) -> None:
    """A stream that commits and is cut is a failure: it does not end a row, it belongs to it."""
    for script in (BROKEN, stream([role(), text("a")], end="reset"), BROKEN):
        stage.a.script = script
        await stage.chat("router/ab")
        await stage.turns()
    assert await open_circuits(stage) == ["a/m1"]


async def test_circuits_are_per_model(stage: Stage) -> None:
    """A model's server errors leave the provider's other models alone."""
    stage.a.scripts = {"m1": BROKEN, "m2": healthy}
    for _ in range(4):
        assert await served_by(stage, "router/aab") == "a/m2"
    assert await open_circuits(stage) == ["a/m1"]


COUNTED: dict[str, Script] = {
    "500": BROKEN,
    "502": reply(502, b""),
    "503": reply(503, b""),
    "529": reply(529, b""),
    "408": reply(408, b""),
    "fake_200": reply(200, b"{}"),
    "error_200": reply(200, error("x")),
    "empty": stream([role(), finish(), DONE]),
    "cut": stream([role(), text("x")], end="reset"),
    "redirect": reply(302, b"", {"Location": "/x"}),
}


@pytest.mark.parametrize("name", COUNTED)
async def test_what_counts(stage: Stage, name: str) -> None:
    """Timeouts, 408, 5xx, 529, fake 200s and cuts count for the circuit."""
    stage.a.script = COUNTED[name]
    for _ in range(4):
        await stage.chat("router/ab")
        await stage.turns()
    assert stage.a.count == 3


NOT_COUNTED: dict[str, tuple[Script, dict[str, Any]]] = {
    "400": (reply(400, error("bad request")), {}),
    "413": (reply(413, error("too large")), {}),
    "422": (reply(422, error("unprocessable")), {}),
    "context": (reply(400, error("too long", "context_length_exceeded")), {}),
    "unsupported": (reply(400, error("Unsupported parameter: 'x'", "unsupported_parameter")), {}),
    "moderation": (reply(403, error("flagged by moderation", 403, metadata={"reasons": ["x"]})), {}),
    "never_fits": (reply(429, error("Request too large for m1: Limit 30000", "rate_limit_exceeded")), {}),
    "name_of_a_tool": (reply(400, error("Invalid schema for function 'get_billing_info'")), {}),
    "link": (reply(400, error("Image https://example.org/models/a.png not found")), {}),
    "value": (reply(400, error("[{'msg': 'Input should be a list', 'input': 'my API key expired'}]")), {}),
    "expired_file": (reply(403, error("You do not have permission to access the File k3x or it may not exist.")), {}),
    "max_tokens_1": (stream([role(), finish("stop"), DONE]), {"max_tokens": 1}),
    "length": (stream([role(), finish("length"), DONE]), {"max_tokens": 1}),
    "stop_set": (stream([role(), finish("stop"), DONE]), {"stop": ["a"]}),
}


@pytest.mark.parametrize("name", NOT_COUNTED)
async def test_a_circuit_is_no_weapon(stage: Stage, name: str) -> None:
    """No request of one client takes a model from the others: its mistakes, refusals and limits do not count."""
    stage.a.script, fields = NOT_COUNTED[name]
    await asyncio.gather(*(stage.chat("router/ab", **fields) for _ in range(12)))
    assert stage.a.count == 12
    stage.a.script = healthy
    assert await served_by(stage) == "a/m1"
    assert await open_circuits(stage) == []


async def test_a_client_that_does_not_read_is_no_failure(stage: Stage) -> None:
    """Clients that stop reading and leave do not count against the model."""
    flood = [role(), *(text("x" * 8000) for _ in range(2000)), finish(), DONE]
    stage.a.script = stream(flood)
    stalled = [await stage.router.open_chat("router/ab", receive_buffer=4096) for _ in range(5)]
    await stage.a.wait_for(5)
    await asyncio.sleep(1.6)
    for connection in stalled:
        connection.reset()
    await asyncio.sleep(0.2)
    stage.a.script = healthy
    assert await served_by(stage) == "a/m1"


async def test_a_rate_limit_is_no_failure(own: Own) -> None:
    """429 cools a model down and does not open its circuit, however often."""
    stage = await own()
    for _ in range(4):
        stage.a.script = reply(429, error("slow down"), {"Retry-After": "0.1"})
        await stage.chat("router/ab")
        await asyncio.sleep(0.2)
    stage.a.script = healthy
    assert await served_by(stage) == "a/m1"


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_credentials_open_the_whole_provider(stage: Stage, status: int) -> None:
    """401, 402 and 403 open the provider at once: its other models are not asked with the same key."""
    stage.a.script = reply(status, error("your account", "account"))
    assert await served_by(stage, "router/aab") == "b/m2"
    assert await served_by(stage, "router/aab") == "b/m2"
    assert stage.a.count == 1
    got = await stage.chat("a/m2")
    assert got.status == 503
    assert got.header("retry-after")


@pytest.mark.parametrize("which", ["a/m1", "a/m2", "all"])
async def test_a_reset_lets_go_of_the_provider(stage: Stage, which: str) -> None:
    """A reset of one model lets go of its provider too."""
    stage.a.script = reply(401, error("no"))
    await stage.chat("router/aab")
    stage.a.script = healthy
    assert await served_by(stage, "router/aab") == "b/m2"
    path = "/circuit-breaker/reset-all" if which == "all" else f"/circuit-breaker/reset/{which}"
    got = await stage.router.ask("POST", path)
    assert (got.status, type(got.json())) == (200, dict)
    assert await served_by(stage, "router/aab") == "a/m1"


async def test_connection_failures_count_per_provider(stage: Stage) -> None:
    """A provider that refuses connections is left alone as a whole after three of them; log and client learn why."""
    await stage.a.stop()
    for _ in range(2):
        assert await served_by(stage, "router/aab") == "b/m2"
    why = "(connect_error: the upstream could not be reached: connection refused)"
    await until(lambda: f"WARNING provider a is left out {why}; it is tried again in" in stage.router.log())
    assert f"the circuit of a is open {why}" in (await stage.chat("a/m1")).json()["error"]["message"]
    stage.a.script = healthy
    await stage.a.start()
    assert await served_by(stage, "router/aab") == "b/m2"
    assert stage.a.count == 0


async def test_a_model_that_is_gone_opens_at_once(stage: Stage) -> None:
    """404 of a chain's model opens its circuit with the first answer."""
    stage.a.script = reply(404, error("no such model", "model_not_found"))
    assert await served_by(stage) == "b/m2"
    assert await served_by(stage) == "b/m2"
    assert stage.a.count == 1


async def test_an_explicit_model_obeys_its_circuit(stage: Stage) -> None:
    """An explicit model whose circuit is open is a 503 with Retry-After, asks nobody and is never replaced."""
    await open_circuit(stage)
    got = await stage.chat("a/m1")
    assert (got.status, stage.a.count, stage.b.count) == (503, 3, 3)
    assert 0 < int(got.header("retry-after") or "0") <= 300


@pytest.mark.parametrize("form", ["raw", "encoded", "double"])
async def test_reset_of_an_id_with_slashes(stage: Stage, form: str) -> None:
    """Ids with slashes are reset raw and percent-encoded."""
    model = "a/deep/path/model:free"
    stage.a.script = BROKEN
    for _ in range(3):
        await stage.chat(model)
    assert model in await open_circuits(stage)
    shown = {"raw": model, "encoded": "a%2Fdeep%2Fpath%2Fmodel%3Afree", "double": "a%2Fdeep/path%2fmodel:free"}[form]
    got = await stage.router.ask("POST", f"/circuit-breaker/reset/{shown}")
    assert got.status == 200
    assert await open_circuits(stage) == []
    stage.a.script = healthy
    assert (await stage.chat(model)).status == 200


async def test_reset_of_a_model_without_a_circuit(stage: Stage) -> None:
    """A reset of a model that has no circuit is 200 too."""
    assert (await stage.router.ask("POST", "/circuit-breaker/reset/b/never-seen")).status == 200


async def test_half_open_success_closes(own: Own) -> None:
    """After the recovery time live traffic probes; a success closes the circuit for everybody."""
    stage = await own(env=QUICK)
    await open_circuit(stage)
    assert await served_by(stage) == "b/m2"
    await asyncio.sleep(1.1)
    assert await served_by(stage) == "a/m1"
    assert await served_by(stage) == "a/m1"
    assert await open_circuits(stage) == []


async def test_half_open_failure_opens_again(own: Own) -> None:
    """A failed probe opens the circuit at once for another recovery time; its client got the next model."""
    stage = await own(env=QUICK)
    await open_circuit(stage)
    await asyncio.sleep(1.1)
    stage.a.script = BROKEN
    assert await served_by(stage) == "b/m2"
    assert stage.a.count == 4
    stage.a.script = healthy
    assert await served_by(stage) == "b/m2"
    assert stage.a.count == 4


async def test_one_probe_at_a_time(own: Own) -> None:
    """A half-open circuit hands out one permit: thirty requests at once cause one probe."""
    stage = await own(env=QUICK)
    await open_circuit(stage)
    await asyncio.sleep(1.1)

    async def slow(exchange: Exchange) -> None:
        await stage.b.wait_for(3 + 29)
        await stream(answer("slow"))(exchange)

    stage.a.script = slow
    got = await asyncio.gather(*(stage.chat("router/ab") for _ in range(30)))
    assert stage.a.count == 4
    assert sorted(one.text for one in got) == ["Hello from upstream"] * 29 + ["slow"]


async def test_a_commit_frees_the_permit(own: Own) -> None:
    """The probe's commit closes the circuit: others use the model while the probe's stream goes on."""
    stage = await own(env=QUICK)
    await open_circuit(stage)
    await asyncio.sleep(1.1)

    async def long(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(text("a"))
        await asyncio.sleep(0.8)
        await exchange.body(finish() + DONE)
        await exchange.finish()

    stage.a.script = long
    connection = await stage.router.open_chat("router/ab")
    await connection.answer(3, until=lambda got: bool(got.body))
    await stage.router.agree()
    assert await served_by(stage, until=lambda got: bool(got.body)) == "a/m1"
    connection.close()


@pytest.mark.parametrize("script", [hang, plain("x")], ids=["waiting", "whole"])
async def test_a_probe_whose_client_leaves_frees_its_permit(own: Own, script: Script) -> None:
    """A client that leaves while it probes neither closes the circuit nor locks it."""
    stage = await own(env=QUICK)
    await open_circuit(stage)
    await asyncio.sleep(1.1)
    stage.a.script = hang
    connection = await stage.router.open_chat("router/ab")
    await stage.a.wait_for(4)
    connection.reset()
    await until(lambda: stage.a.last.closed_at is not None)
    await stage.turns()
    stage.a.script = healthy
    assert await served_by(stage) == "a/m1"


async def test_all_open_is_a_fast_clear_error(stage: Stage) -> None:
    """All open by failures: 503 at once, at most one probe a second, and everyone is invited to be the next one."""
    stage.a.script = stage.b.script = BROKEN
    for _ in range(3):
        await stage.chat("router/ab")
    started = time.monotonic()
    got = await asyncio.gather(*(stage.chat("router/ab") for _ in range(20)))
    spent = time.monotonic() - started
    assert {one.status for one in got} == {503}
    assert {(one.header("retry-after"), one.header("x-should-retry")) for one in got} == {("1", None)}
    assert all(one.error["code"] == "all_candidates_failed" for one in got)
    assert stage.a.count + stage.b.count <= 6 + 1 + spent


async def test_nobody_is_invited_to_models_that_are_gone(stage: Stage) -> None:
    """Models that their providers do not know will hardly be known in a second: a retry is discouraged."""
    stage.a.script = stage.b.script = reply(404, error("no such model"))
    for _ in range(2):
        got = await stage.chat("router/ab")
        assert (got.status, got.header("x-should-retry")) == (503, "false")
        assert int(got.header("retry-after") or "0") > 1


async def test_all_open_recovers_through_the_probe(stage: Stage) -> None:
    """The one that recovers soonest may be probed once a second, so an outage ends when the provider is back."""
    stage.a.script = stage.b.script = BROKEN
    for _ in range(3):
        await stage.chat("router/ab")
    stage.a.script = stage.b.script = healthy
    deadline = time.monotonic() + PATIENCE
    while (got := await stage.chat("router/ab")).status != 200:
        assert time.monotonic() < deadline, "nobody was probed"
        await asyncio.sleep(0.1)
    assert got.text == "Hello from upstream"


async def test_a_chain_is_probed_once_a_second_as_a_whole(stage: Stage) -> None:
    """A failed probe makes another model the first to recover; that one has to wait for its second all the same."""
    stage.a.script = stage.b.script = BROKEN
    for _ in range(3):
        await stage.chat("router/ab")
    opened, started = stage.a.count + stage.b.count, time.monotonic()
    while stage.a.count + stage.b.count < opened + 3:
        assert time.monotonic() - started < PATIENCE, "nobody was probed"
        await stage.chat("router/ab")
        await asyncio.sleep(0.02)
    assert time.monotonic() - started > 1.9


async def probed(stage: Stage, model: str, script: Script) -> Answer:
    """The answer to the request that probes a chain whose circuits are all open; by then upstreams do `script`."""
    stage.a.script = stage.b.script = BROKEN
    for _ in range(3):
        await stage.chat(model)
    stage.a.script = stage.b.script = script
    asked, deadline = stage.a.count + stage.b.count, time.monotonic() + PATIENCE
    while True:
        got = await stage.chat(model)
        if stage.a.count + stage.b.count > asked:
            return got
        assert time.monotonic() < deadline, "nobody was probed"
        await asyncio.sleep(0.1)


async def test_a_probe_that_failed_is_named_once(stage: Stage) -> None:
    """The model that was probed early stands among the attempts as what it did, not as skipped beside it."""
    got = await probed(stage, "router/ab", BROKEN)
    assert (got.status, got.header("x-router-attempts")) == (503, "1")
    assert sorted(entry["model"] for entry in got.error["attempts"]) == ["a/m1", "b/m2"]


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (reply(400, error("too long", code="context_length_exceeded")), 400, "context_length_exceeded"),
        (reply(429, error("slow down"), {"Retry-After": "7"}), 429, "rate_limit_exceeded"),
    ],
)
async def test_a_probes_word_is_the_answer(stage: Stage, script: Script, status: int, code: str) -> None:
    """What the only model of a chain says when it is probed early reaches the client as it would without a circuit."""
    got = await probed(stage, "router/only", script)
    assert (got.status, got.error["code"]) == (status, code)


async def test_the_threshold_is_a_setting(own: Own) -> None:
    """`circuit_breaker` of the file sets threshold and recovery."""
    stage = await own(circuit_breaker={"failure_threshold": 1, "recovery_timeout_sec": 1})
    stage.a.script = BROKEN
    await stage.chat("router/ab")
    await stage.chat("router/ab")
    assert stage.a.count == 1
    await asyncio.sleep(1.1)
    await stage.chat("router/ab")
    assert stage.a.count == 2


async def test_an_idle_connection_is_no_failure(stage: Stage) -> None:
    """Connections that are opened and closed without a request count for nobody."""
    for _ in range(10):
        connection = await Connection.open(stage.router.port)
        connection.reset()
    assert await served_by(stage) == "a/m1"


async def test_every_chain_has_its_own_circuits_but_one_model_one(stage: Stage) -> None:
    """A circuit belongs to the model: opened by one category it is skipped in all of them."""
    await open_circuit(stage, "router/ab")
    assert await served_by(stage, "router/abc") == "b/m2"
    assert stage.a.count == 3


@pytest.mark.parametrize("how", ["refused", "credentials"])
async def test_a_provider_comes_back(own: Own, how: str) -> None:
    """A provider that was opened as a whole is probed by live traffic after the recovery time and serves again."""
    stage = await own(env=QUICK)
    if how == "refused":
        await stage.a.stop()
        for _ in range(3):
            assert await served_by(stage, "router/aab") == "b/m2"
        await stage.a.start()
    else:
        stage.a.script = reply(401, error("no"))
        assert await served_by(stage, "router/aab") == "b/m2"
        stage.a.script = healthy
    assert await served_by(stage, "router/aab") == "b/m2"
    await asyncio.sleep(1.2)

    async def is_back() -> bool:
        return await served_by(stage, "router/aab") == "a/m1"

    # The first one probes; other workers may hear of that before they hear what came of it.
    await until(is_back, 5.0)


async def test_a_dead_provider_costs_one_probe(own: Own) -> None:
    """Thirty requests at once after the recovery time send one probe to a provider that still refuses its key."""
    stage = await own(env=QUICK)
    stage.a.script = reply(401, error("no"), delay=0.3)
    assert await served_by(stage, "router/aab") == "b/m2"
    await asyncio.sleep(1.2)
    got = await asyncio.gather(*(stage.chat("router/aab") for _ in range(30)))
    assert {one.header("x-router-model") for one in got} == {"b/m2"}
    assert stage.a.count <= 3  # one for the provider, or one for each of its two models
