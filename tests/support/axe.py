"""axe-core, which looks for what people with a screen reader, a keyboard or weak eyes can't use, in a page of the
test's browser. `./bootstrap test` fetches a package that carries it (axe-playwright-python 0.1.8: axe-core 4.12.1)."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Browser

CACHE = Path(__file__).parents[2] / ".cache" / "axe"
MEMBER = "axe_playwright_python/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def axe_script() -> str:
    """Its source; skips the test where it is not there."""
    found = sorted(CACHE.glob("*.whl"))
    if not found:
        pytest.skip(f"no axe-core in {CACHE}: ./bootstrap test fetches it where PyPI can be reached")
    with zipfile.ZipFile(found[-1]) as file:
        return file.read(MEMBER).decode()


def violations(browser: Browser, script: str) -> list[Any]:
    """Of the page as it is: [rule, what it says, the first places]."""
    if not browser.run("typeof axe === 'object'"):
        browser.run(f"{script}; undefined")
    asked = f"axe.run(document, {{runOnly: {{type: 'tag', values: {RULES}}}, resultTypes: ['violations']}})"
    short = "(found) => found.violations.map((one) => [one.id, one.help, one.nodes.slice(0, 3).map((at) => at.html)])"
    found: list[Any] = browser.run(f"{asked}.then({short})")
    return found
