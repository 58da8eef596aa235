"""The house: every module has its floor, the core does no I/O, and what is installed is what is needed."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import llm_router

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "llm_router"
SETUP = configparser.RawConfigParser()
SETUP.read(ROOT / "setup.cfg")

# What reads files, the clock, the environment or the terminal without an import that the import rules would see.
_IMPURE_CALLS = {"open", "input", "print", "exec", "eval", "datetime.now", "datetime.utcnow", "datetime.today"}

_DISTRIBUTIONS = {
    "dotenv": "python-dotenv",
    "prometheus_client": "prometheus-client",
    "pytest_asyncio": "pytest-aiohttp",
    "tiktoken_ext": "tiktoken",
}


def modules() -> list[str]:
    """The dotted names of all modules that hold code."""
    paths = [path.relative_to(ROOT).with_suffix("") for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(path.parts) for path in paths if path.name != "__init__")


def layers() -> list[str]:
    """The modules and packages that the layers contract names."""
    return re.findall(r"llm_router[\w.]*", SETUP["importlinter:contract:house"]["layers"])


def core() -> list[str]:
    """The modules and packages that must do no I/O."""
    return SETUP["importlinter:contract:core"]["source_modules"].split()


def within(module: str, packages: list[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def calls(module: str) -> Iterator[str]:
    """The plain and dotted names that a module calls."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("module", modules())
def test_every_module_has_its_floor(module: str) -> None:
    """A new module must be given a line in the layers contract, or import rules would not hold for it."""
    assert within(module, layers())


@pytest.mark.parametrize("module", [module for module in modules() if within(module, core())])
def test_core_reads_nothing_by_itself(module: str) -> None:
    """No file, terminal or clock is read in the core by a call that needs no import."""
    found = [call for call in calls(module) if call in _IMPURE_CALLS or call.split(".", 1)[-1] in _IMPURE_CALLS]
    assert not found


def test_core_is_below_every_floor_that_does_io() -> None:
    """What the contract calls core is what the house says: everything from the providers' dialects down."""
    lines = SETUP["importlinter:contract:house"]["layers"].split("llm_router.wire.providers", 1)[1]
    below = ["llm_router.wire.providers", *re.findall(r"llm_router[\w.]*", lines)]
    assert [name for name in below if not within(name, core())] == []


def test_version_is_written_once() -> None:
    """The installed distribution has the version that the package states."""
    assert metadata.version("llm-router") == llm_router.__version__


def _names(requirements: str) -> set[str]:
    return {re.split(r"[\s<>=;!]", line)[0] for line in requirements.split("\n") if line and not line.startswith("#")}


def test_packages_that_are_imported_are_required() -> None:
    """Every third-party package that the router imports is a runtime requirement of its own."""
    required = _names(SETUP["options"]["install_requires"])
    # multidict and yarl are part of aiohttp's own interface
    granted = {"llm_router", "multidict", "yarl"} | sys.stdlib_module_names
    imported = {name for module in modules() for name in imports(module)}
    assert {_DISTRIBUTIONS.get(name, name) for name in imported - granted} <= required


def test_packages_that_the_tests_import_are_named() -> None:
    """`pip install -e .[test]` brings whatever the tests import."""
    extras = _names(SETUP["options"]["install_requires"]) | _names(SETUP["options.extras_require"]["test"])
    own = {"llm_router", "tests", "training", "bench"}
    # what the named ones bring along as part of their own interface, and what is skipped where it is missing
    granted = {"multidict", "yarl", "pydantic", "httpx", "httpx2", "google", "atheris"} | sys.stdlib_module_names
    imported = {name for path in (ROOT / "tests").rglob("*.py") for name in _imports(path)}
    assert {_DISTRIBUTIONS.get(name, name) for name in imported - own - granted} <= extras


def imports(module: str) -> Iterator[str]:
    """The top-level names that a module imports."""
    return _imports(ROOT.joinpath(*module.split(".")).with_suffix(".py"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_data_travels_with_the_package() -> None:
    """Price table, weights and type marker are inside the package and named as its data."""
    patterns = SETUP["options.package_data"]["llm_router"].split()
    missing = [
        path.relative_to(PACKAGE)
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.parts)  # caches of tools
        and path.suffix not in (".py", ".pyc", ".so")
        and not any(path.relative_to(PACKAGE).match(pattern) for pattern in patterns)
    ]
    assert missing == []
    assert (PACKAGE / "data/prices.json").is_file()


def test_a_source_archive_has_the_guides(tmp_path: Path) -> None:
    """Who installs from the archive has what docs/DEPLOYMENT.md tells to install, and no half of the tests."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    for name in ("docs", "deploy", "tests", "llm_router"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    make = "import setuptools; setuptools.setup()"
    subprocess.run(
        [sys.executable, "-c", make, "-q", "sdist", "-d", tmp_path], cwd=source, capture_output=True, check=True
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"docs/DEPLOYMENT.md", "deploy/systemd/llm-router.service", "deploy/docker/Dockerfile"} <= names
    assert {"llm_router/py.typed", "llm_router/data/prices.json", "LICENSE", "README.md"} <= names
    assert not [name for name in names if name.startswith("tests")]
