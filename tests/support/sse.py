"""A reader of server-sent events of its own, to the letter of the WHATWG grammar (not lenient, unlike the router's)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event: its type ("message" unless an `event:` field said otherwise) and its data."""

    type: str
    data: str


def lines(text: str) -> list[str]:
    """The lines of `text`, which end with CRLF, LF or a lone CR; an unfinished last line is left out."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    return unified.split("\n")[:-1]


def read(body: bytes) -> list[Event]:
    """The events that a browser would dispatch; what is not ended by a blank line is dropped, as the grammar says."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    events: list[Event] = []
    kind, data = "", []
    for line in lines(text):
        if not line:
            if data:
                events.append(Event(kind or "message", "\n".join(data)))
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
    return events


def unfinished(body: bytes) -> bytes:
    """What stands behind the last blank line: bytes that no reader will ever see as an event."""
    text = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text.rpartition(b"\n\n")[2] if b"\n\n" in text else text
