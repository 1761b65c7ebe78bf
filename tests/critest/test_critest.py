"""critest against `pyrun cri`: every spec passes but those that KNOWN.md explains."""

from __future__ import annotations

import pytest

from tests.critest.run import Spec, read_known, run_critest, unknown
from tests.support.engines.golang import Unavailable

SPECS = 142
# That a run which chose few, or skipped most, is no success.
AT_LEAST = 112
STREAMS = 5  # exec with and without a terminal, attach, port-forward, and in the node's network


@pytest.fixture(scope="module")
def specs() -> list[Spec]:
    """Those that did not pass once more, alone: some wait for fixed times, which may not do on a busy machine."""
    try:
        done = run_critest()
        again = {
            spec.name: spec
            for missed in unknown(done)
            if missed.state != "skipped"
            for spec in run_critest(focus=_exactly(missed.name))
        }
    except Unavailable as error:
        pytest.skip(str(error))
    return [again.get(spec.name, spec) for spec in done]


def _exactly(name: str) -> str:
    return "".join(c if c.isalnum() or c == " " else "." for c in name) + "$"


@pytest.mark.root
def test_every_spec_passes_that_can(specs: list[Spec]) -> None:
    assert not unknown(specs), "\n".join(f"{spec.state}: {spec.name}\n  {spec.message}" for spec in unknown(specs))


@pytest.mark.root
def test_all_of_them_ran(specs: list[Spec]) -> None:
    assert len(specs) == SPECS
    assert sum(spec.state == "passed" for spec in specs) >= AT_LEAST


@pytest.mark.root
def test_streams_by_websocket() -> None:
    """Above they are by SPDY, as a kubelet has them."""
    try:
        specs = run_critest(focus="Streaming runtime should support", websocket=True)
    except Unavailable as error:
        pytest.skip(str(error))
    assert len(specs) == STREAMS
    assert all(spec.state == "passed" for spec in specs), specs


def test_known_gives_causes() -> None:
    known = read_known()
    assert known
    assert all(cause.startswith(("Suite: ", "Machine: ", "pyrun: ")) for cause in known.values())
