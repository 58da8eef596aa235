"""The access log: one line per request that nobody can forge, without anything that was said."""

import re

import orjson
import pytest

from llm_router.accounting.access_log import AccessLog, json_line, text_lines
from llm_router.accounting.booking import Attempt
from tests.accounting.conftest import settled


def text_line(record):
    return text_lines([record])


def test_a_line_of_text():
    """Request, category, model, attempts, status, times, tokens and cost stand in one line, in a fixed order."""
    assert text_line(settled(started=1_795_000_000.0, total_ms=1234.5)) == (
        "2026-11-18T11:06:41.234Z request id=r-1 category=conversation model=openai/m outcome=completed status=200 "
        "attempts=1 first_byte_ms=5 ms=1234 in=12 out=3 cost_usd=0.000018 cost_source=provider_usage\n"
    )


def test_failed_attempts_are_named():
    """A request that failed over says where and why."""
    attempts = (Attempt("openai/a", "rate_limited", 429, 3), Attempt("openai/m", "ok", 200, 4))
    assert " attempts=2(openai/a:rate_limited,openai/m:ok) " in text_line(settled(attempts=attempts))


def test_a_failure_is_named():
    """A request that no candidate could take says so, even where nobody was asked."""
    one = settled(model="", outcome="failed", status=503, failure="all_candidates_failed", answer=[], attempts=())
    assert " outcome=failed status=503 failure=all_candidates_failed attempts=0 " in text_line(one)
    read = orjson.loads(json_line(one))
    assert (read["failure"], read["level"]) == ("all_candidates_failed", "info")


def test_who_was_not_asked_is_named_and_not_counted():
    """Where nobody answered the line says of each model whether it failed or what kept it out."""
    attempts = (Attempt("a/m", "server_error", 500, 3), Attempt("b/m", "skipped_circuit", None, 0))
    one = settled(model="", outcome="failed", answer=[], attempts=attempts)
    assert " attempts=1(a/m:server_error,b/m:skipped_circuit) " in text_line(one)
    assert orjson.loads(json_line(one))["attempts"] == ["a/m:server_error", "b/m:skipped_circuit"]


def test_what_is_unknown_is_a_dash_and_never_0():
    """No model, no times, no price: dashes in text, nulls in JSON."""
    one = settled(model="", outcome="failed", answer=[], first_byte_ms=None, attempts=())
    assert " model=- outcome=failed status=200 attempts=0 " in text_line(one)
    assert " attempts=0 first_byte_ms=- " in text_line(one)
    unknown = settled(price_info=None)
    assert " cost_usd=- cost_source=-\n" in text_line(unknown)
    assert orjson.loads(json_line(unknown))["cost_usd"] is None


def test_a_line_of_json():
    """The same as one object."""
    line = json_line(settled(started=1000.0))
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    read = orjson.loads(line)
    assert (read["event"], read["request_id"], read["status"], read["attempts"]) == (
        "request", "r-1", 200, ["openai/m:ok"],
    )  # fmt: skip
    assert (read["input_tokens"], read["cost_usd"], read["time"]) == (12, 18e-6, "1970-01-01T00:16:40.007+00:00")


@pytest.mark.parametrize(
    "name",
    [
        "openai/x\nforged request id=evil",
        "openai/\x1b[31mred",
        "a b=c",
        'q"uote\\',
        "\u2028line",
        "\ud800",
        "東京",
        "\x00",
        "\x85",
    ],
)
@pytest.mark.parametrize("write", [text_line, json_line])
def test_names_cannot_forge_or_break_a_line(name, write):
    """Newlines, escapes of terminals, spaces and equal signs in a name stay inside its field."""
    attempts = (Attempt(name, "server_error", 500, 1), Attempt("openai/m", "ok", 200, 1))
    line = write(settled(model=name, category=name, attempts=attempts))
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert line.isascii() or write is json_line
    assert not set(line[:-1]) & {chr(code) for code in (*range(32), 127)}
    if write is text_line:
        assert len(line.split(" ")) == 14
        assert "id=evil" not in line.split(" ")


def test_nothing_that_was_said_is_logged():
    """Prompts, answers and the client's hash stay out."""
    one = settled(client="0badc0de")
    for line in (text_line(one), json_line(one)):
        assert not any(secret in line for secret in ("Say hello", "Hello there", "0badc0de"))


def test_a_batch_is_one_write():
    """The sink joins the lines of a batch, in the form that is asked for."""
    written = []
    log = AccessLog(written.append)
    log([settled(), settled()])
    log.form = "json"
    log([settled()])
    assert len(written) == 2
    assert written[0].count("\n") == 2
    assert written[1].startswith("{")


@pytest.mark.parametrize(
    "request_id",
    [
        "req_65a1b2c3d4e5f607",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "a:b.c-d_e",
        "x y",
        "id=evil",
        "é",
        "²",
        "",
        "a\n",
    ],
)
def test_ids_stay_inside_their_field(request_id):
    """Ids as we and clients make them are written as they are; whatever else came to be one is escaped."""
    line = text_line(settled(request_id=request_id))
    (field,) = [word for word in line.split(" ") if word.startswith("id=")]
    sane = re.fullmatch(r"[A-Za-z0-9._:-]+", request_id)
    assert field == f"id={request_id}" if sane else re.fullmatch(r"id=[!-<>-~]+", field)
    assert len(line.split()) == 14


def test_a_line_ends_when_its_request_did():
    """The time is the end of the request, with leading zeros in its milliseconds, also across a second's end."""
    assert text_line(settled(started=1000.0)).startswith("1970-01-01T00:16:40.007Z ")
    assert text_line(settled(started=1000.9, total_ms=155.0)).startswith("1970-01-01T00:16:41.055Z ")
    assert text_line(settled(started=1000.999, total_ms=1.0)).startswith("1970-01-01T00:16:41.000Z ")
    assert text_line(settled(started=0.0)).startswith("1970-01-01T00:00:00.007Z ")


def test_the_lines_of_a_batch_have_their_own_times():
    """Lines of one second, of the next and of one before stand together, each with the moment of its own end."""
    starts = (1000.0, 1000.25, 1000.9925, 1000.993, 1002.0, 1000.5, 0.0)
    lines = text_lines([settled(started=start) for start in starts]).splitlines()
    assert [line[17:24] for line in lines] == [
        "40.007Z",
        "40.257Z",
        "40.999Z",
        "41.000Z",
        "42.007Z",
        "40.507Z",
        "00.007Z",
    ]
    assert lines == [text_line(settled(started=start)).rstrip() for start in starts]
