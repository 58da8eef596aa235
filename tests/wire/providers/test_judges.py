"""The vendors' own client packages read our recorded answers: the suite must not rest on answers that nobody sends.

And OpenAI's reads what we make of them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import anthropic
import httpx
import httpx2
import ollama
import openai
import pytest
from google import genai
from google.genai import types

from tests.wire.providers.dialects import EXPECTED, KEY, TRANSLATED, stream_path, translate, whole_path


def _names(dialect: str, *left_out: str) -> list[str]:
    return [name for name in sorted(EXPECTED) if name.startswith(f"{dialect}/") and "finish" in EXPECTED[name]
            and name.split("/")[1] not in left_out]  # fmt: skip


def _transport(name: str, kind: str, library: Any = httpx) -> Any:
    """Answers every request with the transcript, whole or streamed as the request's route and body ask."""

    def answer(request: Any) -> Any:
        streamed = "stream" in request.url.path or json.loads(request.content).get("stream", False)
        data = (stream_path(name) if streamed else whole_path(name)).read_bytes()
        return library.Response(200, content=data, headers={"content-type": kind if streamed else "application/json"})

    return library.MockTransport(answer)


def _calls(name: str) -> list[tuple[str, Any]]:
    return [(call[1], call[2]) for call in EXPECTED[name].get("calls", ())]


@pytest.mark.parametrize("name", _names("anthropic"))
def test_anthropics_client_reads_what_we_read(name: str) -> None:
    """Text, calls and usage as Anthropic's own accumulator understands the stream."""
    with httpx2.Client(transport=_transport(name, "text/event-stream", httpx2)) as http:
        client = anthropic.Anthropic(api_key=KEY, http_client=http)
        messages: Any = [{"role": "user", "content": "Hi"}]
        with client.messages.stream(model="m", max_tokens=9, messages=messages) as stream:
            final = stream.get_final_message()
        whole = (
            client.messages.create(model="m", max_tokens=9, messages=messages) if whole_path(name).exists() else final
        )
    for read in (final, whole):
        assert "".join(block.text for block in read.content if block.type == "text") == EXPECTED[name]["text"]
        assert [(block.name, block.input) for block in read.content if block.type == "tool_use"] == _calls(name)
        assert read.usage.output_tokens == EXPECTED[name]["usage"][3]
        assert read.usage.input_tokens == EXPECTED[name]["usage"][0]


@pytest.mark.parametrize("name", _names("google"))
def test_googles_client_reads_what_we_read(name: str) -> None:
    """Text, thoughts, calls and usage as Google's own client understands the chunks."""
    with httpx.Client(transport=_transport(name, "text/event-stream")) as http:
        options = types.HttpOptions(httpx_client=http)
        client = genai.Client(api_key=KEY, http_options=options)
        chunks = list(client.models.generate_content_stream(model="m", contents="Hi"))
        whole = client.models.generate_content(model="m", contents="Hi")
    for read in (chunks, [whole]):
        parts = [part for one in read for candidate in one.candidates or () for part in _parts(candidate)]
        assert "".join(part.text for part in parts if part.text and not part.thought) == EXPECTED[name]["text"]
        thoughts = "".join(part.text for part in parts if part.text and part.thought)
        assert thoughts == EXPECTED[name].get("reasoning", "")
        calls = [(part.function_call.name, part.function_call.args or {}) for part in parts if part.function_call]
        assert calls == _calls(name)
        usage = [one.usage_metadata for one in read if one.usage_metadata][-1]
        assert (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0) == EXPECTED[name]["usage"][3]


def _parts(candidate: types.Candidate) -> list[types.Part]:
    return (candidate.content.parts or []) if candidate.content else []


@pytest.mark.parametrize("name", _names("ollama"))
def test_ollamas_client_reads_what_we_read(name: str) -> None:
    """Text, thinking and calls as Ollama's own client understands the lines."""
    client = ollama.Client(host="http://localhost:11434", transport=_transport(name, "application/x-ndjson"))
    reads = [list(client.chat(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True))]
    if whole_path(name).exists():
        reads.append([client.chat(model="m", messages=[{"role": "user", "content": "Hi"}])])
    for read in reads:
        assert "".join(one.message.content or "" for one in read) == EXPECTED[name]["text"]
        assert "".join(one.message.thinking or "" for one in read) == EXPECTED[name].get("reasoning", "")
        calls = [call.function for one in read for call in one.message.tool_calls or ()]
        assert [(call.name, dict(call.arguments)) for call in calls] == _calls(name)
        assert read[-1].done


@pytest.mark.parametrize("name", [name for dialect in TRANSLATED for name in _names(dialect)])
def test_openais_client_puts_our_chunks_together(name: str) -> None:
    """Its stream helper merges every delta by its own rules, also the fields that it does not know."""
    want, said = EXPECTED[name], translate(name.split("/")[0], stream_path(name).read_bytes())
    answer = httpx2.Response(200, content=said, headers={"content-type": "text/event-stream"})
    with httpx2.Client(transport=httpx2.MockTransport(lambda _: answer)) as http:
        client = openai.OpenAI(api_key=KEY, http_client=http, max_retries=0)
        with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "Hi"}]) as stream:
            refused = (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError)
            with contextlib.suppress(*refused):  # raised at an end that is none for a parsed answer
                stream.until_done()
            (choice,) = stream.current_completion_snapshot.choices
    assert (choice.message.content or "") == want["text"]
    assert choice.finish_reason == want["finish"]
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or ()]
    assert calls == _calls(name)
    extra = choice.message.model_extra or {}
    assert extra.get("reasoning_content", "") == want.get("reasoning", "")
    assert [image["image_url"]["url"] for image in extra.get("images", ())] == want.get("images", [])
