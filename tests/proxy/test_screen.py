"""Behind the commit point: what ends an answer is seen, and nothing else is looked at closely."""

from __future__ import annotations

import pytest

from llm_router.proxy import gate
from llm_router.proxy import screen as screening
from llm_router.proxy.gate import Gate, Verdict
from llm_router.proxy.screen import Screened, finished_choices, is_plain, screen

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def test_screen_stops_at_done_and_at_errors() -> None:
    """After the commit point nothing behind [DONE] or an error event passes."""
    done = screen(TEXT + DONE + b": late\n\n")
    assert (done.passed, done.done) == (TEXT + DONE, True)
    cut = screen(TEXT + b'data: {"error":{"message":"x"}}\n\n' + TEXT)
    assert cut.passed == TEXT
    assert cut.error is not None
    assert cut.error.message == "x"


@pytest.mark.parametrize("bare", [b'{"error":{"message":"x"}}', b'[{\n  "error": {"message": "x"}\n}]\r'])
def test_screen_stops_at_an_error_without_a_field_name(bare: bytes) -> None:
    """JSON between the events, as Google's servers write it, is read like an error event; other JSON is not."""
    cut = screen(TEXT + bare + b"\n\n" + TEXT)
    assert cut.passed == TEXT
    assert cut.error is not None
    assert cut.error.message == "x"
    other = TEXT + bare.replace(b'"error"', b'"note":"\\"error\\"","y"') + b"\n\n"
    assert screen(other) == Screened(other)


@pytest.mark.parametrize(
    "before", [b"", STOP, TEXT, b": ping\n\n", TEXT.replace(b"Hi", b"[DONE]"), b"data: x\n\n" + STOP]
)
@pytest.mark.parametrize("behind", [b"", b": late\n\n", DONE, TEXT + DONE, b"data: [DONE]\r\n\r\n"])
@pytest.mark.parametrize(
    "done", [DONE, b"id: 1\n" + DONE, b": bye\ndata:[DONE]\n\n", b"data: [DONE]\r\n\r\n", b"data: [DONE]\r\r"]
)
def test_screen_ends_at_the_first_done(before: bytes, done: bytes, behind: bytes) -> None:
    """Whatever stands before it and behind it, the first event that says so is the end, however it is written."""
    assert screen(before + done + behind) == Screened(before + done, done=True)


@pytest.mark.parametrize("unit", [b"\r", b"\r\n", b"data: {}\r\n\r\n"])
def test_screen_cuts_nothing_up_that_can_hold_no_end(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank lines without end, or a stream of other line ends, must not hold up the streams beside it."""
    monkeypatch.setattr(screening, "raw_events", None)
    block = unit * 1000
    assert screen(block) == Screened(block)


@pytest.mark.parametrize("end", [b": [DONE]\n\n", b"id: [DONE]\n\n", b"data: x [DONE]\n\n"])
def test_a_done_that_is_no_datas_is_none(end: bytes) -> None:
    """A comment, an id or a text may end with the word."""
    assert screen(TEXT + end) == Screened(TEXT + end)


def test_screen_lets_the_words_pass() -> None:
    """Text that merely talks about errors or [DONE] is untouched, and so is a broken event."""
    block = b'data: {"choices":[{"delta":{"content":"say \\"error\\" or [DONE]"}}]}\n\ndata: {"error": broken\n\n'
    assert screen(block).passed == block


@pytest.mark.parametrize(
    "odd",
    [
        b'"a\tb sk-1"',
        b'"a\x01b sk-1"',
        b'"sk-1","weight":NaN',
        b'"sk-1","weight":1e999',
        b'"a\t\\ud83d sk-1"',
        b'"a\tsk-1","weight":' + b"9" * 30,
    ],
)
def test_an_error_is_one_though_its_json_is_careless(odd: bytes) -> None:
    """A tab in its words, or a number that JSON has not, must not carry a key past the masking."""
    error = b'{"error": {"message": ' + odd + b"}}\n\n"
    for event in (b"data: " + error, error):
        screened = screen(TEXT + event)
        assert screened.passed == TEXT
        assert screened.error is not None
        assert "sk-1" in screened.error.message


def test_every_choice_must_finish() -> None:
    """With n=2 one finished choice is half an answer."""
    one = b'data: {"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}\n\n'
    assert finished_choices([one, TEXT], 1)
    assert not finished_choices([one, TEXT], 2)
    assert finished_choices([STOP, one, TEXT], 2)


@pytest.mark.parametrize("choices", [b'[null,5,{"finish_reason":"stop"}]', b'{"finish_reason":"stop"}', b"null"])
def test_choices_of_any_shape_are_looked_through(choices: bytes) -> None:
    """What is no list of objects has finished nothing, and stops nobody from looking on."""
    block = b'data: {"choices":' + choices + b',"more":{"finish_reason":"stop"}}\n\n'
    assert finished_choices([block], 1) is choices.startswith(b"[")
    assert finished_choices([block, STOP], 1)


@pytest.mark.parametrize("space", [b"", b" ", b"\ndata: ", b" \t "])
def test_a_finish_is_found_however_it_is_spaced(space: bytes) -> None:
    """JSON may have white space around a colon, and an event may be of several lines."""
    assert finished_choices([STOP.replace(b'"finish_reason":', b'"finish_reason"' + space + b":" + space)], 1)
    assert not finished_choices([TEXT.replace(b'"finish_reason":', b'"finish_reason"' + space + b":" + space)], 1)
    assert not finished_choices([TEXT.replace(b'"Hi"', b'"say \\"finish_reason\\": \\"stop\\""')], 1)


def test_a_long_answer_that_was_cut_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chunk of it says that nothing has finished: to read megabytes of that would hold all other streams up."""
    monkeypatch.setattr(screening, "iter_events", None)
    assert not finished_choices([TEXT, TEXT.replace(b":null", b": null"), ROLE * 3], 1)


@pytest.mark.parametrize("blank", [b"\r\r", b"\r\n\r\n", b"\n\n", b"\r\n\r", b"\n\r"])
@pytest.mark.parametrize("second", [b"data: [DONE]", b"event: error\ndata: {}", b'data: {"error": {}}'])
@pytest.mark.parametrize("text", [b"", b"x" * 5000], ids=["short", "long"])
def test_no_line_end_hides_an_event_behind_another(blank: bytes, second: bytes, text: bytes) -> None:
    """Whatever ends its lines, an event that needs a closer look is not passed on as one line of text."""
    assert not is_plain(b'data: {"choices": [], "x": "' + text + b'"}' + blank + second + b"\n\n")


@pytest.mark.parametrize("text", [b"", b"x" * 5000], ids=["short", "long"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n", b"\n\n"])
def test_nearly_all_events_are_plain(text: bytes, end: bytes) -> None:
    """One event or several, whole and of plain line feeds."""
    event = b'data: {"choices": [], "x": "' + text + b'"}' + end
    assert is_plain(event) is (end == b"\n\n")
    assert is_plain(event + event) is (end == b"\n\n")


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_event_of_values_without_end_is_not_parsed(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes of empty lists take a second and hundreds of megabytes to parse, and say nothing; an image is read."""
    monkeypatch.setattr(gate, "_MOST_VALUES", 1000)
    monkeypatch.setattr(gate, "_BIG_BYTES", 4000)
    lists = b'data: {"choices":[{"delta":{"content":"x"}}],"error":[' + b"[]," * 2000 + b"[]]}\n\n"
    image = b'data: {"choices":[{"delta":{"content":"' + b"A" * 5000 + b'"}}]}\n\n'
    if where == "before":
        assert Gate().feed(lists) is Verdict.HOLD
        assert Gate().feed(image) is Verdict.COMMIT
    else:
        assert screen(lists) == Screened(lists)
        assert screen(image.replace(b'"choices"', b'"error":"no","choices"')).error is not None
