"""Property tests in continuous integration: the same examples each time, then others, by a seed that is told."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.support.container.runner import REPO

SAMPLE = "tests/unit/samples/properties_sample.py"


def examples(**env: str) -> tuple[list[str], list[str]]:
    """The examples that the sample saw, the first hundred and what came after."""
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", SAMPLE]
    others = {name: value for name, value in os.environ.items() if name not in ("CI", "PYRUN_SEED")}
    done = subprocess.run(argv, cwd=REPO, env=others | env, stdout=subprocess.PIPE, text=True, check=True)
    assert re.search(r"^property tests: .*examples of PYRUN_SEED=[12]$", done.stdout, re.M)
    seen = [line.removeprefix("saw ") for line in done.stdout.splitlines() if line.startswith("saw ")]
    return seen[:100], seen[100:]


def test_in_ci_the_same_ones_come_first_and_then_others_by_the_seed() -> None:
    first, others = examples(CI="true", PYRUN_SEED="1")
    assert (len(first), len(others)) == (100, 25)
    again, different = examples(CI="true", PYRUN_SEED="2")
    assert again == first and different != others


def test_elsewhere_the_seed_makes_them_again() -> None:
    assert examples(PYRUN_SEED="1") == examples(PYRUN_SEED="1")
