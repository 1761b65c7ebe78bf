"""What a guest does whose power is cut: looks at what an earlier cut has left, and makes containers until the next one.

    python3 -m tests.support.vm.power_cut SEED [last] [pods]

The state directory is on /dev/kept, which outlives the machine; another is at its default place, on /run. With
`pods`, `pyrun cri` runs beside them (power_cut_cri.py). What the host must know goes out by the second serial port.
tests/vm_host/test_power_cut.py is the host's side.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.container.bundle import Bundle, make_bundle, make_config
from tests.support.container.runner import REPO, Result, Runner, runtime_argv
from tests.support.vm.guest import send

if TYPE_CHECKING:
    from tests.support.vm.power_cut_cri import CutNode

DISK = "/dev/kept"
KEPT = Path("/mnt/kept")
IDS = [f"c{number}" for number in range(6)]
GRAMMAR = re.compile(r"pyrun: [a-z]+ \S+: .+\n  hint: .+\n")
NOTHING_YET = "nothing was written yet"


def mount() -> None:
    """As a machine does it when it boots: repaired first. The disk writes soon, so that a cut finds some of it done."""
    if subprocess.run(["blkid", DISK], stdout=subprocess.DEVNULL, check=False).returncode:
        subprocess.run(["mkfs.ext4", "-q", "-b", "1024", DISK], check=True)
    checked = subprocess.run(["e2fsck", "-p", DISK], stdout=subprocess.PIPE, text=True, check=False)
    if checked.returncode not in (0, 1):
        raise RuntimeError(f"e2fsck: {checked.stdout}")
    KEPT.mkdir()
    subprocess.run(["mount", "-o", "commit=1", DISK, KEPT], check=True)
    for name in ("dirty_writeback_centisecs", "dirty_expire_centisecs"):
        Path("/proc/sys/vm", name).write_text("100")


def bundle() -> Bundle:
    """On the kept disk, and kept itself."""
    path = KEPT / "bundle"
    config = make_config(["sleep", "100000"], process={"rlimits": None})
    if (path / "config.json").exists():
        return Bundle(path, config)
    made = subprocess.run([REPO / "bundles" / "make-rootfs", "busybox"], check=True, stdout=subprocess.PIPE, text=True)
    bundle = make_bundle(path, config, Path(made.stdout.strip()))
    os.sync()
    return bundle


def told(done: Result, *rcs: int) -> None:
    """One of these exit statuses, and an error by the grammar."""
    assert done.rc in rcs and "Traceback" not in done.err, done.describe()
    assert done.rc == 0 or GRAMMAR.fullmatch(done.err), done.describe()


def check(runner: Runner, made: Bundle) -> dict[str, object]:
    """Everything that a cut may have left is told and goes away, and all can be made again. What there was."""
    default = Runner(Path("/run/pyrun"))
    assert default.ids() == []
    plain = Runner(Path("/none"), runtime_argv())
    listed = subprocess.run([*plain.argv, "list", "-q"], stdout=subprocess.PIPE, text=True, check=True)
    assert listed.stdout == ""
    if not runner.root.exists():
        return {"left": NOTHING_YET}
    left = {id: sorted(os.listdir(runner.root / id)) for id in runner.ids()}
    listing = runner("list").ok()
    assert "Traceback" not in listing.err, listing.describe()
    damaged = []
    for id in left:
        state = runner("state", id)
        told(state, 0, 1)
        if state.rc:
            damaged.append(state.err)
            assert id in listing.err, listing.describe()
        else:
            assert '"status": "stopped"' in state.out, state.describe()
        told(runner("start", id), 1)
        told(runner("create", "--bundle", made.path, id), 1)
        told(runner.delete(id, "--force"), 0)
        assert not (runner.root / id).exists(), id
    for id in [*left, *IDS]:
        runner.create(made, id=id)
        runner("start", id).ok()
        assert runner.exec(id, "echo", "hi").ok().out == "hi\n"
        runner.delete(id, "--force").ok()
    return {"left": left, "damaged": damaged}


def work(runner: Runner, made: Bundle, node: CutNode | None, chosen: random.Random) -> None:
    """Lifecycles without an end, each container at another point of its own."""
    while True:
        id = chosen.choice(IDS)
        if not (runner.root / id).exists():
            runner.create(made, id=id)
            continue
        match chosen.choice(["start", "exec", "update", "delete", "delete", "sync", *(["pod"] if node else [])]):
            case "start":
                runner("start", id)
            case "exec":
                runner.exec(id, "true")
            case "update":
                runner("update", "--pids-limit", str(chosen.randrange(20, 99)), id)
            case "delete":
                runner.delete(id, "--force").ok()
            case "sync":
                os.sync()
            case "pod":
                assert node is not None
                node.work(chosen)


def main(seed: str, *words: str) -> int:
    if "pods" not in words:
        return run(seed, words)
    from tests.support.pods.nets import own_network
    from tests.support.vm.power_cut_cri import cut_node

    with own_network():
        return run(seed, words, cut_node)


def run(seed: str, words: tuple[str, ...], make_node: Callable[[Path], CutNode] | None = None) -> int:
    mount()
    runner, made = Runner(KEPT / "state"), bundle()
    begin = time.monotonic()
    try:
        found = check(runner, made)
        node = make_node(KEPT) if make_node else None
        if node is not None:
            found["pods"] = node.look()
            node.prepare()
    except Exception as error:
        where = "".join(traceback.format_tb(error.__traceback__)[-3:])
        send("failed", text=f"{where}{type(error).__name__}: {error}")
        return 1
    send("checked", took=time.monotonic() - begin, **found)
    if "last" in words:
        if node is not None:
            node.end()
        return 0
    send("working")
    default = Runner(Path("/run/pyrun"))
    default.create(made, id="on-run")
    work(runner, made, node, random.Random(seed))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
