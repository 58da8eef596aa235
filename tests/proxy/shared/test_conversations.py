"""Conversations that workers have in common: what is told, and what is taken over."""

from __future__ import annotations

from llm_router.routing.shared import SharedConversations, StayRow


def test_conversations_tell_what_is_new() -> None:
    """A new stay, a move and a leaving are told; staying is told again only now and then."""
    told: list[StayRow] = []
    mine = SharedConversations(told.append)
    for now in (1000.0, 1001.0, 1002.0):
        mine.served(b"c", "a/m1", "code", now)
    mine.served(b"c", "a/m1", "code", 1100.0)
    mine.served(b"c", "b/m2", "code", 1101.0)
    mine.served(b"c", "b/m2", "tools", 1102.0)
    mine.left(b"c")
    mine.left(b"c")
    assert [(row.model, row.category, row.used) for row in told] == [
        ("a/m1", "code", 1000.0),
        ("a/m1", "code", 1100.0),
        ("b/m2", "code", 1101.0),
        ("b/m2", "tools", 1102.0),
        ("", "", 1102.0),
    ]


def test_conversations_hear_what_is_newer() -> None:
    """What another worker told wins if it is newer, and is not told again."""
    told: list[StayRow] = []
    mine = SharedConversations(told.append)
    mine.hear([StayRow(b"c", "a/m1", "code", 1000.0)])
    stay = mine.find(b"c", 1001.0)
    assert stay is not None
    assert stay.model == "a/m1"
    mine.served(b"c", "b/m2", "code", 1002.0)
    mine.hear([StayRow(b"c", "a/m1", "code", 1001.0), StayRow(b"c", "", "", 1000.0)])
    stay = mine.find(b"c", 1003.0)
    assert stay is not None
    assert stay.model == "b/m2"
    mine.hear([StayRow(b"c", "", "", 1002.0), StayRow(b"unknown", "", "", 1002.0)])
    assert mine.find(b"c", 1003.0) is None
    assert len(told) == 1
