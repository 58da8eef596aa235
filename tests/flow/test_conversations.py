"""Conversations that stay on the model that served them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.faults.conftest import Stage
from tests.support.chunks import answer
from tests.support.upstream import healthy, reply, stream

Own = Callable[..., Awaitable[Stage]]

CHAIN = ["a/m1", "b/m2"]
MODELS = dict.fromkeys(("tools", "code", "reasoning", "conversation"), CHAIN)
FIRST = [{"role": "user", "content": "Good morning, how are you?"}]
SECOND = [*FIRST, {"role": "assistant", "content": "Fine."}, {"role": "user", "content": "And your family?"}]
BROKEN = reply(500, {"error": {"message": "broken"}})


async def served(stage: Stage, messages: list[dict[str, Any]], **more: Any) -> tuple[str | None, str | None]:
    """Model and mode of the answer to one more request."""
    answer = await stage.chat("router", messages=messages, **more)
    assert answer.status == 200, answer.raw
    return answer.header("x-router-model"), answer.header("x-router-mode")


async def test_a_conversation_stays_after_a_failover(own: Own) -> None:
    """The second turn goes to the model that served the first, though the chain's head is healthy again."""
    stage = await own(models=MODELS)
    stage.a.script = BROKEN
    assert await served(stage, FIRST) == ("b/m2", "local")
    stage.a.script = healthy
    assert await served(stage, SECOND) == ("b/m2", "sticky")


async def test_a_new_conversation_is_planned_afresh(own: Own) -> None:
    """A request without an assistant turn starts at the head of the chain, even with the same first words."""
    stage = await own(models=MODELS)
    stage.a.script = BROKEN
    await served(stage, FIRST)
    stage.a.script = healthy
    assert await served(stage, FIRST) == ("a/m1", "local")


async def test_it_leaves_a_model_that_failed(own: Own) -> None:
    """When its model fails the conversation moves on, and stays where it then was served."""
    stage = await own(models=MODELS)
    await served(stage, FIRST)
    assert (await served(stage, SECOND))[0] == "a/m1"
    stage.a.script = BROKEN
    assert (await served(stage, SECOND))[0] == "b/m2"
    stage.a.script = healthy
    assert (await served(stage, SECOND))[0] == "b/m2"


async def test_it_leaves_a_model_that_failed_with_all_others(own: Own) -> None:
    """Where nobody could answer the next turn is planned afresh: its own model was one of them."""
    stage = await own(models=MODELS)
    stage.a.script = BROKEN
    assert (await served(stage, FIRST))[0] == "b/m2"
    stage.b.script = BROKEN
    assert (await stage.chat("router", messages=SECOND)).status == 503
    stage.a.script = stage.b.script = healthy
    assert await served(stage, SECOND) == ("a/m1", "local")


async def test_it_leaves_no_model_for_a_refusal_of_one_request(own: Own) -> None:
    """What the provider says about the request is nothing against the model."""
    stage = await own(models=MODELS)
    stage.a.script = BROKEN
    await served(stage, FIRST)
    stage.b.script = reply(400, {"error": {"message": "no", "type": "invalid_request_error", "param": "messages"}})
    assert (await stage.chat("router", messages=SECOND)).status == 400
    stage.a.script = stage.b.script = healthy
    assert await served(stage, SECOND) == ("b/m2", "sticky")


async def test_an_answer_that_was_stopped_was_served(own: Own) -> None:
    """Who stops an answer and goes on with what came of it is still with the model that gave it."""
    stage = await own(models=MODELS)
    stage.a.script, stage.b.script = BROKEN, stream(answer("Hello")[:2], end="hang")
    stopped = await stage.chat("router", messages=FIRST, until=lambda answer: b"Hello" in answer.body)
    assert (await stage.record(stopped))["outcome"] == "cancelled"
    stage.a.script = stage.b.script = healthy
    assert await served(stage, SECOND) == ("b/m2", "sticky")


async def test_it_returns_to_a_cheaper_head(own: Own) -> None:
    """The chain's first model gets the conversation back when it is healthy again and costs less."""
    prices = {"a/m1": {"input": 1, "output": 1}, "b/m2": {"input": 5, "output": 5}}
    stage = await own(models=MODELS, prices=prices)
    stage.a.script = BROKEN
    assert (await served(stage, FIRST))[0] == "b/m2"
    stage.a.script = healthy
    assert (await served(stage, SECOND))[0] == "a/m1"


async def test_a_clearly_new_task_changes_the_category(own: Own) -> None:
    """A traceback in the middle of small talk is code, and goes to the chain of code."""
    stage = await own(models={**MODELS, "code": ["b/m2"]})
    await served(stage, FIRST)
    trace = (
        "Fix this:\n```python\nTraceback (most recent call last):\n  File 'x.py', line 3, in f\nKeyError: 'a'\n```\n"
        "def f(d):\n    return d['a']"
    )
    answer = await stage.chat("router", messages=[*SECOND[:-1], {"role": "user", "content": trace}])
    assert answer.header("x-router-category") == "code"
    assert answer.header("x-router-model") == "b/m2"


async def test_sessions_are_told_apart_by_name(own: Own) -> None:
    """`x-session-id` names a conversation: the same words in another session stay on another model."""
    stage = await own(models=MODELS)
    stage.a.script = BROKEN
    await served(stage, FIRST, headers={"x-session-id": "one"})
    stage.a.script = healthy
    await served(stage, FIRST, headers={"x-session-id": "two"})
    assert (await served(stage, SECOND, headers={"x-session-id": "one"}))[0] == "b/m2"
    assert (await served(stage, SECOND, headers={"x-session-id": "two"}))[0] == "a/m1"


async def test_the_user_field_names_no_conversation(own: Own) -> None:
    """One person's two conversations do not pull each other along."""
    stage = await own(models=MODELS)
    stage.a.script = BROKEN
    await served(stage, FIRST, user="ann")
    stage.a.script = healthy
    other = [{"role": "user", "content": "Hello there!"}, *SECOND[1:]]
    assert (await served(stage, other, user="ann"))[0] == "a/m1"


async def test_explain_shows_the_stay(own: Own) -> None:
    """What the next turn would do, and that it stays, is visible without asking anyone."""
    stage = await own(models=MODELS)
    stage.a.script = BROKEN
    await served(stage, FIRST)
    stage.a.script = healthy
    count = stage.b.count
    body = {"model": "router", "messages": SECOND}
    explained = (await stage.router.ask("POST", "/v1/explain", body)).json()
    assert explained["mode"] == "sticky"
    assert [candidate["model"] for candidate in explained["candidates"]] == ["b/m2", "a/m1"]
    assert stage.b.count == count
