"""The device program against a plain model of the rules: in an interpreter here, and before the kernel's verifier."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from typing import NamedTuple

import pytest
from hypothesis import example
from hypothesis import strategies as st

from pyrun.errors import ConfigError
from pyrun.oci.model import DeviceCgroup, Linux, Resources, Root, Spec
from pyrun.plan.cgroup import devices
from pyrun.plan.cgroup.devices import ANY, BLOCK, CHAR, MKNOD, READ, RWM, WRITE, DeviceRule, device_program
from tests.support.properties import given

# --- a small interpreter: what these programs use, and an error for anything else -------------------------------------


class Instruction(NamedTuple):
    code: int
    to: int
    source: int
    offset: int
    immediate: int


def disassemble(program: bytes) -> list[Instruction]:
    return [Instruction(c, r & 15, r >> 4, o, i) for c, r, o, i in struct.iter_unpack("<BBhi", program)]


def run(program: list[Instruction], type_: int, access: int, major: int, minor: int) -> int:
    context = {0: access << 16 | type_, 4: major, 8: minor}
    registers = [0] * 11
    at = steps = 0
    while True:
        i = program[at]
        at += 1
        steps += 1
        assert steps <= len(program), "a loop"
        old, operand = registers[i.to], registers[i.source] if i.code & 8 else i.immediate & 0xFFFFFFFF
        match i.code:
            case 0x95:
                return registers[0]
            case 0x61:
                assert i.source == 1, "only the context can be read"
                registers[i.to] = context[i.offset]
            case 0x56 | 0x16:
                if (old == operand) == (i.code == 0x16):
                    at += i.offset
            case 0x17:
                registers[i.to] = (old - i.immediate) & 0xFFFFFFFFFFFFFFFF
            case 0x77:
                registers[i.to] = old >> operand
            case 0xB4 | 0xBC | 0x4C | 0x54 | 0x5C | 0xA4 | 0x74 | 0x24:
                old &= 0xFFFFFFFF
                results = {2: old * operand, 4: old | operand, 5: old & operand, 7: old >> operand, 10: old ^ operand}
                registers[i.to] = results.get(i.code >> 4, operand) & 0xFFFFFFFF
            case _:
                raise AssertionError(f"opcode {i.code:#x}")


def model(rules: tuple[DeviceRule, ...], type_: int, access: int, major: int, minor: int) -> int:
    """Each bit by itself: the last rule that matches the device and speaks of the bit."""
    for bit in (MKNOD, READ, WRITE):
        verdict = not access & bit
        for rule in rules:
            matches = rule.type in (ANY, type_) and rule.major in (ANY, major) and rule.minor in (ANY, minor)
            if matches and rule.access & bit & access:
                verdict = rule.allow
        if not verdict:
            return 0
    return 1


NUMBERS = [0, 1, 3, 0xFFFFFFFF]
rule_strategy = st.builds(
    DeviceRule,
    st.booleans(),
    st.sampled_from([ANY, BLOCK, CHAR]),
    st.sampled_from([ANY, *NUMBERS]),
    st.sampled_from([ANY, *NUMBERS]),
    st.integers(1, RWM),
)


@given(st.lists(rule_strategy, max_size=12))
@example([DeviceRule(True, ANY, ANY, ANY, RWM)])
@example([DeviceRule(True, CHAR, ANY, ANY, RWM), DeviceRule(False, CHAR, 1, 3, WRITE)])
def test_the_program_decides_as_the_model(rules: list[DeviceRule]) -> None:
    program = disassemble(device_program(rules))
    for type_ in (BLOCK, CHAR):
        for access in range(RWM + 1):
            for major in NUMBERS:
                for minor in NUMBERS:
                    request = type_, access, major, minor
                    assert run(program, *request) == model(tuple(rules), *request), (rules, request)


# --- the rules of config.json -----------------------------------------------------------------------------------------


def spec_with(*rules: DeviceCgroup) -> Spec:
    return Spec(oci_version="1.3.0", root=Root(path="rootfs"), linux=Linux(resources=Resources(devices=rules)))


def decide(rules: tuple[DeviceRule, ...], *request: int) -> int:
    return run(disassemble(device_program(rules)), *request)


def test_without_rules_only_the_default_devices_are_allowed() -> None:
    rules = devices.plan_device_rules(Spec(oci_version="1.3.0", root=Root(path="rootfs")))
    for major, minor in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (10, 200), (136, 0), (136, 4711)]:
        assert decide(rules, CHAR, READ | WRITE, major, minor) == 1, (major, minor)
        assert decide(rules, BLOCK, READ, major, minor) == 0, (major, minor)
    assert decide(rules, CHAR, READ, 5, 1) == 0, "the host's console"
    assert decide(rules, CHAR, READ, 1, 1) == 0, "/dev/mem"
    assert decide(rules, BLOCK, READ, 8, 0) == 0
    assert decide(rules, BLOCK, MKNOD, 8, 0) == 1


def test_the_defaults_can_not_be_denied() -> None:
    rules = devices.plan_device_rules(spec_with(DeviceCgroup(allow=False, access="rwm")))
    assert decide(rules, CHAR, READ | WRITE, 1, 3) == 1


def test_rules_keep_their_order_and_their_place() -> None:
    rules = devices.plan_device_rules(
        spec_with(
            DeviceCgroup(allow=False, access="rwm"),
            DeviceCgroup(allow=True, type="b", major=8, access="rw"),
            DeviceCgroup(allow=False, type="b", major=8, minor=1, access="w"),
            DeviceCgroup(allow=True, type="c", major=10, minor=-1, access="mr"),
        )
    )
    assert [repr(rule) for rule in rules[:4]] == ["deny a *:* rwm", "allow b 8:* rw", "deny b 8:1 w", "allow c 10:* rm"]
    assert [rule.pointer for rule in rules[2:5]] == ["/linux/resources/devices/2", "/linux/resources/devices/3", None]
    assert decide(rules, BLOCK, READ | WRITE, 8, 0) == 1
    assert decide(rules, BLOCK, READ, 8, 1) == 1
    assert decide(rules, BLOCK, READ | WRITE, 8, 1) == 0, "opening for both must not get round a denied write"


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        (DeviceCgroup(allow=True, type="p", access="r"), "type"),
        (DeviceCgroup(allow=True, type="u", access="r"), "type"),
        (DeviceCgroup(allow=True, type="c", access="rx"), "access"),
        (DeviceCgroup(allow=True, type="c", access=""), "access"),
        (DeviceCgroup(allow=True, type="c"), "access"),
        (DeviceCgroup(allow=True, type="c", major=-2, access="r"), "major"),
        (DeviceCgroup(allow=True, type="c", minor=1 << 32, access="r"), "minor"),
    ],
)
def test_a_bad_rule_names_its_place(rule: DeviceCgroup, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        devices.plan_device_rules(spec_with(DeviceCgroup(allow=True, access="r"), rule))
    assert [pointer for pointer, _ in caught.value.faults] == [f"/linux/resources/devices/1/{place}"]


def test_every_bad_rule_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        devices.plan_device_rules(spec_with(DeviceCgroup(allow=True, type="x"), DeviceCgroup(allow=True, access="q")))
    assert len(caught.value.faults) == 3


# --- size, and the kernel's own opinion -------------------------------------------------------------------------------


def many_rules(count: int) -> list[DeviceRule]:
    """All different, of every form, so that none can be left out."""
    return [DeviceRule(n % 3 > 0, CHAR if n % 2 else BLOCK, n % 4000, n, 1 + n % RWM) for n in range(count)]


def test_ten_thousand_rules_fit_and_grow_linearly() -> None:
    sizes = {count: len(device_program(many_rules(count))) // 8 for count in (1000, 10_000)}
    assert sizes[10_000] < 20 * 10_000
    assert sizes[10_000] == pytest.approx(10 * sizes[1000], rel=0.02)


def test_repeated_rules_cost_nothing() -> None:
    once = device_program([DeviceRule(True, CHAR, 1, 3, RWM)])
    assert device_program([DeviceRule(False, CHAR, 1, 3, READ), DeviceRule(True, CHAR, 1, 3, RWM)] * 10_000) == once


def test_a_program_beyond_the_verifier_is_refused() -> None:
    with pytest.raises(ConfigError, match="too many device rules"):
        device_program(many_rules(100_000))


BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE = 5, 15
SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, -1)


def load(program: bytes) -> int:
    """The kernel's verdict: a descriptor, or minus an errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    code, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"Apache-2.0")
    addresses = ctypes.addressof(code), ctypes.addressof(licence)
    attr = struct.pack("<IIQQ", BPF_PROG_TYPE_CGROUP_DEVICE, len(program) // 8, *addresses).ljust(128, b"\0")
    fd = libc.syscall(SYS_BPF, BPF_PROG_LOAD, attr, len(attr))
    return fd if fd >= 0 else -ctypes.get_errno()


def loads(program: bytes) -> bool:
    fd = load(program)
    if fd == -1:
        pytest.skip("bpf(2) needs CAP_BPF")
    if fd >= 0:
        os.close(fd)
    return fd >= 0


@given(st.lists(rule_strategy, max_size=8))
@example([])
@example([DeviceRule(True, ANY, ANY, ANY, RWM)])
@example([DeviceRule(False, ANY, ANY, ANY, RWM)])
def test_the_verifier_accepts_the_program(rules: list[DeviceRule]) -> None:
    assert loads(device_program(rules)), rules


@pytest.mark.parametrize(("allow", "access"), [(True, READ), (True, RWM), (False, WRITE), (None, None)])
def test_the_verifier_accepts_ten_thousand_rules_in_bounded_time(allow: bool | None, access: int | None) -> None:
    rules = many_rules(10_000)
    if allow is not None and access is not None:
        rules = [DeviceRule(allow, rule.type, rule.major, rule.minor, access) for rule in rules]
    program = device_program(rules)
    start = time.process_time()
    assert loads(program)
    assert time.process_time() - start < 5


def test_the_verifier_is_really_asked() -> None:
    if load(device_program([])) == -1:
        pytest.skip("bpf(2) needs CAP_BPF")
    assert load(device_program([])[:-8]) == -22, "a program that falls off its end"
