"""`pyrun dashboard` over `pyrun cri`, in a real browser: somebody opens the page, sees which pod is broken and why, and
reads its logs. Names, labels and lines of it are hostile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.metrics.samples import Series
from pyrun.metrics.store import Keep, Store
from tests.support.browser import Browser, a_browser, find_browser
from tests.support.container.open_files import open_files
from tests.support.cri.node import Node, a_node
from tests.support.dashboard import Served, a_dashboard

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'`${7*7}"
SAYS = (
    r"printf 'plain\n\033[31mred\033[0m \033]0;title\007bell\007\n'; "
    f"echo '{EVIL.replace(chr(39), '')}'; "
    r"printf '\377\376 \342\200\256reversed\n'; echo 'DATABASE_URL not set' >&2; exit 3"
)
# It has no child that comes and goes.
NAMES = ("cpu_usage_seconds_total", "memory_working_set_bytes")
COUNTS = "mkfifo /f; exec 3<>/f; n=0; while :; do n=$((n+1)); echo line $n; read -t 1 x <&3; done"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Iterator[Node]:
    with a_node(tmp_path_factory.mktemp("node"), busybox_rootfs) as found:
        found.start()
        run(found, "web", "app", COUNTS)
        failed = run(found, "cart", "app", SAYS, labels={"app": EVIL}, annotations={"note": EVIL})
        found.wait_state(failed, v1.CONTAINER_EXITED, 60.0)
        yield found
        found.clear()


def run(node: Node, pod: str, name: str, script: str, **fields: Any) -> str:
    """With its logs where a kubelet has them."""
    directory = node.logs / f"default_{pod}_uid-{pod}"
    (directory / name).mkdir(parents=True)
    made = node.run_pod(pod, log_directory=str(directory), **fields)
    return node.run(made, name, script, pod, log_path=f"{name}/0.log")


@pytest.fixture(scope="module")
def dashboard(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with a_dashboard(tmp_path_factory.mktemp("dashboard"), node.socket, node.logs) as served:
        yield served


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if find_browser() is None:
        pytest.skip("Debian's chromium-headless-shell is not installed")
    with a_browser(tmp_path / "profile") as found:
        yield found


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_talks_to_browsers_has_no_privileges(dashboard: Served) -> None:
    dashboard.get("/api/state")
    [web] = children(dashboard.process.pid)
    lines = Path(f"/proc/{web}/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert "0" not in status["Uid"] + status["Gid"] and status["Groups"] == []
    for kind in ("CapPrm", "CapEff", "CapAmb", "CapInh"):
        assert int(status[kind][0], 16) == 0, kind
    assert status["NoNewPrivs"] == ["1"]
    held = [name for fd, name in open_files(web).items() if fd > 2]
    assert held
    assert not [name for name in held if name.startswith("/")], held


def test_the_state(dashboard: Served) -> None:
    state = dashboard.get("/api/state")
    assert state["node"]["name"] == "n1" and state["node"]["runtime"] == "pyrun" and not state["node"]["error"]
    by_name = {value["name"]: value for key, value in state.items() if key.startswith("pod/")}
    assert by_name["web"]["containers"][0]["state"] == "running" and by_name["web"]["ips"]
    assert by_name["cart"]["labels"] == {"app": EVIL}
    [problem] = [value for key, value in state.items() if key.startswith("problem/") and value["pod"]]
    assert problem["name"] == "cart" and problem["what"].startswith("exit 3") and problem["level"] == "broken"
    assert problem["why"] == "its last line: DATABASE_URL not set"
    [image] = [value for key, value in state.items() if key.startswith("image/")]
    assert image["used"] == ["default/cart", "default/web"]


def test_logs(dashboard: Served) -> None:
    of = "namespace=default&pod=cart&uid=uid-cart&container=app"
    lines = dashboard.get(f"/api/logs?{of}")["lines"]
    assert [one["line"] for one in lines if one["stream"] == "stdout"][:2] == ["plain", "red bell\u2407"]
    assert "\ufffd\ufffd \ufffdreversed" in [one["line"] for one in lines]
    [one] = dashboard.get(f"/api/logs?{of}&word=database_url")["lines"]
    assert (one["stream"], one["line"]) == ("stderr", "DATABASE_URL not set")
    assert dashboard.get(f"/api/logs?{of}&word=nothing")["lines"] == []
    for wrong in ("uid=", "uid=*", "container=..", "pod=../../etc&pod=x"):
        key = wrong.split("=")[0]
        path = "&".join([*(word for word in of.split("&") if not word.startswith(key)), wrong])
        status, _, body = dashboard.ask(f"/api/logs?{path}", authorization=f"Bearer {dashboard.token}")
        assert status in (400, 404), (wrong, body)


def log_in(browser: Browser, dashboard: Served) -> None:
    browser.visit(dashboard.url)
    browser.type("#token", dashboard.token)
    browser.press("Enter")
    browser.wait_text("DATABASE_URL not set")


def test_the_story_in_a_browser(browser: Browser, dashboard: Served) -> None:
    log_in(browser, dashboard)
    browser.wait_text("DATABASE_URL not set")
    browser.click(".problem a")
    browser.wait_text("Annotations")
    browser.wait_text(EVIL)
    browser.press("l")
    browser.wait_text("red bell")
    browser.wait("document.querySelectorAll('.line.stderr').length === 1")
    assert browser.run("document.querySelectorAll('img, main script, [onerror]').length") == 0

    browser.run("location.hash = '#/pods'")
    browser.wait("document.querySelectorAll('.row:not(.head)').length === 2")
    browser.press("/")
    browser.send("Input.insertText", text="web")
    browser.wait("document.querySelectorAll('.row:not(.head)').length === 1")
    browser.click(".row a")
    browser.wait_text("running for")
    browser.press("l")
    seen = "document.querySelectorAll('.line').length"
    before = browser.wait(seen)
    browser.wait(f"{seen} > {before} + 3")

    browser.run("location.hash = '#/images'")
    browser.wait_text("registry.test/busybox:1")
    for width in (320, 1200):
        browser.size(width, 800)
        assert browser.run("document.documentElement.scrollWidth") <= width
    assert not browser.complaints, browser.complaints
    assert all(url.startswith(dashboard.url) for url in browser.requests if url != "about:blank"), browser.requests


def test_the_last_hour(browser: Browser, node: Node, tmp_path: Path) -> None:
    """As `pyrun metrics --store` has it: figures of before the page was opened."""
    store = Store(str(tmp_path), Keep())
    now = int(time.time())
    for number in range(100):
        cpu, memory = (Series(f"pod_{name}", "default", "web", "uid-web") for name in NAMES)
        store.append((now - 1000 + number * 10) * 100, {cpu: number * 5_000_000, memory: (100 + number) * 1_000_000})
    store.close()
    with a_dashboard(tmp_path, node.socket, node.logs, "--store", str(tmp_path)) as served:
        log_in(browser, served)
        browser.wait_text("Nothing is kept of it yet")
        browser.run("location.hash = '#/pods'")
        browser.wait("document.querySelectorAll('.row:not(.head)').length === 2")
        browser.run("[...document.querySelectorAll('.row a')].find((one) => one.textContent === 'web').click()")
        browser.wait_text("at most 0.50")
        browser.wait_text("at most 199 MB")
        assert not browser.complaints, browser.complaints


def test_changes_come_by_themselves(browser: Browser, dashboard: Served, node: Node) -> None:
    log_in(browser, dashboard)
    browser.run("location.hash = '#/pods'")
    browser.wait_text("web")
    id = node.run_pod("fresh")
    browser.wait_text("fresh")
    node.call("RemovePodSandbox", pod_sandbox_id=id)
    browser.wait("!document.body.innerText.includes('fresh')")
    assert not browser.complaints, browser.complaints


def test_scripts_that_get_into_a_page_do_nothing(browser: Browser, dashboard: Served) -> None:
    """The policy, should the text nodes have a hole."""
    log_in(browser, dashboard)
    with pytest.raises(AssertionError, match="TrustedHTML"):
        browser.run("document.body.innerHTML = '<b>x</b>'")
    browser.run("const s = document.createElement('iframe'); s.src = 'https://example.test/'; document.body.append(s)")
    browser.wait("true")
    last = time.monotonic() + 60
    while not any("frame-src" in text or "default-src" in text for text in browser.complaints):
        browser.run("1")
        assert time.monotonic() < last, browser.complaints
        time.sleep(0.1)


def test_a_writer_that_is_too_fast(dashboard: Served, node: Node) -> None:
    """Nobody can read so much: it is skipped, and told."""
    import http.client
    import json

    run(node, "flood", "app", "yes 0123456789012345678901234567890123456789")
    of = "namespace=default&pod=flood&uid=uid-flood&container=app"
    connection = http.client.HTTPConnection(dashboard.place, timeout=60)
    try:
        connection.request("GET", f"/api/follow?{of}", headers={"authorization": f"Bearer {dashboard.token}"})
        answer = connection.getresponse()
        assert answer.status == 200
        skipped = 0
        last = time.monotonic() + 60
        while not skipped:
            line = answer.readline()
            assert line and time.monotonic() < last
            if line.startswith(b"data: "):
                told = json.loads(line[6:])
                assert len(told["lines"]) <= 1000
                skipped += told["skipped"]
    finally:
        connection.close()
        [pod] = [one for one in node.call("ListPodSandbox").items if one.metadata.name == "flood"]
        node.call("RemovePodSandbox", pod_sandbox_id=pod.id)
