"""What agents and front ends wrap around a person's words, and how to find the words again.

Everything here is bounded string work: a megabyte of injected context is skipped by `str.find`, never by a regular
expression over the whole text.
"""

from __future__ import annotations

import re
from functools import lru_cache

_ROUNDS = 16  # blocks removed from one end of one message; more than that is no wrapper that we know
_WINDOW = 8_192  # characters at either end that are searched for what programs put there

# Blocks that only a program writes. A message that holds nothing else says nothing.
_INJECTED = frozenset(
    {
        "system-reminder", "system_reminder", "environment_details", "environment_context", "user_instructions",
        "system_warning", "local-command-stdout", "local-command-stderr", "local-command-caveat", "command-message",
        "command-args", "command-name", "additional_data", "attached_files", "open_and_recently_viewed_files",
        "editor_context", "ide_selection", "ide_opened_file", "reminderinstructions", "reminder_instructions",
        "workspace_info", "workspaceinfo", "environmentinfo", "environment_info", "editorcontext", "session_context",
        "user_info", "project_layout", "git_status", "rules", "always_applied_workspace_rules", "available_skills",
        "recent_files_context", "chat_history", "custom_instructions", "relevant_memories", "relevant-memories",
        "project_context", "system_info", "turn_aborted", "permissions", "current_datetime",
    }
)  # fmt: skip
# Blocks of which people may also paste the like: removed only where other words remain.
_PROBABLY_INJECTED = re.compile(
    r"[\w:.-]*(?:reminder|context|environment|attachment|metadata|instructions|memor(?:y|ies)|background|workspace"
    r"|diagnostics|open_tabs|documents|search_results|sources|files|history)[\w:.-]*\Z",
    re.IGNORECASE,
)
# Blocks that hold what the person said.
_SPOKEN = (
    "user_query", "userRequest", "user_request", "user_message", "user_input", "user-message", "task", "feedback",
    "new_task", "question", "query", "user_prompt", "answer",
)  # fmt: skip

_TAG = re.compile(r"<([A-Za-z][\w:.-]{1,48})(?:\s[^<>]{0,200})?>")
_CLOSING = re.compile(r"</([A-Za-z][\w:.-]{1,48})>\s*\Z")
_SPACE = re.compile(r"\s*")
_STAMP = re.compile(
    r"\[(?:[^\[\]\n]{0,80}?\s)?\d{4}-\d\d-\d\d[T ]\d\d:\d\d[^\[\]\n]{0,30}\]\s*"  # [Mon 2026-11-23 01:43 UTC]
    r"|\[(?:WhatsApp|Telegram|Discord|Slack|Signal|iMessage|WebChat|Teams|Matrix|IRC|Email|SMS)\b[^\[\]\n]{0,160}\]\s*"
    r"|\[Queued user message [^\[\]\n]{0,200}\]\s*"
    r"|\[Current message[^\[\]\n]{0,80}\]\s*"
    r"|\[message_id:[^\[\]\n]{0,80}\]\s*"
    r"|\[\[[\w:.-]{1,40}\]\]\s*"
    r"|System: \[[^\]\n]{0,60}\][^\n]*\n\s*"
    r"|(?:Conversation info|Sender|Thread starter|Replied message|Chat history since last reply)"
    r" \(untrusted[^)\n]{0,60}\):\s*```(?:json)?\n[^`]{0,4000}```\s*",
    re.IGNORECASE,
)
# Lines about the machine and the moment, as some agents put them before the words.
_LINE = (
    r"(?:current |active |today'?s )?(?:working directory|cwd|git branch|branch|recent files|open files?|open tabs|file"
    r"|platform|operating system|os|shell|date|time|timestamp|time ?zone|workspace|session|agent|channel|locale)"
    r"\s?[:=] ?[^\n]{0,300}\n"
)
_ENVIRONMENT = re.compile(rf"(?:{_LINE}){{2,64}}\s*|{_LINE}\s*\n\s*", re.IGNORECASE)
# A paragraph that begins so was appended by a program: it and all that follows is not the person's.
_TAILS = (
    "\n\nRuntime: agent=",
    "\nContinue the current task from the existing transcript",
    "\nIMPORTANT: this context may or may not be relevant",
    "\n# *SEARCH/REPLACE block* Rules",
    "\n# File editing rules:",
    "\nTo suggest changes to a file you MUST return",
    "\nYou are diligent and tireless!",
    "\n[message_id:",
    "\n### Chat History:",
    "\n<environment_details>",
    "\n# Reminder: Instructions for Tool Use",
    "\n\n(The user has not provided any additional context",
)
# A first look for any of them: few lines go on with one of these characters. It may take what is none of them for one.
_ANY_TAIL = re.compile(
    f"\n[{re.escape(''.join([tail[1] for tail in _TAILS]))}](?:{'|'.join([re.escape(tail[2:]) for tail in _TAILS])})"
)
_BLOCKS = (
    ("<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>", "<<<END_OPENCLAW_INTERNAL_CONTEXT>>>"),
    ("[Chat messages since your last reply", "[Current message - respond to this]"),
    ("# Context from my IDE setup:", "## My request for Codex:"),
    ("Here are the files the user has attached", "\n\n"),
)
_WHOLE = (  # messages that a program wrote from end to end
    "I have *added these files to the chat*",
    "Here are summaries of some files present in my git repo",
    "Here are *read-only* files",
    "I switched to a new code base.",
    "Continue the current task from the existing transcript",
    "[TASK RESUMPTION]",
    "[ERROR] You did not use a tool in your previous response",
    "Caveat: The messages below were generated by the user while running local commands",
    "This is the Gemini CLI. We are setting up the context for our chat.",
    "This session is being continued from a previous conversation that ran out of context",
    "# AGENTS.md instructions",
    "[Request interrupted by user",
    "Pre-compaction memory flush",
)


_REMEMBERED = 8192  # characters; longer texts are read anew each time


def own_words(text: str) -> str:
    """The person's words in one user text, without what programs put around them; empty if there are none."""
    return _known_words(text) if len(text) <= _REMEMBERED else _find_words(text)


@lru_cache(maxsize=1024)
def _known_words(text: str) -> str:
    # Every request of a conversation brings its earlier texts again.
    return _find_words(text)


def _find_words(text: str) -> str:
    spoken = _spoken(text)
    if spoken is not None:
        text = spoken
    rest, probable = _without_head(text)
    if rest.startswith(_WHOLE):
        return ""
    rest = _without_tail(rest)
    if not rest and probable:
        return text.strip()
    return rest


def _spoken(text: str) -> str | None:
    """The inside of the last block that marks the person's words, where the text has one near either end."""
    if not _closes(text, max(0, len(text) - _WINDOW), len(text)) and not _closes(text, 0, _WINDOW):
        return None
    for part in (text,) if len(text) <= 2 * _WINDOW else (text[-_WINDOW:], text[:_WINDOW]):
        for name in _SPOKEN:
            close = part.rfind(f"</{name}>")
            if close < 0:
                continue
            opening = part.rfind(f"<{name}>", 0, close)
            if opening >= 0 and (inner := part[opening + len(name) + 2 : close].strip()):
                return inner
    return None


def _closes(text: str, start: int, end: int) -> bool:
    """Whether a tag is closed here; the one character is found much quicker than the two."""
    at = text.find("<", start, end)
    return at >= 0 and text.find("</", at, end) >= 0


def _without_head(text: str) -> tuple[str, bool]:
    """Drop injected blocks, stamps and envelopes at the start; also whether one of them was only probably injected."""
    start, probable = 0, False
    for _ in range(_ROUNDS):
        start = _end_of_space(text, start)
        if stamp := _STAMP.match(text, start):
            start = stamp.end()
            continue
        if lines := _ENVIRONMENT.match(text, start):
            start, probable = lines.end(), True
            continue
        after = _end_of_block(text, start)
        if after is None:
            tag = _TAG.match(text, start)
            if tag is None:
                break
            known = tag[1].lower() in _INJECTED
            if not known and not _PROBABLY_INJECTED.match(tag[1]):
                break
            after = text.find(f"</{tag[1]}>", tag.end())
            if after < 0:
                break
            after += len(tag[1]) + 3
            probable = probable or not known
        start = after
    return text[start:] if start else text, probable


def _end_of_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


def _end_of_block(text: str, start: int) -> int | None:
    """Where a marked block that begins here ends."""
    for opening, closing in _BLOCKS:
        if text.startswith(opening, start) and (end := text.find(closing, start + len(opening))) >= 0:
            return end + len(closing)
    return None


def _without_tail(text: str) -> str:
    """Drop what programs append: runtime lines, edit rules, closing blocks."""
    if _ANY_TAIL.search(text, max(0, len(text) - _WINDOW)):
        for marker in _TAILS:
            at = text.find(marker, max(0, len(text) - _WINDOW))
            if at >= 0:
                text = text[:at]
    text = text.rstrip()
    for _ in range(_ROUNDS):
        closing = _CLOSING.search(text, max(0, len(text) - 64))
        if closing is None:
            break
        name = closing[1]
        if name.lower() not in _INJECTED and not _PROBABLY_INJECTED.match(name):
            break
        opening = text.rfind(f"<{name}", 0, closing.start())
        if opening <= 0 or not (before := text[:opening].rstrip()):
            return text if name.lower() not in _INJECTED else ""
        text = before
    return text.removesuffix("[[reply_to_current]]").rstrip() if text.endswith("]]") else text
