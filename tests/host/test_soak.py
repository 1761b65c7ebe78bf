"""pyrun is killed by SIGKILL at random moments of lifecycles, while others go on: delete --force leaves nothing.

`make soak` does 200 kills; PYRUN_SOAK_KILLS says otherwise, PYRUN_SOAK_SEED repeats a run. test_faults.py kills at each
step of a plan; here a kill may also hit the launcher, an interpreter that starts, or a hook.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.leaks import Traces, collect_traces, find_leaks
from tests.support.container.runner import Runner, python_argv, runtime_argv

KILLS = int(os.environ.get("PYRUN_SOAK_KILLS", "20"))
SEED = int(os.environ.get("PYRUN_SOAK_SEED", "0")) or random.randrange(1, 1 << 30)
LONGEST_S = 0.04
HOOK = [{"path": "/bin/sleep", "args": ["sleep", "0.005"]}]
HOOKS = dict.fromkeys(("prestart", "createContainer", "poststart", "poststop"), HOOK)
QUIET: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
LIFE = {
    "create": ["create", "--bundle", "BUNDLE", "--pid-file", "PIDFILE", "ID"],
    "start": ["start", "ID"],
    "exec": ["exec", "--detach", "ID", "sleep", "1000"],
    "exec in front": ["exec", "ID", "true"],
    "pause": ["pause", "ID"],
    "resume": ["resume", "ID"],
    "kill": ["kill", "ID", "KILL"],
    "delete": ["delete", "--force", "ID"],
}


def words(verb: str, bundle: Bundle, id: str) -> list[str]:
    """The command line of a verb."""
    known = {"BUNDLE": str(bundle.path), "PIDFILE": str(bundle.path / "pid"), "ID": id}
    return [known.get(word, word) for word in LIFE[verb]]


class Victims:
    """Lifecycles in which one command is killed, each in turn."""

    def __init__(self, root: Path, bundles: list[Bundle]) -> None:
        self.random = random.Random(SEED)
        self.ways = [Runner(root, runtime_argv()), Runner(root, python_argv())]
        self.bundles = bundles
        self.lasts = [self.measure(way) for way in self.ways]
        self.hit = dict.fromkeys(LIFE, 0)
        self.missed = 0

    def measure(self, runner: Runner) -> dict[str, float]:
        """How long each verb lasts, in seconds."""
        lasts = {}
        for verb in LIFE:
            begin = time.monotonic()
            subprocess.run(runner.command(*words(verb, self.bundles[-1], "victim")), timeout=60, check=True, **QUIET)
            lasts[verb] = time.monotonic() - begin
        return lasts

    def live(self, verb: str) -> str:
        """One life up to `verb`, which is killed; a delete by force ends it. What the runtime said of that delete, or
        what the life has left, on a line; empty is as it should be."""
        before = collect_traces()
        bundle, way = self.random.choice(self.bundles), self.random.randrange(2)
        runner = self.ways[way]
        for earlier in LIFE:
            if earlier == verb:
                break
            subprocess.run(runner.command(*words(earlier, bundle, "victim")), timeout=60, check=False, **QUIET)
        self.kill(runner, verb, words(verb, bundle, "victim"), self.lasts[way][verb])
        done = self.random.choice(self.ways)("delete", "--force", "victim")
        if done.rc or runner.ids() not in ([], ["other"]):
            return f"{verb}: {done.describe()} {runner.ids()}"
        for again in ("create", "delete"):  # nothing is in the way of the next one of this name
            subprocess.run(runner.command(*words(again, bundle, "victim")), timeout=60, check=True, **QUIET)
        return f"{verb}: " + ", ".join(leaks) if (leaks := self.leaks(before)) else ""

    def leaks(self, before: Traces) -> list[str]:
        """What is new, stays for a while, and is not the other's, whose commands come and go."""
        last = time.monotonic() + 5
        left = find_leaks(before, 0.0)
        while left and time.monotonic() < last:
            time.sleep(0.05)
            now = [leak for leak in find_leaks(before, 0.0) if "/other" not in leak and not is_of(leak, "/other")]
            left = [leak for leak in left if leak in now]
        return left

    def kill(self, runner: Runner, verb: str, argv: list[str], lasts: float) -> None:
        process = subprocess.Popen(runner.command(*argv), **QUIET)
        time.sleep(min(lasts, LONGEST_S) * self.random.random())
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            self.hit[verb] += 1
        else:
            self.missed += 1


def is_of(leak: str, cgroup: str) -> bool:
    """Whether a leak "process PID NAME" is of this cgroup, or over by now."""
    kind, pid, *_ = leak.split()
    try:
        return kind == "process" and Path(f"/proc/{pid}/cgroup").read_text().strip().endswith(cgroup)
    except OSError:
        return True


class Other(threading.Thread):
    """Lives that nobody interrupts, at the same time and below the same root."""

    def __init__(self, runner: Runner, bundle: Bundle) -> None:
        super().__init__()
        self.runner = runner
        self.bundle = bundle
        self.lives = 0
        self.trouble = ""
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set() and not self.trouble:
            for verb in ("create", "start", "pause", "resume", "kill", "delete"):
                argv = self.runner.command(*words(verb, self.bundle, "other"))
                with open(self.bundle.path / "err", "wb") as err:
                    rc = subprocess.run(argv, timeout=60, check=False, **{**QUIET, "stderr": err}).returncode
                if rc:
                    self.trouble = f"{verb}: {rc} {(self.bundle.path / 'err').read_text()}"
            self.lives += 1


def test_soak(tmp_path: Path, bundle: BundleMaker) -> None:
    before = collect_traces()
    plain, hooked = bundle(["sleep", "1000"]), bundle(["sleep", "1000"], hooks=HOOKS)
    for made in (plain, hooked):
        os.utime(made.path / "config.json", (1e9, 1e9))
    victims = Victims(tmp_path / "state", [plain, hooked])
    other = Other(victims.ways[0], bundle(["sleep", "1000"]))
    other.start()
    failures: list[str] = []
    try:
        while sum(victims.hit.values()) < KILLS and not failures:
            for verb in LIFE:
                failures += filter(None, [victims.live(verb)])
    finally:
        other.enough.set()
        other.join()
    print(f"seed {SEED}: killed {victims.hit}, {victims.missed} were quicker; {other.lives} lives beside it")
    assert not failures, f"seed {SEED}: {failures}"
    assert not other.trouble, f"seed {SEED}: {other.trouble}"
    assert other.lives
    assert victims.ways[0].ids() == []
    assert find_leaks(before) == []
