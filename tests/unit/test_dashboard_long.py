"""A list of 500 pods that change every second, in a real browser: only rows near what is seen are in the page, and all
of them can be reached."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pyrun.dashboard.start import load_pages
from tests.support.axe import axe_script, violations
from tests.support.browser import Browser, a_browser, find_browser
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
        check_sparks(browser, 0)
        browser.wait(f"(window.scrollTo(0, document.body.scrollHeight), {ROWS}.at(-1)?.innerText.includes('web-0499'))")
        assert browser.run(f"{ROWS}.length") < 100
        assert browser.run(f"{ROWS}.at(-1).getAttribute('aria-rowindex')") == str(PODS + 1)
        check_sparks(browser, PODS - 1)
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


def check_sparks(browser: Browser, number: int) -> None:
    """Each row that is there has its graphs, which are told, and one request was for all of them."""
    row = f"{ROWS}.find((one) => one.dataset.key === 'p{number:04}')"
    label = "[...one.querySelectorAll('svg[role=img]')].map((each) => each.ariaLabel)"
    found = browser.wait(f"((one) => one && {label}.length === 2 && {label})({row})")
    assert re.fullmatch(r"CPU in the last hour: from 0\.\d+ cores to 0\.9\d cores", found[0]), found
    assert re.fullmatch(r"Memory in the last hour: from [\d.]+ [kM]B to \d+ MB", found[1]), found
    drawn = f"{ROWS}.filter((one) => one.querySelectorAll('.spark polyline').length === 2).length"
    browser.wait(f"{drawn} === {ROWS}.length")
    asked = [url for url in browser.requests if "/api/sparks" in url]
    assert max(url.count("uid=") for url in asked) > 20
    assert all(url.count("uid=") <= 100 for url in asked)


TICKS = [
    [0, 3, [0]],
    [0.0021, 3, [0, 0.001, 0.002, 0.003]],
    [1, 2, [0, 0.5, 1]],
    [7, 5, [0, 2, 4, 6, 8]],
    [158e6, 3, [0, 100e6, 200e6]],
]
# Since, until, at most; what is written along the axis.
TIMES = [
    [1_700_000_000, 1_700_003_600, 3, ["22:30", "23:00"]],
    [1_700_000_000, 1_700_086_400, 5, ["15 Nov", "06:00", "12:00", "18:00"]],
    [1_700_000_000, 1_700_000_030, 3, ["22:13:20", "22:13:30", "22:13:40", "22:13:50"]],
    [1_700_000_000, 1_731_536_000, 5, ["2024", "Apr", "Jul", "Oct"]],
]
LEGEND = """import('/graph.js').then(({ graph }) => {
  const line = (name, points) => ({ name, points });
  const made = graph({ key: 'k', label: 'l', since: 0, until: 100, step: 10, text: (value) => `${value} B`, tall: true,
    series: [line('a', [[0, 1], [10, 2], [90, 3]]), line('<b>b', [[90, 5]])] });
  const texts = (selector) => [...made.querySelectorAll(selector)].map((one) => one.textContent);
  return [texts('.legend li'), texts('.up'), made.querySelectorAll('.drawn polyline').length, made.ariaValueText ??
    made.getAttribute('aria-valuetext')];
})"""


def test_a_service_tells_what_it_selects_and_who_gets_connections(tmp_path: Path) -> None:
    if find_browser() is None:
        pytest.skip("Debian's chromium-headless-shell is not installed")
    with many_pods(2) as url, a_browser(tmp_path / "profile") as browser:
        browser.size(320, 700)
        browser.visit(url)
        browser.type("#token", "any")
        browser.press("Enter")
        browser.wait_text("Most CPU")
        browser.run("location.hash = '#/services'")
        browser.on(
            "[...document.querySelectorAll('main td a')].find((one) => one.innerText.includes('shop/web'))", "click()"
        )
        browser.wait("location.hash === '#/services/shop/web' && document.querySelectorAll('tbody').length === 2")
        cells = "[...document.querySelectorAll('tbody tr')].map((row) => [...row.cells].map((one) => one.innerText))"
        assert browser.run(cells) == [
            ["shop/web-0000", "1/1", "10.1.0.0"],
            ["shop/web-0001", "1/1", "10.1.0.1"],
            ["10.1.0.0:8080", "http/tcp", "shop/web-0000", "ready", "yes", ""],
            ["10.1.0.7:8080", "http/tcp", "shop/<b>gone", "not ready", "no", "not ready"],
        ]
        assert "app=web" in browser.run("document.querySelector('dl').innerText")
        assert browser.run("document.documentElement.scrollWidth") <= 320
        assert not violations(browser, axe_script())
        browser.on("document.querySelector('main a')", "click()")
        browser.wait("location.hash === '#/services'")
        assert not browser.complaints, browser.complaints


def test_axes(tmp_path: Path) -> None:
    """Graphs have round figures along their axes and a legend; where nothing was read a line is broken."""
    if find_browser() is None:
        pytest.skip("Debian's chromium-headless-shell is not installed")
    with many_pods(1) as url, a_browser(tmp_path / "profile") as browser:
        browser.visit(url)
        browser.wait("document.querySelector('#token') !== null")
        for most, count, wanted in TICKS:
            found = browser.run(f"import('/scale.js').then((one) => one.ticksOf({most}, {count}))")
            assert found == pytest.approx(wanted), most
        for since, until, most, wanted in TIMES:
            script = f"import('/scale.js').then((one) => one.timesOf({since}, {until}, {most}).map(([, word]) => word))"
            assert browser.run(script) == wanted
        legend, up, lines, said = browser.run(LEGEND)
        assert legend == ["a3 B", "<b>b5 B"] and up == ["0 B", "1 B", "2 B", "3 B", "4 B", "5 B"] and lines == 3
        lines = [{"time": f"2026-01-01T00:{minute:02}:00Z"} for minute in (0, 1, 1, 59, 60 - 1)]
        hits = f"import('/search.js').then((one) => one.histogram({json.dumps(lines)}).map((each) => each.innerHTML))"
        [drawn] = browser.run(hits)
        assert ">2<" in drawn and "at most 2 lines" in drawn
        assert browser.run(hits.replace(json.dumps(lines), json.dumps(lines[:1]))) == []
        assert said.endswith("UTC: a 3 B; <b>b 5 B")
        assert not browser.complaints, browser.complaints


def test_a_first_load_is_small() -> None:
    """Compressed, of all but the terminal, which is loaded when one is opened."""
    assert sum(len(data) for name, (data, _) in load_pages().items() if "xterm" not in name) <= 60_000
