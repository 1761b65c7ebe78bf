"""What a run says at its end about what ran where."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.support.container.runner import REPO

SAMPLE = "tests/unit/samples/tally_sample.py"


def run_sample(*options: str, section: str = "what ran where") -> list[str]:
    """The last lines, from the title of this section on."""
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "not not_selected", *options, SAMPLE]
    env = {name: value for name, value in os.environ.items() if name != "PYRUN_VIEW"}
    done = subprocess.run(argv, cwd=REPO, env=env, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1, done.stdout
    return done.stdout[done.stdout.find(f"= {section} =") :].splitlines()


def test_counts_by_place_and_reasons() -> None:
    _, unit, host, title, *reasons, last = run_sample()
    assert re.fullmatch(r"unit tests and linters: 1 passed, 1 failed, 1 xfailed, 2 skipped; \d+ s", unit)
    assert re.fullmatch(r"on this host \(Linux \S+, (not )?root, no pure cgroup v2\): 1 skipped; \d+ s", host)
    assert title == "did not run:"
    told = dict(line.split(maxsplit=1)[::-1] for line in reasons)
    assert told.pop("the moon is new") == "2" and told.pop("not selected") == "1"
    assert [(count, reason.startswith("needs ")) for reason, count in told.items()] == [("1", True)]
    assert re.match(r"=+ 1 failed, 1 passed, 3 skipped, 1 deselected, 1 xfailed in ", last), "pytest's own line"


def test_the_slowest_come_first() -> None:
    _, tier, first, *_ = run_sample(section="what took longest")
    assert tier == "unit tests and linters:"
    assert re.fullmatch(r" +0\.[2-9] s  \S+::test_passes", first)


def test_an_early_end_leaves_tests_out() -> None:
    assert "     4  the run ended before it came to them" in run_sample("-x")


def test_silent_when_quiet() -> None:
    assert len(run_sample("-q")) <= 1
