"""A real browser: Debian's chromium, headless, driven by the DevTools protocol over a pair of pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 90.0
DROPPED = "net::ERR_NETWORK_CHANGED"
PROGRAMS = ("chromium-headless-shell", "chromium")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # we are root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)


def find_browser() -> str | None:
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One page. complaints: what the browser said of the page: errors of scripts, breaches of the content policy,
    dialogs. requests: the URLs that it asked for.

    Chromium drops what it is loading whenever an address of the machine comes or goes, as pods' do, also some seconds
    after they have come (duplicate address detection). That is no fault of a page; one whose own parts were dropped is
    loaded anew, as a person would."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._rest = b""
        self._id = 0
        self._session = ""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._dropped = False

    def open(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        last = time.monotonic() + PATIENCE_S
        while True:
            answer = self._next(last)
            if answer.get("id") == self._id:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self, last: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready = select.select([self._read], [], [], max(0.0, last - time.monotonic()))[0]
            data = os.read(self._read, 1 << 20) if ready else b""
            assert data, "the browser says nothing"
            self._rest += data
        raw, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {told['message']}")
        elif method == "Network.loadingFailed" and told.get("errorText") == DROPPED:
            self._dropped = self._dropped or told["type"] in ("Document", "Script", "Stylesheet")
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error" and DROPPED not in told["entry"]["text"]:
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def close(self) -> None:
        """It ends in good order, and all its processes with it."""
        self._session = ""
        self.send("Browser.close")

    def visit(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression once it is true."""
        last = time.monotonic() + PATIENCE_S
        while not (found := self.run(script)):
            if self._dropped:
                self._dropped = False
                self.send("Page.reload")
            text = self.run("document.body && document.body.innerText")
            assert time.monotonic() < last, f"{script} never came true; the page says:\n{text}\n{self.complaints}"
            time.sleep(0.1)
        return found

    def wait_text(self, text: str) -> None:
        self.wait(f"document.body !== null && document.body.innerText.includes({json.dumps(text)})")

    def on(self, element: str, call: str) -> None:
        """Calls this of an element once it is there; both in one, as a page may draw itself anew in between."""
        self.wait(f"((one) => Boolean(one) && (one.{call}, true))({element})")

    def type(self, selector: str, text: str) -> None:
        self.on(f"document.querySelector({json.dumps(selector)})", "focus()")
        self.send("Input.insertText", text=text)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            if len(key) == 1 and kind == "keyDown":
                text = {"text": key}
            code = {"windowsVirtualKeyCode": 13} if key == "Enter" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, **text, **code)

    def click(self, selector: str) -> None:
        self.on(f"document.querySelector({json.dumps(selector)})", "click()")

    def size(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def a_browser(directory: Path) -> Iterator[Browser]:
    """directory: for its profile."""
    program = find_browser()
    assert program is not None
    to_it, ours_out = os.pipe()
    ours_in, from_it = os.pipe()
    # It reads descriptor 3 and writes 4, which a shell puts in place: they may be any numbers here (not for dash).
    script = f'exec "$@" 3<&{to_it} 4>&{from_it}'
    argv = ["bash", "-c", script, "bash", program, *OPTIONS, f"--user-data-dir={directory}"]
    with (directory.parent / "browser.log").open("wb") as said:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=(to_it, from_it), start_new_session=True
        )
    os.close(to_it)
    os.close(from_it)
    browser = Browser(ours_out, ours_in)
    try:
        browser.open()
        yield browser
        browser.close()
    finally:
        os.close(ours_out)
        os.close(ours_in)
        try:
            process.wait(PATIENCE_S)  # it ends when its pipe does
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
