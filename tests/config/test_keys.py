"""Keys: which variables they come from, and where they may travel."""

from __future__ import annotations

import pytest

from tests.config.reading import read


def test_keys_come_from_named_variables() -> None:
    """A provider may name several variables; those that are set give its keys, in that order."""
    content = {"providers": {"openai": {"api_key_env": ["KEY_B", "KEY_A", "KEY_C"]}}}
    snapshot = read(content, {"KEY_A": "aaa", "KEY_B": "bbb", "OPENAI_API_KEY": "zzz"})
    openai = snapshot.providers["openai"]
    assert [key.value for key in openai.keys] == ["bbb", "aaa"]
    assert openai.key_variables == ("KEY_B", "KEY_A", "KEY_C")
    assert "aaa" not in repr(snapshot)


def test_google_takes_either_variable() -> None:
    """GEMINI_API_KEY stands in for GOOGLE_API_KEY, which wins where both are set."""
    assert [key.variable for key in read(None, {"GEMINI_API_KEY": "g"}).providers["google"].keys] == ["GEMINI_API_KEY"]
    both = read(None, {"GEMINI_API_KEY": "g", "GOOGLE_API_KEY": "h"}).providers["google"]
    assert [key.value for key in both.keys] == ["h"]


def test_ollama_needs_no_key_and_takes_one() -> None:
    """Ollama always counts as configured; OLLAMA_API_KEY is used where it is set."""
    assert read().providers["ollama"].configured
    assert [key.value for key in read(None, {"OLLAMA_API_KEY": "o"}).providers["ollama"].keys] == ["o"]


def test_a_custom_provider_without_key_variable_needs_none() -> None:
    """A local server is configured as soon as it has an address; one with a variable waits for its key."""
    content = {"providers": {"vllm": {"base_url": "http://127.0.0.1:8000"}}}
    assert read(content).providers["vllm"].configured
    content["providers"]["vllm"]["api_key_env"] = "VLLM_KEY"
    assert not read(content).providers["vllm"].configured


def test_dotenv_may_not_redirect_a_foreign_key() -> None:
    """A base URL from .env is set aside, with a warning, where the key does not come from .env too."""
    dotenv = {"OPENAI_BASE_URL": "http://evil.example/v1"}
    guarded = read(None, {"OPENAI_API_KEY": "sk-own"}, dotenv)
    assert guarded.providers["openai"].base_url == "https://api.openai.com/v1"
    assert "OPENAI_BASE_URL in .env is set aside" in guarded.warnings[0]
    assert "sk-own" not in guarded.warnings[0]
    own = read(None, None, {**dotenv, "OPENAI_API_KEY": "sk-own"})
    assert own.providers["openai"].base_url == "http://evil.example/v1"
    assert own.warnings == ()
    stated = read(None, {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://mine/v1"}, dotenv)
    assert (stated.providers["openai"].base_url, stated.warnings) == ("http://mine/v1", ())
    same = read(None, {"OPENAI_API_KEY": "k"}, {"OPENAI_BASE_URL": "https://api.openai.com/v1/"})
    assert same.warnings == ()


def test_dotenv_may_not_redirect_where_one_of_several_keys_is_foreign() -> None:
    """One key from elsewhere is enough to keep .env from moving the provider."""
    content = {"providers": {"openai": {"api_key_env": ["A", "B"], "base_url": "http://file/v1"}}}
    snapshot = read(content, {"A": "a"}, {"B": "b", "OPENAI_BASE_URL": "http://evil/v1"})
    assert snapshot.providers["openai"].base_url == "http://file/v1"


def test_attribution_travels_with_openrouter_alone() -> None:
    """ROUTER_NAME and ROUTER_URL become OpenRouter's headers and nobody else's."""
    snapshot = read(None, {"ROUTER_NAME": "My Router", "ROUTER_URL": "https://r.example"})
    assert snapshot.providers["openrouter"].headers == {
        "HTTP-Referer": "https://r.example",
        "X-OpenRouter-Title": "My Router",
        "X-Title": "My Router",
    }
    assert snapshot.providers["openai"].headers == {}


def test_access_keys_come_from_variables() -> None:
    """ROUTER_API_KEY is a comma list; the file may name other variables."""
    snapshot = read(None, {"ROUTER_API_KEY": " a1 , b2,,a1", "ROUTER_ADMIN_KEY": "zzz9"})
    assert (snapshot.access.api_keys, snapshot.access.admin_key) == (("a1", "b2"), "zzz9")
    other = read({"server": {"api_key_env": ["K1", "K2"]}}, {"K1": "x", "K2": "y", "ROUTER_API_KEY": "z"})
    assert other.access.api_keys == ("x", "y")
    assert "a1" not in repr(snapshot)
    assert "zzz9" not in repr(snapshot)


def test_a_lower_case_variable_is_no_key() -> None:
    """Only what is as long as a key is taken for one that was pasted."""
    snapshot = read({"providers": {"openai": {"api_key_env": "my_key_2"}}}, {"my_key_2": "sk-x"})
    assert [key.value for key in snapshot.providers["openai"].keys] == ["sk-x"]


@pytest.mark.parametrize(
    ("provider", "entry", "url"),
    [
        ("openrouter", {}, "https://h/v1"),
        ("vllm", {}, "https://h/v1"),
        ("vllm", {"api": "ollama"}, "https://h"),
        ("anthropic", {"api": "openai-completions"}, "https://h"),
        ("ollama", {"api": "openai-completions"}, "https://h"),
    ],
)
def test_a_base_url_is_read_as_its_provider_wants_it(provider: str, entry: dict[str, str], url: str) -> None:
    """A built-in provider's own way, whatever dialect it is told to speak; any other's is that of its dialect."""
    snapshot = read({"providers": {provider: {"base_url": "https://h", **entry}}})
    assert snapshot.providers[provider].base_url == url
