"""The file's bytes: whatever they are, the load gives a snapshot or a ConfigError that names file and place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.config.fields import FileKeyError
from llm_router.config.jsonfile import MAX_BYTES, dump_file, parse_file
from llm_router.config.loading import load
from llm_router.config.values import Snapshot
from llm_router.errors import ConfigError

NAME = "router_config.json"
GOOD = json.dumps(
    {
        "_note": "ü",
        "model_mappings": {"code": ["openai/gpt-4o", "x"], "c": ["groq/m"]},
        "keywords": {"code": ["python"], "c": []},
        "custom_categories": {"c": {"description": "d", "examples": ["e"]}},
        "categories": {"code": {"timeouts": {"first_byte": 90}, "order": "price", "hedge": {"after": "p95"}}},
        "circuit_breaker": {"failure_threshold": 3, "recovery_timeout_sec": 300},
        "providers": {"groq": {"base_url": "https://api.groq.com/openai/v1", "api_key_env": "GROQ_API_KEY"}},
        "prices": {"groq/m": {"input": 0.59, "above": {"threshold": 5, "input": 1}}},
        "timeouts": {"idle": 120},
        "server": {"port": 1},
    },
    ensure_ascii=False,
).encode()

UNREADABLE: list[tuple[str, bytes, str, str]] = [
    ("empty", b"", NAME, "is empty"),
    ("blank", b" \n\t", NAME, "is empty"),
    ("open brace", b"{", f"{NAME}, line 1 column 2", "ends too early"),
    ("cut", GOOD[:100], f"{NAME}, line 1 column", "not valid JSON"),
    ("trailing text", b'{}\n{"a": 1}', f"{NAME}, line 2 column 1", "Extra data"),
    ("trailing comma", b'{\n  "keywords": {},\n}', f"{NAME}, line ", "comma too many"),
    ("comment", b'{\n  // mine\n  "keywords": {}\n}', f"{NAME}, line 2 column 3", "JSON has no comments"),
    ("single quotes", b"{'keywords': {}}", f"{NAME}, line 1 column 2", "double quotes"),
    ("utf-16", '{"keywords": {}}'.encode("utf-16"), NAME, "save it as UTF-8"),
    ("latin-1", '{\n "keywords": {"code": ["ü"]}}'.encode("latin-1"), f"{NAME}, line 2 column 25", "not UTF-8"),
    ("binary", bytes(range(256)), NAME, ""),
    ("zeros", b"\0" * 4096, NAME, "not valid JSON"),
    ("list", b"[1]", NAME, "one JSON object"),
    ("string", b'"text"', NAME, "one JSON object"),
    ("number", b"7", NAME, "one JSON object"),
    ("null", b"null", NAME, "one JSON object"),
    ("nan", b'{"timeouts": {"idle": NaN}}', f"{NAME}: timeouts.idle", "NaN is not a JSON number"),
    ("infinity", b'{"timeouts": {"idle": -Infinity}}', f"{NAME}: timeouts.idle", "not a JSON number"),
    ("huge float", b'{"timeouts": {"idle": 1e999}}', f"{NAME}: timeouts.idle", "too large"),
    ("huge integer", b'{"server": {"port": ' + b"9" * 5000 + b"}}", f"{NAME}: server.port", "too large"),
    ("repeated key", b'{"keywords": {"a": ["x"], "a": ["y"]}}', f"{NAME}: keywords.a", "more than once"),
    ("repeated note", b'{"_a": 1, "_a": 2}', f"{NAME}: _a", "more than once"),
    ("surrogate", b'{"keywords": {"a": ["\\ud800"]}}', f"{NAME}: keywords.a[0]", "surrogate"),
    ("surrogate in a key", b'{"keywords": {"\\ud800": []}}', f"{NAME}: keywords", "surrogate"),
    ("deep lists", b"[" * 100_000, NAME, "nested too deeply"),
    ("deep objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, NAME, "nested too deeply"),
    ("rather deep", b'{"_a":' * 100 + b"1" + b"}" * 100, f"{NAME}: _a", "nested deeper"),
    ("large", b" " * (MAX_BYTES + 1), NAME, "larger than"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "place", "words"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE]
)
def test_an_unreadable_file_is_refused_with_its_place(data: bytes, place: str, words: str) -> None:
    """A file that is no configuration at all is refused with the file, the line or the key, and the remedy."""
    with pytest.raises(ConfigError) as caught:
        load({}, {}, data, NAME)
    assert caught.value.place.startswith(place)
    assert words in str(caught.value)


def test_a_byte_order_mark_is_no_fault() -> None:
    """Editors that begin a UTF-8 file with a mark are borne with."""
    assert parse_file(b"\xef\xbb\xbf{}", NAME) == {}


def test_repeated_keys_of_different_objects_are_fine() -> None:
    """The same key in two objects is no repetition."""
    assert load({}, {}, b'{"keywords": {"a": ["x"]}, "model_mappings": {"a": ["openai/x"]}}', NAME).categories["a"]


@given(st.binary(max_size=400))
def test_any_bytes_end_in_a_snapshot_or_a_config_error(data: bytes) -> None:
    """No bytes whatever make the load fail in any other way than by a ConfigError that names the file."""
    _load_or_refuse(data)


@given(st.data())
def test_a_good_file_with_a_bad_spot_ends_the_same_way(data: st.DataObject) -> None:
    """A file that was cut, overwritten or inserted into at any place is taken or refused, never more."""
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(len(GOOD), start + 12)))
    _load_or_refuse(GOOD[:start] + data.draw(st.binary(max_size=8)) + GOOD[end:])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["code", "openai/x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        *json.loads(GOOD), "hedge", "classifier", "log", "attribution", "accounting", "state_dir", "max_price",
        "default_provider", "default_model", "routing_mode", "tools_routing",
    ]
)  # fmt: skip
INNER = st.sampled_from(
    ["code", "c", "groq", "openai", "idle", "port", "models", "timeouts", "base_url", "after", "api_key_env", "headers"]
)


@given(
    st.dictionaries(KEYS, JSON | st.dictionaries(INNER, JSON | st.dictionaries(INNER, JSON, max_size=3), max_size=3))
)
def test_any_values_of_known_keys_end_the_same_way(content: dict[str, Any]) -> None:
    """Whatever a known key holds, it is taken or refused with a message."""
    _load_or_refuse(json.dumps(content).encode())


@given(st.dictionaries(st.sampled_from(["ROUTER_PORT", "OPENAI_BASE_URL", "OPENAI_API_KEY", "ROUTER_NAME",
    "ROUTER_IDLE_TIMEOUT", "ROUTER_ALLOWED_ORIGINS", "ROUTER_API_KEY", "DEFAULT_MODEL", "OLLAMA_ROUTER_MODEL",
    "ROUTER_STATE_DIR", "ROUTING_MODE", "DEFAULT_PROVIDER", "ROUTER_API_MODEL"]), st.text(max_size=30)))  # fmt: skip
def test_any_variables_end_the_same_way(environ: dict[str, str]) -> None:
    """Whatever a variable holds, it is taken or refused with a message that names a variable."""
    result = _outcome(environ, None)
    assert not isinstance(result, ConfigError) or result.place in environ


def _load_or_refuse(data: bytes) -> None:
    result = _outcome({"GROQ_API_KEY": "k"}, data)
    if isinstance(result, ConfigError):
        assert NAME in str(result)
        assert "\n" not in result.place
    else:
        assert all(category.models for category in result.categories.values())


def _outcome(environ: dict[str, str], data: bytes | None) -> Snapshot | ConfigError:
    try:
        return load(environ, {}, data, NAME)
    except ConfigError as error:
        return error


def test_writing_keeps_order_notes_and_indentation() -> None:
    """What is written back has the same keys in the same order, indented as before, in plain UTF-8."""
    before = b'{\n    "b": {"x": 1},\n    "_a": "\xc3\xbc"\n}'
    content = parse_file(before, NAME)
    after = dump_file(content, before)
    assert after.decode() == '{\n    "b": {\n        "x": 1\n    },\n    "_a": "ü"\n}\n'
    assert dump_file({"a": {}}, None) == b'{\n  "a": {}\n}\n'


def test_the_key_of_a_refused_file_is_told_apart_from_its_name() -> None:
    """Callers that know the key path can use it without parsing the message."""
    with pytest.raises(FileKeyError) as caught:
        load({}, {}, b'{"keywords": {"a": ["x"], "a": []}}', NAME)
    assert caught.value.key == "keywords.a"
