"""Plan -> Outcome: the only importer of the C module.

run_plan() encodes, runs and, when a step fails, raises StepFailed after everything that was made has been undone in
C. The GIL is released while C works. What C waits for ends early when `cancel` becomes readable, a descriptor of the
caller's (an eventfd, a pipe, or held_signals()): StepFailed with ECANCELED, and nothing left. Errors stay numbers here;
pyrun/plan/words/step_errors.py makes them words, on the error path alone.
"""

from __future__ import annotations

import sys

from ..errors import PyrunError
from ..plan.model.plan import Plan
from ..plan.model.step import LANE_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

EINVAL = 22
_OK, _FAILED, _YIELDED = 0, 1, 2
debug: Callable[[str], None] | None = None  # hears of each plan; of the command line's --debug


class StepFailed(Exception):
    """A step failed: plan, lane, step (index in the plan), substep, errno, text (what a hook, helper or file system
    said).

    child_status: wait status of a child that died without a word (else 0). undo_errno, undo_step: the first undo step
    that failed, or 0."""

    def __init__(self, plan: Plan, result: Any, text: str, took: list[int]) -> None:
        self.plan = plan
        self.lane: int = result.lane
        self.step: int = result.step
        self.substep: int = result.substep
        self.errno: int = result.err
        self.child_status: int = result.child_status
        self.undo_errno: int = result.undo_err
        self.undo_step: int = result.undo_step
        self.text = text
        self.took = took
        super().__init__(f"step {self.step}: errno {self.errno}")


class Outcome:
    """A plan that ran: pid of the container's init (0: none), its pidfd and the descriptors in slots while it is
    open. Close it."""

    __slots__ = ("_lib", "_run", "pid", "plan")

    def __init__(self, lib: Any, run: Any, plan: Plan, pid: int) -> None:
        self._lib = lib
        self._run = run
        self.plan = plan
        self.pid = pid

    def pidfd(self) -> int:
        return int(self._lib.px_slot(self._run, 0xFFFFFFFF))

    def slot(self, number: int) -> int:
        """The descriptor in a slot, -1 if none. It is closed with the outcome."""
        return int(self._lib.px_slot(self._run, number))

    def took(self) -> list[int]:
        """Nanoseconds that each step took, by its index; -1 where it did not run. Of a traced plan."""
        return _took(self._lib, self._run, self.plan)

    def close(self) -> None:
        if self._run is not None:
            self._lib.px_free(self._run)
            self._run = None


def _took(lib: Any, run: Any, plan: Plan) -> list[int]:
    return [int(lib.px_took(run, i)) - 1 for i in range(len(plan.steps))]


def held_signals(numbers: Iterable[int]) -> int:
    """A descriptor that is readable while one of these signals is pending, which the caller blocks."""
    fd = int(native()[1].px_signals(sum(1 << number - 1 for number in numbers)))
    if fd < 0:
        raise OSError(-fd, "no descriptor for signals")
    return fd


def drop_image() -> None:
    """Closes pyrun-init's image, which is kept for the next container: for a process that makes no more."""
    native()[1].px_drop_image()


def native(faults: bool = False) -> tuple[Any, Any]:
    """(ffi, lib) of the C module; faults: of its test build."""
    name = "pyrun._native_faults" if faults else "pyrun._native"
    try:
        __import__(name)
    except ImportError as e:
        hint = "is the package whole, and may programs run from where it lies (no noexec)?"
        raise PyrunError(f"the C module can't be loaded: {e}", hint=hint) from None
    module: Any = sys.modules[name]
    return module.ffi, module.lib


class Replayed:
    """A failure that the launcher tells of in these words, with the names of C's px_result."""

    __slots__ = ("child_status", "err", "lane", "step", "substep", "text", "undo_err", "undo_step")

    def __init__(self, words: bytes) -> None:
        *numbers, text = words.split(b" ")
        self.lane, self.step, self.substep, self.err, self.child_status, self.undo_err, self.undo_step = map(
            int, numbers
        )
        self.text = bytes.fromhex(text.decode()).decode("utf-8", "replace")


def run_plan(
    plan: Plan,
    *,
    pid: int = 0,
    held: tuple[int, ...] = (),
    trace: bool = False,
    on_yield: Callable[[int, int], None] | None = None,
    fault: dict[str, int] | None = None,
    replayed: Replayed | None = None,
    cancel: int = -1,
) -> Outcome:
    """Runs a plan to its end. Raises StepFailed, with nothing of it left; OSError if it can't be set up.

    pid: what PID_MARK stands for in a plan that makes no process. held: descriptors for its first slots (-1: none);
    they stay the caller's. on_yield(code, pid of the child): called at a Yield step; what it raises undoes the plan.
    fault: fail_step, fail_errno, kill_step, for test builds. replayed: how the launcher's run of this same plan failed:
    that is raised, and nothing runs. cancel: readable when the caller gives up, -1: never; it is not read. A plan whose
    last wait is over succeeds all the same."""
    if replayed is not None:
        raise StepFailed(plan, replayed, replayed.text, [])
    if debug is not None:
        counts = [f"{LANE_NAMES[i]} {len(lane)}" for i, lane in enumerate(plan.lanes) if lane]
        debug(f"runs a plan, steps of {', '.join(counts)}")
    ffi, lib = native(faults=fault is not None)
    encoded = plan.encode(trace=trace, **(fault or {}))
    err, result = ffi.new("int *"), ffi.new("struct px_result *")
    run = lib.px_new(encoded, len(encoded), err)
    if run == ffi.NULL:
        if err[0] == EINVAL:
            raise PyrunError("the C parts are not of this version of pyrun", hint="build or install both together")
        raise OSError(err[0], "the plan could not be set up")
    lib.px_set_cancel(run, cancel)
    if pid:
        lib.px_set_pid(run, pid)
    for slot, fd in enumerate(held):
        failed = lib.px_set_slot(run, slot, fd) if fd >= 0 else 0
        if failed:
            lib.px_free(run)
            raise OSError(failed, "a descriptor could not be handed to the plan")
    try:
        while True:
            lib.px_run(run, result)
            if result.status != _YIELDED:
                break
            _yielded(lib, run, result, on_yield)
        if result.status == _FAILED:
            if debug is not None:
                debug(f"step {result.step + 1} ({LANE_NAMES[result.lane]}) failed with errno {result.err}; undone")
            said = bytes(ffi.buffer(result.text, result.text_len)).decode("utf-8", "replace")
            raise StepFailed(plan, result, said, _took(lib, run, plan) if trace else [])
    except BaseException:
        lib.px_free(run)
        raise
    if debug is not None:
        debug(f"all steps done, pid {result.pid}" if result.pid else "all steps done")
    return Outcome(lib, run, plan, result.pid)


def _yielded(lib: Any, run: Any, result: Any, on_yield: Callable[[int, int], None] | None) -> None:
    try:
        if on_yield is None:
            raise RuntimeError(f"nobody answers yield {result.yielded}")
        on_yield(result.yielded, result.pid or result.stage1)
    except BaseException:
        lib.px_undo(run, result)
        raise
