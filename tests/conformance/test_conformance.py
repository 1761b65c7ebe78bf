"""The validation programs of runtime-tools, each as a test. Those that KNOWN.md explains may fail."""

from __future__ import annotations

import os

import pytest

from tests.conformance.run import PROGRAMS, Outcome, parse_tap, read_known, run_programs
from tests.support.container.runner import runtime_argv
from tests.support.engines.golang import Unavailable


@pytest.fixture(scope="session")
def outcomes() -> dict[str, Outcome]:
    """All programs, several at a time; those that should have passed once more, one by one: they wait for fixed times,
    which may not do on a busy machine."""
    try:
        done = run_programs(list(PROGRAMS), runtime_argv()[0], os.cpu_count() or 1)
    except Unavailable as error:
        pytest.skip(str(error))
    again = [outcome.program for outcome in done if not outcome.ok and outcome.program not in read_known()]
    return {outcome.program: outcome for outcome in [*done, *run_programs(again, runtime_argv()[0], 1)]}


@pytest.mark.root
@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[program]
    known = read_known()
    if not outcome.ok and program in known:
        pytest.xfail(known[program])
    assert outcome.ok, f"{outcome.reason}\n{outcome.output}"


def test_known_names_only_programs_and_gives_causes() -> None:
    known = read_known()
    assert set(known) <= set(PROGRAMS)
    assert all(len(cause) > 20 for cause in known.values())


@pytest.mark.parametrize(
    "report, ok",
    [
        ("TAP version 13\nok 1 - a\nok 2 - b\n1..2\n", True),
        ("ok 1 - a\nnot ok 2 - b\n1..2\n", False),
        ("ok 1 - a\n1..2\n", False),
        ("ok 1 - a\n", False),
        ('1..0\n  ---\n  {\n    "error": "MUST"\n  }\n', False),
        ('ok 1 - refused\n  ---\n  {\n    "error": "as it should"\n  }\n1..1\n', True),
        ("1..0 # SKIP not on this system\n", True),
        ("", True),
    ],
)
def test_parse_tap(report: str, ok: bool) -> None:
    assert parse_tap("p", report).ok is ok
