"""create and run: carries a prepared plan out, and undoes what a failed one leaves outside of it.

Everything that is made is made by the plan's steps, the state directory and the record among them, so that what fails
is undone in one place.
"""

from __future__ import annotations

import posix

from ..errors import PyrunError, reason
from ..executor import Outcome, StepFailed, run_plan
from ..plan.create import warnings
from ..plan.lifecycle import hooks_begun
from .prepare import Prepared
from .store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..executor import Replayed
    from ..plan.model.plan import Plan
    from .systemd import Scope

    Traced = Callable[[Plan, list[int], int | None], None]


def run_prepared(
    store: Store,
    prepared: Prepared,
    warn: Callable[[str], None],
    *,
    traced: Traced | None = None,
    fault: dict[str, int] | None = None,
    replayed: Replayed | None = None,
    cancel: int = -1,
    run: Callable[..., Outcome] = run_plan,
) -> Outcome:
    """Carries a create or run out. The outcome holds the init's pidfd; the caller closes it. cancel: see run_plan().

    run: who carries the plan out, by run_plan()'s words and with its errors: another process, perhaps. warn: called
    with what should be known and stops nothing. traced: called with the plan, the nanoseconds that each step took, and
    the number of the step that failed, or None."""
    for text in warnings(prepared.spec, prepared.facts):
        warn(text)
    _make_root(store.root)
    scope = _scope(prepared)
    try:
        outcome = run(
            prepared.plan,
            replayed=replayed,
            trace=traced is not None,
            fault=fault,
            on_yield=scope.on_yield if scope else None,
            cancel=cancel,
        )
        if traced is not None:
            traced(prepared.plan, outcome.took(), None)
        return outcome
    except StepFailed as e:
        from ..plan.words.step_errors import explain_failure

        if traced is not None:
            traced(prepared.plan, e.took, e.step)
        error = explain_failure(e, prepared.request.id)
        if scope:
            _undo_scope(scope, warn)
        if hooks_begun(prepared.plan, e.lane, e.step):
            from .delete import run_poststop

            run_poststop(prepared.spec, prepared.request, warn)
        raise error from None


def _undo_scope(scope: Scope, warn: Callable[[str], None]) -> None:
    """The unit goes. Where systemd can't be asked, that does not hide what failed before."""
    try:
        scope.undo()
    except PyrunError as e:
        warn("\n".join(e.lines()))


def _scope(prepared: Prepared) -> Scope | None:
    """What answers the plan's Yield, with --systemd-cgroup."""
    if not prepared.request.systemd:
        return None
    from .systemd import Scope

    return Scope(prepared.spec, prepared.facts, prepared.request.id)


def _make_root(root: str) -> None:
    """The root directory with mode 0700, its parents as they come."""
    try:
        posix.stat(root)  # mostly: a call for each of its parents would take longer than all else here
        return
    except OSError:
        pass
    at = ""
    for name in root.strip("/").split("/"):
        at += "/" + name
        try:
            posix.mkdir(at, 0o700 if at == root else 0o755)
        except FileExistsError:
            continue
        except OSError as e:
            hint = "name a directory that you may write to, with --root or by XDG_RUNTIME_DIR"
            raise PyrunError(f"--root {root}: {reason(e)}", hint=hint) from None
