"""Where requests with tools go: always to `tools`, or where the person's own words belong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.faults.conftest import Stage

Own = Callable[..., Awaitable[Stage]]

MODELS = {"conversation": ["a/talk"], "code": ["a/dumb", "a/code"], "reasoning": ["a/think"], "tools": ["b/tools"]}
DUMB = {"a/dumb": {"tools": False}}
TOOLS = [{"type": "function", "function": {"name": "read_file", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "read_file", "arguments": "{}"}}
CODE = [{"role": "user", "content": "Fix this Python traceback: KeyError in load()"}]
LOOP = [
    *CODE,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "def load(): ..."},
]
NEXT = [*LOOP, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "and in rust?"}]
TALK = [{"role": "user", "content": "Good morning, how are you?"}]


async def went(stage: Stage, messages: list[dict[str, Any]]) -> tuple[str | None, str | None]:
    """Model and category of a request with tools."""
    answer = await stage.chat("router", messages=messages, tools=TOOLS)
    assert answer.status == 200, answer.raw
    return answer.header("x-router-model"), answer.header("x-router-category")


async def test_tools_always_lead_to_their_category(own: Own) -> None:
    """By default the words do not matter where tools are offered."""
    stage = await own(models=MODELS, prices=DUMB)
    for messages in (TALK, CODE, LOOP, NEXT):
        assert await went(stage, messages) == ("b/tools", "tools")


async def test_by_task_the_words_decide(own: Own) -> None:
    """A turn goes where its task belongs, to models that call tools; the middle of a tool loop stays in `tools`."""
    stage = await own(models=MODELS, prices=DUMB, tools_routing="by_task")
    assert await went(stage, TALK) == ("a/talk", "conversation")
    assert await went(stage, CODE) == ("a/code", "code")
    assert await went(stage, LOOP) == ("b/tools", "tools")
    assert await went(stage, NEXT) == ("a/code", "code")
    assert "a/dumb" not in {f"a/{exchange.request.json()['model']}" for exchange in stage.a.exchanges}


async def test_by_task_a_list_of_models_is_the_chain(own: Own) -> None:
    """The client's own chain, too, is asked without the models that cannot call tools."""
    stage = await own(models=MODELS, prices=DUMB, tools_routing="by_task")
    answer = await stage.chat("router", messages=CODE, tools=TOOLS, models=["a/dumb", "b/other"])
    assert (answer.header("x-router-model"), answer.header("x-router-mode")) == ("b/other", "models")
