"""A cgroup as the kernel's files behave: what each takes, and what a write to one does to another.

From the kernel's sources (mm/memcontrol.c, kernel/sched/core.c, block/blk-iocost.c, block/bfq-cgroup.c,
kernel/cgroup/rdma.c). run() carries out the writes of the parent's or undo's lane by the executor's rules.
"""

from __future__ import annotations

import errno
from typing import Any

from pyrun.plan.model import steps as s

MAX = "max"
LIMITS = ("memory.max", "memory.low", "memory.swap.max", "pids.max", "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max")
QUOTA_LEAST, PERIOD_LEAST, PERIOD_MOST = 1000, 1000, 1000000


class Refused(Exception):
    """A write that fails, with its errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


class CgroupModel:
    """files: what they say; of those with a line for each key, a mapping of key to value."""

    def __init__(self, *, bfq: bool = False, swap: bool = True) -> None:
        self.files: dict[str, Any] = dict.fromkeys(LIMITS, MAX)
        self.files |= {"memory.low": "0", "cpu.weight": "100", "cpu.idle": "0", "cpu.max": "max 100000"}
        self.files |= {"cpu.max.burst": "0", "cpuset.cpus": "", "cpuset.mems": "", "io.max": {}, "rdma.max": {}}
        self.files |= {name: {"default": "100"} for name in ["io.weight", *(["io.bfq.weight"] if bfq else [])]}
        if not swap:
            del self.files["memory.swap.max"]

    def state(self) -> dict[str, Any]:
        """A copy, without what limits nothing."""
        keyed = {name: {k: v for k, v in self.files[name].items() if v} for name in ("io.max", "rdma.max")}
        return {name: dict(text) if isinstance(text, dict) else text for name, text in self.files.items()} | keyed

    def read(self) -> dict[str, str]:
        """The files' text, as update reads it before."""
        return {name: self._text(name, value) for name, value in self.files.items()}

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, dict):
            return f"{value}\n"
        keys = ("rbps", "wbps", "riops", "wiops") if name == "io.max" else ("hca_handle", "hca_object")
        lines = []
        for key, held in value.items():
            if isinstance(held, dict):
                held = " ".join(f"{k}={held.get(k, MAX)}" for k in keys)
            lines.append(f"{key} {held}\n")
        return "".join(lines)

    def write(self, name: str, text: str) -> None:
        """Raises Refused."""
        if name not in self.files:
            raise Refused(errno.ENOENT)
        if name in LIMITS:
            self.files[name] = MAX if text == MAX else str(number(text, 0, 1 << 63))
        elif name.startswith("cpuset."):
            self.files[name] = text.strip()
        elif name.startswith("cpu."):
            self._write_cpu(name, text)
        elif name.endswith(".weight"):
            self._write_weight(name, text)
        else:
            self._write_keyed(name, text)

    def _write_cpu(self, name: str, text: str) -> None:
        if name == "cpu.idle":
            idle = str(number(text, 0, 1))
            if idle != self.files["cpu.idle"]:
                self.files |= {"cpu.idle": idle, "cpu.weight": "0" if idle == "1" else "100"}
        elif name == "cpu.weight":
            weight = number(text, 1, 10000, errno.ERANGE)
            if self.files["cpu.idle"] == "1":
                raise Refused(errno.EINVAL)
            self.files["cpu.weight"] = str(weight)
        else:
            limit, burst = self.files["cpu.max"], self.files["cpu.max.burst"]
            if name == "cpu.max":
                limit = text
            else:
                burst = str(number(text, 0, 1 << 43))
            quota, _, period = limit.partition(" ")
            number(period, PERIOD_LEAST, PERIOD_MOST)
            if quota != MAX and number(quota, QUOTA_LEAST, 1 << 43) < int(burst):
                raise Refused(errno.EINVAL)
            self.files |= {"cpu.max": limit, "cpu.max.burst": burst}

    def _write_weight(self, name: str, text: str) -> None:
        key, space, value = text.rpartition(" ")
        key = key if space else "default"
        if value == "default":
            self.files[name].pop(key, None)
            return
        self.files[name][key] = str(number(value, 1, 1000 if "bfq" in name else 10000, errno.ERANGE))

    def _write_keyed(self, name: str, text: str) -> None:
        key, *pairs = text.split()
        held = self.files[name].setdefault(key, {})
        for pair in pairs:
            limit, _, value = pair.partition("=")
            if value == MAX:
                held.pop(limit, None)
            else:
                held[limit] = str(number(value, 1 if name == "io.max" else 0, 1 << 64))

    def run(self, steps: list[s.Step], *, fail: int = -1) -> bool:
        """The steps of a lane, from the first on; False where one failed. fail: the write, counted from 0, that fails
        with EIO whatever it says."""
        at = writes = 0
        while at < len(steps):
            step, failed, at = steps[at], 0, at + 1
            if isinstance(step, s.WriteFile) and "dir" in step.args:
                try:
                    if writes == fail:
                        raise Refused(errno.EIO)
                    self.write(str(step.args["path"]), str(step.args["data"]))
                except Refused as refused:
                    failed = refused.errno
                writes += 1
            elif isinstance(step, s.Goto):
                failed = s.ANY
            if failed:
                rules = [label for number, label in step.on if number in (failed, s.ANY)]
                if not rules:
                    return False
                at = at if rules[0] is None else rules[0].index
        return True


def number(text: str, least: int, most: int, wrong: int = errno.EINVAL) -> int:
    if not text.strip().isdigit() or not least <= int(text) <= most:
        raise Refused(wrong)
    return int(text)
