"""A failed step as an error that a person can act on: what it was, the errno, its place in config.json, and a way
out.

The executor says numbers; the words are made here, on the error path alone. A few texts are runc's, word for word,
because engines look for them: "executable file not found in $PATH", "permission denied", "no such file or
directory".
"""

from __future__ import annotations

from ...errors import FailedPrecondition, PyrunError
from ..model.plan import Plan
from ..model.steps import (
    STAGE2,
    Chdir,
    Execve,
    FindExecutable,
    Mkdirat,
    Openat2,
    Openpt,
    Release,
    Seccomp,
    Spawn,
    Step,
)
from ..process.hooks import hook_steps
from . import hints
from .explain import format_step, operands_of, place_of, word
from .symbols import errno_name, errno_text, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ...oci.model import Spec

    class Failure(Protocol):
        """What the executor says of a step that failed (executor.StepFailed)."""

        plan: Plan
        lane: int
        step: int
        substep: int
        errno: int
        text: str
        child_status: int
        undo_errno: int
        undo_step: int


ENOENT, ESRCH, ENXIO, ECHILD, EEXIST, EISDIR, EPIPE, ETIMEDOUT, ECANCELED = 2, 3, 6, 10, 17, 21, 32, 110, 125
SIGHUP, SIGILL, SIGTRAP, SIGKILL, SIGSYS = 1, 4, 5, 9, 31
TEXT_LIMIT = 1000


def explain_failure(
    failure: Failure, container: str = "", *, run_code: int = 1, child: str = "the container's first process"
) -> PyrunError:
    """The error of a plan that was stopped and undone. run_code: the exit status where the user's program can't be
    run. child: who it is that the plan begins."""
    f = failure
    if f.child_status and f.errno == ESRCH:
        error = _died(f.plan, f.step, f.child_status, child)
    elif f.errno == ECANCELED:
        error = PyrunError(f"{place_of(f.plan, f.step)}: interrupted", pointer=f.plan.steps[f.step].at)
    else:
        error = step_error(f.plan, f.lane, f.step, f.substep, f.errno, f.text, run_code=run_code)
    if f.undo_errno:
        left = format_step(f.plan.steps[f.undo_step], f.plan)
        also = f"could not be undone: {left}: {errno_name(f.undo_errno)} {errno_text(f.undo_errno)}"
        forced = f"; pyrun delete --force {container} tries again" if container else ""
        error.hint = f"{error.hint}; {also}{forced}" if error.hint else f"{also}{forced}"
    return error


def explain_start_failure(failure: Failure, container: object, spec: Spec, *, run_code: int = 1) -> PyrunError:
    """The error of `start`. The plan of create is gone by then, but behind Park only startContainer hooks and the
    exec are left."""
    f = failure
    if f.lane != STAGE2 or spec.process is None:
        step = f.plan.steps[f.step]
        if (isinstance(step, Openat2) and f.errno == ENXIO) or (isinstance(step, Release) and f.errno == EPIPE):
            hint = "its first process has ended at this moment, so nobody reads what would release it"
            return FailedPrecondition("cannot start a container that has stopped", hint=hint)
        return explain_failure(f, run_code=run_code)
    number = f.substep >> 8
    if number:
        hooks = hook_steps(spec, "startContainer", "")
        if number > len(hooks):  # not our init: whoever may trace it in the container can also write to its pipe
            hint = "another process of the container forged it"
            return PyrunError("start: the init told of a hook that there is not", hint=hint)
        hook = hooks[number - 1]
        assert isinstance(hook, Spawn)
        return _hook_error(hook, "start", f.errno, f.text, hints.Around(()))
    process = spec.process
    exec_step: Step = Execve(argv=process.args, env=process.env, at="/process/args")
    if f.substep == 1:
        exec_step = Chdir(path=process.cwd, at="/process/cwd")
    elif f.substep == 2:
        exec_step = FindExecutable(name=process.args[0], path="", at="/process/args/0")
    around = hints.Around(())
    around.filtered = spec.linux is not None and spec.linux.seccomp is not None
    way_out = hints.find(exec_step, f.errno, {}, 0, around)
    return PyrunError(str(exec_text(exec_step, f.errno)), pointer=exec_step.at, hint=way_out, code=run_code)


def step_error(
    plan: Plan, lane: int, step: int, substep: int, errno: int, text: str = "", *, run_code: int = 1
) -> PyrunError:
    """The error of one step: `step 14/37 move_mount src=/srv dst=/data: ENOENT no such file or directory`.

    lane and step are the executor's: step counts from 0 through the whole plan. text: what a hook, a helper or the
    file system said.
    """
    failed, around = plan.steps[step], hints.Around(plan.steps)
    if isinstance(failed, Spawn):
        return _hook_error(failed, place_of(plan, step), errno, text, around)
    known = exec_text(failed, errno)
    if known is not None:
        code = run_code if isinstance(failed, (FindExecutable, Execve)) else 1
        hint = hints.find(failed, errno, {}, substep, around)
        return PyrunError(f"{place_of(plan, step)}: {known}", pointer=failed.at, hint=hint, code=code)
    operands = operands_of(failed, plan)
    if isinstance(failed, Mkdirat) and errno == EEXIST and not failed.on and failed.at is None:
        taken = operands.get("path", "").rpartition("/")[2]
        return PyrunError(
            f"container with given ID already exists: {taken}", hint="take another id, or delete that container first"
        )
    said = _said(text)
    message = f"{format_step(failed, plan)}: {errno_name(errno)} {errno_text(errno)}{': ' if said else ''}{said}"
    return PyrunError(message, pointer=failed.at, hint=hints.find(failed, errno, operands, substep, around))


def exec_text(step: Step, errno: int) -> str | None:
    """runc's words for a program that can't be run; None for any other step."""
    reason = errno_text(errno)
    if isinstance(step, Chdir):
        return f'chdir to cwd ("{_short(str(step.args["path"]))}") set in config.json failed: {reason}'
    if isinstance(step, FindExecutable):
        name = _short(str(step.args["name"]))
        if errno == EISDIR:  # docker 20 knows only these words for exit status 126
            reason = f"permission denied: {reason}"
        if errno == ENOENT:
            reason = f"stat {name}: {reason}" if "/" in name else "executable file not found in $PATH"
        return f'exec: "{name}": {reason}'
    if isinstance(step, Execve):
        argv: tuple[str, ...] = step.args["argv"]  # type: ignore[assignment]
        return f'exec: "{_short(argv[0])}": {reason}'
    return None


def _short(name: str) -> str:
    """A name as runc's words have it, but of bounded length."""
    return name if len(name) <= TEXT_LIMIT else name[:TEXT_LIMIT] + "\u2026"


def _hook_error(step: Spawn, place: str, errno: int, text: str, around: hints.Around) -> PyrunError:
    """What a hook or helper made of its run: how it ended and what it said, or why it could not be started."""
    kind = step.at.split("/")[2] + " hook" if step.at and step.at.startswith("/hooks/") else "helper"
    output, _, status = text.rstrip().rpartition("\n")
    if errno == ECHILD:
        how = status or "failed"
    else:
        output = text
        timeout = step.args.get("timeout_ms") or 0
        known = errno == ETIMEDOUT and isinstance(timeout, int) and timeout
        how = f"timed out after {timeout / 1000:g} s" if known else f"{errno_name(errno)} {errno_text(errno)}"  # type: ignore[operator]
    said = _said(output)
    message = f"{place}: {kind} {word(step.args['path'])}: {how}{': ' if said else ''}{said}"
    hint = hints.find(step, errno, {"path": str(step.args["path"])}, 0, around)
    return PyrunError(message, pointer=step.at, hint=hint)


def _said(text: str) -> str:
    """What was said, on one line and not too long; the kernel's log of a file system begins its lines with e, w or
    i."""
    lines = [line[2:] if line[:2] in ("e ", "w ", "i ") else line for line in text.splitlines()]
    joined = "; ".join(line.strip() for line in lines if line.strip())
    joined = "".join(c if c.isprintable() else "\ufffd" for c in joined)
    return joined if len(joined) <= TEXT_LIMIT else "\u2026" + joined[-TEXT_LIMIT:]


def _died(plan: Plan, step: int, status: int, child: str) -> PyrunError:
    """A child that ended without a word while the parent waited for it. status: as wait(2) has it."""
    place, waiting = place_of(plan, step), plan.steps[step]
    number = status & 0x7F
    how = f"was killed by {signal(number)}" if number else f"exited with status {status >> 8 & 0xFF}"
    hint = "something outside of the container killed it"
    if number == SIGKILL:
        hint = "it was killed from outside, or had no memory left: is the memory limit below some megabytes?"
    elif number == SIGSYS:
        hint = "the seccomp profile kills a call that is needed before the program runs"
    elif status >> 8 == 128 + SIGHUP and any(isinstance(s, Openpt) for s in plan.steps):
        hint = "its terminal was hung up: who listens on the console socket must keep what it gets"
    elif number in (SIGILL, SIGTRAP) or (not number and any(isinstance(s, Seccomp) for s in plan.steps)):
        # Our init may not even say why: nor end, so it traps.
        hint = "the seccomp profile refuses a call that is needed before the program: read, write, capset or execve"
    return PyrunError(f"{place}: {child} {how}", pointer=waiting.at, hint=hint)
