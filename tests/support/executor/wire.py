"""executor/wire.h as a test reads it: numbers by its text, the layout by a C compiler; and a plan with every step."""

from __future__ import annotations

import functools
import inspect
import re
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from pyrun.plan.model import steps
from pyrun.plan.model.plan import Builder, Plan, version
from pyrun.plan.model.steps import ANY, IN0, LANE_NAMES, S0, A, D, Label, Step

SOURCES = Path(__file__).resolve().parents[3] / "cffi_build" / "executor"
WIRE_H = (SOURCES / "wire.h").read_text()
FORMATS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}
STRUCTS = ("px_header", "px_step", "px_rule", "px_msg")
CLASSES: list[type[Step]] = [
    c for _, c in inspect.getmembers(steps, inspect.isclass) if issubclass(c, Step) and c is not Step
]


def strip_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


@functools.cache
def enum(name: str) -> dict[str, int]:
    """The members of an enum of wire.h, in order."""
    found = re.search(rf"enum {name} \{{(.*?)\}}", strip_comments(WIRE_H), re.S)
    assert found, name
    out: dict[str, int] = {}
    value = -1
    for item in filter(None, (part.strip() for part in found[1].split(","))):
        member, _, number = item.partition("=")
        value = int(number, 0) if number else value + 1
        out[member.strip()] = value
    return out


def define(name: str) -> int:
    found = re.search(rf"^#define {name} (\w+)", WIRE_H, re.M)
    assert found, name
    return int(found[1].rstrip("u"), 0)


def members(name: str) -> list[str]:
    """The members of a struct of wire.h, in order."""
    found = re.search(rf"struct {name} \{{(.*?)\n\}};", strip_comments(WIRE_H), re.S)
    assert found, name
    declared = re.findall(r"(?:u8|u16|u32|u64|i32|char)\s+([^;]+);", found[1])
    return [re.sub(r"\[.*", "", item).strip() for line in declared for item in line.split(",")]


@functools.cache
def layout() -> dict[str, dict[str, tuple[int, int]]]:
    """By struct and member: offset and size as the compiler has them; under "" the struct's own size."""
    rows = []
    for name in STRUCTS:
        rows.append(f'printf("%s,,0,%zu\\n", "{name}", sizeof(struct {name}));')
        for member in members(name):
            place = f"offsetof(struct {name}, {member}), sizeof(((struct {name} *)0)->{member})"
            rows.append(f'printf("%s,%s,%zu,%zu\\n", "{name}", "{member}", {place});')
    source = (
        '#include <stdio.h>\n#include <stddef.h>\n#include "wire.h"\nint main(void) {' + "".join(rows) + "return 0;}"
    )
    with tempfile.TemporaryDirectory() as tmp:
        program = Path(tmp) / "layout"
        subprocess.run(["cc", "-I", SOURCES, "-x", "c", "-", "-o", program], input=source, text=True, check=True)
        lines = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    out: dict[str, dict[str, tuple[int, int]]] = {}
    for line in lines:
        struct_name, member, offset, size = line.split(",")
        out.setdefault(struct_name, {})[member] = (int(offset), int(size))
    return out


def size_of(name: str) -> int:
    return layout()[name][""][1]


def read(buf: bytes, base: int, name: str, member: str, index: int = 0) -> int:
    """A member of the struct at `base`; of an array the element `index`."""
    offset, size = layout()[name][member]
    width = 4 if member in ("lane_first", "lane_count") else size
    value: int = struct.unpack_from(FORMATS[width], buf, base + offset + index * width)[0]
    return value


def is_well_formed(buf: bytes) -> bool:
    """What px_check() promises, written a second time and in another language."""
    if len(buf) < size_of("px_header"):
        return False
    h = {m: read(buf, 0, "px_header", m) for m in members("px_header") if not m.startswith("lane_")}
    if (h["magic"], h["version"], h["size"]) != (define("PX_MAGIC"), version(), len(buf)):
        return False
    tables = (
        (h["steps"], h["n_steps"], size_of("px_step"), 8),
        (h["rules"], h["n_rules"], size_of("px_rule"), 4),
        (h["inherit"], h["n_inherit"], 2, 2),
        (h["blob"], h["blob_len"], 1, 1),
    )
    if any(at % align or at + count * each > len(buf) for at, count, each, align in tables):
        return False
    if (
        h["n_slots"] > define("PX_MAX_SLOTS")
        or h["blob"] == 0
        or not 3 <= h["keep_fds"] <= 1024
        or h["n_inherit"] > 4096
    ):
        return False
    inherit = struct.unpack_from(f"<{h['n_inherit']}H", buf, h["inherit"])
    return all(_slot_ok(h, s) for s in inherit) and _lanes_ok(buf, h)


def _slot_ok(h: dict[str, int], slot: int) -> bool:
    return slot == define("PX_NONE") or slot < h["n_slots"]


def _lanes_ok(buf: bytes, h: dict[str, int]) -> bool:
    first = 0
    for lane in range(len(LANE_NAMES)):
        count = read(buf, 0, "px_header", "lane_count", lane)
        if read(buf, 0, "px_header", "lane_first", lane) != first or first + count > h["n_steps"]:
            return False
        if not all(_step_ok(buf, h, i, first + count) for i in range(first, first + count)):
            return False
        first += count
    return first == h["n_steps"]


def _step_ok(buf: bytes, h: dict[str, int], index: int, end: int) -> bool:
    s = decode_step(buf, h["steps"] + index * size_of("px_step"))
    if not 0 < s["op"] < enum("px_op")["OP_COUNT"] or not all(_slot_ok(h, s[m]) for m in ("in0", "in1", "in2", "out")):
        return False
    if s["op"] == enum("px_op")["OP_CLOSE"] and s["in0"] == define("PX_NONE"):
        return False
    for off, n in ((s["s0"], s["n0"]), (s["s1"], s["n1"]), (s["s2"], s["n2"])):
        inside = h["blob"] <= off and off + n < h["blob"] + h["blob_len"]
        if not (off == n == 0) and not (off and inside and buf[off + n] == 0):
            return False
    if s["rules"] + s["n_rules"] > h["n_rules"]:
        return False
    at = [h["rules"] + (s["rules"] + i) * size_of("px_rule") for i in range(s["n_rules"])]
    targets = [read(buf, place, "px_rule", "target") for place in at]
    return all(t == define("PX_NEXT") or index < t <= end for t in targets)


def decode_step(buf: bytes, base: int) -> dict[str, int]:
    return {m: read(buf, base, "px_step", m) for m in members("px_step")}


def example(cls: type[Step], slot: int = 0) -> Step:
    """A step of this class with an operand in every field, each of another value."""
    special: dict[str, dict[str, Any]] = {
        "Setgroups": {"groups": (4, 70000)},
        "Execve": {"argv": ("sh", "-c", ""), "env": ("A=1",)},
        "Spawn": {
            "path": "/bin/hook",
            "argv": ("hook", steps.PID_MARK),
            "env": ("A=1", ""),
            "stdin": f"x{steps.PID_MARK}y",
            "timeout_ms": 5,
        },
        "SendFd": {"socket": slot, "fd": slot, "data": f"pid {steps.PID_MARK}"},
    }
    if cls.__name__ in special:
        return cls(**special[cls.__name__])
    args: dict[str, Any] = {}
    for number, (name, place) in enumerate(cls.FIELDS.items()):
        if place >= S0:
            args[name] = f"{name} of {cls.__name__}"
        elif place >= A:
            if not (name == "guard" and D in [p for n, p in cls.FIELDS.items() if n != name]):
                args[name] = number + 1
        elif place >= IN0:
            args[name] = slot
    return cls(**args)


def every_step() -> Plan:
    """A plan with each class in each lane, and with rules of each kind."""
    b = Builder()
    slots = [b.slot(f"s{i}", inherit=i % 2 == 0) for i in range(5)]
    for lane in range(len(LANE_NAMES)):
        end = Label("end")
        for i, cls in enumerate(CLASSES):
            step = example(cls, slots[i % len(slots)])
            step.on = ((2, None), (ANY, end)) if i % 3 == 0 else ()
            b.add(lane, step)
        b.add(lane, end)
    return b.plan()
