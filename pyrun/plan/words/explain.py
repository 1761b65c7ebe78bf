"""A plan as text for readers and as data for tools: `pyrun explain`, `pyrun run --trace`, and the step in an
error's message.

A step is shown by its name, its operands by theirs, numbers by the kernel's names for them, slots as `$name`.
Steps that one place in config.json asks for stand together below its pointer. Costs grow with the number of steps
and with nothing else, since a plan may have a hundred thousand. It imports nothing but names, because error
messages come through here.
"""

from __future__ import annotations

from ..model.plan import Plan
from ..model.steps import (
    IN0,
    LANE_NAMES,
    OUT,
    PARENT,
    UNDO,
    Fsmount,
    Fsopen,
    Goto,
    Label,
    MakeTarget,
    MoveMount,
    Openat2,
    OpenTree,
    Step,
)
from .symbols import OPERANDS, errno_name, step_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

NO_SLOT = 0xFFFF
ABOUT = {
    "parent": "pyrun, on the host",
    "stage1": "the first process in the new namespaces",
    "stage2": "the container's init, up to its program",
    "undo": "only when a step fails: takes back what was made",
}
WORD_LIMIT = 200  # characters of one operand in text; JSON has all of it
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+:,./-\u2026")


class Style:
    """What makes the text: escape sequences, or nothing where the output is not a terminal."""

    __slots__ = ("bold", "dim", "name", "place", "plain", "red")

    def __init__(self, color: bool) -> None:
        self.plain = "\033[0m" if color else ""
        self.bold = "\033[1m" if color else ""
        self.dim = "\033[2m" if color else ""
        self.name = "\033[36m" if color else ""
        self.place = "\033[33m" if color else ""
        self.red = "\033[31m" if color else ""


class _Names:
    """What the steps of one plan are called: their names by class, and each number's text as it was first made."""

    __slots__ = ("index", "memo", "plan", "shown", "slots", "steps")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.slots = plan.slots
        self.steps: dict[type[Step], str] = {}
        self.memo: dict[tuple[type[Step], str, object], str] = {}
        self.shown: dict[tuple[type[Step], str, object], str] = {}
        self.index: dict[int, int] = {}

    def step(self, cls: type[Step]) -> str:
        name = self.steps.get(cls)
        if name is None:
            name = self.steps[cls] = step_name(cls)
        return name

    def number_of(self, step: Step) -> int:
        """A step's number from 1, as it is printed."""
        if not self.index:
            self.index = {id(other): i for i, other in enumerate(self.plan.steps, 1)}
        return self.index[id(step)]

    def slot(self, number: int) -> str:
        return "$" + self.slots[number] if number < len(self.slots) else f"${number}"

    def operand(self, step: Step, name: str, value: Any) -> str:
        """One operand's text; "" when it says nothing."""
        cls = type(step)
        if value is None or name == "guard":
            return ""
        if not isinstance(value, int):
            show = OPERANDS.get(cls, {}).get(name)
            return show(value) if show is not None else word(value)
        if IN0 <= cls.FIELDS.get(name, OUT + 1) <= OUT:
            return "" if value == NO_SLOT else self.slot(value)
        key = (cls, name, value)
        known = self.memo.get(key)
        if known is None:
            show = OPERANDS.get(cls, {}).get(name)
            known = self.memo[key] = show(value) if show is not None else str(value)
        return known

    def brief(self, step: Step, name: str, value: Any) -> str:
        """The same for readers: without what only says that an operand is a descriptor and not a path."""
        if value == "":
            return ""
        text = self.operand(step, name, value)
        if "EMPTY_PATH" not in text:
            return text
        return "|".join([flag for flag in text.split("|") if not flag.endswith("EMPTY_PATH")])


def word(value: Any, limit: int = WORD_LIMIT) -> str:
    """A string, number, tuple or bytes; strings in quotes where they have to be, and cut where they are long."""
    if type(value) is str:
        if _PLAIN.issuperset(value) and value and len(value) <= limit:
            return value
        if len(value) > limit:
            value = value[: limit - 1] + "\u2026"
        return value if value and _PLAIN.issuperset(value) else _quoted(value)
    if isinstance(value, (tuple, list)):
        return "[" + " ".join([word(item, limit) for item in value[:20]]) + (" \u2026]" if len(value) > 20 else "]")
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    return str(value)


def _quoted(text: str) -> str:
    out = []
    for c in text:
        if c in '"\\':
            out.append("\\" + c)
        elif c == "\n":
            out.append("\\n")
        elif c == "\t":
            out.append("\\t")
        elif c.isprintable():
            out.append(c)
        else:
            out.append(f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}")
    return '"' + "".join(out) + '"'


# --- one step --------------------------------------------------------------------------------------------------------


def place_of(plan: Plan, index: int) -> str:
    """Where a plan stopped: `step 14/37 move_mount`. 37 counts what would be done, without the steps that undo it."""
    total = len(plan.steps) - len(plan.lanes[UNDO])
    name = step_name(type(plan.steps[index]))
    if index >= total:
        return f"undo step {index + 1 - total}/{len(plan.lanes[UNDO])} {name}"
    return f"step {index + 1}/{total} {name}"


def format_step(step: Step, plan: Plan) -> str:
    """A step in an error's message: `step 14/37 move_mount src=/srv dst=/data`.

    A slot is shown as the path that it was opened from, where a step says one.
    """
    words = [f"{key}={value}" for key, value in _resolved(step, plan, _Names(plan))]
    return " ".join([place_of(plan, plan.index(step)), *words])


def _resolved(step: Step, plan: Plan, names: _Names) -> Iterator[tuple[str, str]]:
    held = _held_before(step, plan)
    value: Any
    for name, value in step.args.items():
        if name == "out":
            continue
        if isinstance(step, MoveMount) and name in ("mount", "onto", "dst") and value not in (None, ""):
            key = "src" if name == "mount" else "dst"
            yield key, value if isinstance(value, str) else word(held.get(value) or names.slot(value))
            continue
        slot = IN0 <= step.FIELDS.get(name, OUT + 1) < OUT and isinstance(value, int) and value != NO_SLOT
        text = word(held.get(value) or names.slot(value), 80) if slot else names.brief(step, name, value)
        if text:
            yield name.rstrip("_"), text if len(text) <= 100 else text[:99] + "\u2026"


def _held_before(step: Step, plan: Plan) -> dict[Any, str | None]:
    """What lies in each slot when a step begins, by where it came from. Many a slot is used again; and what a child
    puts into one, undo does not see."""
    held: dict[Any, str | None] = {}
    undone = any(other is step for other in plan.lanes[UNDO])
    for lane in [plan.lanes[PARENT], plan.lanes[UNDO]] if undone else plan.lanes:
        for earlier in lane:
            if earlier is step:
                return held
            if earlier.args.get("out") is not None:
                held[earlier.args["out"]] = _origin(earlier, held)
    return held


def _origin(step: Step, held: dict[Any, str | None]) -> str | None:
    """Where the descriptor that a step puts into a slot comes from: a path, or a file system's type."""
    if isinstance(step, (Openat2, OpenTree, MakeTarget)) and step.args.get("path"):
        return str(step.args["path"])
    if isinstance(step, Fsopen):
        return str(step.args["fstype"])
    if isinstance(step, Fsmount):
        return held.get(step.args["fs"])
    return held.get(step.args.get("dir")) if isinstance(step, OpenTree) else None


def operands_of(step: Step, plan: Plan) -> dict[str, str]:
    """The operands of a step as an error's message has them."""
    return dict(_resolved(step, plan, _Names(plan)))


def _rules(step: Step, plan: Plan) -> list[tuple[str, str]]:
    """The errno rules: (errno, what is done then)."""
    return [(errno_name(number), _target(label, plan)) for number, label in step.on]


def _target(label: Label | None, plan: Plan) -> str:
    if label is None:
        return "skip"
    first = 0
    for lane in plan.lanes:
        # A label behind a lane's last step: the lane is done.
        if first <= label.index - 1 < first + len(lane) and label.index == first + len(lane):
            return "the end"
        first += len(lane)
    return f"step {label.index + 1}"


# --- the whole plan, as text -----------------------------------------------------------------------------------------


def explain_text(plan: Plan, *, width: int = 100, color: bool = False, title: str = "") -> Iterator[str]:
    """The lines of `pyrun explain`."""
    style = Style(color)
    counts = f"{len(plan.steps) - len(plan.lanes[UNDO])} steps, and {len(plan.lanes[UNDO])} that undo them if one fails"
    yield f"{style.bold}{title}{style.plain}{': ' if title else ''}{counts}"
    yield from _lanes(plan, width, style, None, None)


def format_trace(
    plan: Plan, took: Sequence[int], *, failed: int | None = None, width: int = 100, color: bool = False
) -> Iterator[str]:
    """The lines of `run --trace`: took has each step's nanoseconds by its index, -1 where it did not run; failed:
    which one did."""
    style = Style(color)
    ran = [t for t in took if t >= 0]
    yield f"{style.bold}{len(ran)} steps ran{style.plain} (microseconds; await, await_pid and meet wait for others)"
    yield from _lanes(plan, width, style, took, failed)


def _lanes(plan: Plan, width: int, style: Style, took: Sequence[int] | None, failed: int | None) -> Iterator[str]:
    names = _Names(plan)
    first = 0
    for lane, name in zip(plan.lanes, LANE_NAMES, strict=True):
        if lane and not (took is not None and name == "undo"):
            spent = sum(t for t in took[first : first + len(lane)] if t > 0) if took is not None else 0
            total = f"  {spent // 1000} \u00b5s" if took is not None else ""
            yield ""
            yield f"{style.bold}{name.upper()}{style.plain}  {style.dim}{ABOUT[name]}{total}{style.plain}"
            yield from _lane(lane, first, names, width, style, took, failed)
        first += len(lane)


def _lane(
    lane: list[Step],
    first: int,
    names: _Names,
    width: int,
    style: Style,
    took: Sequence[int] | None,
    failed: int | None,
) -> Iterator[str]:
    digits = max(3, len(str(len(names.plan.steps))))
    classes = {type(step) for step in lane}
    widest = max([len(names.step(cls)) for cls in classes])
    titles = {cls: f"{style.name}{names.step(cls):<{widest}}{style.plain}  " for cls in classes}
    margin = 2 + digits + 2 + widest + 2 + (9 if took is not None else 0)
    room = max(width - margin, 20)
    number = first
    for unit, run in _groups(lane):
        # One step has its pointer beside it; more have it above them, and each only its own part of it.
        above = unit if unit is not None and len(run) > 1 else ""
        if above:
            yield f"{style.place}{above}{style.plain}"
        bar = f"{style.place}\u2502{style.plain} " if above else "  "
        indent = bar + " " * (margin - 2)
        for step in run:
            time = ""
            if took is not None:
                time = f"{style.red}   failed{style.plain}" if number == failed else _time(took[number], style)
            number += 1
            head = f"{bar}{number:>{digits}}{time}  {titles[type(step)]}"
            at = step.at[len(above) :] if step.at else ""
            yield from _folded(head, indent, room, _words(step, names), at, step.why, style)


def _groups(lane: list[Step]) -> Iterator[tuple[str | None, list[Step]]]:
    """Neighbours that one entry of config.json asks for: (its pointer, the steps)."""
    now: str | None = None
    at: str | None = None
    unit: str | None = None
    run: list[Step] = []
    for step in lane:
        if step.at != at:
            at = step.at
            unit = entry_of(at) if at is not None else None
        if run and unit != now:
            yield now, run
            run = []
        now = unit
        run.append(step)
    if run:
        yield now, run


def entry_of(pointer: str) -> str:
    """The list's entry that a pointer leads to or into: /mounts/3 for /mounts/3/options/1; without one, all of it."""
    parts = pointer.split("/")
    for i, part in enumerate(parts):
        if part.isdigit():
            return "/".join(parts[: i + 1])
    return pointer


def _time(nanoseconds: int, style: Style) -> str:
    return f"{nanoseconds / 1000:9.1f}" if nanoseconds >= 0 else f"{style.dim}        \u00b7{style.plain}"


def _words(step: Step, names: _Names) -> list[str]:
    words = []
    cls, shown = type(step), names.shown
    for name, value in step.args.items():
        if name == "out":
            continue
        if value.__class__ is int:  # flags and slots come again and again
            key = (cls, name, value)
            text = shown.get(key)
            if text is None:
                text = names.brief(step, name, value)
                text = shown[key] = f"{name.rstrip('_')}={text}" if text else ""
            if text:
                words.append(text)
        elif text := names.brief(step, name, value):
            words.append(f"{name.rstrip('_')}={text}")
    out = step.args.get("out")
    if out is not None and out != NO_SLOT:
        words.append("\u2192 " + names.slot(out))  # type: ignore[arg-type]
    if step.on:
        rules = _rules(step, names.plan)
        words += [f"\u2192 {then}" if cls is Goto else f"[{errno} \u2192 {then}]" for errno, then in rules]
    guard = step.args.get("guard")
    if isinstance(guard, Step):
        words.append(f"[if step {names.number_of(guard)} made it]")
    return words


def _folded(head: str, indent: str, room: int, words: list[str], at: str, why: str, style: Style) -> Iterator[str]:
    """A step's lines: its words, folded at the width; its place and its reason, beside them where there is room."""
    line = " ".join(words)
    notes = f"{at}  # {why}" if at and why else at or (why and "# " + why)
    if not notes and len(line) <= room:
        yield head + line if line else head.rstrip()
        return
    shown = f"{style.place}{at}{style.plain}" if at else ""
    if why:
        shown = f"{shown}{'  ' if at else ''}{style.dim}# {why}{style.plain}"
    if len(line) + len(notes) + 2 > room and words:
        line = ""
        for text in words:
            if line and len(line) + 1 + len(text) > room:
                yield head + line
                head, line = indent, text
            else:
                line = f"{line} {text}" if line else text
        if len(line) + len(notes) + 2 > room:
            yield head + line
            line, head = "", indent
    gap = "  " if line and notes else ""
    yield f"{head}{line}{gap}{shown}".rstrip()


# --- and as data -----------------------------------------------------------------------------------------------------


def explain_data(plan: Plan) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """For tools: (lane, its steps). A step: number, step, operands, out, at, why, on (errno and what is done then)."""
    names = _Names(plan)
    first = 0
    for lane, name in zip(plan.lanes, LANE_NAMES, strict=True):
        yield name, (_step_data(step, number, names) for number, step in enumerate(lane, first + 1))
        first += len(lane)


def _step_data(step: Step, number: int, names: _Names) -> dict[str, Any]:
    operands: dict[str, Any] = {}
    value: Any
    for name, value in step.args.items():
        if name == "out" or value is None or (name == "guard" and not isinstance(value, Step)):
            continue
        if name == "guard":
            operands[name] = names.number_of(value)
        elif isinstance(value, str):
            operands[name] = value
        elif isinstance(value, (tuple, list)):
            operands[name] = list(value)
        elif text := names.operand(step, name, value):
            operands[name.rstrip("_")] = (
                int(text) if text.isascii() and text.isdigit() and not text.startswith("0") else text
            )
    data: dict[str, Any] = {"number": number, "step": names.step(type(step)), "operands": operands}
    out = step.args.get("out")
    if isinstance(out, int) and out != NO_SLOT:
        data["out"] = names.slot(out)
    data["at"] = step.at
    data["why"] = step.why or None
    data["on"] = [{"errno": errno, "then": then} for errno, then in _rules(step, names.plan)]
    return data


__all__ = ["PARENT", "explain_data", "explain_text", "format_step", "format_trace", "operands_of", "place_of"]
