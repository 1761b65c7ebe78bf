"""wire.h against pyrun/plan/model/steps.py and model.py, and the decoder against damaged plans.

px_check() is the one function that trusts nothing, so it is held here against a second one (support/executor/wire.py);
what it does to memory is test_c_hosted.py's part.
"""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import strategies as st

from pyrun import executor
from pyrun.plan.cgroup import cgroups
from pyrun.plan.model import plan as model
from pyrun.plan.model import steps
from pyrun.plan.model.plan import Builder
from pyrun.plan.model.steps import ANY, IN0, LANE_NAMES, NEXT, OUT, PARENT, S0, UNDO, A, Label, Step
from pyrun.runtime import record
from tests.support.executor import wire
from tests.support.executor.wire import (
    CLASSES,
    SOURCES,
    decode_step,
    define,
    enum,
    every_step,
    example,
    is_well_formed,
    layout,
    read,
    size_of,
)
from tests.support.properties import given

PLACES = ("in0", "in1", "in2", "out", "a", "b", "c", "d", "s0", "s1", "s2")
ENCODED = every_step().encode()


def accepts(buf: bytes) -> bool:
    """Whether px_new() takes it. It is never run."""
    ffi, lib = executor.native()
    err = ffi.new("int *")
    run = lib.px_new(ffi.from_buffer(buf) if buf else ffi.new("char[1]"), len(buf), err)
    if run == ffi.NULL:
        assert err[0] == 22
        return False
    lib.px_free(run)
    return True


def opcode(cls: type[Step]) -> str:
    """OP_MOUNT_SETATTR of MountSetattr."""
    return "OP" + re.sub(r"([A-Z])", r"_\1", cls.__name__).upper()


def test_opcodes() -> None:
    ops = dict(enum("px_op"))
    assert ops.pop("OP_COUNT") == len(ops) + 1
    assert {opcode(cls): cls.OP for cls in CLASSES} == ops


def test_every_opcode_is_carried_out() -> None:
    text = "".join((SOURCES / name).read_text() for name in ("interp.c", "parent.c", "../init/init.c"))
    cases = re.findall(r"case (OP_\w+):", text)
    assert sorted(cases) == sorted(set(enum("px_op")) - {"OP_COUNT"})


def test_numbers() -> None:
    assert list(enum("px_lane")) == [*(f"LANE_{name.upper()}" for name in LANE_NAMES), "PX_LANES"]
    assert (PARENT, UNDO) == (enum("px_lane")["LANE_PARENT"], enum("px_lane")["LANE_UNDO"])
    assert (ANY, NEXT) == (define("PX_ANY"), define("PX_NEXT"))
    assert (model._MAGIC, model._NONE, model._NEXT, model.TRACE) == tuple(
        define(name) for name in ("PX_MAGIC", "PX_NONE", "PX_NEXT", "PX_TRACE")
    )
    assert struct.pack("<I", model._MAGIC) == b"PYPN"
    kinds = enum("px_msg_kind")
    assert list(kinds) == ["MSG_MEET", "MSG_PID", "MSG_ERROR"] and len(set(kinds.values())) == 3


@pytest.mark.parametrize("change", [("OP", 99), ("FIELDS", {"path": S0, "flags": A})], ids=["opcode", "operands"])
def test_a_plan_that_means_something_else_has_another_version(
    monkeypatch: pytest.MonkeyPatch, change: tuple[str, object]
) -> None:
    """Plans are kept in records, and a pyrun that is installed meanwhile may know its steps by other numbers: it must
    see that, and plan anew."""
    monkeypatch.setattr(model, "_version", 0)
    assert accepts(every_step().encode())
    monkeypatch.setattr(steps.Unlinkat, *change)
    monkeypatch.setattr(model, "_version", 0)
    b = Builder()
    b.add(PARENT, steps.Setsid())
    assert not accepts(b.plan().encode())


def test_numbers_of_other_files() -> None:
    parent, px_h, fs = ((SOURCES / name).read_text() for name in ("parent.c", "px.h", "steps_fs.c"))
    assert "enum { STATUS_OK, STATUS_FAILED, STATUS_YIELDED };" in parent
    assert define("PX_CGROUP_CLAIMED") == record.CLAIMED
    assert record.Record(cgroup=45, boot_id="-").pack()[cgroups.RECORD_CGROUP] == 45
    assert (executor._OK, executor._FAILED, executor._YIELDED) == (0, 1, 2)
    assert f"char text[{define('PX_TEXT')}];" in px_h
    assert f"#define STEP_PID_PREFIX {steps.PID_PREFIX}u" in fs
    ffi, _ = executor.native()
    assert ffi.sizeof(ffi.new("struct px_result *").text) == define("PX_TEXT")


@pytest.mark.parametrize(
    ("name", "packed"), [("px_header", model._HEADER), ("px_step", model._STEP), ("px_rule", model._RULE)]
)
def test_layout(name: str, packed: struct.Struct) -> None:
    """No member has another size or place in C than where Python packs it."""
    assert packed.size == size_of(name)
    at = 0
    for member in wire.members(name):
        assert layout()[name][member][0] == at, f"{name}.{member}"
        at += layout()[name][member][1]
    assert at == size_of(name)
    widths = [layout()[name][m][1] for m in wire.members(name) if not m.startswith("lane_")]
    codes = [code for count, code in re.findall(r"(\d*)([HIQ])", packed.format) for _ in range(int(count or 1))]
    flat = [{"H": 2, "I": 4, "Q": 8}[code] for code in codes]
    assert sorted(flat) == sorted(widths + [4] * 8 * (name == "px_header"))


def test_a_message_fits_its_socket() -> None:
    assert size_of("px_msg") == layout()["px_msg"]["text"][0] + define("PX_TEXT")
    assert layout()["px_msg"]["text"][0] == 28


def test_header() -> None:
    b = Builder(keep_fds=7)
    for i in range(3):
        b.slot(str(i), inherit=i != 1)
    for lane, count in enumerate((2, 0, 1, 3)):
        b.add(lane, *(steps.Setsid() for _ in range(count)))
    buf = b.plan().encode(trace=True, fail_step=11, fail_errno=12, kill_step=13)
    h = {m: read(buf, 0, "px_header", m) for m in wire.members("px_header") if not m.startswith("lane_")}
    assert (h["size"], h["flags"], h["n_steps"], h["n_rules"], h["n_inherit"], h["n_slots"]) == (
        len(buf),
        define("PX_TRACE"),
        6,
        0,
        2,
        3,
    )
    assert (h["keep_fds"], h["fail_step"], h["fail_errno"], h["kill_step"]) == (7, 11, 12, 13)
    assert struct.unpack_from("<2H", buf, h["inherit"]) == (0, 2)
    assert [read(buf, 0, "px_header", "lane_first", i) for i in range(4)] == [0, 2, 2, 3]
    assert [read(buf, 0, "px_header", "lane_count", i) for i in range(4)] == [2, 0, 1, 3]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_operands(cls: type[Step]) -> None:
    """Each operand lands where FIELDS says, and nowhere else."""
    b = Builder()
    slot = [b.slot("a"), b.slot("b")][1]
    step = example(cls, slot)
    b.add(PARENT, step)
    buf = b.plan().encode()
    assert accepts(buf)
    record = decode_step(buf, read(buf, 0, "px_header", "steps"))
    assert (record["op"], record["n_rules"]) == (cls.OP, 0)
    wanted = dict.fromkeys(PLACES[:4], define("PX_NONE")) | dict.fromkeys(PLACES[4:], 0)
    for name, value in step.wire().items():
        place = cls.FIELDS[name]
        if name == "guard":
            value = (int(str(value)) + 1) << 32
        if value is not None:
            wanted[PLACES[place]] = value  # type: ignore[assignment]
    for place, value in enumerate(wanted.values()):
        if place < S0:
            assert record[PLACES[place]] == value, PLACES[place]
            continue
        raw = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else b""
        off, n = record[f"s{place - S0}"], record[f"n{place - S0}"]
        assert buf[off : off + n] == raw if off else raw == b"", PLACES[place]
        assert not off or buf[off + n] == 0
    assert set(cls.FIELDS.values()) <= set(range(IN0, len(PLACES)))


def test_operands_do_not_share_a_place() -> None:
    """But for a guard, which has the upper half of d."""
    for cls in CLASSES:
        places = [place for name, place in cls.FIELDS.items() if name != "guard"]
        assert len(places) == len(set(places)), cls.__name__
        assert OUT not in places or cls.FIELDS.get("out") == OUT, cls.__name__
    assert A > OUT


def test_unknown_operand_is_refused() -> None:
    b = Builder()
    b.add(PARENT, steps.Chdir(directory="/"))
    with pytest.raises(KeyError):
        b.plan().encode()


def test_rules() -> None:
    b = Builder()
    there = Label("there")
    first = steps.Goto(on=((2, None), (ANY, there)))
    b.add(PARENT, first, steps.Setsid(), there, steps.Setsid())
    buf = b.plan().encode()
    at = read(buf, 0, "px_header", "rules")
    pairs = [(read(buf, at + i * 8, "px_rule", "err"), read(buf, at + i * 8, "px_rule", "target")) for i in range(2)]
    assert pairs == [(2, NEXT), (ANY, 2)]
    assert accepts(buf)


@pytest.mark.parametrize("index", [-1, 0], ids=["nowhere", "backward"])
def test_a_rule_leads_forward_only(index: int) -> None:
    """A lane always ends: a label that is in no lane, or before its rule, is refused."""
    b = Builder()
    back = Label("back")
    b.add(PARENT, *([back] if index == 0 else []), steps.Setsid(), steps.Goto(on=((ANY, back),)))
    plan = b.plan()
    if index == 0:
        assert not accepts(plan.encode())
    else:
        with pytest.raises(struct.error):
            plan.encode()


def test_strings_are_aligned_and_shared() -> None:
    """BPF programs, netlink messages and scheduler attributes are read in place."""
    b = Builder()
    b.add(PARENT, steps.Chdir(path="abc"), steps.Chdir(path="de"), steps.Chdir(path="abc"))
    buf = b.plan().encode()
    at = read(buf, 0, "px_header", "steps")
    offs = [decode_step(buf, at + i * size_of("px_step"))["s0"] for i in range(3)]
    assert all(off % 8 == 0 for off in offs) and offs[0] == offs[2] != offs[1]


def test_every_step_is_accepted() -> None:
    assert len(every_step().steps) == 4 * len(CLASSES)
    assert is_well_formed(ENCODED)
    assert accepts(ENCODED)
    assert accepts(every_step().encode(trace=True))
    assert accepts(Builder().plan().encode())


@pytest.mark.parametrize("size", [0, 1, 64, 103, len(ENCODED) - 1, len(ENCODED) // 2])
def test_a_cut_plan_is_refused(size: int) -> None:
    assert not accepts(ENCODED[:size])
    assert not accepts(ENCODED[:8] + struct.pack("<I", size) + ENCODED[12:size]), "its size says what there is"


def test_a_close_of_no_slot_is_refused() -> None:
    """It is the one step that indexes the slots itself."""
    b = Builder()
    b.add(PARENT, steps.Close(fd=None))
    assert not accepts(b.plan().encode())


EDGES = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFE,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0xFFFFFFFE,
    0xFFFFFFFF,
    len(ENCODED),
    len(ENCODED) - 1,
]
WORDS = st.tuples(st.integers(0, len(ENCODED) // 4 - 1), st.sampled_from(EDGES) | st.integers(0, 2**32 - 1))
HEADER_WORDS = st.tuples(
    st.integers(0, size_of("px_header") // 4 - 1), st.sampled_from(EDGES) | st.integers(0, 2 * len(ENCODED))
)
BYTES = st.tuples(st.integers(0, len(ENCODED) - 1), st.integers(0, 255))


@given(
    words=st.lists(WORDS | HEADER_WORDS, max_size=3),
    octets=st.lists(BYTES, max_size=3),
    cut=st.none() | st.integers(0, len(ENCODED) + 64),
    max_examples=400,
)
def test_damaged_plans(words: list[tuple[int, int]], octets: list[tuple[int, int]], cut: int | None) -> None:
    """Accepted or refused as the second reading of wire.h has it; never a crash."""
    buf = bytearray(ENCODED)
    for at, value in words:
        struct.pack_into("<I", buf, at * 4, value)
    for at, value in octets:
        buf[at] = value
    if cut is not None:
        buf = (buf + bytes(64))[:cut]
        if cut >= 12:
            struct.pack_into("<I", buf, 8, cut)
    assert accepts(bytes(buf)) == is_well_formed(bytes(buf))


@given(buf=st.binary(max_size=600), max_examples=200)
def test_noise(buf: bytes) -> None:
    head = struct.pack("<III", model._MAGIC, model.version(), 12 + len(buf))
    assert accepts(buf) == is_well_formed(buf)
    assert accepts(head + buf) == is_well_formed(head + buf)
