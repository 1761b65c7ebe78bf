"""A log of very many lines in a real browser: few of them are in the page, each can be reached, nobody who reads is
moved, and who is at the end stays there while more is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.logs.show import time_text
from tests.support.axe import axe_script, violations
from tests.support.browser import Browser, a_browser, find_browser
from tests.support.dashboard_many import many_pods

LINES = 12_000
MANY = 100_000
LIST = "document.querySelector('.lines')"
HIT = "document.querySelector('.line.hit')"
ROWS = "[...document.querySelectorAll('.lines .line')]"
# The first line that is seen wholly, and where it is.
TOP = (
    f"(() => {{ const top = {LIST}.getBoundingClientRect().top; const one = {ROWS}.find((row) =>"
    " row.getBoundingClientRect().top >= top); return one ? [one.lastChild.textContent.split(' ')[1],"
    " Math.round(one.getBoundingClientRect().top)] : null; })()"
)
AT_END = f"{LIST}.scrollTop + {LIST}.clientHeight >= {LIST}.scrollHeight - 4"
LAST = f"{ROWS}.at(-1)?.lastChild.textContent.split(' ')[1]"


def line(number: int, now: int) -> str:
    """Of several heights. Ten have the same time, as what a program writes at once."""
    text = f"line {number} " + ("wide 日本語 " * (number % 7) * 12 if number % 50 == 0 else "of a program")
    return f"{time_text(now - (LINES - number // 10) * 1_000_000)} stdout F {text}\n"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "shop_web-0000_u0" / "app" / "0.log"
    path.parent.mkdir(parents=True)
    now = time.time_ns()
    path.write_text("".join(line(number, now) for number in range(LINES)))
    return path


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Browser]:
    if find_browser() is None:
        pytest.skip("Debian's chromium-headless-shell is not installed")
    with many_pods(1, str(log.parents[2])) as url, a_browser(tmp_path_factory.mktemp("browser") / "profile") as found:
        found.size(1000, 700)
        found.visit(url)
        found.type("#token", "any")
        found.press("Enter")
        found.wait_text("Most CPU")
        yield found
        assert not found.complaints, found.complaints


@pytest.fixture
def browser(opened: Browser) -> Browser:
    """With the log, at its end."""
    opened.run("location.hash = '#/'")
    opened.wait_text("Most CPU")
    opened.run("location.hash = '#/logs/p0000/app'")
    opened.wait(f"Number({LAST}) >= {LINES - 1} && {AT_END}")
    return opened


def settled(browser: Browser, script: str) -> Any:
    """The value of an expression after what was done has been drawn."""
    frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    return browser.run(f"{frames}.then(() => {script})")


def write(log: Path, *numbers: int) -> None:
    with log.open("a") as file:
        for number in numbers:
            file.write(f"{time_text(time.time_ns())} stderr F line {number} more\n")


def test_all_of_a_long_log_can_be_read(browser: Browser, log: Path) -> None:
    browser.wait(AT_END)
    assert browser.run(f"{ROWS}.length") < 100
    browser.run(f"{LIST}.focus()")
    told, held = f"{LIST}.parentElement.querySelector('[role=status]').textContent", 500
    while held < LINES:
        browser.press("Home")
        # Older lines come above, and the line at the top is the one that was there.
        held = browser.wait(f"(all => all > {held} && all)(Number({told}.match(/(\\d+) in all/)?.[1] ?? 0))")
        assert browser.run(f"{ROWS}.length") < 100
    browser.press("Home")
    browser.wait(f"{told} === 'this is the first line'")
    browser.wait(f"{ROWS}[0].getAttribute('aria-setsize') === '{LINES}'")
    assert browser.run(f"{ROWS}[0].getAttribute('aria-posinset')") == "1"

    check_places(browser)
    browser.run(f"{LIST}.focus()")
    browser.press("End")
    browser.wait(f"{LAST} === '{LINES - 1}' && {AT_END}")


def check_places(browser: Browser) -> None:
    """Wherever one scrolls to, each line is there once and in its place, and few are in the page."""
    every = (
        f"(async () => {{ let wrong = 0; const all = {LIST};"
        " for (let turn = 0; turn < 40; turn++) { all.scrollTop = turn * all.scrollHeight / 40;"
        " await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));"
        f" const rows = {ROWS}, number = (row) => Number(row.lastChild.textContent.split(' ')[1]);"
        " wrong += rows.filter((row) => number(row) + 1 !== Number(row.getAttribute('aria-posinset'))).length;"
        " wrong += rows.length > 100 || rows.length < 10; } return wrong; })()"
    )
    assert browser.run(every) == 0


def test_a_hundred_thousand_lines(browser: Browser) -> None:
    """As many as somebody who follows for long has."""
    item = "{time: '2026-11-27T12:00:00.000Z', stream: 'stdout', line: `line ${number} ${'x'.repeat(number % 400)}`}"
    made = (
        "const {Lines} = await import('/lines.js'), {h} = await import('/dom.js');"
        " const row = (one) => h('div', {class: 'line'}, h('time', {}, one.time), h('span', {}, one.line));"
        f" const many = new Lines('many', row); {LIST}.replaceWith(many.element);"
        f" many.add(Array.from({{length: {MANY}}}, (_, number) => ({item})));"
    )
    browser.run(f"(async () => {{ {made} }})()")
    browser.wait(f"{LAST} === '{MANY - 1}' && {AT_END}")
    assert browser.run(f"{ROWS}.length") < 100
    check_places(browser)


def test_who_reads_is_not_moved_and_who_is_at_the_end_stays_there(browser: Browser, log: Path) -> None:
    write(log, LINES, LINES + 1)
    browser.wait(f"{LAST} === '{LINES + 1}' && {AT_END}")
    browser.run(f"{LIST}.scrollTop -= 3000")
    before = settled(browser, TOP)
    assert before and not browser.run(AT_END)
    write(log, *range(LINES + 2, LINES + 300))
    browser.wait(f"{ROWS}[0].getAttribute('aria-posinset') !== null && {LIST}.scrollHeight - {LIST}.scrollTop > 6000")
    assert settled(browser, TOP) == before
    # By the wheel, a step at a time, lines of unknown heights come in above: none jumps.
    for _ in range(20):
        middle = f"{ROWS}[Math.floor({ROWS}.length / 2)]"
        browser.run(f"window.held = {middle}, window.was = held.getBoundingClientRect().top, {LIST}.scrollTop -= 120")
        moved = settled(browser, "held.isConnected && held.getBoundingClientRect().top - was")
        assert abs(moved - 120) <= 1, moved
    browser.run(f"{LIST}.focus()")
    browser.press("End")
    browser.wait(f"{LAST} === '{LINES + 299}' && {AT_END}")
    write(log, LINES + 300)
    browser.wait(f"{LAST} === '{LINES + 300}' && {AT_END}")
    script = axe_script()
    assert not violations(browser, script)


def test_lines_around_one_that_was_found(browser: Browser, log: Path) -> None:
    """Those at its time, and 20 before and after them; more at a button, without a jump; and back to what was found."""
    browser.type("#filter", "6005")
    browser.press("Enter")
    browser.wait(f"{ROWS}.length === 1 && {ROWS}[0].innerText.includes('line 6005 of')")
    browser.click(".line .near")
    browser.wait(f"{HIT}?.innerText.includes('line 6005 of')")
    numbers = f"{ROWS}.map((one) => Number(one.lastChild.textContent.split(' ')[1]))"
    browser.wait(f"{ROWS}[0].getAttribute('aria-setsize') === '50'")
    assert browser.run("document.querySelectorAll('.hit').length") == 1
    assert browser.run(f"{HIT}.getAttribute('aria-posinset')") == "26"
    assert not violations(browser, axe_script())
    place = browser.run(f"{HIT}.getBoundingClientRect().top - {LIST}.getBoundingClientRect().top")
    assert 0 < place < browser.run(f"{LIST}.clientHeight")
    where = f"{HIT}.getBoundingClientRect().top"
    before = browser.run(where)
    browser.click("#more-before")
    browser.wait(f"{HIT}.getAttribute('aria-posinset') === '226' && {HIT}.getAttribute('aria-setsize') === '250'")
    browser.wait("!document.querySelector('#more-before').disabled")
    assert abs(browser.run(where) - before) < 1
    browser.click("#more-after")
    browser.wait(f"{HIT}.getAttribute('aria-setsize') === '450'")
    browser.run(f"{LIST}.focus()")
    for key, number in (("End", 6029 + 200), ("Home", 5980 - 200)):
        browser.press(key)
        browser.wait(f"{numbers}.includes({number})")
        found = browser.run(numbers)
        assert found == list(range(found[0], found[0] + len(found)))
    address = browser.run("location.hash")
    browser.on("[...document.querySelectorAll('main a')].find((one) => one.textContent.startsWith('Back'))", "click()")
    browser.wait(f"location.hash === '#/logs/p0000/app' && {ROWS}.length === 1 && {ROWS}[0].innerText.includes('6005')")
    assert browser.run("document.querySelector('#filter').value") == "6005"
    # The address alone says it all.
    browser.run(f"location.hash = '#/'; location.hash = '{address}'")
    browser.wait(f"{HIT}?.innerText.includes('line 6005 of')")


def test_lines_that_belong_together_are_found_together(browser: Browser, log: Path) -> None:
    trace = ["Traceback (most recent call last):", '  File "x.py", line 3, in f', "KeyError: 'unheard'"]
    with log.open("a") as file:
        for text in ("request 7 failed", *trace, "request 8"):
            file.write(f"{time_text(time.time_ns())} stdout F {text}\n")
    browser.type("#filter", "unheard")
    browser.press("Enter")
    browser.wait(f"{ROWS}.length === 1 && {ROWS}[0].innerText.includes('request 7 failed\\n{trace[0]}')")
    with log.open("a") as file:
        for text in ("request 9 failed", *trace, "request 10"):
            file.write(f"{time_text(time.time_ns())} stdout F {text}\n")
    browser.wait(f"{ROWS}.length === 2 && {ROWS}[1].innerText.includes('request 9 failed\\n{trace[0]}')")
