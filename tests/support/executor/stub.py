"""The launcher without its package: where it would call Python, it ends with TO_PYTHON and what it was told."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.container.runner import REPO

LAUNCHER = REPO / "pyrun" / "bin" / "pyrun"
TO_PYTHON = 42
STUB = f"""import os, sys
print(os.environ.get("PYRUN_FAILED", ""), flush=True)
os._exit({TO_PYTHON})
"""


def bare_launcher(directory: Path) -> list[str]:
    """The command of a copy in `directory`, whose Python prints PYRUN_FAILED and exits with TO_PYTHON."""
    (directory / "stub" / "bin").mkdir(parents=True)
    (directory / "stub" / "__main__.py").write_text(STUB)
    return [str(shutil.copy2(LAUNCHER, directory / "stub" / "bin" / "pyrun"))]
