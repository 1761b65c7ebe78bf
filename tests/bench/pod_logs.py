"""What a container's log costs: pyrun-pod against conmon, 200 MB of lines of 100 bytes each, interleaved.

Run as root with ``tests/view .venv/bin/python -m tests.bench.pod_logs [--mb N] [--rounds N]``. Prints seconds of wall
and of CPU time (the supervisor's own), and its memory. The log goes to a tmpfs, so that no disk is measured.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pyrun.pod.supervisor import Supervisor
from pyrun.runtime.delete import delete
from pyrun.runtime.prepare import prepare
from pyrun.runtime.start import start
from pyrun.runtime.store import Store
from tests.support.container.bundle import Bundle, make_bundle, make_config
from tests.support.pod.pods import fail, supervisor_pid


class CanNotRun(Exception):
    """A peer does not run on this machine."""


TICK = os.sysconf("SC_CLK_TCK")
LINE = "x" * 99


def cpu_of(pid: int) -> float:
    """User and system seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_of(pid: int) -> int:
    """PSS in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def pyrun_pod(work: Path, bundle: Bundle, log: Path) -> tuple[float, float, int]:
    directory = work / "pod"
    directory.mkdir()
    pod = Supervisor.launch(str(directory), "pod")
    pid = supervisor_pid(directory)
    store = Store(str(work / "state"))
    fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o640)
    made = pod.create("bench", prepare(store, "bench", str(bundle.path)), log=fd)
    os.close(fd)
    pod.fileno()
    began, cpu = time.monotonic(), cpu_of(pid)
    start(store, "bench", fail)
    while (event := pod.read_event()) is None:
        time.sleep(0.002)
    took, used = time.monotonic() - began, cpu_of(pid) - cpu
    assert event.exit_code == 0 and event.lost_bytes == 0
    memory = memory_of(pid)
    made.close()
    delete(store, "bench", fail, force=True)
    pod.drop("bench")
    pod.end()
    pod.close()
    shutil.rmtree(directory)
    return took, used, memory


def conmon(work: Path, bundle: Bundle, log: Path) -> tuple[float, float, int]:
    """As CRI-O calls it, with pyrun as the runtime. Its first process ends at once."""
    runtime = str(Path(__file__).resolve().parents[2] / "pyrun" / "bin" / "pyrun")
    for name in ("exits", "persist"):
        (work / name).mkdir(exist_ok=True)
    argv = ["conmon", "--sync", "-c", "bench", "-u", "bench", "-n", "bench", "-r", runtime, "-b", str(bundle.path)]
    argv += ["-l", f"k8s-file:{log}", "-p", str(work / "pid"), "-P", str(work / "conmon.pid"), "--no-sync-log"]
    argv += [
        "--exit-dir",
        str(work / "exits"),
        "--persist-dir",
        str(work / "persist"),
        f"--runtime-arg=--root={work}/state",
    ]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:  # without CAP_SYS_RESOURCE it can't lower its oom_score_adj, and ends
        raise CanNotRun(done.stderr.strip() or "it ended at once")
    last = time.monotonic() + 10
    while not (work / "pid").exists() or not (work / "pid").read_text():
        assert time.monotonic() < last, "conmon made no container"
        time.sleep(0.005)
    time.sleep(0.1)
    pid = int((work / "conmon.pid").read_text())
    pidfd = os.pidfd_open(pid)
    began, used, memory = time.monotonic(), 0.0, 0
    cpu = cpu_of(pid)
    start(Store(str(work / "state")), "bench", fail)
    while not select.select([pidfd], [], [], 0.02)[0]:
        try:
            used, memory = cpu_of(pid) - cpu, memory_of(pid)
        except (OSError, StopIteration):
            break
    took = time.monotonic() - began
    os.close(pidfd)
    delete(Store(str(work / "state")), "bench", fail, force=True)
    for name in ("pid", "conmon.pid"):
        (work / name).unlink(missing_ok=True)
    return took, used, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    peers: dict[str, Callable[[Path, Bundle, Path], tuple[float, float, int]]] = {"pyrun-pod": pyrun_pod}
    if shutil.which("conmon"):
        peers["conmon"] = conmon
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        work = Path(directory)
        rootfs = work / "rootfs"
        (rootfs / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", rootfs / "bin" / "busybox")
        script = f"/bin/busybox yes {LINE} | /bin/busybox head -c {args.mb * 1_000_000}"
        bundle = make_bundle(work / "bundle", make_config(["/bin/busybox", "sh", "-c", script]), rootfs)
        found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in peers}
        for _ in range(args.rounds):
            for name, run in list(peers.items()):
                log = work / "log"
                log.unlink(missing_ok=True)
                try:
                    found[name].append(run(work, bundle, log))
                except CanNotRun as e:
                    print(f"{name} can't run here: {e}")
                    del peers[name], found[name]
                    continue
                assert log.stat().st_size >= args.mb * 1_390_000, log.stat().st_size
                log.unlink()
    for name, rows in found.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name}: {args.mb} MB of lines of 100 bytes: {wall:.2f} s, {cpu:.2f} CPU s, {memory} kB PSS at its end")


if __name__ == "__main__":
    main()
