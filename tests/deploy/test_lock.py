"""What hosts and the image are installed with: everything that is needed, in versions that are allowed, by hash."""

from __future__ import annotations

import configparser
import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "deploy/requirements.lock").read_text()
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
SETUP = configparser.RawConfigParser()
SETUP.read(ROOT / "setup.cfg")


def locked() -> dict[str, tuple[str, str]]:
    """Of each distribution its version and the lines below it."""
    entries = re.findall(r"^([\w.-]+)==(\S+)[^\n]*\n((?:    .*\n)*)", LOCK, re.MULTILINE)
    return {canonicalize_name(name): (version, below) for name, version, below in entries}


def needed(name: str) -> set[str]:
    """The distributions that an installed one needs here, and what those need."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for line in metadata.requires(waiting.pop()) or []:
            requirement = Requirement(line)
            other = canonicalize_name(requirement.name)
            if other not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                found.add(other)
                waiting.append(other)
    return found


def test_what_setup_cfg_asks_for_is_locked_as_it_asks() -> None:
    """Every requirement of the package, and of its build, is in the lock in a version that it allows."""
    lines = [*SETUP["options"]["install_requires"].splitlines(), "setuptools >= 77"]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    entries = locked()
    assert len(requirements) > 5
    for requirement in requirements:
        version, _ = entries[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_nothing_that_is_needed_is_missing() -> None:
    """What the requirements themselves need is locked, too: hashes are asked for all or none."""
    assert needed("llm-router") <= set(locked())
    assert {"yarl", "regex"} <= needed("llm-router")


def test_every_file_has_its_hash() -> None:
    """No entry without hashes, none named twice."""
    for name, (_, below) in locked().items():
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", below)
        assert hashes, name
        assert len(hashes) == len(set(hashes)), name


def test_the_image_is_installed_from_the_lock() -> None:
    """No step of the image's build takes a distribution that the lock does not know."""
    installs = re.findall(r"pip install ([^\\\n]*)", DOCKERFILE)
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert {"--no-deps", "--no-build-isolation"} <= set(installs[1].split())
