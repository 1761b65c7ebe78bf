"""An exec that stops halfway, for tests of what the container can do to it meanwhile.

Run as a program: `gate.py ROOT ID POSITION [unprotected]` plans an exec of `true` in the container, puts a step in
front of POSITION that opens the FIFO /gate of the container's root, and runs it. It waits there until someone opens the
other end. `unprotected` leaves out the steps that make it untraceable, which shows what the tests of them are worth.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPO))

PR_SET_DUMPABLE = 4


def start_gated(root: Path, id: str, position: str, *options: str) -> subprocess.Popen[bytes]:
    """Starts an exec that waits at POSITION: `joined`, `user` or `exec`."""
    return subprocess.Popen([sys.executable, __file__, root, id, position, *options])


def main(root: str, id: str, position: str, *options: str) -> None:
    from pyrun.executor import run_plan
    from pyrun.facts import collect_facts
    from pyrun.oci.load import load_file
    from pyrun.plan.exec import plan_exec
    from pyrun.plan.model.request import Request
    from pyrun.plan.model.steps import STAGE2, Ambient, Execve, Openat2, Prctl, Setsid
    from pyrun.runtime.exec import collect_target
    from pyrun.runtime.store import Store

    container = Store(root).open(id)
    spec = load_file(container.directory + "/config.json")
    facts = collect_facts()
    assert spec.process is not None
    process = spec.process.replace(args=("true",))
    plan = plan_exec(spec, process, facts, collect_target(container, facts), Request(id=id))
    if "unprotected" in options:
        for lane in plan.lanes:
            lane[:] = [s for s in lane if not (isinstance(s, Prctl) and s.args["option"] == PR_SET_DUMPABLE)]
    before = {"joined": Setsid, "user": Ambient, "exec": Execve}[position]
    lane = plan.lanes[STAGE2]
    at = next(i for i, step in enumerate(lane) if isinstance(step, before))
    lane.insert(at, Openat2(path="/gate", flags=0))
    plan.steps = [step for steps in plan.lanes for step in steps]
    outcome = run_plan(plan)
    import os

    os.waitpid(outcome.pid, 0)
    outcome.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
