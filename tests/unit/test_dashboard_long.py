"""A list of 500 pods that change every second, in a real browser: only rows near what is seen are in the page, and all
of them can be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import a_browser, find_browser
from tests.support.dashboard_many import many_pods

PODS = 500
ROWS = "[...document.querySelectorAll('.row[data-key]')]"


@pytest.mark.parametrize("width", [1100, 320])
def test_five_hundred_pods(tmp_path: Path, width: int) -> None:
    if find_browser() is None:
        pytest.skip("Debian's chromium-headless-shell is not installed")
    with many_pods(PODS) as url, a_browser(tmp_path / "profile") as browser:
        browser.size(width, 700)
        browser.visit(url)
        browser.type("#token", "any")
        browser.press("Enter")
        browser.wait_text("Most CPU")
        browser.run("location.hash = '#/pods'")
        browser.wait_text(f"{PODS} of {PODS}")
        assert browser.wait(f"{ROWS}.length") < 100
        browser.wait(f"(window.scrollTo(0, document.body.scrollHeight), {ROWS}.at(-1)?.innerText.includes('web-0499'))")
        assert browser.run(f"{ROWS}.length") < 100
        assert browser.run(f"{ROWS}.at(-1).getAttribute('aria-rowindex')") == str(PODS + 1)
        # Nothing lies between what is seen and the edges of the window.
        seen = f"{ROWS}.map((one) => one.getBoundingClientRect()).filter((one) => one.top < 700 && one.bottom > 0)"
        browser.wait(f"{seen}.length * ({seen}[0]?.height ?? 0) > 400")
        browser.wait(f"(window.scrollTo(0, 0), {ROWS}[0]?.innerText.includes('web-0000'))")

        # By the keyboard, further than what was in the page at first.
        links = browser.run("document.querySelectorAll('main a').length")
        browser.run("document.querySelector('main a').focus()")
        for _ in range(links + 20):
            browser.press("j")
        number = "Number(document.activeElement.closest('.row')?.getAttribute('aria-rowindex') ?? 0)"
        browser.wait(f"{number} > 30")
        # There is a next one.
        browser.wait("[...document.querySelectorAll('main a')].at(-1) !== document.activeElement")
        at = browser.run(number)
        browser.press("j")
        browser.wait(f"{number} === {at + 1}")
        browser.type("#filter", "web-0321")
        browser.wait(f"{ROWS}.length === 1")
        assert not browser.complaints, browser.complaints
