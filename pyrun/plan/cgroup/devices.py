"""Which devices a container may touch, as an eBPF program for its cgroup; and what its /dev holds.

Each access bit (read, write, mknod) of a request is judged alone, by the last rule that matches the device; what no
rule decides is denied. So a deny punches its exact hole in an earlier wildcard, which cgroup v1 could not and runc
refuses; and a deny of writing also stops an open for reading and writing, which runc's program lets through.
The program runs the rules backwards with one conditional jump each, because the verifier keeps a state per pending
jump and gives up at 8192 of them: with a jump per condition some thousand rules would be refused.
"""

from __future__ import annotations

from struct import Struct

from pyrun.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrun.oci.model import DeviceCgroup, Spec

# enum of linux/bpf.h: the low half of access_type is the device's type, the high half the access asked for.
BLOCK, CHAR = 1, 2
MKNOD, READ, WRITE = 1, 2, 4
RWM = MKNOD | READ | WRITE
ANY = -1
MAX_INSTRUCTIONS = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS, for a loader with CAP_BPF

_ACCESS = {"r": READ, "w": WRITE, "m": MKNOD}
_TYPES = {"a": ANY, "b": BLOCK, "c": CHAR}
_POINTER = "/linux/resources/devices"


class DeviceRule:
    """Allow or deny ``access`` (bits) to devices; ANY in type, major or minor matches all. pointer: who asked."""

    __slots__ = ("allow", "type", "major", "minor", "access", "pointer")

    def __init__(
        self, allow: bool, type_: int, major: int, minor: int, access: int, pointer: str | None = None
    ) -> None:
        self.allow = allow
        self.type = type_
        self.major = major
        self.minor = minor
        self.access = access
        self.pointer = pointer

    def __repr__(self) -> str:
        """As the device cgroup of old wrote it: ``allow c 136:* rwm``."""
        kind = {ANY: "a", BLOCK: "b", CHAR: "c"}[self.type]
        numbers = ":".join("*" if number == ANY else str(number) for number in (self.major, self.minor))
        access = "".join(letter for letter, bit in _ACCESS.items() if self.access & bit)
        return f"{'allow' if self.allow else 'deny'} {kind} {numbers} {access}"


class DefaultDevice:
    """A node that every container has; where mknod is refused, the host's own node is bound in its place."""

    __slots__ = ("path", "type", "major", "minor", "mode")

    def __init__(self, path: str, major: int, minor: int, mode: int = 0o666) -> None:
        self.path = path
        self.type = "c"
        self.major = major
        self.minor = minor
        self.mode = mode


# config-linux.md "Default Devices"; /dev/console is a bind mount of the terminal, and only there with process.terminal.
DEFAULT_DEVICES = (
    DefaultDevice("/dev/null", 1, 3),
    DefaultDevice("/dev/zero", 1, 5),
    DefaultDevice("/dev/full", 1, 7),
    DefaultDevice("/dev/random", 1, 8),
    DefaultDevice("/dev/urandom", 1, 9),
    DefaultDevice("/dev/tty", 5, 0),
)


def default_device_rules() -> tuple[DeviceRule, ...]:
    """What every container may use, as runc has it; config.json can't take it away, because engines count on that.

    mknod of anything is harmless: the node can't be opened without a rule. 136:* are the terminals of devpts (which
    /dev/console is one of: 5:1 is the host's own and stays shut), 5:2 is ptmx, 10:200 is /dev/net/tun.
    """
    nodes = [DeviceRule(True, CHAR, node.major, node.minor, RWM) for node in DEFAULT_DEVICES]
    return (
        DeviceRule(True, CHAR, ANY, ANY, MKNOD),
        DeviceRule(True, BLOCK, ANY, ANY, MKNOD),
        *nodes,
        DeviceRule(True, CHAR, 136, ANY, RWM),
        DeviceRule(True, CHAR, 5, 2, RWM),
        DeviceRule(True, CHAR, 10, 200, RWM),
    )


def plan_device_rules(spec: Spec) -> tuple[DeviceRule, ...]:
    """The rules of ``linux.resources.devices`` in order, then the defaults. ConfigError names every faulty rule."""
    resources = spec.linux.resources if spec.linux is not None else None
    given = resources.devices if resources is not None else ()
    faults: list[tuple[str, str]] = []
    rules = [_rule(rule, f"{_POINTER}/{index}", faults) for index, rule in enumerate(given)]
    if faults:
        raise ConfigError(faults)
    return (*rules, *default_device_rules())


def _rule(given: DeviceCgroup, pointer: str, faults: list[tuple[str, str]]) -> DeviceRule:
    type_ = _TYPES.get("a" if given.type is None else given.type)
    if type_ is None:
        faults.append((f"{pointer}/type", f"must be a, b or c, not {given.type!r}"))
        type_ = ANY
    access = 0
    for letter in given.access or "":
        access |= _ACCESS.get(letter, 8)
    if not access or access & 8:
        faults.append((f"{pointer}/access", f"must be made of r, w and m, not {given.access!r}"))
    numbers = []
    for name, number in (("major", given.major), ("minor", given.minor)):
        number = ANY if number is None else number
        if not -1 <= number <= 0xFFFFFFFF:
            faults.append((f"{pointer}/{name}", f"must be -1 (any) or a device number, not {number}"))
        numbers.append(number)
    return DeviceRule(given.allow, type_, numbers[0], numbers[1], access & RWM, pointer)


# --- the program ------------------------------------------------------------------------------------------------------

_instruction = Struct("<BBhi").pack  # opcode, registers (destination | source << 4), offset, immediate
_W0, _W1, _TYPE, _LEFT, _MAJOR, _MINOR, _W6 = range(7)
_LOAD, _JNE, _JEQ, _EXIT = 0x61, 0x56, 0x16, 0x95  # ldxw; 32-bit compares with an immediate
_MOV, _MOVR, _ORR, _AND, _ANDR, _XOR, _RSH, _MUL = 0xB4, 0xBC, 0x4C, 0x54, 0x5C, 0xA4, 0x74, 0x24  # on 32 bits
_SUB64, _RSH64 = 0x17, 0x77


def _op(code: int, to: int, immediate: int = 0, *, source: int = 0, offset: int = 0) -> bytes:
    """One struct bpf_insn; an immediate is taken modulo 2**32."""
    return _instruction(code, to | source << 4, offset, (immediate + 0x80000000) % 0x100000000 - 0x80000000)


def _answer(allowed: int) -> bytes:
    return _op(_MOV, _W0, allowed) + _op(_EXIT, 0)


_ALLOW, _DENY = _answer(1), _answer(0)
_PROLOGUE = (
    _op(_LOAD, _TYPE, source=1, offset=0)
    + _op(_MOVR, _LEFT, source=_TYPE)
    + _op(_AND, _TYPE, 0xFFFF)
    + _op(_RSH, _LEFT, 16)  # the bits of access that no rule has decided yet
    + _op(_LOAD, _MAJOR, source=1, offset=4)
    + _op(_LOAD, _MINOR, source=1, offset=8)
    + _op(_JNE, _LEFT, offset=2)  # nothing asked for, nothing to refuse
    + _ALLOW
)
# From w1 = mismatch to w1 = 1 where the device matched, else 0; not by an arithmetic shift, where new verifiers fork.
_MATCHED = _op(_SUB64, _W1, 1) + _op(_RSH64, _W1, 63)


def device_program(rules: Iterable[DeviceRule]) -> bytes:
    """The rules as BPF_PROG_TYPE_CGROUP_DEVICE: an array of struct bpf_insn that returns 1 to allow and 0 to deny.

    A rule that later ones leave nothing to decide is left out. ConfigError where the verifier would find it too long.
    """
    parts = [_PROLOGUE]
    decided: dict[tuple[int, int, int], int] = {}
    size = (len(_PROLOGUE) + len(_DENY)) // 8
    otherwise = _DENY
    for rule in reversed(tuple(rules)):
        access = _undecided(rule, decided)
        if rule.allow and access == RWM and rule.type == rule.major == rule.minor == ANY:
            otherwise = _ALLOW  # and nothing after it: the verifier refuses instructions that are never reached
            break
        if not access:
            continue
        parts.append(_block(rule, access))
        size += len(parts[-1]) // 8
        if size > MAX_INSTRUCTIONS:
            raise ConfigError([(rule.pointer or _POINTER, "too many device rules for one eBPF program")])
    parts.append(otherwise)
    return b"".join(parts)


def _undecided(rule: DeviceRule, decided: dict[tuple[int, int, int], int]) -> int:
    """The bits that no later rule for the same devices, or for all devices, has decided; notes them as decided."""
    key = rule.type, rule.major, rule.minor
    done = decided.get(key, 0)
    access = rule.access & ~done & ~decided.get((ANY, ANY, ANY), 0) & ~decided.get((rule.type, ANY, ANY), 0)
    decided[key] = done | access
    return access


def _block(rule: DeviceRule, access: int) -> bytes:
    mismatch = _mismatch(rule)
    if rule.allow and access == RWM:
        return mismatch + _op(_JNE, _W1, offset=2) + _ALLOW
    matched = mismatch + _MATCHED + _op(_MUL, _W1, access)
    if rule.allow:
        return matched + _op(_XOR, _W1, -1) + _op(_ANDR, _LEFT, source=_W1) + _op(_JNE, _LEFT, offset=2) + _ALLOW
    return matched + _op(_ANDR, _W1, source=_LEFT) + _op(_JEQ, _W1, offset=2) + _DENY


def _mismatch(rule: DeviceRule) -> bytes:
    """w1 = 0 if the device matches, else anything else."""
    code = b""
    for register, number in ((_TYPE, rule.type), (_MAJOR, rule.major), (_MINOR, rule.minor)):
        if number == ANY:
            continue
        into = _W6 if code else _W1
        code += _op(_MOVR, into, source=register) + _op(_XOR, into, number)
        if into == _W6:
            code += _op(_ORR, _W1, source=_W6)
    return code or _op(_MOV, _W1, 0)
