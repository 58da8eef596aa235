"""`check --live`: each model is asked for a short answer, and what came of it is told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from llm_router import shipped
from llm_router.accounting.pricing import PriceTable
from llm_router.commands import live
from llm_router.config.loading import load
from tests.commands.conftest import KEY, Run
from tests.support.router import keep_port
from tests.support.upstream import Upstream, plain, raw, reply


def test_check_live_for_programs(run: Run) -> None:
    """Each model that was asked is there with its answer or its problem, and nothing but JSON on standard output."""
    chains = {name: ["openai/gpt-4o"] for name in ("tools", "code", "reasoning", "conversation")}
    Path("router_config.json").write_text(json.dumps({"model_mappings": chains}))
    with keep_port() as nobody:
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        code, out, err = run("check", "--live", "--format", "json", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=address)
    (asked,) = json.loads(out)["live"]
    assert (code, asked["model"], asked["optional"]) == (1, "openai/gpt-4o", False)
    assert asked["problem"].startswith("connect_error")
    assert err == "llm-router: asking 1 model for a short answer ...\n"


async def test_check_live_asks_each_model_once() -> None:
    """Each configured model is asked for a short answer; a failing one is told with its reason, without its key."""
    good, bad = Upstream(), Upstream()
    good.script = plain("pong")
    bad.script = reply(401, {"error": {"message": f"bad key {KEY}"}})
    await good.start()
    await bad.start()
    content = {
        "model_mappings": {
            name: ["a/m1", "b/m2", "openai/x"] for name in ("tools", "code", "reasoning", "conversation")
        },
        "providers": {
            "a": {"base_url": f"http://127.0.0.1:{good.port}/v1"},
            "b": {"base_url": f"http://127.0.0.1:{bad.port}/v1", "api_key_env": "B"},
        },
    }
    snapshot = load({"B": KEY}, {}, json.dumps(content).encode(), "f")
    models = list(live.askable(snapshot))
    prices = PriceTable.parse(shipped.prices(), {})
    try:
        outcomes = await live._ask_all(snapshot, prices, models)
    finally:
        await good.stop()
        await bad.stop()
    assert models == ["a/m1", "b/m2"]
    assert [(each.model, each.answer) for each in outcomes] == [("a/m1", "pong"), ("b/m2", "")]
    assert outcomes[0].result == "ok"
    assert outcomes[1].result.startswith("authentication: ")
    assert KEY not in outcomes[1].result
    assert len(good.exchanges) == len(bad.exchanges) == 1
    assert good.exchanges[0].request.json()["model"] == "m1"


@pytest.mark.parametrize(
    ("said", "end", "kind"),
    [(b"", "reset", "connection_lost"), (b"SSH-2.0-OpenSSH_9.2\r\n", "fin", "protocol_error")],
)
async def test_check_live_names_a_failure_as_the_router_does(said: bytes, end: Any, kind: str) -> None:
    """What broke on the way has the word that log, metrics and attempts have for it."""
    upstream = Upstream()
    upstream.script = raw(said, end)
    await upstream.start()
    content = {"providers": {"a": {"base_url": f"http://127.0.0.1:{upstream.port}/v1"}}}
    snapshot = load({}, {}, json.dumps(content).encode(), "f")
    prices = PriceTable.parse(shipped.prices(), {})
    try:
        (outcome,) = await live._ask_all(snapshot, prices, ["a/m1"])
    finally:
        await upstream.stop()
    assert outcome.result.startswith(f"{kind}: ")


def test_what_a_model_says_drives_no_terminal() -> None:
    """Escapes and marks of direction in an answer or an error are shown as what they are not."""
    assert live._one_line("a\x1b]0;x\x07 \x9b31m\u202eb\nc", 60) == "a?]0;x? ?31m?b c"


def test_check_live_with_nobody_to_ask_is_no_success(run: Run) -> None:
    """A script that waits for a working router does not go on where no model could even be asked."""
    chains = {name: ["openai/gpt-4o"] for name in ("tools", "code", "reasoning", "conversation")}
    Path("router_config.json").write_text(json.dumps({"model_mappings": chains}))
    code, out, _ = run("check", "--live")
    assert code == 1
    assert out.endswith("There is no model to ask: no provider of the chains has a key.\n")


def test_check_live_forgives_an_ollama_that_nobody_named(run: Run) -> None:
    """Ollama as the last resort of default chains may be absent; one that was named may not."""
    default = load({}, {}, None, "f")
    named = load({}, {}, b'{"model_mappings": {"code": ["ollama/mine"]}}', "f")
    placed = load({"OLLAMA_BASE_URL": "http://10.0.0.2:11434"}, {}, None, "f")
    assert live._is_optional(default, default.categories["code"].models[-1])
    assert not live._is_optional(named, "ollama/mine")
    assert not live._is_optional(placed, placed.categories["code"].models[-1])
    assert (
        live.ShortAnswer("ollama/x", 1.0, problem="connect_error", optional=True).result == "connect_error (optional)"
    )
    chains = {name: ["ollama/nosuch-model"] for name in ("tools", "code", "reasoning", "conversation")}
    Path("router_config.json").write_text(json.dumps({"model_mappings": chains}))
    code, out, _ = run("check", "--live", OLLAMA_BASE_URL="http://127.0.0.1:9")
    assert code == 1
    assert "connect_error" in out


_GOOD = live.ShortAnswer("openai/a", 1.0, "pong")
_BAD = live.ShortAnswer("openai/b", 1.0, problem="authentication: no")
_ABSENT = live.ShortAnswer("ollama/x", 1.0, problem="connect_error: refused", optional=True)


@pytest.mark.parametrize(
    ("outcomes", "code"), [([], 1), ([_GOOD], 0), ([_GOOD, _ABSENT], 0), ([_GOOD, _BAD, _ABSENT], 1), ([_ABSENT], 1)]
)
def test_success_is_an_answer_and_no_failure_of_who_was_named(outcomes: list[live.ShortAnswer], code: int) -> None:
    """A last resort may be absent beside an answer; where nobody answered at all nothing works."""
    assert live.exit_code(outcomes) == code


def test_a_long_problem_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    """The table has the beginning; the whole stands below it, once for all models that met it."""
    problem = "authentication: " + "the terms have to be accepted " * 10 + "in the console"
    live.print_answers([live.ShortAnswer(f"a/m{number}", 1.0, problem=problem) for number in (1, 2)])
    table, _, below = capsys.readouterr().out.partition("\nIn full\n")
    assert max(map(len, table.splitlines())) < 150
    assert below == f"a/m1, a/m2: {problem}\n"
    live.print_answers([live.ShortAnswer("a/m1", 1.0, problem="authentication: no")])
    assert "In full" not in capsys.readouterr().out


async def test_what_was_said_fits_its_column() -> None:
    """A long answer is cut, and says so; an address that only leads elsewhere is no answer."""
    talker, mover = Upstream(), Upstream()
    talker.script = plain("word " * 100)
    mover.script = reply(302, b"", {"Location": "http://elsewhere.example/"})
    content: dict[str, Any] = {"providers": {}}
    for name, upstream in (("a", talker), ("b", mover)):
        await upstream.start()
        content["providers"][name] = {"base_url": f"http://127.0.0.1:{upstream.port}/v1"}
    snapshot = load({}, {}, json.dumps(content).encode(), "f")
    prices = PriceTable.parse(shipped.prices(), {})
    try:
        long, moved = await live._ask_all(snapshot, prices, ["a/m1", "b/m2"])
    finally:
        await talker.stop()
        await mover.stop()
    assert long.answer == ("word " * 100)[:57] + "..."
    assert moved.result.startswith("redirect: ")


async def test_some_models_are_asked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, eight of them at most are being asked at once."""
    running, most = 0, 0

    async def ask(*_: Any) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return "pong"

    monkeypatch.setattr(live, "_ask", ask)
    snapshot = load({}, {}, None, "f")
    models = [f"ollama/m{number}" for number in range(30)]
    outcomes = await live._ask_all(snapshot, PriceTable.parse(b"{}", {}), models)
    assert ([each.model for each in outcomes], most) == (models, 8)
