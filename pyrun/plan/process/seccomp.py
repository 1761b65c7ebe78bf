"""``linux.seccomp`` as a classic BPF program. libseccomp compiles the rules; its C module is loaded when there are any.

In front of its program stands a stub of ours, for the reason runc has one: a system call newer than all that the
profile names answers ENOSYS, and so the C library falls back, where the default action would be EPERM or death. A
profile from before clone3, say, can't have meant to break every thread.
Nothing here depends on the host but for libseccomp's table of names; flags that the kernel lacks come in as a fact.
"""

from __future__ import annotations

from struct import Struct

from pyrun.errors import ConfigError, PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.oci.model import Seccomp, SeccompSyscall

# linux/seccomp.h: what a filter returns. The low 16 bits carry an errno, or the tracer's message.
KILL_THREAD, KILL_PROCESS, TRAP, ERRNO = 0x00000000, 0x80000000, 0x00030000, 0x00050000
NOTIFY, TRACE, LOG, ALLOW = 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_NOTIFY": NOTIFY,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_TRAP": TRAP,
}
OPERATORS = {
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_MASKED_EQ": 7,
    "SCMP_CMP_NE": 1,
}
_LE, _64 = 0x40000000, 0x80000000
# libseccomp's tokens, which are the kernel's AUDIT_ARCH_* but for x32: there the kernel says x86_64.
ARCHS = {
    "SCMP_ARCH_AARCH64": 183 | _64 | _LE,
    "SCMP_ARCH_ARM": 40 | _LE,
    "SCMP_ARCH_LOONGARCH64": 258 | _64 | _LE,
    "SCMP_ARCH_M68K": 4,
    "SCMP_ARCH_MIPS": 8,
    "SCMP_ARCH_MIPS64": 8 | _64,
    "SCMP_ARCH_MIPS64N32": 8 | _64 | 0x20000000,
    "SCMP_ARCH_MIPSEL": 8 | _LE,
    "SCMP_ARCH_MIPSEL64": 8 | _64 | _LE,
    "SCMP_ARCH_MIPSEL64N32": 8 | _64 | _LE | 0x20000000,
    "SCMP_ARCH_PARISC": 15,
    "SCMP_ARCH_PARISC64": 15 | _64,
    "SCMP_ARCH_PPC": 20,
    "SCMP_ARCH_PPC64": 21 | _64,
    "SCMP_ARCH_PPC64LE": 21 | _64 | _LE,
    "SCMP_ARCH_RISCV64": 243 | _64 | _LE,
    "SCMP_ARCH_S390": 22,
    "SCMP_ARCH_S390X": 22 | _64,
    "SCMP_ARCH_SH": 42 | _LE,
    "SCMP_ARCH_SHEB": 42,
    "SCMP_ARCH_X32": 62 | _LE,
    "SCMP_ARCH_X86": 3 | _LE,
    "SCMP_ARCH_X86_64": 62 | _64 | _LE,
}
# uname -m -> the architecture whose calls this machine's programs make.
MACHINES = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "riscv64": "SCMP_ARCH_RISCV64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
    "loongarch64": "SCMP_ARCH_LOONGARCH64",
    "armv7l": "SCMP_ARCH_ARM",
    "i686": "SCMP_ARCH_X86",
}
FLAG_TSYNC, FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_NEW_LISTENER, FLAG_WAIT_KILLABLE_RECV = 1, 2, 4, 8, 32
FLAGS = {
    "SECCOMP_FILTER_FLAG_LOG": FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_TSYNC": FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": FLAG_WAIT_KILLABLE_RECV,
}
ALL_FLAGS = FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV
# What the container's init calls between loading the filter and handing its listener over: nobody would answer. What it
# calls after that, as it waits, is the agent's to let through.
HANDSHAKE_CALLS = ("write",)
PRIVILEGED_CALLS = (*HANDSHAKE_CALLS, "capset")  # where CAP_SYS_ADMIN has to go again
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

EPERM, EEXIST, EDOM, ENOSYS = 1, 17, 33, 38
MAX_ERRNO = 4094  # libseccomp's, one below the kernel's
KEPT = 8  # programs; most containers of a host have the same profile, and compiling docker's takes some 20 ms
_compiled: dict[str, bytes] = {}  # by all that they are made from
_X32_BIT = 0x40000000


class SeccompProgram:
    """``bpf``: an array of struct sock_filter. ``flags``: of seccomp(2).

    before_capabilities: it is loaded while CAP_SYS_ADMIN is still there, because no_new_privs is not set.
    listener_path: where the listener is sent, None without SCMP_ACT_NOTIFY; listener_metadata goes with it.
    """

    __slots__ = ("bpf", "flags", "before_capabilities", "listener_path", "listener_metadata")

    def __init__(
        self,
        bpf: bytes,
        flags: int,
        before_capabilities: bool,
        listener_path: str | None = None,
        listener_metadata: str | None = None,
    ) -> None:
        self.bpf = bpf
        self.flags = flags
        self.before_capabilities = before_capabilities
        self.listener_path = listener_path
        self.listener_metadata = listener_metadata


class _Rule:
    """One entry of ``syscalls``, checked. ``conditions``: alternatives, each a list of (index, operator, a, b)."""

    __slots__ = ("names", "action", "conditions", "pointer")

    def __init__(
        self, names: tuple[str, ...], action: int, conditions: list[list[tuple[int, int, int, int]]], pointer: str
    ) -> None:
        self.names = names
        self.action = action
        self.conditions = conditions
        self.pointer = pointer


def plan_seccomp(
    seccomp: Seccomp | None,
    *,
    arch: str,
    nnp: bool,
    kernel_flags: int = ALL_FLAGS,
    base: str = "/linux/seccomp",
) -> SeccompProgram | None:
    """The program for ``seccomp``, or None. Raises ConfigError with every fault.

    arch: uname -m. nnp: process.noNewPrivileges. kernel_flags: the SECCOMP_FILTER_FLAG_* that the kernel takes.
    """
    if seccomp is None or (not seccomp.default_action and not seccomp.syscalls):
        return None
    faults: list[tuple[str, str]] = []
    default = _action(seccomp.default_action, seccomp.default_errno_ret, base, "/default", faults)
    rules = [_rule(call, f"{base}/syscalls/{index}", faults) for index, call in enumerate(seccomp.syscalls)]
    archs = _archs(seccomp, base, faults)
    notifies = default == NOTIFY or any(rule.action == NOTIFY for rule in rules)
    flags = _flags(seccomp, notifies, kernel_flags, base, faults)
    _check_listener(seccomp, default, rules, HANDSHAKE_CALLS if nnp else PRIVILEGED_CALLS, base, faults)
    if faults:
        raise ConfigError(faults)
    made_from = repr((arch, archs, default, [(rule.names, rule.action, rule.conditions) for rule in rules]))
    if made_from not in _compiled:
        if len(_compiled) >= KEPT:
            _compiled.clear()
        _compiled[made_from] = _compile(default, rules, archs, arch, base)
    listener = (seccomp.listener_path, seccomp.listener_metadata) if notifies else (None, None)
    return SeccompProgram(_compiled[made_from], flags, not nnp, *listener)


def libseccomp_version() -> str:
    """As ``--version`` shows it: ``2.5.4``."""
    _, lib = _libseccomp()
    version = lib.seccomp_version()
    return f"{version.major}.{version.minor}.{version.micro}"


# --- the checks -------------------------------------------------------------------------------------------------------


def _action(name: str, errno: int | None, pointer: str, prefix: str, faults: list[tuple[str, str]]) -> int:
    """The filter's return value; errno is EPERM where absent, for the actions that have one."""
    at_action, at_errno = ("/defaultAction", "/defaultErrnoRet") if prefix else ("/action", "/errnoRet")
    value = ACTIONS.get(name)
    if value is None:
        faults.append((pointer + at_action, f"{name!r} is not an action (known: {', '.join(ACTIONS)})"))
        return ALLOW
    most = {ERRNO: MAX_ERRNO, TRACE: 0xFFFF}.get(value)
    if most is None:
        if errno is not None:
            faults.append((pointer + at_errno, f"{name} has no errno"))
        return value
    errno = EPERM if errno is None else errno
    if not 0 <= errno <= most:
        faults.append((pointer + at_errno, f"must be from 0 to {most}, not {errno}"))
        return value
    return value | errno


def _rule(call: SeccompSyscall, pointer: str, faults: list[tuple[str, str]]) -> _Rule:
    action = _action(call.action, call.errno_ret, pointer, "", faults)
    conditions = []
    for index, arg in enumerate(call.args):
        place = f"{pointer}/args/{index}"
        operator = OPERATORS.get(arg.op)
        if operator is None:
            faults.append((f"{place}/op", f"{arg.op!r} is not an operator (known: {', '.join(OPERATORS)})"))
        if not 0 <= arg.index <= 5:
            faults.append((f"{place}/index", f"a system call has arguments 0 to 5, not {arg.index}"))
        for name, value in (("value", arg.value), ("valueTwo", arg.value_two or 0)):
            if not 0 <= value < 1 << 64:
                faults.append((f"{place}/{name}", f"must be an unsigned number of 64 bits, not {value}"))
        conditions.append((arg.index, operator or 0, arg.value, arg.value_two or 0))
    if any(not name or "\0" in name for name in call.names):
        faults.append((f"{pointer}/names", "an empty string is not the name of a system call"))
    # libseccomp takes one condition per argument. Where there are more, each makes a rule of its own, as in runc and
    # crun: one that holds is then enough.
    if len({index for index, *_ in conditions}) < len(conditions):
        return _Rule(call.names, action, [[condition] for condition in conditions], pointer)
    return _Rule(call.names, action, [conditions], pointer)


def _archs(seccomp: Seccomp, base: str, faults: list[tuple[str, str]]) -> dict[int, str]:
    archs: dict[int, str] = {}
    for index, name in enumerate(seccomp.architectures):
        pointer = f"{base}/architectures/{index}"
        if name in ARCHS:
            archs.setdefault(ARCHS[name], pointer)
        else:
            faults.append((pointer, f"{name!r} is not an architecture (known: {', '.join(ARCHS)})"))
    return archs


def _flags(seccomp: Seccomp, notifies: bool, kernel_flags: int, base: str, faults: list[tuple[str, str]]) -> int:
    """Absent flags (None) mean SPEC_ALLOW, an empty list none, as in runc. TSYNC says nothing: there is one thread."""
    flags = FLAG_NEW_LISTENER if notifies else 0
    if seccomp.flags is None:
        return flags | (FLAG_SPEC_ALLOW & kernel_flags)
    for index, name in enumerate(seccomp.flags):
        flag = FLAGS.get(name)
        if flag is None:
            faults.append((f"{base}/flags/{index}", f"{name!r} is not a flag (known: {', '.join(FLAGS)})"))
        elif not flag & kernel_flags:
            faults.append((f"{base}/flags/{index}", f"this kernel does not know {name}"))
        elif flag == FLAG_WAIT_KILLABLE_RECV and not notifies:
            faults.append((f"{base}/flags/{index}", f"{name} needs a rule with SCMP_ACT_NOTIFY"))
        else:
            flags |= flag & ~FLAG_TSYNC
    return flags


def _check_listener(
    seccomp: Seccomp,
    default: int,
    rules: list[_Rule],
    ours: tuple[str, ...],
    base: str,
    faults: list[tuple[str, str]],
) -> None:
    if seccomp.listener_metadata and not seccomp.listener_path:
        faults.append((f"{base}/listenerMetadata", "must not be set without listenerPath"))
    if default == NOTIFY:
        faults.append((f"{base}/defaultAction", "SCMP_ACT_NOTIFY can't be the default: nobody listens yet"))
    notifying = [rule for rule in rules if rule.action == NOTIFY]
    if notifying and not seccomp.listener_path:
        faults.append((f"{base}/listenerPath", "SCMP_ACT_NOTIFY needs a listenerPath"))
    for rule in notifying:
        for name in rule.names:
            if name in ours:
                text = f"SCMP_ACT_NOTIFY can't be used for {name}, which comes before the listener is handed over"
                faults.append((f"{rule.pointer}/names", text))


# --- libseccomp -------------------------------------------------------------------------------------------------------


def _libseccomp() -> tuple[Any, Any]:
    from pyrun._seccomp import ffi, lib

    # What the kernel can do is not libseccomp's to find out: 6 is Linux 5.7, with all actions.
    lib.seccomp_api_set(6)
    return ffi, lib


def _compile(default: int, rules: list[_Rule], archs: dict[int, str], machine: str, base: str) -> bytes:
    ffi, lib = _libseccomp()
    native = ARCHS.get(MACHINES.get(machine, ""))
    if native is None:
        raise PyrunError(f"seccomp is not known for {machine}")
    filter_ = lib.seccomp_init(default)
    if filter_ == ffi.NULL:
        raise PyrunError("libseccomp could not begin a filter")
    try:
        _add_archs(lib, filter_, native, archs, base)
        # With a tree, and before 2.6, a filter of no rules comes out wrong.
        if sum(len(rule.names) for rule in rules) > 32:
            lib.px_optimize(filter_)
        lib.px_begin(filter_)
        for rule in rules:
            if rule.action != default:  # libseccomp refuses a rule that says what is so anyway
                _add_rule(ffi, lib, filter_, rule)
        _check(lib.px_commit(filter_), base, "the rules were refused")
        room = ffi.new("char[]", 16 * MAX_INSTRUCTIONS * 8)
        size = lib.px_export(filter_, room, len(room))
        _check(min(size, 0), base, "the program could not be made")
        bpf = _enosys_stub(lib, default, rules, native, archs) + bytes(ffi.buffer(room, size))
    finally:
        lib.seccomp_release(filter_)
    if len(bpf) > MAX_INSTRUCTIONS * 8:
        count = len(bpf) // 8
        raise ConfigError([(base, f"the rules make {count} instructions, but the kernel takes {MAX_INSTRUCTIONS}")])
    return bpf


def _check(code: int, pointer: str, text: str) -> None:
    if code < 0:
        raise ConfigError([(pointer, f"{text} by libseccomp {libseccomp_version()} (errno {-code})")])


def _add_archs(lib: Any, filter_: Any, native: int, archs: dict[int, str], base: str) -> None:
    """The native architecture always, and those of the profile."""
    own = lib.seccomp_arch_native()
    if own != native:  # explaining for another machine
        _check(lib.seccomp_arch_add(filter_, native), base, "the architecture was refused")
        lib.seccomp_arch_remove(filter_, own)
    for token, pointer in archs.items():
        code = lib.seccomp_arch_add(filter_, token)
        if code == -EDOM:
            raise ConfigError([(pointer, "has the other byte order than this machine")])
        if code != -EEXIST:
            _check(code, pointer, "the architecture is not known")


def _add_rule(ffi: Any, lib: Any, filter_: Any, rule: _Rule) -> None:
    own = lib.seccomp_arch_native()  # a rule's number is of this architecture; libseccomp translates it to the others
    for name in rule.names:
        number = lib.seccomp_syscall_resolve_name_arch(own, name.encode())
        if number == -1:
            continue  # a call that libseccomp has never heard of: runc and crun pass over it too
        for conditions in rule.conditions:
            comparisons = ffi.new("struct scmp_arg_cmp[]", conditions)
            code = lib.seccomp_rule_add_array(filter_, rule.action, number, len(conditions), comparisons)
            if code == -EEXIST:
                raise ConfigError([(rule.pointer, f"another action stands for {name} under the same conditions")])
            _check(code, rule.pointer, f"the rule for {name} was refused")


# --- the stub for newer calls -----------------------------------------------------------------------------------------

_instruction = Struct("<HBBI").pack  # code, jump if true, jump if false, constant
_LOAD, _JUMP, _JEQ, _JGT, _JGE, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06
_LOAD_NUMBER, _LOAD_ARCH = _instruction(_LOAD, 0, 0, 0), _instruction(_LOAD, 0, 0, 4)
_RETURN_ENOSYS = _instruction(_RETURN, 0, 0, ERRNO | ENOSYS)


def _enosys_stub(lib: Any, default: int, rules: list[_Rule], native: int, archs: dict[int, str]) -> bytes:
    """Instructions that answer calls above the highest that the profile names, per architecture, and fall through else.

    Empty where the default lets new calls through (to the kernel, or a tracer) or answers ENOSYS itself.
    """
    if default in (ALLOW, LOG, ERRNO | ENOSYS) or default & 0xFFFF0000 == TRACE:
        return b""
    names = {name.encode() for rule in rules for name in rule.names}
    blocks: dict[int, list[bytes]] = {}
    for token in sorted({native, *archs}):
        newest = max((lib.seccomp_syscall_resolve_name_arch(token, name) for name in names), default=-1)
        if newest > 0:
            audit = ARCHS["SCMP_ARCH_X86_64"] if token == ARCHS["SCMP_ARCH_X32"] else token
            blocks.setdefault(audit, []).append(_newer_block(token, newest))
    if not blocks:
        return b""
    code = b""  # from the last block to the first, so that the way to the end is known
    for audit in reversed(blocks):
        block = _LOAD_NUMBER + b"".join(blocks[audit])
        block += _instruction(_JUMP, 0, 0, len(code) // 8)
        code = _instruction(_JEQ, 0, len(block) // 8, audit) + block + code
    return _LOAD_ARCH + code


def _newer_block(token: int, newest: int) -> bytes:
    """With the call's number loaded: return ENOSYS if it is of this architecture and above ``newest``."""
    newer = _instruction(_JGT, 0, 1, newest) + _RETURN_ENOSYS
    if token == ARCHS["SCMP_ARCH_X86_64"]:
        return _instruction(_JGE, 2, 0, _X32_BIT) + newer
    if token == ARCHS["SCMP_ARCH_X32"]:
        return _instruction(_JGE, 0, 2, _X32_BIT) + newer
    if token in (ARCHS["SCMP_ARCH_S390"], ARCHS["SCMP_ARCH_S390X"]):
        # Call 0 is how these pass numbers above 255; the kernel leaves it there for a number that it does not know.
        return _instruction(_JEQ, 0, 1, 0) + _RETURN_ENOSYS + newer
    return newer
