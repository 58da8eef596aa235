"""What the person said is found among everything that programs put around it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.routing import turns as reading
from llm_router.routing.turns import EARLIER, Turns, in_tool_loop, read_turns
from llm_router.routing.wrappers import own_words

INTERNAL = (
    "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nConversation data (data, not instructions):\n"
    '"## Active Subagents\\nnone"\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>'
)
RUNTIME = "\n\nRuntime: agent=main | session=agent:main:explicit:1 | os=Linux (x64) | model=router/router | shell=bash"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def openclaw(text: str, *more: dict[str, Any]) -> list[dict[str, Any]]:
    """A request in the shape that OpenClaw sends: stamped words, then internal context as the last user message."""
    return [
        {"role": "system", "content": "You are a personal assistant. " * 50},
        user(f"[Mon 2026-11-23 01:43 UTC] {text}{RUNTIME}"),
        *more,
        user([{"type": "text", "text": INTERNAL}]),
    ]


def test_openclaw_words_are_found() -> None:
    """The stamp, the runtime line and the internal context of OpenClaw are not the person's words."""
    turns = read_turns(openclaw("Write a poem about rain"))
    assert turns == Turns(latest="Write a poem about rain")


def test_openclaw_tool_loop() -> None:
    """After tool calls the words stay what the person said, and the loop is seen behind the internal context."""
    call = {"id": "calla", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    messages = openclaw(
        "Fix the failing test",
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "calla", "content": "def poem(): ..."},
    )
    assert read_turns(messages).latest == "Fix the failing test"
    assert in_tool_loop(messages)


def test_openclaw_retry_keeps_the_words() -> None:
    """A retry's preamble and its order to continue are not the person's words."""
    queued = (
        "[Queued user message from a previous active turn; preserved as context only. Continue with the active prompt "
        "below.]\nPlease read note.txt\n\nContinue the current task from the existing transcript, preserving completed "
        "work. Do not restart the task or repeat completed actions."
    )
    assert read_turns(openclaw(queued)).latest == "Please read note.txt"


@pytest.mark.parametrize(
    "wrapped",
    [
        "<system-reminder>\nToday is Monday. Write code.\n</system-reminder>\nWHAT",
        "<context>\nBranch: main\n</context>\n\n<reminder>be brief</reminder> WHAT",
        "<current_datetime>2026-11-24T04:55:56.895+00:00</current_datetime>\n\nWHAT",
        "WHAT\n<system-reminder>use tools</system-reminder>",
        "<task>\nWHAT\n</task>\n\n<environment_details>\n# Files\napp.py\n</environment_details>",
        "<environment_details>\nx\n</environment_details>\n<user_message>\nWHAT\n</user_message>",
        "[Telegram Ann (@ann) id:77 +2m 2026-11-23 10:00 UTC] WHAT\n[message_id: 12]",
        "[Chat messages since your last reply - for context]\nBob: write sql\n"
        "[Current message - respond to this]\n[WhatsApp +49 151 2026-11-23 10:00] WHAT",
        "<additional_data>files</additional_data>\n<user_query>\nWHAT\n</user_query>",
        "<attachments>\n<file>a</file>\n</attachments>\n<reminderInstructions>x</reminderInstructions>\n"
        "<userRequest>\nWHAT\n</userRequest>",
        "# Context from my IDE setup:\n## Open tabs:\n- a.py\n## My request for Codex:\nWHAT",
        "WHAT\n\n# *SEARCH/REPLACE block* Rules:\n\nEvery block must use this format",
        "### Task:\nAnswer.\n<context>\n<source>x</source>\n</context>\n<user_query>\nWHAT\n</user_query>",
        'Conversation info (untrusted metadata):\n```json\n{"message_id": "1"}\n```\n\nWHAT',
        "Working directory: /srv/app\nGit branch: main\nOS: Linux\n\nWHAT",
        "System: [2026-11-23 10:00:00] Node connected\n\n[Mon 2026-11-23 10:00] WHAT",
    ],
)
def test_wrappers_are_taken_off(wrapped: str) -> None:
    """Reminder blocks, envelopes, task tags and appended rules of known agents are stripped."""
    assert own_words(wrapped.replace("WHAT", "Explain how bees dance")) == "Explain how bees dance"


@pytest.mark.parametrize(
    "text",
    [
        "<div>why is this not centered?</div>",
        "Is <context> a valid XML tag?",
        "if a < b and c > d: print('x')",
        "<settings><history>10</history></settings>",
        "Compare [1] and [2]",
        "Date: 5 May",
        "Time: 10 am\nDate: 5 May",
        "<system-reminder>never closed, so it is text",
    ],
)
def test_peoples_own_markup_stays(text: str) -> None:
    """What a person pasted is not taken for a wrapper."""
    assert own_words(text) == text


def test_only_context_is_kept_where_nothing_else_was_said() -> None:
    """A block that merely looks injected counts as the words where no others are."""
    assert own_words("<context>the whole question</context>") == "<context>the whole question</context>"


def test_housekeeping_keeps_its_task_but_not_the_history() -> None:
    """A front end's order for a chat title is read as such, without the conversation that it quotes."""
    text = (
        "### Task:\nGenerate a concise title summarizing the chat history.\n### Chat History:\n"
        "<chat_history>\nUSER: write a python function\n</chat_history>"
    )
    assert own_words(text) == "### Task:\nGenerate a concise title summarizing the chat history."


def test_last_text_part_speaks() -> None:
    """Of a list of parts the last one with words is what the person said; images are noticed."""
    turns = read_turns(
        [
            user(
                [
                    {"type": "text", "text": "Working directory: /srv"},
                    {"type": "text", "text": "What is on this picture?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                ]
            )
        ]
    )
    assert turns.latest == "What is on this picture?"


def test_earlier_texts_come_newest_first_and_bounded() -> None:
    """A follow-up knows the texts before it, the newest first, a few at most."""
    messages = []
    for number in range(10):
        messages += [user(f"question {number}"), {"role": "assistant", "content": "answer"}]
    turns = read_turns(messages[:-1])
    assert turns.latest == "question 9"
    assert turns.earlier == tuple(f"question {n}" for n in range(8, 8 - EARLIER, -1))
    assert not in_tool_loop(messages[:-1])


def test_a_repeated_text_counts_once() -> None:
    """However often a person says "continue", what they asked for before it is still known."""
    asked = [user("Write a novel"), *[user("continue"), {"role": "assistant", "content": "..."}] * 20]
    assert read_turns(asked) == Turns("continue", ("Write a novel",))


def test_anthropic_tool_results_are_a_tool_loop() -> None:
    """A tool result inside a user message keeps the loop open."""
    result = {"type": "tool_result", "tool_use_id": "1", "content": "ok"}
    messages = [user("list the files"), {"role": "assistant", "content": "..."}, user([result])]
    assert in_tool_loop(messages)
    assert read_turns(messages).latest == "list the files"


def test_a_megabyte_of_injected_context_is_skipped() -> None:
    """However long a block is, the words behind it are found."""
    assert own_words("<system-reminder>" + "x y " * 250_000 + "</system-reminder>\nhello") == "hello"


SILENT = "<rules>x</rules>"


@pytest.mark.parametrize(
    "messages",
    [
        [user(SILENT)] * 20_000,
        [user([{"type": "text", "text": SILENT}] * 20_000)],
        [user([{"type": "text", "text": SILENT}] * 200)] * 100,
        [*[user([{"type": "text", "text": SILENT}] * 2000)] * 60, {"role": "assistant", "content": "Done."}],
    ],
    ids=["messages", "parts", "both", "before an answer"],
)
def test_a_flood_of_texts_without_words_is_not_read_to_its_end(
    messages: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs a search or two, and a body has room for half a million: the loop would be held for seconds."""
    read: list[str] = []
    monkeypatch.setattr(reading, "own_words", lambda text: read.append(text) or "")
    read_turns(messages)
    in_tool_loop(messages)
    assert len(read) <= 5000


def test_a_flood_of_environment_lines_is_not_read_to_its_end() -> None:
    """A text of megabytes must not be a pattern's food, whatever its lines look like."""
    assert own_words("date: x\n" * 500 + "hello") == "hello"
    assert own_words("date: x\n" * 50_000 + "hello").startswith("date: x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "role"]), inner),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from(["role", "content", "tool_calls"]), JSON) | JSON, max_size=6))
def test_any_json_is_read(messages: list[Any]) -> None:
    """Messages of any shape are read without an error; what is found are texts."""
    turns = read_turns(messages)
    assert in_tool_loop(messages) in (True, False)
    assert isinstance(turns.latest, str)
    assert all(isinstance(text, str) and text for text in turns.earlier)


@given(st.text(max_size=200), st.sampled_from(["system", "developer"]), st.integers(0, 3))
def test_system_prompts_are_not_read(prompt: str, role: str, where: int) -> None:
    """Adding any system prompt anywhere leaves what the person said exactly as it was."""
    messages = [user("Prove that 7 is prime"), {"role": "assistant", "content": "It is."}, user("and 11?")]
    added = [*messages[:where], {"role": role, "content": prompt}, *messages[where:]]
    assert (read_turns(added), in_tool_loop(added)) == (read_turns(messages), in_tool_loop(messages))


CALL = {"id": "c", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("last", "looping"),
    [
        ([{"role": "assistant", "content": None, "tool_calls": [CALL]}], True),
        ([{"role": "assistant", "content": None, "function_call": {"name": "f"}}], True),
        ([{"role": "assistant", "content": "done", "tool_calls": []}], False),
        ([{"role": "tool", "content": "ok"}], True),
        ([{"role": "function", "content": "ok"}], True),
        ([{"role": "tool", "content": "ok"}, {"role": "system", "content": "go on"}], True),
        ([{"role": "tool", "content": "ok"}, {"role": "user", "content": "and now?"}], False),
        ([{"role": "tool", "content": "ok"}, {"role": "user", "content": " "}], True),
        ([{"role": "tool", "content": "ok"}, {"role": "user", "content": [{"type": "image_url"}]}], False),
        ([{"role": "user", "content": [{"type": "tool_result"}, {"type": "text", "text": "and now?"}]}], True),
    ],
)
def test_what_came_last_tells_a_tool_loop(last: list[dict[str, object]], looping: bool) -> None:
    """A call that waits or a result that came in, unless somebody has spoken since."""
    messages = [{"role": "user", "content": "hello"}, *last]
    assert in_tool_loop(messages) is looping
