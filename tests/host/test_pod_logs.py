"""`pyrun logs` over what pods of `pyrun cri` write in a kubelet's layout: by label, followed over rotations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyrun.errors import InvalidArgument
from tests.support.cri.node import Node
from tests.support.cri.node import node as node
from tests.support.cri.node import one_node as one_node

PATIENCE_S = 60.0
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"


def a_pod(node: Node, app: str, script: str, **annotations: str) -> tuple[str, Path]:
    """A container of a pod with this label: its id, and its log. annotations: of the pod, below pyrun.dev/."""
    uid = f"uid-{app}"
    directory = node.logs / f"shop_{app}_{uid}"
    (directory / "c").mkdir(parents=True)
    metadata = {"name": app, "namespace": "shop", "uid": uid}
    fields = {"metadata": metadata, "labels": {"app": app}, "log_directory": str(directory)}
    fields["annotations"] = {f"pyrun.dev/{name.replace('_', '-')}": text for name, text in annotations.items()}
    pod = node.run_pod(app, **fields)
    container = node.run(pod, "c", script, app, log_path="c/0.log")
    return container, directory / "c" / "0.log"


def logs(node: Node, *argv: str) -> list[str]:
    return [sys.executable, "-m", "pyrun", "logs", "--dir", str(node.logs), "--listen", f"unix://{node.socket}", *argv]


def wait_for_lines(path: Path, count: int) -> list[str]:
    last = time.monotonic() + PATIENCE_S
    while len(lines := path.read_text().splitlines()) < count:
        assert time.monotonic() < last, lines
        time.sleep(0.02)
    return lines


def test_a_search_by_label(node: Node) -> None:
    one, _ = a_pod(node, "one", "echo 'a Timeout'; echo other; echo 'a timeout' >&2; exec sleep 1000")
    a_pod(node, "two", "echo 'a timeout of two'; exec sleep 1000")
    wait_for_lines(node.logs / "shop_one_uid-one/c/0.log", 3)
    wait_for_lines(node.logs / "shop_two_uid-two/c/0.log", 1)
    found = subprocess.run(
        logs(node, "-l", "app in (one)", "--format", "json", "timeout"), capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    told = [json.loads(line) for line in found.stdout.splitlines()]
    assert sorted((line["stream"], line["line"]) for line in told) == [("stderr", "a timeout"), ("stdout", "a Timeout")]
    assert {(line["namespace"], line["pod"], line["container"]) for line in told} == {("shop", "one", "c")}
    assert subprocess.run(logs(node, "-l", "app=one", "nothing"), capture_output=True).returncode == 1
    node.call("StopContainer", container_id=one, timeout=0)


def test_a_rate_by_annotation(node: Node) -> None:
    """What is more is left out, and an entry says how much; what is no rate is refused, and leaves nothing behind."""
    container, log = a_pod(node, "busy", "yes | head -n 100000; exec sleep 1000", log_rate="16K")
    last = time.monotonic() + PATIENCE_S
    while sum(lines_in(log)) < 100_000:
        assert time.monotonic() < last, lines_in(log)
        time.sleep(0.1)
    kept, *left_out = lines_in(log)
    assert kept < 100_000 and kept + sum(left_out) == 100_000
    node.call("StopContainer", container_id=container, timeout=0)
    with pytest.raises(InvalidArgument, match=r"annotations\[pyrun.dev/log-rate\]: '16' is no size a second from 16K"):
        a_pod(node, "wrong", "exit", log_rate="16")


def lines_in(log: Path) -> list[int]:
    """How many of the program, and those that each entry tells of."""
    text = log.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()  # the last one may be on its way
    told = [int(line.rpartition(": ")[2]) for line in lines if "pyrun: lines of this log that are left out" in line]
    return [len(lines) - len(told), *told]


def test_following_over_a_rotation_loses_no_line(node: Node, tmp_path: Path) -> None:
    container, log = a_pod(node, "count", COUNT)
    wait_for_lines(log, 2)
    out = tmp_path / "out"
    with out.open("wb") as file:
        follower = subprocess.Popen(logs(node, "-f", "-p", "count", "--tail", "100000"), stdout=file)
    try:
        for stamp in ("20261127-120000", "20261127-120001"):
            wait_for_lines(out, len(out.read_text().splitlines()) + 20)
            os.rename(log, f"{log}.{stamp}")
            node.call("ReopenContainerLog", container_id=container)
        wait_for_lines(out, len(out.read_text().splitlines()) + 20)
        node.call("StopContainer", container_id=container, timeout=0)
        written = sum(len(path.read_text().splitlines()) for path in log.parent.iterdir())
        lines = wait_for_lines(out, written)
        assert lines == [f"shop/count c {number + 1}" for number in range(written)]
        follower.send_signal(signal.SIGINT)
        assert follower.wait(PATIENCE_S) == 128 + signal.SIGINT
    finally:
        follower.kill()
        follower.wait()
