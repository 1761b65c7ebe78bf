"""The dashboard over `pyrun node run`, in a real browser: a pod of a manifest is broken; somebody sees which and why,
reads its log, looks at its plan and its events, opens a shell beside it, and mends its YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.node.agent.ask import ask
from tests.support.browser import Browser, a_browser, find_browser
from tests.support.dashboard import Served, a_dashboard
from tests.support.node.agent import AgentNode, an_agent, pod, sh

# It has no child that comes and goes.
WAITS = "trap 'exit 0' TERM; mkfifo /f; exec 3<>/f; while :; do read -t 1 x <&3; done"
BROKEN = "echo 'DATABASE_URL not set' >&2; exit 3"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Iterator[AgentNode]:
    with an_agent(tmp_path_factory.mktemp("agent"), busybox_rootfs) as found:
        volume = {"name": "tmp", "emptyDir": {"sizeLimit": "1Mi"}}
        app = sh("app", f"echo hello from web; {WAITS}", volumeMounts=[{"name": "tmp", "mountPath": "/tmp"}])
        found.write("web", pod("web", app, volumes=[volume]))
        cart = pod("cart", {**sh("app", BROKEN), "env": [{"name": "DB_PASSWORD", "value": "open sesame"}]})
        path = found.write("cart", cart)
        path.write_text("# who asks: the shop\n" + path.read_text())
        found.wait_ready("web")
        # A browser drops what it loads when the addresses of the machine change, so the pods' come first.
        found.wait(lambda pods: pods["cart"]["status"]["containerStatuses"][0]["restartCount"])
        yield found


@pytest.fixture(scope="module")
def dashboard(agent: AgentNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with a_dashboard(tmp_path_factory.mktemp("dashboard"), agent.node.socket, agent.node.logs) as served:
        yield served


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if find_browser() is None:
        pytest.skip("Debian's chromium-headless-shell is not installed")
    with a_browser(tmp_path / "profile") as found:
        yield found


def open_tab(browser: Browser, name: str, text: str) -> None:
    """A link of the page by its words."""
    found = f"[...document.querySelectorAll('main a')].find((one) => one.textContent === {json.dumps(name)})"
    browser.wait(f"{found} !== undefined")
    browser.run(f"{found}.click()")
    browser.wait_text(text)


def test_a_broken_pod_is_found_and_mended(browser: Browser, dashboard: Served, agent: AgentNode) -> None:
    browser.visit(dashboard.url)
    browser.type("#token", dashboard.token)
    browser.press("Enter")
    browser.wait_text("CrashLoopBackOff")
    browser.wait_text("DATABASE_URL not set")
    browser.wait_text("cart.yaml")
    open_tab(browser, "default/cart app", "Conditions")
    open_tab(browser, "Timeline", "Created container: app")
    browser.wait_text("Started container app")
    open_tab(browser, "Plan", "to come")
    browser.wait("document.querySelector('.plan li.bad') !== null && document.querySelector('.plan li.good') !== null")
    assert "cart.yaml:" in browser.run("document.querySelector('.plan').innerText")
    open_tab(browser, "Logs of app", "DATABASE_URL not set")
    browser.run("history.back()")
    open_tab(browser, "YAML", "DB_PASSWORD")
    assert "open sesame" not in browser.run("document.body.innerText")

    browser.click("#edit")
    browser.wait("document.querySelector('#manifest')?.value.includes('who asks: the shop')")
    assert "open sesame" in browser.run("document.querySelector('#manifest').value")
    browser.run("document.querySelector('#manifest').value += '  imagee: x\\n'")
    browser.click("#dry")
    browser.wait_text("Nothing was changed")
    text = "document.querySelector('#manifest').value"
    browser.run(f"{text} = {text}.replace('  imagee: x\\n', '').replace('exit 3', {json.dumps(WAITS)})")
    browser.click("#dry")
    browser.wait_text("It would be applied")
    browser.wait_text("Pod default/cart configured")
    browser.wait("document.querySelector('.diff .good') !== null")
    assert "exit 3" in (agent.manifests / "cart.yaml").read_text(), "a dry run changes nothing"
    browser.click("#apply")
    browser.wait_text("Applied")
    agent.wait_ready("cart")
    assert (agent.manifests / "cart.yaml").read_text().startswith("# who asks: the shop\n")
    browser.run("location.hash = '#/'")
    browser.wait("!document.body.innerText.includes('DATABASE_URL')")
    (agent.manifests / "cart.yaml").unlink()
    agent.wait(lambda pods: "cart" not in pods)
    assert not browser.complaints, browser.complaints


def test_a_terminal(browser: Browser, dashboard: Served) -> None:
    """What is typed comes to a shell in the container, as large as the page's, and what it writes comes back."""
    browser.visit(dashboard.url)
    browser.type("#token", dashboard.token)
    browser.press("Enter")
    open_tab(browser, "web", "Conditions")
    open_tab(browser, "Shell in app", "A shell in app")
    rows = "document.querySelector('.xterm-rows').innerText"
    browser.wait(f"{rows}.includes('#')")
    browser.type(".xterm-helper-textarea", "echo $((40+2))-$(stty size)-$TERM")
    browser.press("Enter")
    browser.wait(f"/42-\\d\\d \\d\\d+-xterm/.test({rows})")
    browser.type(".xterm-helper-textarea", "exit")
    browser.press("Enter")
    browser.wait_text("The shell has ended")
    browser.run("location.hash = '#/tokens'")
    browser.wait_text("terminal")
    assert not browser.complaints, browser.complaints


def test_images_have_the_plan_of_garbage_collection(browser: Browser, dashboard: Served, agent: AgentNode) -> None:
    """The node agent's own, image by image: what would go and why the others stay."""
    plan = ask(str(Path(agent.node.socket).parent), "garbage")
    told = dashboard.get("/api/read/garbage")
    of = ("id", "goes", "frees", "why")
    assert [[one[name] for name in of] for one in told["images"]] == [
        [one[name] for name in of] for one in plan["images"]
    ]
    assert len(told["images"]) == 1 and told["why"] == plan["why"]
    browser.visit(dashboard.url)
    browser.type("#token", dashboard.token)
    browser.press("Enter")
    browser.wait_text("Most CPU")
    browser.run("location.hash = '#/images'")
    browser.wait_text("garbage collection would take 0 of them now, 0 B")
    browser.wait_text(f"stays: {told['images'][0]['why']}; last used ")
    browser.wait_text(plan["why"])
    assert not browser.complaints, browser.complaints


EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'`${7*7}"
FORGED = "\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[31mred"
MISLEADS = r"printf '\033]0;title\007\033]52;c;ZXZpbA==\007\033[2J\033[31mred \342\200\256reversed\377 '; "


def test_hostile_words_of_pods_stay_words(browser: Browser, dashboard: Served, agent: AgentNode) -> None:
    """What a probe and a program say, names of images, of objects and of files, annotations: in the list of what is
    broken, in events, the plan and the YAML of a pod they are text, and obeyed by nobody."""
    says = f"{MISLEADS} echo '{EVIL.replace(chr(39), '')}'"
    probe = {"exec": {"command": ["sh", "-c", f"({says}) >&2; exit 1"]}, "periodSeconds": 1}
    dies = sh("dies", f"({says}) > /dev/termination-log; exit 3")
    made = pod("evil", sh("app", WAITS, readinessProbe=probe), dies)
    made["metadata"]["annotations"] = {"note": EVIL + FORGED}
    agent.write("evil", made)
    agent.write("evil-image", pod("evil-image", {**sh("app", "true"), "image": EVIL}))
    named = pod("evil-name", sh("app", "true"))
    named["metadata"]["name"] = EVIL
    agent.write("evil <img src=x onerror=alert(3)>", named)
    try:
        browser.visit(dashboard.url)
        browser.type("#token", dashboard.token)
        browser.press("Enter")
        shown = EVIL.replace("'", "")
        for text in (shown, "onerror=alert(3)>.yaml", "evil-image"):
            browser.wait_text(text)
        check_words(browser)
        for page, text in (("#/events", shown), ("#/pods", "evil"), ("#/node", "onerror=alert(3)>.yaml")):
            browser.run(f"location.hash = {json.dumps(page)}")
            browser.wait_text(text)
            check_words(browser)
        browser.run("location.hash = '#/pods'")
        open_tab(browser, "evil", "Conditions")
        browser.wait_text(EVIL)  # the annotation
        check_words(browser)
        for tab, text in (("Timeline", shown), ("Plan", "to come"), ("YAML", "${7*7}")):
            open_tab(browser, tab, text)
            check_words(browser)
        assert not browser.complaints, browser.complaints
        assert all(url.startswith(dashboard.url) for url in browser.requests if url != "about:blank"), browser.requests
    finally:
        for path in agent.manifests.glob("evil*"):
            path.unlink()
        agent.wait(lambda pods: not [name for name in pods if name.startswith("evil")])


def check_words(browser: Browser) -> None:
    """No element that none of ours makes, and nothing that a terminal or the direction of text obeys."""
    assert browser.run("document.querySelectorAll('img, iframe, main script, [onerror]').length") == 0
    found = browser.run(r"document.body.innerText.match(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/)")
    assert found is None, found


PAGES = {
    "#/": "Most CPU",
    "#/pods": "Filter",
    "#/search": "Of the last",
    "#/images": "garbage collection",
    "#/services": "proxy.sock",
    "#/volumes": "emptyDir",
    "#/events": "Started container app",
    "#/node": "Manifests",
    "#/apply": "Dry run",
    "#/tokens": "Who did what",
}


def see_parts(browser: Browser) -> None:
    """What may be absent is told with how it is started, and is no error."""
    browser.run("location.hash = '#/services'")
    browser.wait_text("The service proxy is optional, and none runs on this node")
    browser.wait_text("sudo pyrun proxy run")
    browser.run("location.hash = '#/metrics'")
    browser.wait_text("The metrics store is optional, and none runs on this node")
    browser.run("location.hash = '#/node'")
    cells = "[...one.cells].slice(0, 2).map((cell) => cell.innerText)"
    rows = f"[...document.querySelectorAll('tbody tr')].map((one) => {cells})"
    browser.wait(f"{rows}.length === 5")
    assert dict(browser.run(rows)) == {
        "Node agent": "runs",
        "Service proxy": "does not run",
        "DNS": "does not run",
        "Metrics store": "does not run",
        "Log store": "does not run",
    }
    limits = "[...document.querySelectorAll('main dt')].map((one) => `${one.innerText}: ${one.nextSibling.innerText}`)"
    found = browser.run(limits)
    assert 'eviction_hard: ["nodefs.available<1%"] by --eviction-hard' in found, found
    assert [one for one in found if re.match(r"nodefs.available: less than [\d.]+ [MG]B; now [\d.]+ [MGT]B$", one)], (
        found
    )


def test_every_page(browser: Browser, dashboard: Served) -> None:
    """On a telephone, too: nothing is wider than the window, and each thing that can be used has a name."""
    browser.size(320, 600)
    browser.visit(dashboard.url)
    browser.type("#token", dashboard.token)
    browser.press("Enter")
    browser.wait_text("Most CPU")
    for page, text in PAGES.items():
        browser.run(f"location.hash = {json.dumps(page)}")
        browser.wait_text(text)
        assert browser.run("document.documentElement.scrollWidth") <= 320, page
        unnamed = (
            "[...document.querySelectorAll('a, button, input, select, textarea')].filter((one) =>"
            " !(one.textContent.trim() || one.labels?.[0]?.textContent.trim() || one.ariaLabel))"
            ".map((one) => one.outerHTML)"
        )
        assert browser.run(unnamed) == [], page
        assert browser.run("document.querySelector('.error')?.innerText ?? ''") == "", page
    see_parts(browser)
    browser.run("location.hash = '#/tokens'")
    browser.type("#token-name", "ann")
    browser.click("#make-token button")
    browser.wait("document.querySelector('#made')?.textContent.length === 43")
    browser.click("[data-act=revoke-token]")
    browser.wait("document.querySelector('[data-act=revoke-token]') === null")
    browser.run("location.hash = '#/search'")
    browser.wait("document.querySelector('#in-pod') !== null")
    browser.type("#filter", "h.l+o")
    browser.run("document.querySelector('#regex').checked = true")
    browser.click("#search button")
    browser.wait_text("hello from web")
    assert not browser.complaints, browser.complaints
