"""One line per settled request, as text or JSON: what happened, how long it took, what it cost. Never what was said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Final, Literal

import orjson

from llm_router.accounting.booking import Attempt, Kind, LedgerRecord

# What could break a line, forge one, or drive a terminal; spaces too, since they part the fields.
_UNSAFE: Final = re.compile(r"[^!#-<>-\[\]-~]")

# Milliseconds as the log writes them: to look one up takes a third of the time of formatting it.
_FRACTIONS: Final = [f".{number:03d}" for number in range(1000)]

# What a line of text says of a record, read in one step.
_written: Final = itemgetter(
    *map(
        LedgerRecord._fields.index,
        (
            "request_id",
            "started",
            "first_byte_ms",
            "total_ms",
            "input_tokens",
            "output_tokens",
            "cost_usd",
            "attempts",
            "kind",
        ),
    )
)


class AccessLog:
    """A sink of the bookkeeper that writes through `write`, one call per batch. Errors of `write` end with it."""

    def __init__(self, write: Callable[[str], object], form: Literal["text", "json"] = "text") -> None:
        self._write = write
        self.form = form

    def __repr__(self) -> str:
        return f"<AccessLog {self.form}>"

    def __call__(self, batch: Sequence[LedgerRecord]) -> None:
        """Writes the lines of settled requests."""
        self._write("".join(map(json_line, batch)) if self.form == "json" else text_lines(batch))


def text_lines(records: Iterable[LedgerRecord]) -> str:
    """`time request key=value ...`, the keys always in the same order; a dash stands for what is unknown.

    `failure` is there where there was one.
    """
    lines = []
    kinds: dict[Kind, tuple[str, str]] = {}
    # The second in which the line before ended, as a line begins, and the milliseconds up to it.
    second, passed = "", -1000
    for request_id, started, first_byte_ms, total_ms, inputs, outputs, cost, attempts, kind in map(_written, records):
        ended = _ended(started, total_ms)
        if not 0 <= ended - passed < 1000:
            second, passed = _second(ended // 1000), ended // 1000 * 1000
        known = kinds.get(kind)
        if known is None:
            known = kinds[kind] = (_what(kind), kind.cost_source or "-")
        what, source = known
        lines.append(
            f"{second}{_FRACTIONS[ended - passed]}Z request id={_safe_id(request_id)} {what} "
            f"attempts={_attempts(attempts, kind.attempt_count)} "
            f"first_byte_ms={'-' if first_byte_ms is None else round(first_byte_ms)} "
            f"ms={'-' if total_ms is None else round(total_ms)} "
            f"in={'-' if inputs is None else inputs} out={'-' if outputs is None else outputs} "
            f"cost_usd={'-' if cost is None else _dollars(cost)} cost_source={source}\n"
        )
    return "".join(lines)


def _what(kind: Kind) -> str:
    what = f"category={_safe(kind.category)} model={_safe(kind.model)} outcome={kind.outcome} status={kind.status}"
    return f"{what} failure={_safe(kind.failure)}" if kind.failure else what


def json_line(record: LedgerRecord) -> str:
    """The same as one JSON object."""
    kind = record.kind
    second, milliseconds = divmod(_ended(record.started, record.total_ms), 1000)
    line = {
        "time": f"{_second(second)}{_FRACTIONS[milliseconds]}+00:00",
        "level": "info",
        "event": "request",
        "request_id": record.request_id,
        "category": kind.category,
        "model": kind.model or None,
        "outcome": kind.outcome,
        "status": kind.status,
        "failure": kind.failure,
        "attempts": [f"{attempt.model}:{attempt.kind}" for attempt in record.attempts],
        "first_byte_ms": record.first_byte_ms,
        "ms": record.total_ms,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "cost_usd": record.cost_usd,
        "cost_source": kind.cost_source,
    }
    try:
        text = orjson.dumps(line).decode()
    except TypeError:  # a lone surrogate in a name
        text = ""
    # Beyond ASCII there are more characters that some readers take for the end of a line.
    return f"{text if text.isascii() and text else json.dumps(line)}\n"


def _ended(started: float, total_ms: float | None) -> int:
    """When the request was over, in milliseconds."""
    return int(started * 1000 + (total_ms or 0.0))


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    """A whole second in UTC, as the other lines of the log write it; many requests end in each."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:-6]


def _attempts(attempts: Sequence[Attempt], made: int) -> str:
    if len(attempts) == 1 and attempts[0][1] == "ok":
        return "1"
    kinds = ",".join(f"{_safe(attempt.model)}:{attempt.kind}" for attempt in attempts)
    return f"{made}({kinds})" if attempts else "0"


def _safe_id(request_id: str) -> str:
    """Identifiers, as our own ids are, need no search; and no id comes twice, so none is remembered."""
    return request_id if request_id.isidentifier() and request_id.isascii() else _escaped(request_id)


@lru_cache(maxsize=512)
def _safe(name: str) -> str:
    return _escaped(name)


def _escaped(text: str) -> str:
    return _UNSAFE.sub(_escape, text) or "-"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode() if found[0] not in ' "=\\' else f"\\x{ord(found[0]):02x}"


def _dollars(cost: float) -> str:
    return f"{cost:.8f}".rstrip("0").rstrip(".")
