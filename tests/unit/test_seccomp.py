"""Seccomp profiles as BPF: in an interpreter against a plain model of the profile, and by the kernel in a child."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from pyrun.errors import ConfigError
from pyrun.oci.model import Seccomp, SeccompArg, SeccompSyscall
from pyrun.plan.process import seccomp as plan
from pyrun.plan.process.seccomp import ALLOW, ARCHS, ERRNO, KILL_THREAD, LOG, NOTIFY, TRACE, plan_seccomp
from tests.support.properties import given

ROOT = Path(__file__).parents[2]
X86_64, X86, X32, AARCH64 = (ARCHS[f"SCMP_ARCH_{name}"] for name in ("X86_64", "X86", "X32", "AARCH64"))
ENOSYS, EPERM = ERRNO | 38, ERRNO | 1


def profile(default: str, *calls: SeccompSyscall, **members: Any) -> Seccomp:
    members.setdefault("flags", ())
    return Seccomp(default_action=f"SCMP_ACT_{default}", syscalls=calls, **members)


Condition = tuple[int, str, int] | tuple[int, str, int, int]


def call(names: str, action: str, *args: Condition, **members: Any) -> SeccompSyscall:
    given = tuple(
        SeccompArg(index=arg[0], op=f"SCMP_CMP_{arg[1]}", value=arg[2], value_two=arg[3] if len(arg) > 3 else None)
        for arg in args
    )
    return SeccompSyscall(names=tuple(names.split()), action=f"SCMP_ACT_{action}", args=given, **members)


def compiled(seccomp: Seccomp, arch: str = "x86_64") -> bytes:
    made = plan_seccomp(seccomp, arch=arch, nnp=True)
    assert made is not None
    return made.bpf


def faults(seccomp: Seccomp, **facts: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        plan_seccomp(seccomp, arch="x86_64", nnp=True, **facts)
    return dict(caught.value.faults)


# --- a small interpreter of classic BPF, as seccomp(2) runs it --------------------------------------------------------


def run(bpf: bytes, arch: int, number: int, *args: int) -> int:
    """The program's answer to one call; an error for an instruction that these programs should not need."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(list(args) + [0] * 6)[:6])
    program = list(struct.iter_unpack("<HBBI", bpf))
    accumulator = at = 0
    while True:
        code, true, false, constant = program[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, constant)
            case 0x54:
                accumulator &= constant
            case 0x05:
                at += constant
            case 0x15 | 0x25 | 0x35 | 0x45:
                holds = {1: accumulator == constant, 2: accumulator > constant, 3: accumulator >= constant}
                at += true if holds.get(code >> 4, accumulator & constant) else false
            case 0x06:
                return int(constant)
            case _:
                raise AssertionError(f"opcode {code:#x}")


def number_of(name: str, arch: int = X86_64) -> int:
    _, lib = plan._libseccomp()
    return int(lib.seccomp_syscall_resolve_name_arch(arch, name.encode()))


def test_numbers_are_the_kernel_s() -> None:
    assert (number_of("read"), number_of("getpid"), number_of("getpid", X86)) == (0, 39, 20)
    assert (number_of("getpid", X32), number_of("getpid", AARCH64)) == (0x40000000 + 39, 172)


# --- actions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "errno", "answer"),
    [
        ("KILL", None, 0),
        ("KILL_THREAD", None, 0),
        ("KILL_PROCESS", None, 0x80000000),
        ("TRAP", None, 0x00030000),
        ("ERRNO", None, 0x00050001),
        ("ERRNO", 0, 0x00050000),
        ("ERRNO", 4094, 0x00050FFE),
        ("TRACE", None, 0x7FF00001),
        ("TRACE", 65535, 0x7FF0FFFF),
        ("LOG", None, 0x7FFC0000),
        ("NOTIFY", None, 0x7FC00000),
    ],
)
def test_every_action_of_a_rule(action: str, errno: int | None, answer: int) -> None:
    bpf = compiled(profile("ALLOW", call("mkdir", action, errno_ret=errno), listener_path="/run/agent"))
    assert run(bpf, X86_64, number_of("mkdir")) == answer
    assert run(bpf, X86_64, number_of("getpid")) == ALLOW


@pytest.mark.parametrize("action", ["KILL", "KILL_PROCESS", "TRAP", "ERRNO", "TRACE", "LOG", "ALLOW"])
def test_every_default_action(action: str) -> None:
    rule = call("mkdir", "ALLOW" if action != "ALLOW" else "ERRNO")
    expected = plan.ACTIONS[f"SCMP_ACT_{action}"] | (1 if action in ("ERRNO", "TRACE") else 0)
    assert run(compiled(profile(action, rule)), X86_64, number_of("getpid")) == expected


def test_default_errno() -> None:
    seccomp = profile("ERRNO", call("mkdir", "ALLOW"), default_errno_ret=13)
    assert run(compiled(seccomp), X86_64, number_of("getpid")) == ERRNO | 13
    assert run(compiled(seccomp), X86_64, number_of("mkdir")) == ALLOW


def test_a_call_of_an_architecture_not_listed_is_killed() -> None:
    bpf = compiled(profile("ALLOW", call("mkdir", "ERRNO")))
    assert run(bpf, X86, number_of("getpid", X86)) == KILL_THREAD
    assert run(bpf, X86_64, number_of("getpid", X32)) == KILL_THREAD


def test_unknown_names_are_passed_over() -> None:
    bpf = compiled(profile("ALLOW", call("no_such_call mkdir", "ERRNO")))
    assert run(bpf, X86_64, number_of("mkdir")) == EPERM


def test_a_rule_that_repeats_the_default_is_no_fault() -> None:
    calls = call("mkdir", "ERRNO"), call("getpid", "ALLOW"), call("rmdir", "ERRNO", errno_ret=2)
    bpf = compiled(profile("ERRNO", *calls))
    numbers = [number_of(name) for name in ("mkdir", "getpid", "rmdir")]
    assert [run(bpf, X86_64, number) for number in numbers] == [EPERM, ALLOW, ERRNO | 2]


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "value", "second", "matching", "other"),
    [
        ("EQ", 5, None, [5], [4, 6, 5 + (1 << 32)]),
        ("NE", 5, None, [4, 6, 5 + (1 << 32)], [5]),
        ("LT", 5, None, [0, 4], [5, 6, 1 << 32]),
        ("LE", 5, None, [0, 5], [6, 1 << 63]),
        ("GT", 5, None, [6, 1 << 32], [5, 0]),
        ("GE", 5, None, [5, 6, 1 << 63], [4, 0]),
        ("MASKED_EQ", 0xF0, 0x20, [0x20, 0x2F, 0x120], [0x30, 0, 0x60]),
        ("EQ", (1 << 64) - 1, None, [(1 << 64) - 1], [(1 << 32) - 1]),
    ],
)
@pytest.mark.parametrize("index", [0, 5])
def test_every_operator(
    op: str, value: int, second: int | None, matching: list[int], other: list[int], index: int
) -> None:
    args = (index, op, value) if second is None else (index, op, value, second)
    bpf = compiled(profile("ALLOW", call("personality", "ERRNO", args)))
    padding = [0] * index
    assert {run(bpf, X86_64, 135, *padding, value) for value in matching} == {EPERM}
    assert {run(bpf, X86_64, 135, *padding, value) for value in other} == {ALLOW}


def test_conditions_on_several_arguments_must_all_hold() -> None:
    bpf = compiled(profile("ALLOW", call("kill", "ERRNO", (0, "EQ", 1), (1, "EQ", 9))))
    assert run(bpf, X86_64, 62, 1, 9) == EPERM
    assert [run(bpf, X86_64, 62, *args) for args in ((1, 8), (2, 9), (0, 0))] == [ALLOW] * 3


def test_of_several_conditions_on_one_argument_one_is_enough() -> None:
    bpf = compiled(profile("ALLOW", call("kill", "ERRNO", (1, "EQ", 9), (1, "EQ", 15), (0, "EQ", 7))))
    assert [run(bpf, X86_64, 62, *args) for args in ((1, 9), (1, 15), (7, 1))] == [EPERM] * 3
    assert run(bpf, X86_64, 62, 1, 1) == ALLOW


OPERATORS = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"]
NAMES = ["getpid", "personality", "mkdirat", "kill", "setuid", "prctl", "fchmod"]
VALUES = st.sampled_from([0, 1, 2, 3, 7, 8, 0xFFFFFFFF, 1 << 32, (1 << 32) | 1, (1 << 64) - 1])
SMALL = st.sampled_from([0, 1, 2, 3, 7, 8])
ACTION = st.sampled_from(["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "TRAP", "TRACE", "LOG"])


def holds(arg: SeccompArg, args: list[int]) -> bool:
    seen, value, second = args[arg.index], arg.value, arg.value_two or 0
    match arg.op.removeprefix("SCMP_CMP_"):
        case "EQ":
            return seen == value
        case "NE":
            return seen != value
        case "LT":
            return seen < value
        case "LE":
            return seen <= value
        case "GT":
            return seen > value
        case "GE":
            return seen >= value
    return seen & value == second


def model(seccomp: Seccomp, arch: int, name: str, args: list[int]) -> int:
    def answer(action: str) -> int:
        return plan.ACTIONS[action] | (1 if plan.ACTIONS[action] in (ERRNO, TRACE) else 0)

    newest = max((number_of(known, arch) for rule in seccomp.syscalls for known in rule.names), default=0)
    default = answer(seccomp.default_action)
    if number_of(name, arch) > newest > 0 and default not in (ALLOW, LOG, TRACE | 1):
        return ENOSYS
    for rule in seccomp.syscalls:
        if name in rule.names:
            indexes = [arg.index for arg in rule.args]
            combine = any if len(set(indexes)) < len(indexes) else all
            if combine(holds(arg, args) for arg in rule.args):
                return answer(rule.action)
    return default


@st.composite
def profiles(draw: st.DrawFn, values: st.SearchStrategy[int]) -> Seccomp:
    """Each call in one rule only, as which of two overlapping rules counts is libseccomp's business. Several conditions
    on one argument are equalities, because libseccomp 2.5.4 gets alternatives like < 0 or < 1 << 32 wrong."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    calls = []
    for name in names:
        args = draw(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(OPERATORS), values, values), max_size=3))
        # A value that does not fit in its mask can never match: libseccomp takes what is within.
        args = [(i, op, a, a & b if op == "MASKED_EQ" else 0) for i, op, a, b in args]
        if len({index for index, *_ in args}) < len(args):
            args = list({(i, a): (i, "EQ", a, 0) for i, _, a, _ in args}.values())
        calls.append(call(name, draw(ACTION), *args))
    archs = tuple(draw(st.lists(st.sampled_from(["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64"]), unique=True)))
    return profile(draw(ACTION), *calls, architectures=archs)


@given(profiles(VALUES), st.lists(VALUES, min_size=6, max_size=6))
def test_profiles_decide_as_the_model(seccomp: Seccomp, args: list[int]) -> None:
    bpf = compiled(seccomp)
    for name in NAMES:
        assert run(bpf, X86_64, number_of(name), *args) == model(seccomp, X86_64, name, args), name


@given(profiles(SMALL), st.lists(SMALL, min_size=6, max_size=6))
def test_compat_calls_decide_as_the_model(seccomp: Seccomp, args: list[int]) -> None:
    """Their arguments are small, because libseccomp looks at 32 bits of them there."""
    bpf = compiled(seccomp)
    for token, audit, arch in ((X86, X86, "SCMP_ARCH_X86"), (X32, X86_64, "SCMP_ARCH_X32")):
        for name in NAMES:
            expected = model(seccomp, token, name, args) if arch in seccomp.architectures else KILL_THREAD
            assert run(bpf, audit, number_of(name, token), *args) == expected, (arch, name)


@given(profiles(VALUES), st.lists(VALUES, min_size=6, max_size=6))
def test_another_machine_decides_as_the_model(seccomp: Seccomp, args: list[int]) -> None:
    bpf = compiled(seccomp.replace(architectures=("SCMP_ARCH_ARM",)), "aarch64")
    for name in NAMES:
        assert run(bpf, AARCH64, number_of(name, AARCH64), *args) == model(seccomp, AARCH64, name, args), name
    assert run(bpf, X86_64, 39) == KILL_THREAD, "this machine is not that one"


def every_call(arch: int = X86_64) -> list[str]:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    found = (library.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(arch), number) for number in range(440))
    return [ctypes.string_at(name).decode() for name in found if name]


def test_a_profile_of_hundreds_of_calls() -> None:
    """Such a profile becomes a binary tree."""
    names = every_call()
    allowed = names[::2]
    bpf = compiled(profile("ERRNO", call(" ".join(allowed), "ALLOW"), architectures=("SCMP_ARCH_X86", "SCMP_ARCH_X32")))
    answers = {name: run(bpf, X86_64, number_of(name)) for name in names}
    newest = max(number_of(name) for name in allowed)
    expected = {name: ALLOW if name in allowed else EPERM for name in names if number_of(name) <= newest}
    assert {name: answers[name] for name in expected} == expected
    assert len(bpf) // 8 < plan.MAX_INSTRUCTIONS


# --- calls newer than the profile -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("default", "answer"), [("ERRNO", ENOSYS), ("KILL", ENOSYS), ("TRAP", ENOSYS)])
def test_newer_calls_answer_enosys(default: str, answer: int) -> None:
    bpf = compiled(profile(default, call("openat2 read", "ALLOW")))
    assert run(bpf, X86_64, number_of("openat2") + 1) == answer
    assert run(bpf, X86_64, 0x3FFFFFFF) == answer
    assert run(bpf, X86_64, number_of("openat2")) == ALLOW
    assert run(bpf, X86_64, number_of("clone3")) != answer, "older than openat2, so meant"


@pytest.mark.parametrize("default", ["ALLOW", "LOG", "TRACE"])
def test_a_default_that_lets_new_calls_through_is_left_alone(default: str) -> None:
    bpf = compiled(profile(default, call("openat2", "ERRNO", errno_ret=2)))
    assert run(bpf, X86_64, 0x3FFFFFFF) & 0x7FF00000 >= 0x7FF00000
    assert run(bpf, X86_64, number_of("openat2")) == ERRNO | 2


def test_a_default_of_enosys_needs_no_stub() -> None:
    seccomp = profile("ERRNO", call("openat2", "ALLOW"), default_errno_ret=38)
    assert len(compiled(seccomp)) < len(compiled(seccomp.replace(default_errno_ret=37)))
    assert run(compiled(seccomp), X86_64, 0x3FFFFFFF) == ENOSYS


def test_newer_is_judged_by_each_architecture() -> None:
    archs = ("SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64")
    bpf = compiled(profile("ERRNO", call("getpid", "ALLOW"), architectures=archs))
    assert [run(bpf, arch, number) for arch, number in ((X86_64, 40), (X86, 21), (X86_64, 0x40000028))] == [ENOSYS] * 3
    assert [run(bpf, arch, number) for arch, number in ((X86_64, 38), (X86, 19), (X86_64, 0x40000026))] == [EPERM] * 3
    assert [run(bpf, arch, number) for arch, number in ((X86_64, 39), (X86, 20), (X86_64, 0x40000027))] == [ALLOW] * 3


def test_x32_calls_are_not_taken_for_new_ones_of_x86_64() -> None:
    bpf = compiled(profile("ERRNO", call("getpid", "ALLOW")))
    assert run(bpf, X86_64, 0x40000027) == KILL_THREAD


def test_s390_multiplexes_through_call_zero() -> None:
    block = plan._newer_block(ARCHS["SCMP_ARCH_S390X"], 300)
    program = plan._LOAD_NUMBER + block + plan._instruction(6, 0, 0, ALLOW)
    assert [run(program, 0, number) for number in (0, 1, 300, 301)] == [ENOSYS, ALLOW, ALLOW, ENOSYS]


# --- flags, listener, faults ------------------------------------------------------------------------------------------


def flags_of(flags: tuple[str, ...] | None, **facts: Any) -> int:
    made = plan_seccomp(profile("ALLOW", call("mkdir", "ERRNO"), flags=flags), arch="x86_64", nnp=True, **facts)
    assert made is not None
    return made.flags


def test_flags() -> None:
    prefix = "SECCOMP_FILTER_FLAG_"
    assert flags_of(()) == 0
    assert flags_of(None) == 4, "SPEC_ALLOW where config.json has no flags"
    assert flags_of(None, kernel_flags=3) == 0
    assert flags_of((prefix + "TSYNC",)) == 0
    assert flags_of((prefix + "LOG", prefix + "SPEC_ALLOW")) == 6


def test_listener() -> None:
    seccomp = profile("ALLOW", call("mkdir", "NOTIFY"), flags=("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",))
    made = plan_seccomp(seccomp.replace(listener_path="/run/agent", listener_metadata="m"), arch="x86_64", nnp=False)
    assert made is not None
    assert (made.flags, made.listener_path, made.listener_metadata) == (8 | 32, "/run/agent", "m")
    assert made.before_capabilities
    quiet = plan_seccomp(profile("ALLOW", call("mkdir", "ERRNO"), listener_path="/run/agent"), arch="x86_64", nnp=True)
    assert quiet is not None
    assert (quiet.flags, quiet.listener_path, quiet.before_capabilities) == (0, None, False)


def test_capset_may_notify_where_it_is_not_called() -> None:
    seccomp = profile("ALLOW", call("capset", "NOTIFY"), listener_path="/run/agent")
    assert plan_seccomp(seccomp, arch="x86_64", nnp=True) is not None
    with pytest.raises(ConfigError, match="capset"):
        plan_seccomp(seccomp, arch="x86_64", nnp=False)


@pytest.mark.parametrize("name", plan.HANDSHAKE_CALLS)
def test_a_call_of_the_handshake_can_not_notify(name: str) -> None:
    seccomp = profile("ALLOW", call(f"mkdir {name}", "NOTIFY", (0, "EQ", 99)), listener_path="/run/agent")
    (text,) = (text for pointer, text in faults(seccomp).items() if pointer == "/linux/seccomp/syscalls/0/names")
    assert name in text


@pytest.mark.parametrize(
    ("seccomp", "pointer"),
    [
        (profile("NOPE"), "defaultAction"),
        (profile("NOTIFY", listener_path="/run/agent"), "defaultAction"),
        (profile("ALLOW", default_errno_ret=1), "defaultErrnoRet"),
        (profile("ERRNO", default_errno_ret=4095), "defaultErrnoRet"),
        (profile("ALLOW", architectures=("SCMP_ARCH_X86", "x86")), "architectures/1"),
        (profile("ALLOW", architectures=("SCMP_ARCH_S390X",)), "architectures/0"),
        (profile("ALLOW", flags=("SECCOMP_FILTER_FLAG_NOPE",)), "flags/0"),
        (profile("ALLOW", flags=("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",)), "flags/0"),
        (profile("ALLOW", listener_metadata="m"), "listenerMetadata"),
        (profile("ALLOW", call("mkdir", "NOTIFY")), "listenerPath"),
        (profile("ALLOW", call("mkdir", "NOPE")), "syscalls/0/action"),
        (profile("ALLOW", call("mkdir", "KILL", errno_ret=1)), "syscalls/0/errnoRet"),
        (profile("ALLOW", call("mkdir", "ERRNO", errno_ret=4095)), "syscalls/0/errnoRet"),
        (profile("ALLOW", call("mkdir", "ERRNO", (0, "XX", 1))), "syscalls/0/args/0/op"),
        (profile("ALLOW", call("mkdir", "ERRNO", (6, "EQ", 1))), "syscalls/0/args/0/index"),
        (profile("ALLOW", call("mkdir", "ERRNO", (0, "EQ", 1 << 64))), "syscalls/0/args/0/value"),
        (profile("ALLOW", call("mkdir", "ERRNO", (0, "EQ", 1, -1))), "syscalls/0/args/0/valueTwo"),
        (profile("ALLOW", SeccompSyscall(names=("",), action="SCMP_ACT_ERRNO")), "syscalls/0/names"),
        (profile("ALLOW", SeccompSyscall(names=("a\0",), action="SCMP_ACT_ERRNO")), "syscalls/0/names"),
        (profile("ALLOW", call("kill", "ERRNO", (0, "EQ", 1)), call("kill", "KILL", (0, "EQ", 1))), "syscalls/1"),
    ],
)
def test_a_fault_names_its_place(seccomp: Seccomp, pointer: str) -> None:
    assert list(faults(seccomp)) == [f"/linux/seccomp/{pointer}"]


def test_every_fault_is_named() -> None:
    seccomp = profile("NOPE", call("mkdir", "NOPE"), architectures=("NOPE",), flags=("NOPE",), listener_metadata="m")
    assert len(faults(seccomp)) == 5


def test_a_flag_that_the_kernel_lacks() -> None:
    found = faults(profile("ALLOW", flags=("SECCOMP_FILTER_FLAG_SPEC_ALLOW",)), kernel_flags=plan.FLAG_LOG)
    assert "this kernel does not know" in found["/linux/seccomp/flags/0"]


def test_a_program_too_long_for_the_kernel() -> None:
    calls = [call("personality", "ERRNO", (0, "EQ", n * 7 + (n << 33))) for n in range(2500)]
    assert "but the kernel takes 4096" in faults(profile("ALLOW", *calls))["/linux/seccomp"]


def test_no_profile_no_program() -> None:
    assert plan_seccomp(None, arch="x86_64", nnp=True) is None
    assert plan_seccomp(Seccomp(default_action=""), arch="x86_64", nnp=True) is None


def test_a_program_is_compiled_once_for_what_it_is_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    base = profile("ERRNO", call("mkdir", "ALLOW", (0, "EQ", 1)))
    others = [
        base,
        base.replace(default_errno_ret=2),
        base.replace(architectures=("SCMP_ARCH_X86",)),
        profile("KILL", *base.syscalls),
        profile("ERRNO", call("mkdir", "ALLOW", (0, "EQ", 2))),
        profile("ERRNO", call("mkdir", "ALLOW", (0, "NE", 1))),
        profile("ERRNO", call("mkdir", "ALLOW", (1, "EQ", 1))),
        profile("ERRNO", call("rmdir", "ALLOW", (0, "EQ", 1))),
        profile("ERRNO", call("mkdir", "LOG", (0, "EQ", 1))),
    ]
    compiled: list[bytes] = []
    compile_ = plan._compile

    def noting(*made_from: Any) -> bytes:
        compiled.append(compile_(*made_from))
        return compiled[-1]

    monkeypatch.setattr(plan, "_compiled", {})
    monkeypatch.setattr(plan, "_compile", noting)
    for number, (other, arch) in enumerate([*[(other, "x86_64") for other in others], (base, "aarch64")], 1):
        for _ in range(2):
            made = plan_seccomp(other, arch=arch, nnp=True)
            assert made is not None and made.bpf == compiled[-1] and len(compiled) == number
        assert 0 < len(plan._compiled) <= plan.KEPT
    assert len(compiled) > plan.KEPT


def test_names_for_features_are_the_header_s() -> None:
    from pyrun.plan.process.seccomp import ACTIONS, OPERATORS

    header = Path("/usr/include/seccomp.h").read_text()
    for table in (ACTIONS, OPERATORS):
        assert list(table) == sorted(table)
        assert all(name in header for name in table)
    for name, value in OPERATORS.items():
        assert f"{name} = {value}" in header


def test_the_version() -> None:
    major, minor, micro = plan.libseccomp_version().split(".")
    assert (int(major), int(minor), int(micro)) >= (2, 5, 0)


@pytest.mark.parametrize("module", ["process.seccomp", "cgroup.devices", "cgroup.resources", "namespace.netlink"])
def test_importing_a_planner_is_cheap(module: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pyrun.plan.{module}; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"cffi", "_cffi_backend", "pyrun._seccomp", "hashlib", "re", "enum", "typing", "dataclasses", "json"}
    assert f"pyrun.plan.{module}" in out.split()
    assert not heavy & set(out.split())


# --- before the kernel ------------------------------------------------------------------------------------------------

SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
MACHINE = os.uname().machine
libc = ctypes.CDLL(None, use_errno=True)


def in_child(seccomp: Seccomp, number: int, *args: int) -> str:
    """Installs the filter in a forked child and makes one call there: its errno in words, or what killed it."""
    made = plan_seccomp(seccomp, arch=MACHINE, nnp=True)
    assert made is not None
    code = ctypes.create_string_buffer(made.bpf, len(made.bpf))
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(made.bpf) // 8, ctypes.addressof(code)))
    sys_seccomp = SYS_SECCOMP[MACHINE]
    pid = os.fork()
    if pid == 0:
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        listener = libc.syscall(sys_seccomp, 1, made.flags, fprog)
        if listener < 0 or (listener > 0) != bool(made.flags & plan.FLAG_NEW_LISTENER):
            os._exit(200)
        result = libc.syscall(number, *args)
        os._exit(ctypes.get_errno() if result < 0 else 0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return os.strerror(os.WEXITSTATUS(status))


native = pytest.mark.skipif(MACHINE not in SYS_SECCOMP, reason="no numbers for this machine")
GETPPID = {"x86_64": 110, "aarch64": 173}.get(MACHINE, 0)
PERSONALITY = {"x86_64": 135, "aarch64": 92}.get(MACHINE, 0)


@native
@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        ("ERRNO", "Permission denied"),
        ("KILL_PROCESS", "SIGSYS"),
        ("KILL", "SIGSYS"),
        ("TRAP", "SIGSYS"),
        ("LOG", "Success"),
        ("ALLOW", "Success"),
        ("TRACE", "Function not implemented"),
    ],
)
def test_the_kernel_does_what_the_action_says(action: str, outcome: str) -> None:
    errno = 13 if action == "ERRNO" else None
    default = "ALLOW" if action != "ALLOW" else "LOG"
    assert in_child(profile(default, call("getppid", action, errno_ret=errno), flags=None), GETPPID) == outcome


@native
def test_the_kernel_sees_arguments() -> None:
    seccomp = profile("ALLOW", call("personality", "ERRNO", (0, "EQ", 0x20000), errno_ret=13))
    assert in_child(seccomp, PERSONALITY, 0x20000) == "Permission denied"
    assert in_child(seccomp, PERSONALITY, 0xFFFFFFFF) == "Success"


@native
def test_the_kernel_answers_enosys_for_new_calls() -> None:
    needed = "exit_group exit futex munmap mmap rt_sigprocmask rt_sigreturn write clone3 brk madvise"
    seccomp = profile("ERRNO", call(needed, "ALLOW"), default_errno_ret=13)
    assert in_child(seccomp, GETPPID) == "Permission denied"
    assert in_child(seccomp, 4000) == "Function not implemented"


@native
def test_the_kernel_gives_a_listener() -> None:
    seccomp = profile("ALLOW", call("getppid", "NOTIFY"), listener_path="/run/agent")
    assert in_child(seccomp, PERSONALITY, 0xFFFFFFFF) == "Success"


@native
def test_the_kernel_takes_a_large_profile() -> None:
    archs = ("SCMP_ARCH_X86", "SCMP_ARCH_X32") if MACHINE == "x86_64" else ()
    names = [name for name in every_call(ARCHS[plan.MACHINES[MACHINE]]) if name != "getppid"]
    seccomp = profile("ERRNO", call(" ".join(names), "ALLOW"), default_errno_ret=13, architectures=archs)
    assert in_child(seccomp, GETPPID) == "Permission denied"
    assert in_child(seccomp, PERSONALITY, 0xFFFFFFFF) == "Success"


def test_notify_is_what_the_listener_needs() -> None:
    bpf = compiled(profile("ALLOW", call("mkdir", "NOTIFY"), listener_path="/run/agent"))
    assert run(bpf, X86_64, number_of("mkdir")) == NOTIFY
