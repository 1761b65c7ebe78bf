"""Each vulnerability of docs/vulnerabilities.md has a test that is named after it, and each such test has its row."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"(\d{4})_(\d{4,})")


OURS = re.compile(r"test_(cve|image|layer|spec|stream|pod|sandbox|overlay|cri|node)_?\w*")


def named(files: re.Pattern[str] = re.compile("")) -> set[str]:
    """CVEs in the names of test functions: test_cve_2022_23648_…, test_cve_2023_27561_and_28642_…."""
    found: set[str] = set()
    for path in (REPO / "tests").rglob("test_*.py"):
        if not files.match(path.stem):
            continue
        for name in re.findall(r"^(?:async )?def test_(cve_\w+)\(", path.read_text(), re.M):
            year = ""
            for part in name.removeprefix("cve_").split("_and_"):
                if match := NUMBER.match(part):
                    year, number = match.groups()
                elif match := re.match(r"(\d{4,})(?:_|$)", part):
                    number = match.group(1)
                else:
                    break
                found.add(f"CVE-{year}-{number}")
    return found


def test_each_row_has_a_test() -> None:
    listed = re.findall(r"CVE-\d{4}-\d+", (REPO / "docs/vulnerabilities.md").read_text())
    assert len(listed) == len(set(listed)) > 50
    assert set(listed) - named() == set()


def test_each_test_has_a_row() -> None:
    """Those of the runtime, images and the CRI; other parts tell of theirs in their own pages."""
    listed = set(re.findall(r"CVE-\d{4}-\d+", (REPO / "docs/vulnerabilities.md").read_text()))
    assert named(OURS) - listed == set()
