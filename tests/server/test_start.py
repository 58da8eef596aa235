"""What a start reads and keeps: no more than serving needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from llm_router import shipped
from llm_router.config.loading import load
from llm_router.config.values import BUILTIN_CATEGORIES
from llm_router.proxy.live import go_live
from llm_router.wire.providers.anthropic import AnthropicAdapter
from llm_router.wire.providers.ollama import OllamaAdapter
from tests.proxy.upstream.certs import make_authority

# Imports what a start imports, as a start does, and tells what that left behind.
LOOK = """
import gc, json, mimetypes, os, ssl, sys
from llm_router.commands.serve import only_modules
before = dict(os.environ), list(mimetypes.knownfiles)
with only_modules():
    import llm_router.server.app
contexts = [one for one in gc.get_objects() if isinstance(one, ssl.SSLContext)]
print(json.dumps({
    "as before": before == (dict(os.environ), mimetypes.knownfiles),
    "certificates": sum(len(one.get_ca_certs()) for one in contexts),
    "modules": list(sys.modules),
}))
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the imports of a start leave behind, on a machine that has a trust store."""
    store = make_authority(tmp_path_factory.mktemp("trust")).certificate
    environ = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.defpath, "SSL_CERT_FILE": str(store)}
    done = subprocess.run([sys.executable, "-c", LOOK], env=environ, capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_no_certificate_is_read_before_one_is_needed(left: Any) -> None:
    """The trust store costs time and memory, and many routers speak to local providers alone."""
    assert left["certificates"] == 0


def test_the_environment_is_what_it_was(left: Any) -> None:
    """What is kept from the imports is there for all that comes after them."""
    assert left["as before"]


@pytest.mark.parametrize("module", ["anthropic", "google", "ollama"])
def test_no_dialect_is_loaded_by_the_imports(left: Any, module: str) -> None:
    """A dialect that no provider in use speaks takes no memory."""
    assert "llm_router.wire.providers.openai" in left["modules"]
    assert f"llm_router.wire.providers.{module}" not in left["modules"]


@pytest.mark.parametrize("module", ["difflib", "llm_router.server.openapi", "tiktoken", "prometheus_client"])
def test_what_few_ask_for_is_not_loaded(left: Any, module: str) -> None:
    """Modules that no plain request needs wait until somebody does."""
    assert module not in left["modules"]


def test_a_chain_s_dialects_are_there_before_its_first_request() -> None:
    """No client waits for a dialect that the configuration names; any other is made when a request names it."""
    content = {
        "providers": {"other": {"base_url": "http://127.0.0.1:9", "api": "ollama"}},
        "model_mappings": {category: ["anthropic/claude-sonnet-4-5"] for category in BUILTIN_CATEGORIES},
    }
    snapshot = load({"HOME": "/home/u"}, {}, json.dumps(content).encode(), "router_config.json")
    adapters = go_live(snapshot, shipped.prices(), shipped.brain()).adapters
    assert list(adapters) == ["anthropic"]
    assert isinstance(adapters["anthropic"], AnthropicAdapter)
    assert isinstance(adapters["other"], OllamaAdapter)
    assert adapters["other"] is adapters["other"]
