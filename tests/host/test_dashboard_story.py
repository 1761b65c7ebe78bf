"""What the dashboard is for, in a real browser over `pyrun node run`: of 20 pods one is broken; a person opens the
page, sees which and why, reads its log, opens a shell in it, sees its memory of the last hour, mends its YAML, and
sees it run.

PYRUN_PICTURES=DIRECTORY keeps pictures of it (make pictures)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.metrics.samples import Series
from pyrun.metrics.store import Keep, Store
from tests.support.axe import axe_script, violations
from tests.support.browser import PATIENCE_S, Browser, a_browser, find_browser
from tests.support.container.disk import unmount
from tests.support.container.runner import wait_for
from tests.support.dashboard import Served, a_dashboard
from tests.support.node.agent import WAIT, AgentNode, an_agent, is_ready, pod, sh

PODS = 20
NEEDS = 'if [ -z "$DATABASE_URL" ]; then echo "cart: DATABASE_URL not set" >&2; else touch /tmp/ready; fi'
READY = {"exec": {"command": ["sh", "-c", "test -e /tmp/ready || { echo no database; exit 1; }"]}, "periodSeconds": 1}
KINDS = ("web", "db", "queue", "mail", "search")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The node's own, on which there is room: how full this machine's is would be told as a problem of the node."""
    if find_browser() is None:
        pytest.skip("Debian's chromium-headless-shell is not installed")
    path = tmp_path_factory.mktemp("disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g,mode=700", "node", path], check=True)
    yield path
    unmount(path)


@pytest.fixture(scope="module")
def agent(disk: Path, busybox_rootfs: Path) -> Iterator[AgentNode]:
    with an_agent(disk / "agent", busybox_rootfs) as found:
        for number in range(PODS - 1):
            name = f"{KINDS[number % len(KINDS)]}-{number // len(KINDS)}"
            found.write(name, pod(name, sh("app", f"echo {name} listens; {WAIT}")))
        found.write("cart", pod("cart", {**sh("app", f"{NEEDS}; {WAIT}"), "readinessProbe": READY}))
        found.wait(lambda pods: len([one for one in pods.values() if is_ready(one)]) == PODS - 1)
        yield found


@pytest.fixture(scope="module")
def dashboard(agent: AgentNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With the past of `pyrun metrics --store`."""
    directory = tmp_path_factory.mktemp("dashboard")
    keep_an_hour(directory, agent.pods()["cart"]["metadata"]["uid"])
    with a_dashboard(directory, agent.node.socket, agent.node.logs, "--store", str(directory)) as served:
        yield served


def keep_an_hour(directory: Path, uid: str) -> None:
    store = Store(str(directory), Keep())
    now = int(time.time())
    cpu = 0
    for number in range(360):
        wave = abs(number % 60 - 30)
        cpu += 200_000 + wave * 60_000  # microseconds
        samples = {
            Series("pod_memory_working_set_bytes", "default", "cart", uid): (40 + number // 4 + wave) * 1_000_000,
            Series("pod_cpu_usage_seconds_total", "default", "cart", uid): cpu // 10,
            Series("node_memory_working_set_bytes"): (900 + number + wave * 9) * 1_000_000,
            Series("node_cpu_usage_seconds_total"): cpu * 4,
        }
        store.append((now - (360 - number) * 10) * 100, samples)
    store.close()


def picture(browser: Browser, name: str, agent: AgentNode) -> None:
    """Where pictures are wanted. Directories of this machine are shown as a node has them."""
    if directory := os.environ.get("PYRUN_PICTURES"):
        places = {str(agent.manifests): "/etc/pyrun/manifests", str(agent.node.path): "/var/lib/pyrun"}
        browser.run(
            f"(() => {{ const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);"
            f" while (walk.nextNode()) for (const [from, to] of Object.entries({json.dumps(places)}))"
            " if (walk.currentNode.data.includes(from))"
            " walk.currentNode.data = walk.currentNode.data.replaceAll(from, to); })()"
        )
        browser.picture(Path(directory) / f"{name}.png")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with a_browser(tmp_path / "profile") as found:
        found.size(1100, 760)
        yield found


def log_in(browser: Browser, dashboard: Served) -> None:
    browser.visit(dashboard.url)
    browser.type("#token", dashboard.token)
    browser.press("Enter")
    browser.wait_text("Most CPU")


def open_link(browser: Browser, name: str, text: str) -> None:
    """A link of the page by its words; until the page says this."""
    found = f"[...document.querySelectorAll('main a')].find((one) => one.textContent === {json.dumps(name)})"
    browser.on(found, "click()")
    browser.wait_text(text)


def go_back(browser: Browser) -> None:
    """To the pod's summary, of which no other page of the story has these words but the overview."""
    browser.run("history.back()")
    browser.wait_text("Last hour")


# The tab that is open, of a pod's.
HERE = "document.querySelector('nav.tabs [aria-current]')?.innerText"
# What stands before the figures of a pod where there is no head above them.
LABELS = (
    "[...document.querySelectorAll('.row[data-key]')[0].children].filter((one) => one.offsetParent)"
    ".map((one) => getComputedStyle(one, '::before').content).filter((one) => one !== 'none').map(JSON.parse)"
)

PAGES = {
    "/": "Most CPU",
    "/pods": "Filter",
    "/search": "Of the last",
    "/metrics": "default/cart",
    "/images": "garbage collection",
    "/services": "proxy.sock",
    "/volumes": "of the pods of manifests",
    "/events": "Started container app",
    "/node": "Manifests",
    "/apply": "Dry run",
    "/tokens": "Who did what",
}
OF_A_POD = {
    "pod/ID": "Conditions",
    "pod/ID/timeline": "Started container app",
    "pod/ID/plan": "to come",
    "pod/ID/yaml": "readinessProbe",
    "logs/ID/app": "DATABASE_URL not set",
    "terminal/ID/app": "A shell in app",
}


@pytest.mark.parametrize(("scheme", "width"), [("light", 320), ("dark", 1100)])
def test_pages_are_for_everybody(browser: Browser, dashboard: Served, scheme: str, width: int) -> None:
    """axe-core finds nothing against WCAG 2.2, level AA, on a desk or on a telephone of 320 px."""
    script = axe_script()
    browser.size(width, 760)
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.visit(dashboard.url)
    browser.wait("document.querySelector('#token') !== null")
    found = {"login": violations(browser, script)}
    log_in(browser, dashboard)
    browser.wait("document.querySelectorAll('.problem').length === 1")
    [cart] = [one["pod"] for one in dashboard.get("/api/state").values() if one.get("name") == "cart" and "why" in one]
    pages = PAGES | {f"/{page.replace('ID', cart)}": text for page, text in OF_A_POD.items()}
    for page, text in pages.items():
        browser.run(f"location.hash = {json.dumps(page)}")
        browser.wait_text(text)
        found[page] = violations(browser, script)
        assert browser.run("document.documentElement.scrollWidth") <= width, page
        if page == "/pods":
            labels = browser.run(LABELS)
            assert labels == (["ready ", "restarts ", "CPU ", "memory "] if width == 320 else []), labels
    assert not {place: wrong for place, wrong in found.items() if wrong}


def read_out(browser: Browser) -> None:
    """The graph of a pod's memory: its axes, and what it was at a time, by the keyboard and by the pointer."""
    hour = "document.querySelector('[data-graph=\"hour pod_memory_working_set_bytes\"]')"
    assert browser.run(f"[...{hour}.querySelectorAll('.up')].map((one) => one.textContent)") == [
        "0 B",
        "100 MB",
        "200 MB",
    ]
    assert 1 < len(browser.run(f"[...{hour}.querySelectorAll('.along')].map((one) => one.textContent)")) < 4
    assert browser.run(f"{hour}.ariaLabel").startswith("Memory in the last hour. from 4")
    browser.on(hour, "focus()")
    browser.press("Home")
    browser.wait(f"/^\\d\\d:\\d\\d:\\d\\d UTC: [4-6]\\d MB$/.test({hour}.querySelector('.at').innerText)")
    at = browser.run(f"Number({hour}.ariaValueNow)")
    browser.press("ArrowRight")
    browser.wait(f"Number({hour}.ariaValueNow) === {at + 30}")
    browser.press("Escape")
    browser.wait(f"{hour}.querySelector('.at').innerText.startsWith('at most 15')")
    area = browser.run(
        f"((one) => [one.left, one.top, one.width, one.height])({hour}.querySelector('.area').getBoundingClientRect())"
    )
    x, y = area[0] + area[2] * 0.999, area[1] + area[3] / 2
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    browser.wait(f"/^\\d\\d:\\d\\d:\\d\\d UTC: 15\\d MB$/.test({hour}.querySelector('.at').innerText)")
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    browser.wait(f"{hour}.querySelector('.cursor') === null")
    browser.run(f"{hour}.blur()")


def see_figures(browser: Browser, dashboard: Served, agent: AgentNode) -> None:
    """Of the pod on its page, then of the node among all metrics."""
    browser.wait_text("at most 15")  # its memory
    browser.wait(r"/CPU\s+\d\.\d\d/.test(document.querySelector('.gauges').innerText)")

    def is_told() -> bool:
        """Why its memory is missing where it is, and only there: what the page shows may be of another reading."""
        [cart] = [one for one in dashboard.get("/api/state").values() if one.get("name") == "cart" and "labels" in one]
        said = browser.run("document.body.innerText.includes('no memory controller')")
        return cart["cpu"] is not None and said == (cart["memory"] is None)

    wait_for(is_told, PATIENCE_S, "the page does not say why memory is missing, or says it of memory that is there")
    assert browser.run("document.querySelectorAll('.past polyline').length") >= 2
    read_out(browser)
    picture(browser, "pod", agent)
    browser.press("m")
    choose = "value = 'node_cpu_usage_seconds_total', one.dispatchEvent(new Event('change', {bubbles: true}))"
    browser.on("document.querySelector('#metric-name')", choose)
    browser.wait_text("the rate of node_cpu_usage_seconds_total")
    browser.wait("/the node\\s+0\\.\\d\\d CPU/.test(document.querySelector('tbody')?.innerText)")
    assert browser.run("location.hash") == "#/metrics/node_cpu_usage_seconds_total/3600/"
    picture(browser, "metrics", agent)


def test_of_twenty_pods_one_is_broken(browser: Browser, dashboard: Served, agent: AgentNode) -> None:
    log_in(browser, dashboard)
    browser.wait_text("not ready")
    browser.wait_text("no database")
    browser.wait("document.querySelectorAll('.problem').length === 1")
    browser.wait("document.querySelectorAll('.row[data-key]').length > 3")
    browser.wait(r"/Pressure\s+cpu [\d.]+ %, memory [\d.]+ %, io [\d.]+ %/.test(document.body.innerText)")
    choose = "value = 'restarts', one.dispatchEvent(new Event('change', {bubbles: true}))"
    browser.on("document.querySelector('#top-by')", choose)
    browser.wait_text("Most restarts")
    browser.on("document.querySelector('#top-by')", choose.replace("restarts", "cpu"))
    browser.wait_text("Most CPU")
    picture(browser, "overview", agent)
    browser.run("location.hash = '#/pods'")
    browser.wait_text(f"{PODS} of {PODS}")
    browser.run("location.hash = '#/'")

    open_link(browser, "default/cart app", "Last hour")
    see_figures(browser, dashboard, agent)
    go_back(browser)
    browser.press("l")
    browser.wait_text("DATABASE_URL not set")
    assert browser.run(HERE) == "Logs of app"
    go_back(browser)
    browser.press("s")
    rows = "document.querySelector('.xterm-rows')?.innerText"
    browser.wait(f"{rows}?.includes('#')")
    browser.type(".xterm-helper-textarea", 'echo "it is <$DATABASE_URL>"')
    browser.press("Enter")
    browser.wait(f"{rows}?.includes('it is <>')")
    assert browser.run(HERE) == "Shell in app"
    picture(browser, "shell", agent)

    go_back(browser)
    open_link(browser, "Plan", "to come")
    picture(browser, "plan", agent)
    go_back(browser)
    open_link(browser, "YAML", "readinessProbe")
    browser.click("#edit")
    text = "document.querySelector('#manifest').value"
    browser.wait(f"document.querySelector('#manifest')?.value.includes('{NEEDS[:8]}')")
    mended = "  containers:\\n  - env: [{name: DATABASE_URL, value: 'postgres://db-0/shop'}]\\n    command:"
    browser.run(f"{text} = {text}.replace('  containers:\\n  - command:', `{mended}`)")
    browser.click("#dry")
    browser.wait_text("Pod default/cart configured")
    browser.on("document.querySelector('.diff')", "scrollIntoView({block: 'end'})")
    picture(browser, "change", agent)
    browser.click("#apply")
    browser.wait_text("Applied")
    agent.wait_ready("cart")
    browser.run("location.hash = '#/'")
    browser.wait_text("Nothing is wrong")
    browser.run("location.hash = '#/pods'")
    browser.wait(
        "[...document.querySelectorAll('.row')].some((one) => one.innerText.includes('cart') &&"
        " one.innerText.includes('Running'))"
    )
    (agent.manifests / "cart.yaml").unlink()
    agent.wait(lambda pods: "cart" not in pods)
    assert not browser.complaints, browser.complaints
