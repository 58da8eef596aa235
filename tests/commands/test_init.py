"""`init`: a starter file where the router will look, private, never over another one."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from llm_router.config.loading import load
from tests.commands.conftest import KEY, Run


def test_init_writes_a_private_valid_file(run: Run) -> None:
    """The file has chains of the providers whose keys are set, loads, holds no secret, and is its owner's alone."""
    code, out, err = run("init", ANTHROPIC_API_KEY=KEY)
    path = Path("router_config.json")
    assert (code, err) == (0, "")
    assert "Wrote router_config.json" in out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY not in path.read_text()
    snapshot = load({}, {}, path.read_bytes(), "f")
    assert snapshot.categories["code"].models[0].startswith("anthropic/")
    assert snapshot.categories["creative"].custom
    assert run("check")[0] == 0


def test_init_never_overwrites(run: Run) -> None:
    """A file that exists, a seed project's too, is checked, shown and left as it is."""
    seed = {
        "model_mappings": {
            "code": ["openrouter/z-ai/glm-5", "openai/gpt-4o-mini"],
            "creative": ["openrouter/z-ai/glm-5"],
        },
        "keywords": {"code": ["def ", "import "], "creative": ["poem"]},
        "custom_categories": {"creative": {"description": "Creative writing", "models": ["openrouter/z-ai/glm-5"]}},
    }
    path = Path("mine.json")
    path.write_text(json.dumps(seed))
    code, out, _ = run("init", "--config", "mine.json", OPENROUTER_API_KEY=KEY)
    assert code == 0
    assert "exists and was not changed" in out
    assert "openrouter/z-ai/glm-5" in out
    assert "creative" in out
    assert json.loads(path.read_text()) == seed
    path.write_text("{")
    code, _, err = run("init", "--config", "mine.json")
    assert code == 78
    assert "mine.json, line 1 column 2" in err
    assert path.read_text() == "{"


def test_init_where_nothing_can_be_written(run: Run) -> None:
    """A place that cannot be written is a failure with its reason."""
    code, _, err = run("init", "--config", "/proc/nosuch/router_config.json")
    assert code == 1
    assert "cannot be written" in err


def test_init_goes_where_the_router_will_look(run: Run) -> None:
    """A name in .env counts, and the next steps repeat what was said with --config."""
    Path(".env").write_text("ROUTER_CONFIG_FILE=mine.json\n")
    code, out, _ = run("init", OPENAI_API_KEY=KEY)
    assert (code, sorted(path.name for path in Path.cwd().iterdir())) == (0, [".env", "mine.json"])
    assert "`llm-router check`" in out
    assert '"recovery_timeout_sec": 300\n' in Path("mine.json").read_text()
    assert "`llm-router serve --config 'my own.json'`" in run("init", "--config", "my own.json")[1]


def test_init_without_keys_says_what_to_do(run: Run) -> None:
    """Without any key the file is written all the same, and the next step is told."""
    code, out, _ = run("init")
    assert code == 0
    assert "No provider key is set yet" in out
