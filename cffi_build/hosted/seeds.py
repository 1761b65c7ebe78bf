"""Writes the fuzzer's first corpus: the encoded plans of the example bundles, and a small plan for each class of step.

Run as ``python cffi_build/hosted/seeds.py DIR``. Planning reads this host's facts, so two hosts differ; a bundle that
this host can't plan is left out, and named.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO))

from pyrun.errors import PyrunError  # noqa: E402
from pyrun.plan.lifecycle import plan_delete, plan_start  # noqa: E402
from pyrun.plan.model import steps  # noqa: E402
from pyrun.plan.model.plan import Builder, Plan  # noqa: E402
from pyrun.runtime.prepare import prepare  # noqa: E402
from pyrun.runtime.store import Store  # noqa: E402

# What the kernel answers, behind a plan: luck above 23 is no error; then what a read brings.
TAILS = (b"", b"\xff" * 40, bytes(range(24, 256)), (b"\xff\xf0" + (1).to_bytes(4, "little") + bytes(24)) * 8)


def bundle_plans() -> dict[str, Plan]:
    """The plans of create, start and delete of each example; without its root file system."""
    out: dict[str, Plan] = {}
    for config in sorted((REPO / "bundles").glob("*/config.json")):
        name = config.parent.name
        with tempfile.TemporaryDirectory() as tmp:
            bundle = Path(tmp) / "bundle"
            (bundle / "rootfs").mkdir(parents=True)
            (bundle / "config.json").write_bytes(config.read_bytes())
            try:
                made = prepare(Store(f"{tmp}/state"), "seed", str(bundle))
                out[name] = made.plan
                out[f"{name}-start"] = plan_start(made.spec, made.request)
                out[f"{name}-delete"] = plan_delete(made.spec, made.request)
            except PyrunError as error:
                print(f"seeds: {name}: {error}", file=sys.stderr)
    return out


def operands(cls: type[steps.Step], slot: int) -> dict[str, object]:
    """Something for each operand."""
    special: dict[str, dict[str, object]] = {
        "Setgroups": {"groups": (1, 2)},
        "Execve": {"argv": ("sh", "-c"), "env": ("PATH=/bin",)},
        "Spawn": {
            "path": "/h",
            "argv": ("h", steps.PID_MARK),
            "env": ("A=1",),
            "stdin": steps.PID_MARK,
            "timeout_ms": 9,
        },
        "SendFd": {"socket": slot, "fd": slot, "data": steps.PID_MARK},
    }
    plain: dict[str, object] = {"path": "/a/b", "name": "n", "msg": bytes(32), "prog": bytes(16), "insns": bytes(16)}
    return special.get(cls.__name__) or {
        name: (plain.get(name, "text") if place >= steps.S0 else 1 if place >= steps.A else slot)
        for name, place in cls.FIELDS.items()
        if name != "guard"
    }


def step_plans() -> dict[str, Plan]:
    """Each class alone, behind a step that fills its slot; in the parent lane, and in stage 2."""
    out: dict[str, Plan] = {}
    for name, cls in inspect.getmembers(steps, inspect.isclass):
        if not issubclass(cls, steps.Step) or cls is steps.Step:
            continue
        for lane in (steps.PARENT, steps.STAGE2):
            b = Builder()
            slot = b.slot("s", inherit=True)
            b.add(steps.STAGE1, steps.Clone3Init(flags=0))
            end = steps.Label("end")
            b.add(lane, steps.Openat2(path="/p", flags=0, out=slot), cls(on=((2, end),), **operands(cls, slot)), end)  # type: ignore[arg-type]
            b.add(steps.UNDO, steps.Unlinkat(path="/p", guard=0))
            out[f"{name}-{lane}"] = b.plan()
    return out


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    plans = {**bundle_plans(), **step_plans()}
    for name, plan in plans.items():
        for i, tail in enumerate(TAILS):
            (directory / f"{name}-{i}").write_bytes(plan.encode(trace=i == 1) + tail)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
