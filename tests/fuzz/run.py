"""Hunts with atheris (coverage-guided): `python -m tests.fuzz.run TARGET [-max_total_time=60 ...]`.

Needs `pip install atheris`. The options are libFuzzer's; without a corpus folder the seeds of `seeds` are tried first.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Entry of the command."""
    import atheris

    with atheris.instrument_imports(include=["llm_router"]):
        from tests.fuzz.seeds import SEEDS
        from tests.fuzz.targets import TARGETS

    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz.run TARGET [libFuzzer options]; targets: {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS):
            (Path(folder) / f"seed{number}").write_bytes(seed)
        atheris.Setup([*sys.argv, folder], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
