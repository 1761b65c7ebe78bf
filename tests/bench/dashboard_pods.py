"""What a browser takes for the list of 500 pods, each of which changes every second.

python -m tests.bench.dashboard_pods [PODS]"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.support.browser import Browser, a_browser
from tests.support.dashboard_many import many_pods

SECONDS = 20


def cpu_s(session: int) -> float:
    """Of all processes of the browser's session."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def measure(browser: Browser, session: int, page: str) -> str:
    browser.run(f"location.hash = {json.dumps(page)}")
    browser.wait("document.querySelectorAll('.row').length > 5")
    time.sleep(3)  # for what opening it takes
    before, begun = cpu_s(session), time.monotonic()
    time.sleep(SECONDS)
    share = (cpu_s(session) - before) / (time.monotonic() - begun)
    rows = browser.run("document.querySelectorAll('.row:not(.head)').length")
    return f"{page}: {share * 100:.1f} % of a core, {rows} rows in the page"


def main(pods: int) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        many_pods(pods) as url,
        a_browser(Path(directory, "profile")) as browser,
    ):
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        browser.size(1100, 760)
        browser.visit(url)
        browser.type("#token", "t")
        browser.press("Enter")
        browser.wait("document.querySelector('nav') !== null")
        print(f"{pods} pods, each changing every second")
        for page in ("#/pods", "#/"):
            print(" ", measure(browser, int(children[-1]), page))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
