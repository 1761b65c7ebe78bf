"""Runs plans through the executor built with ASan and UBSan (build.py --asan), and judges what the sanitizers said."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyrun.plan.model.plan import Builder, Plan
from pyrun.plan.model.steps import (
    PARENT,
    STAGE1,
    STAGE2,
    UNDO,
    Ack,
    Await,
    AwaitPid,
    Clone3,
    Clone3Init,
    Meet,
    Spawn,
    Step,
)
from tests.support.container.leaks import BESIDE, INHERITED
from tests.support.container.runner import REPO

HOSTED = REPO / ".cache" / "hosted"
BUILD = REPO / "cffi_build" / "build.py"
BAD_WORDS = (b"AddressSanitizer", b"runtime error:", b"UndefinedBehavior", b"stack smashing", b"CHECK failed")
TEXT_MOST = 4096


@dataclass(frozen=True)
class Numbers:
    """What run-plan printed: lane, step (index in the plan) and errno of a failure; fds: how many more are open."""

    status: int
    lane: int
    step: int
    substep: int
    errno: int
    pid: int
    child_status: int
    undo_errno: int
    undo_step: int
    fds: int
    yields: int
    took: int


@dataclass(frozen=True)
class Ran(Numbers):
    """text: what the step that failed said; out: what was written to standard output before."""

    text: bytes
    out: bytes

    def ok(self) -> Ran:
        assert self.status == 0, self
        return self

    def fails(self, errno: int, step: int | None = None) -> Ran:
        assert (self.status, self.errno) == (1, errno), self
        assert step is None or self.step == step, self
        return self


def build(what: str, *args: str) -> None:
    """Builds with one of build.py's options, once for the same sources; several test processes may ask at once."""
    HOSTED.mkdir(parents=True, exist_ok=True)
    sources = [path for path in (REPO / "cffi_build").rglob("*") if path.suffix in (".c", ".h", ".py")]
    stamp = HOSTED / f"stamp{what}"
    with open(HOSTED / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(path.stat().st_mtime for path in sources)
        if not stamp.exists() or stamp.stat().st_mtime < newest:
            subprocess.run([sys.executable, BUILD, what, "--out", HOSTED, *args], check=True)
            stamp.touch()


def has_fuzzer() -> bool:
    """Whether clang is there with the library of its fuzzer."""
    if shutil.which("clang") is None:
        return False
    where = subprocess.check_output(["clang", "-print-runtime-dir"], text=True).strip()
    return any(Path(where).parent.glob("*/libclang_rt.fuzzer*.a"))


needs_fuzzer = pytest.mark.skipif(not has_fuzzer(), reason="needs clang's fuzzer (Debian: clang, libclang-rt-dev)")


def fuzz(which: str, least: int = 1000, programs: int = 1) -> None:
    """Five seconds of each fuzzer that build.py's option `which` makes. least: units that each of them must reach."""
    done = subprocess.run(
        [sys.executable, BUILD, which, "--seconds", "5", "--out", HOSTED],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runs = [int(line.split()[-1]) for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    assert len(runs) == programs and min(runs) > least, done.stderr[-4000:]


def own_tests(what: str, program: str, files: list[str], but: str) -> None:
    """A program's own tests, `files` without those that match `but`, with the sanitizers in it that build.py's option
    `what` gives. program: its name; the tests take it from the environment.
    """
    subprocess.run([sys.executable, BUILD, what, "--out", HOSTED], check=True)
    path = {f"PYRUN_TEST_{program.removeprefix('pyrun-').upper()}": str(HOSTED / program)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", but],
        cwd=REPO,
        env={**os.environ, **path, INHERITED: " ".join(map(str, BESIDE))},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Sanitizer" not in done.stdout + done.stderr and " passed" in done.stdout


def run_hosted(plan: Plan | bytes, tmp: Path, *args: str, timeout: float = 60.0) -> Ran:
    """Runs a plan to its end, with the children that it leaves. Fails when a sanitizer spoke or a descriptor stays."""
    build("--asan")
    tmp = Path(tempfile.mkdtemp(prefix="run-", dir=tmp))
    path = tmp / "plan"
    path.write_bytes(plan if isinstance(plan, bytes) else plan.encode())
    # Files, not pipes: a container that is left parked holds them open.
    with open(tmp / "stdout", "w+b") as out, open(tmp / "stderr", "w+b") as err:
        argv = [str(HOSTED / "run-plan"), str(path), *args]
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=timeout, check=False)
    told, said = (tmp / "stdout").read_bytes(), (tmp / "stderr").read_bytes()
    for word in BAD_WORDS:
        assert word not in told + said, said.decode(errors="replace")
    assert code.returncode == 0, told + said
    before, _, tail = told.rpartition(b"\nresult ")
    line, _, text = tail.partition(b"\n")
    numbers = [int(word) for word in line.split()]
    assert len(text) == numbers.pop() <= TEXT_MOST
    ran = Ran(**vars(Numbers(*numbers)), text=text, out=before)
    assert ran.fds == 0, ran
    return ran


class Container:
    """A plan with a child: `stage1` before the namespaces, `stage2` in them, `parent` while that waits at point 1, then
    its `end`."""

    def __init__(self, flags: int = 0, stage1: tuple[Step, ...] = ()) -> None:
        self.b = Builder()
        self.flags = flags
        self.stage1 = stage1
        self.opened: list[Step] = []

    def plan(self, stage2: tuple[Step, ...], parent: tuple[Step, ...] = (), end: tuple[Step, ...] = ()) -> Plan:
        b = self.b
        build("--asan")
        image = str(HOSTED / "pyrun-init")
        b.add(PARENT, *self.opened, Clone3(image=image, load=0, flags=0), AwaitPid(), Await(point=1), *parent, Ack())
        b.add(STAGE1, *self.stage1, Clone3Init(flags=self.flags))
        b.add(STAGE2, *stage2, Meet(point=1), *end)
        return b.plan()


def parent_plan(*steps: Step, undo: tuple[Step, ...] = (), builder: Builder | None = None) -> Plan:
    """A plan without a child."""
    b = builder or Builder()
    b.add(PARENT, *steps)
    b.add(UNDO, *undo)
    return b.plan()


def sh(script: str, **more: Any) -> Spawn:
    """A hook that is a line of shell."""
    return Spawn(path="/bin/sh", argv=("sh", "-c", script), **more)
