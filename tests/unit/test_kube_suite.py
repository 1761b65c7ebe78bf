"""How a run of upstream's end-to-end specs is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube import suite


def spec(name: str, state: str, kind: str = "It") -> dict[str, Any]:
    return {"LeafNodeType": kind, "State": state, "ContainerHierarchyTexts": [], "LeafNodeText": name}


@pytest.mark.parametrize(
    ("specs", "reasons", "code"),
    [
        ([spec("a", "passed"), spec("b", "skipped")], [], 0),
        ([spec("Image ImageVolume should succeed with pod and pull policy of Always", "failed")], [], 0),
        ([spec("a", "failed")], [], 1),
        ([spec("b", "skipped")], [], 1),
        ([spec("a", "passed"), spec("b", "skipped")], ["Suite Timeout Elapsed"], 1),
        ([spec("a", "passed"), spec("", "failed", "SynchronizedAfterSuite")], [], 1),
    ],
)
def test_a_run_is_right_only_to_its_end(
    specs: list[dict[str, Any]], reasons: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was cut short after a few specs, or whose last step failed, passed."""
    found = [{"SpecReports": specs, "SpecialSuiteFailureReasons": reasons}]
    (tmp_path / "report.json").write_text(json.dumps(found))
    (tmp_path / "e2e.log").write_text("")
    assert suite.tell(tmp_path, "e2e", "Of a cluster") == code, capsys.readouterr().out
