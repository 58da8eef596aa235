"""Fields of any kind: what a client wrote wrongly is for the provider to refuse, and never breaks the way there."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.wire.chat import ChatRequest, parse_chat
from tests.wire.providers.dialects import ADAPTERS, make_chat, make_target
from tests.wire.providers.test_documented import SAMPLES

_PARAMETERS = {
    "type": "object", "properties": {"a": {"type": "string", "format": "date"}}, "anyOf": [{"properties": {"b": {}}}],
}  # fmt: skip
_FUNCTION = {"name": "f", "description": "d", "parameters": _PARAMETERS, "strict": True}
_ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "f"}}]}}
_FIELDS: dict[str, Any] = {name: value for name, (value, _) in SAMPLES.items()} | {
    "tools": [{"type": "function", "function": _FUNCTION}],
    "tool_choice": _ALLOWED,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": _PARAMETERS}},
}
_ODD = st.sampled_from([None, True, -1, 1.5, "", "x", "auto", [], [[]], [None], [{}], {}, {"a": 1}, {"type": None}])


@st.composite
def _spoilt(draw: st.DrawFn, value: Any) -> Any:
    """`value` with something odd in one place of it, at any depth."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        return {**value, name: draw(_spoilt(value[name]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        return [draw(_spoilt(value[0])), *value[1:]]
    return draw(_ODD)


def _send(dialect: str, chat: ChatRequest) -> bytes:
    adapter, target = ADAPTERS[dialect], make_target(dialect)
    adapter.misfit(chat)
    return adapter.call(chat, target).body


@pytest.mark.parametrize("dialect", ADAPTERS)
@given(st.data())
@settings(deadline=None)
def test_a_field_of_any_kind_can_be_sent(dialect: str, data: st.DataObject) -> None:
    """No exception, whichever field holds something that it should not."""
    offered = _FIELDS if data.draw(st.booleans()) else {name: _FIELDS[name] for name in ("tools", "tool_choice")}
    name = data.draw(st.sampled_from(sorted(offered)))
    fields = {**offered, name: data.draw(_spoilt(offered[name]))}
    assert isinstance(orjson.loads(_send(dialect, make_chat(**fields))), dict)


@pytest.mark.parametrize("dialect", ADAPTERS)
@pytest.mark.parametrize("sign", [b"", b"-"])
def test_numbers_beyond_every_measure_can_be_sent(dialect: str, sign: bytes) -> None:
    """A body that only the slow parser reads may hold integers that no floating number is."""
    names = (b"temperature", b"top_p", b"top_k", b"min_p", b"seed", b"max_tokens", b"presence_penalty", b"n")
    numbers = b",".join(b'"%s":%s1%s' % (name, sign, b"0" * 400) for name in names)
    assert _send(dialect, parse_chat(b'{"model":"a/b","messages":[{"role":"user","content":"\\ud800"}],%s}' % numbers))


@pytest.mark.parametrize("dialect", ADAPTERS)
@pytest.mark.parametrize("content", [b'{"a":"\\ud83d"}', b"100000000000000000000"])
def test_content_that_the_quick_writer_refuses_can_be_sent(dialect: str, content: bytes) -> None:
    """Half a surrogate pair and numbers without end are JSON too, also where content is no text."""
    assert _send(dialect, parse_chat(b'{"model":"a/b","messages":[{"role":"user","content":%s}]}' % content))
