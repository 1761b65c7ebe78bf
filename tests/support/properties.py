"""Property tests: hypothesis with one profile for all of them, and `given` that knows about continuous integration.

There each test has two parts: examples that are the same in each run, so that a failure is the change's, and a quarter
as many from a seed that is another each time; elsewhere all are from it. The run tells the seed at its end, and
PYRUN_SEED=N tries it again. A test has no deadline: machines are as slow as they are.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, settings

IN_CI = "CI" in os.environ
SEED = int(os.environ.get("PYRUN_SEED") or random.SystemRandom().randrange(1 << 32))
EXAMPLES = 100
Test = Callable[..., None]

settings.register_profile("pyrun", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
settings.load_profile("pyrun")


def told() -> str:
    """Where the examples of this run came from."""
    return f"property tests: {'the same examples as ever, and ' * IN_CI}examples of PYRUN_SEED={SEED}"


def given(*strategies: Any, max_examples: int = EXAMPLES, **named: Any) -> Callable[[Test], Test]:
    """hypothesis.given, for a test whose arguments all come from strategies."""

    def made(test: Test, **more: Any) -> Any:
        apply: Any = hypothesis.given(*strategies, **named)
        return settings(**more)(apply(test))

    def decorate(test: Test) -> Test:
        if not IN_CI:
            return seeded(made(test, max_examples=max_examples))
        fixed: Test = made(test, max_examples=max_examples, derandomize=True)
        return in_turn(test, fixed, seeded(made(test, max_examples=max(1, max_examples // 4))))

    return decorate


def seeded(test: Test) -> Test:
    return hypothesis.seed(SEED)(test)


def in_turn(test: Test, *parts: Test) -> Test:
    """A test without arguments that runs these, under the name of `test`."""

    def run() -> None:
        for part in parts:
            part()

    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(run, name, getattr(test, name))
    return run
