"""The test build of the executor, which can be told to fail or to die at a step, and what must be gone afterwards."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from errno import errorcode
from pathlib import Path

from pyrun.plan.model.plan import Plan
from pyrun.plan.model.steps import ANY, LANE_NAMES, UNDO, Goto, Step
from pyrun.runtime import prepare as planning
from pyrun.runtime.prepare import Prepared
from pyrun.runtime.store import Store
from tests.support.container.leaks import BESIDE
from tests.support.container.runner import REPO

RULED = 0x10000  # PX_RULED of wire.h
EXDEV = 18  # no errno rule of any plan names it, and no hint


@functools.cache
def faults_build() -> str:
    """Builds pyrun._native_faults and pyrun-init-faults if a source is newer; the path of the init."""
    init = REPO / "pyrun" / "bin" / "pyrun-init-faults"
    module = next((REPO / "pyrun").glob("_native_faults*.so"), None)
    newest = max(path.stat().st_mtime for path in (REPO / "cffi_build").rglob("*.[ch]"))
    if module is None or not init.exists() or min(init.stat().st_mtime, module.stat().st_mtime) < newest:
        subprocess.run([sys.executable, str(REPO / "cffi_build" / "build.py"), "--faults"], check=True)
    return str(init)


def prepare(root: Path, id: str, bundle: Path, **words: object) -> tuple[Store, Prepared]:
    """A create that is planned for the test build."""
    store = Store(str(root))
    prepared = planning.prepare(store, id, str(bundle), **words)  # type: ignore[arg-type]
    for step in prepared.plan.steps:
        if "image" in step.args:
            step.args["image"] = faults_build()
    return store, prepared


def describe(prepared: Prepared, index: int) -> str:
    """ "stage2 42/90 PivotRoot"."""
    return next(
        f"{LANE_NAMES[lane]} {index + 1}/{len(prepared.plan.steps)} {type(step).__name__}"
        for lane in range(len(prepared.plan.lanes))
        for i, step in steps_of(prepared, lane)
        if i == index
    )


def steps_of(prepared: Prepared, *lanes: int) -> list[tuple[int, Step]]:
    """(index in the plan, step) of these lanes."""
    out, first = [], 0
    for lane, steps in enumerate(prepared.plan.lanes):
        if lane in lanes:
            out += [(first + i, step) for i, step in enumerate(steps)]
        first += len(steps)
    return out


def ruled_faults(plan: Plan) -> list[tuple[int, int]]:
    """(index, errno) of each errno that a rule of a step takes; EXDEV where it takes any. Goto's rule is its work.

    A code that is no errno, AwaitPid's OUTSIDE, is a result: it is there only once the step has been carried out."""
    steps = enumerate(plan.steps[: len(plan.steps) - len(plan.lanes[UNDO])])
    rules = [(i, errno) for i, step in steps if not isinstance(step, Goto) for errno, _ in step.on]
    return [(i, EXDEV if errno == ANY else errno) for i, errno in rules if errno == ANY or errno in errorcode]


def children() -> list[int]:
    """Processes that are children of ours, reaped or not; but for those that run guests beside this run."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [pid for pid in map(int, text.split()) if pid not in BESIDE]


def descriptors() -> dict[str, str]:
    """Our open descriptors and what they are."""
    out = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            out[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return out
