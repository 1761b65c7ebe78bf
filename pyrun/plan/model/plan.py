"""Plan and Builder: steps in lanes, slots, and the one buffer that they become.

A Builder collects; `plan()` freezes it. `encode()` writes the wire format of cffi_build/executor/wire.h. Nothing here
knows what a step means. Slots are plan-time names for descriptors that exist only when the plan runs; a slot that
stage 1 or 2 uses and the parent opened is handed over (`inherit`).
"""

from __future__ import annotations

from _struct import Struct
from binascii import crc32

from . import steps as known
from .steps import S0, A, Label, Step

_HEADER = Struct("<4I 2I 2I 2I 2I I 4I 4I I 3I")
_STEP = Struct("<HHI4H4Q6I")
_RULE = Struct("<HHI")
_MAGIC, _NONE, _NEXT = 0x4E505950, 0xFFFF, 0xFFFFFFFF
_OPERANDS = (_NONE,) * 4 + (0,) * 10  # of a step that has none
_U64 = 0xFFFFFFFFFFFFFFFF
TRACE = 1
_version = 0


def version() -> int:
    """A digest of what an encoded plan means: the opcodes, where operands go, the layout. Records keep plans, and a
    pyrun that is installed meanwhile must see that they are not of its language. C has it from build.py."""
    global _version
    if not _version:
        rows = [f"{layout.format}" for layout in (_HEADER, _STEP, _RULE)]
        for cls in vars(known).values():
            if isinstance(cls, type) and issubclass(cls, Step):
                rows.append(f"{cls.__name__} {cls.OP} {cls.FIELDS}")
        _version = crc32("\n".join(sorted(rows)).encode())
    return _version


class Plan:
    """lanes: four lists of Step; slots: their names, by number; inherit: slots that the parent hands to stage 1;
    keep_fds >= 3."""

    __slots__ = ("inherit", "keep_fds", "lanes", "slots", "steps")

    def __init__(self, lanes: list[list[Step | Label]], slots: list[str], inherit: list[int], keep_fds: int) -> None:
        self.slots = slots
        self.inherit = inherit
        self.keep_fds = keep_fds
        self.lanes: list[list[Step]] = []
        self.steps: list[Step] = []
        for lane in lanes:
            kept: list[Step] = []
            for item in lane:
                if isinstance(item, Label):
                    item.index = len(self.steps) + len(kept)
                else:
                    kept.append(item)
            self.lanes.append(kept)
            self.steps += kept

    def index(self, step: Step) -> int:
        """The number of a step in the whole plan, from 0."""
        return next(i for i, s in enumerate(self.steps) if s is step)

    def encode(
        self, *, trace: bool = False, fail_step: int = _NEXT, fail_errno: int = 0, kill_step: int = _NEXT
    ) -> bytes:
        """The plan as one buffer. The fault operands are honoured by test builds of the executor only."""
        inherit = b"".join(s.to_bytes(2, "little") for s in self.inherit)
        inherit += bytes(-len(inherit) % 8)
        steps_at = _HEADER.size + (-_HEADER.size % 8)
        rules_at = steps_at + len(self.steps) * _STEP.size
        inherit_at = rules_at + sum([len(step.on) for step in self.steps]) * _RULE.size
        blob_at = inherit_at + len(inherit)
        body, rules, blob = _encode_steps(self.steps, blob_at)
        first, firsts = 0, []
        for lane in self.lanes:
            firsts.append(first)
            first += len(lane)
        size = blob_at + len(blob)
        head = _HEADER.pack(
            _MAGIC,
            version(),
            size,
            TRACE if trace else 0,
            len(self.steps),
            steps_at,
            len(rules) // _RULE.size,
            rules_at,
            len(self.inherit),
            inherit_at,
            blob_at,
            len(blob),
            len(self.slots),
            *firsts,
            *(len(x) for x in self.lanes),
            self.keep_fds,
            fail_step,
            fail_errno,
            kill_step,
        )
        return b"".join((head, bytes(-len(head) % 8), body, rules, inherit, blob))


def _encode_steps(steps: list[Step], blob_at: int) -> tuple[bytearray, bytearray, bytearray]:
    """Wire records, the rules, and the blob, which is to lie at blob_at. A string's offset of 0: none."""
    records, rules, blob = bytearray(), bytearray(), bytearray(8)
    seen: dict[object, tuple[int, int]] = {}
    pack, count = _STEP.pack, 0
    for step in steps:
        on, fields = step.on, step.FIELDS
        rec = [step.OP, len(on), count, *_OPERANDS]
        for name, value in step.wire().items():
            place = fields[name]
            if place >= S0:
                where = seen.get(value)
                if where is None:
                    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")  # type: ignore[attr-defined]
                    blob += bytes(-len(blob) % 8)  # BPF, netlink and scheduler structures are read in place
                    where = seen[value] = blob_at + len(blob), len(raw)
                    blob += raw
                    blob.append(0)
                place = 11 + (place - S0) * 2
                rec[place : place + 2] = where
            elif place >= A:
                if name == "guard":
                    value = (value + 1) << 32 if not isinstance(value, Step) else (steps.index(value) + 1) << 32  # type: ignore[operator]
                rec[3 + place] |= value & _U64  # type: ignore[operator]
            elif value is not None:
                rec[3 + place] = value  # type: ignore[call-overload]
        for err, label in on:
            rules += _RULE.pack(err, 0, _NEXT if label is None else label.index)
            count += 1
        records += pack(*rec)
    return records, rules, blob


class Builder:
    """Collects the steps of a plan. `lane` methods append; `slot` names a descriptor."""

    __slots__ = ("inherit", "keep_fds", "lanes", "slots")

    def __init__(self, keep_fds: int = 3) -> None:
        self.lanes: list[list[Step | Label]] = [[], [], [], []]
        self.slots: list[str] = []
        self.inherit: list[int] = []
        self.keep_fds = keep_fds

    def slot(self, name: str, *, inherit: bool = False) -> int:
        """A new slot. inherit: the parent fills it and the children use it."""
        self.slots.append(name)
        number = len(self.slots) - 1
        if inherit:
            self.inherit.append(number)
        return number

    def add(self, lane: int, *steps: Step | Label) -> None:
        self.lanes[lane] += steps

    def plan(self) -> Plan:
        return Plan(self.lanes, self.slots, self.inherit, self.keep_fds)
