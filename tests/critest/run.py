"""Runs critest, the validation of the CRI by Kubernetes' own project, against `pyrun cri`.

    python -m tests.critest.run [--focus REGEX] [--skip REGEX] [--websocket] [--json]

In tests/view, as root: it goes into a network namespace of its own, serves critest's images (of
tests/support/cri/images.py) from a registry on loopback, which the daemon finds by hosts.toml as any mirror, and starts
the daemon. KNOWN.md names the specs that do not pass and why; exit status 1 means that one failed or was skipped which
is not in it. --websocket: exec, attach and port-forward by WebSocket; else by SPDY, as a kubelet has them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyrun.image.reference import parse_reference
from tests.support.cri.images import critest_images
from tests.support.cri.tools import program
from tests.support.engines.golang import Unavailable
from tests.support.pods.nets import own_network
from tests.support.registry.stub import Stub

KNOWN = Path(__file__).resolve().parent / "KNOWN.md"
TIMEOUT_S = 600
WATCHED_S = 3600  # by a person, who may have a slow machine
START_S = 180  # in a guest on a busy machine
WEBSOCKET = ("-websocket-exec", "-websocket-attach", "-websocket-portforward")
# Of specs that wait for a minute for what a host without the controller can't do.
NEEDS_MEMORY = "OOMKilled"
CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")


@dataclass
class Spec:
    """One spec of critest. state: passed, failed, skipped, or what else ginkgo says."""

    name: str
    state: str
    seconds: float
    message: str


def read_known() -> dict[str, str]:
    """Regular expression of specs → cause."""
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|$", KNOWN.read_text(), re.MULTILINE)
    return {pattern.replace("\\|", "|"): cause for pattern, cause in rows}


def cause_of(name: str, known: dict[str, str]) -> str | None:
    return next((cause for pattern, cause in known.items() if re.search(pattern, name)), None)


def unknown(specs: list[Spec]) -> list[Spec]:
    """Those that did not pass and that KNOWN.md does not explain."""
    known = read_known()
    return [spec for spec in specs if spec.state != "passed" and cause_of(spec.name, known) is None]


def run_critest(
    *, focus: str = "", skip: str = "", websocket: bool = False, timeout_s: float = TIMEOUT_S
) -> list[Spec]:
    """What became of each spec that was to run. Raises Unavailable where critest can't be had."""
    critest = program("critest")
    hopeless = "" if "memory" in CONTROLLERS.read_text().split() else NEEDS_MEMORY
    with tempfile.TemporaryDirectory(prefix="critest-") as name, own_network():
        directory = Path(name)
        with _daemon(directory) as address:
            report = directory / "report.json"
            argv = [str(critest), f"-runtime-endpoint={address}", f"-image-endpoint={address}", "--ginkgo.no-color"]
            argv += [f"--ginkgo.json-report={report}", *(WEBSOCKET if websocket else ())]
            argv += [f"--ginkgo.{word}={value}" for word, value in (("focus", focus), ("skip", skip)) if value]
            argv += [f"--ginkgo.skip={hopeless}"] if hopeless else []
            env = os.environ | {"TMPDIR": name}
            with open(directory / "critest.log", "wb") as log:
                subprocess.run(argv, env=env, stdout=log, stderr=log, timeout=timeout_s, check=False)
            if not report.exists():
                raise AssertionError((directory / "critest.log").read_text()[-3000:])
            return list(_read(json.loads(report.read_text()), bool(focus or skip)))


def _read(report: list[Any], chosen: bool) -> Iterator[Spec]:
    for suite in report:
        for found in suite["SpecReports"]:
            if found["LeafNodeType"] != "It":
                continue
            message = found.get("Failure", {}).get("Message", "")
            name = " ".join([*found["ContainerHierarchyTexts"], found["LeafNodeText"]])
            if chosen and found["State"] == "skipped" and not message:
                continue  # not chosen
            yield Spec(name, found["State"], found["RunTime"] / 1e9, message[:1000])


@contextmanager
def _daemon(directory: Path) -> Iterator[str]:
    """A daemon with a registry that has the images; its address."""
    registry = Stub()
    for reference, made in critest_images().items():
        name = parse_reference(reference)
        host, _, repository = str(name).partition("/")
        registry.add(repository.rpartition(":")[0], repository.rpartition(":")[2], made)
        hosts = directory / "certs.d" / host / "hosts.toml"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        hosts.write_text(f'server = "{registry.url}"\n')
    config = directory / "pyrun.toml"
    config.write_text(f'certs_dir = "{directory}/certs.d"\ncni_conf_dir = ""\n')
    state = directory / "state"
    argv = [sys.executable, "-m", "pyrun", "cri", "--root", f"{directory}/root", "--state", f"{state}"]
    with open(directory / "pyrun.log", "wb") as log:
        daemon = subprocess.Popen([*argv, "--config", config], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while not (state / "cri.sock").exists():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((directory / "pyrun.log").read_text()[-3000:])
            time.sleep(0.05)
        yield f"unix://{state}/cri.sock"
    finally:
        daemon.terminate()
        daemon.wait(60)
        registry.close()
        subprocess.run(["umount", state / "pods"], check=False)  # where namespaces are pinned; it outlives a daemon


def main() -> int:
    parser = argparse.ArgumentParser(description="critest against pyrun cri")
    parser.add_argument("--focus", default="")
    parser.add_argument("--skip", default="")
    parser.add_argument("--websocket", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        words = {"focus": options.focus, "skip": options.skip, "websocket": options.websocket}
        specs = run_critest(**words, timeout_s=WATCHED_S)
    except Unavailable as error:
        sys.exit(str(error))
    surprises = unknown(specs)
    if options.json:
        print(json.dumps([asdict(spec) for spec in specs]))
        return 1 if surprises else 0
    known = read_known()
    for spec in specs:
        if spec.state != "passed":
            print(f"{spec.state}: {spec.name} ({spec.seconds:.1f} s)\n    {cause_of(spec.name, known) or spec.message}")
    counts = Counter(spec.state for spec in specs)
    print(f"{len(specs)} specs: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    print(f"{len(surprises)} of them not in {KNOWN.name}, {sum(spec.seconds for spec in specs):.0f} s")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
