"""The names of numbers in a plan, for readers: flags, masks, modes and the rest, by step and operand.

Only explain.py and step_errors.py import it: neither create nor any other verb needs a name while all goes well.
"""

from __future__ import annotations

import sys

from ..model import steps as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Shown = Callable[[Any], str]

INFINITY = (1 << 64) - 1

# Two of these have other numbers on Arm.
_ARM = "aarch64" in sys.implementation._multiarch
OPEN = {
    0o100: "O_CREAT", 0o200: "O_EXCL", 0o400: "O_NOCTTY", 0o1000: "O_TRUNC", 0o2000: "O_APPEND", 0o4000: "O_NONBLOCK",
    0o40000 if _ARM else 0o200000: "O_DIRECTORY", 0o100000 if _ARM else 0o400000: "O_NOFOLLOW", 0o2000000: "O_CLOEXEC",
    0o10000000: "O_PATH",
}  # fmt: skip
RESOLVE = {
    0x01: "RESOLVE_NO_XDEV", 0x02: "RESOLVE_NO_MAGICLINKS", 0x04: "RESOLVE_NO_SYMLINKS", 0x08: "RESOLVE_BENEATH",
    0x10: "RESOLVE_IN_ROOT", 0x20: "RESOLVE_CACHED",
}  # fmt: skip
AT = {0x100: "AT_SYMLINK_NOFOLLOW", 0x200: "AT_REMOVEDIR", 0x400: "AT_SYMLINK_FOLLOW", 0x800: "AT_NO_AUTOMOUNT",
    0x1000: "AT_EMPTY_PATH",
      0x8000: "AT_RECURSIVE"}  # fmt: skip
OPEN_TREE = {1: "OPEN_TREE_CLONE", **AT, 0o2000000: "OPEN_TREE_CLOEXEC"}
MOVE_MOUNT = {
    0x01: "MOVE_MOUNT_F_SYMLINKS", 0x02: "MOVE_MOUNT_F_AUTOMOUNTS", 0x04: "MOVE_MOUNT_F_EMPTY_PATH",
    0x10: "MOVE_MOUNT_T_SYMLINKS",
    0x20: "MOVE_MOUNT_T_AUTOMOUNTS", 0x40: "MOVE_MOUNT_T_EMPTY_PATH", 0x100: "MOVE_MOUNT_SET_GROUP",
    0x200: "MOVE_MOUNT_BENEATH",
}  # fmt: skip
# 0x70 as a whole is the mask that clears the time attributes; NOATIME and STRICTATIME are values in it.
MOUNT_ATTR = {
    0x01: "MOUNT_ATTR_RDONLY", 0x02: "MOUNT_ATTR_NOSUID", 0x04: "MOUNT_ATTR_NODEV", 0x08: "MOUNT_ATTR_NOEXEC",
    0x70: "MOUNT_ATTR__ATIME", 0x10: "MOUNT_ATTR_NOATIME", 0x20: "MOUNT_ATTR_STRICTATIME",
    0x80: "MOUNT_ATTR_NODIRATIME",
    0x100000: "MOUNT_ATTR_IDMAP", 0x200000: "MOUNT_ATTR_NOSYMFOLLOW",
}  # fmt: skip
MS = {
    1: "MS_RDONLY", 2: "MS_NOSUID", 4: "MS_NODEV", 8: "MS_NOEXEC", 16: "MS_SYNCHRONOUS", 32: "MS_REMOUNT",
    64: "MS_MANDLOCK",
    128: "MS_DIRSYNC", 256: "MS_NOSYMFOLLOW", 1024: "MS_NOATIME", 2048: "MS_NODIRATIME", 4096: "MS_BIND",
    8192: "MS_MOVE",
    16384: "MS_REC", 32768: "MS_SILENT", 1 << 16: "MS_POSIXACL", 1 << 17: "MS_UNBINDABLE", 1 << 18: "MS_PRIVATE",
    1 << 19: "MS_SLAVE", 1 << 20: "MS_SHARED", 1 << 21: "MS_RELATIME", 1 << 23: "MS_I_VERSION",
    1 << 24: "MS_STRICTATIME",
    1 << 25: "MS_LAZYTIME",
}  # fmt: skip
UMOUNT = {1: "MNT_FORCE", 2: "MNT_DETACH", 4: "MNT_EXPIRE", 8: "UMOUNT_NOFOLLOW"}
CLONE = {
    0x80: "CLONE_NEWTIME", 0x20000: "CLONE_NEWNS", 0x2000000: "CLONE_NEWCGROUP", 0x4000000: "CLONE_NEWUTS",
    0x8000000: "CLONE_NEWIPC",
    0x10000000: "CLONE_NEWUSER", 0x20000000: "CLONE_NEWPID", 0x40000000: "CLONE_NEWNET",
}  # fmt: skip
SECCOMP = {
    1: "SECCOMP_FILTER_FLAG_TSYNC", 2: "SECCOMP_FILTER_FLAG_LOG", 4: "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    8: "SECCOMP_FILTER_FLAG_NEW_LISTENER", 16: "SECCOMP_FILTER_FLAG_TSYNC_ESRCH",
    32: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
}  # fmt: skip
BPF_F = {1: "BPF_F_ALLOW_OVERRIDE", 2: "BPF_F_ALLOW_MULTI", 4: "BPF_F_REPLACE"}
MPOL_F = {1 << 13: "MPOL_F_NUMA_BALANCING", 1 << 14: "MPOL_F_RELATIVE_NODES", 1 << 15: "MPOL_F_STATIC_NODES"}
PERSONALITY = {
    0x0020000: "UNAME26", 0x0040000: "ADDR_NO_RANDOMIZE", 0x0080000: "FDPIC_FUNCPTRS", 0x0100000: "MMAP_PAGE_ZERO",
    0x0200000: "ADDR_COMPAT_LAYOUT", 0x0400000: "READ_IMPLIES_EXEC", 0x0800000: "ADDR_LIMIT_32BIT",
    0x1000000: "SHORT_INODE",
    0x2000000: "WHOLE_SECONDS", 0x4000000: "STICKY_TIMEOUTS", 0x8000000: "ADDR_LIMIT_3GB",
}  # fmt: skip

FSCONFIG = ("FSCONFIG_SET_FLAG", "FSCONFIG_SET_STRING", "FSCONFIG_SET_BINARY", "FSCONFIG_SET_PATH",
    "FSCONFIG_SET_PATH_EMPTY",
            "FSCONFIG_SET_FD", "FSCONFIG_CMD_CREATE", "FSCONFIG_CMD_RECONFIGURE",
            "FSCONFIG_CMD_CREATE_EXCL")  # fmt: skip
PRCTL = {
    1: "PR_SET_PDEATHSIG", 4: "PR_SET_DUMPABLE", 8: "PR_SET_KEEPCAPS", 15: "PR_SET_NAME", 22: "PR_SET_SECCOMP",
    28: "PR_SET_SECUREBITS",
    36: "PR_SET_CHILD_SUBREAPER", 38: "PR_SET_NO_NEW_PRIVS", 47: "PR_CAP_AMBIENT",
}  # fmt: skip
MAGIC = {
    0x9FA0: "PROC_SUPER_MAGIC", 0x63677270: "CGROUP2_SUPER_MAGIC", 0x62656572: "SYSFS_MAGIC", 0x01021994: "TMPFS_MAGIC",
    0x1CD1: "DEVPTS_SUPER_MAGIC", 0x6E736673: "NSFS_MAGIC", 0x19800202: "MQUEUE_MAGIC",
}  # fmt: skip
FILE_TYPES = {
    0o140000: "socket",
    0o120000: "symlink",
    0o100000: "file",
    0o060000: "block",
    0o040000: "directory",
    0o020000: "char",
    0o010000: "fifo",
}
POINTS = {1: "maps", 2: "hooks", 3: "ready", 4: "scope", 5: "idmap"}
IMAGES = ("memfd", "memfd with MFD_EXEC", "read-only mount")
STATUSES = ("creating", "created")
IOPRIO = ("none", "rt", "be", "idle")
MPOL = ("MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED_MANY",
        "MPOL_WEIGHTED_INTERLEAVE")  # fmt: skip
SCHED = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE")
RTM = {
    16: "RTM_NEWLINK", 17: "RTM_DELLINK", 18: "RTM_GETLINK", 19: "RTM_SETLINK", 20: "RTM_NEWADDR", 21: "RTM_DELADDR",
    22: "RTM_GETADDR",
    24: "RTM_NEWROUTE", 25: "RTM_DELROUTE",
}  # fmt: skip


ERRNO_TEXTS = {
    1: "operation not permitted",
    2: "no such file or directory",
    3: "no such process",
    4: "interrupted system call",
    5: "input/output error",
    6: "no such device or address",
    7: "argument list too long",
    8: "exec format error",
    9: "bad file descriptor",
    10: "no child processes",
    11: "resource temporarily unavailable",
    12: "cannot allocate memory",
    13: "permission denied",
    14: "bad address",
    15: "block device required",
    16: "device or resource busy",
    17: "file exists",
    18: "invalid cross-device link",
    19: "no such device",
    20: "not a directory",
    21: "is a directory",
    22: "invalid argument",
    23: "too many open files in system",
    24: "too many open files",
    25: "inappropriate ioctl for device",
    26: "text file busy",
    27: "file too large",
    28: "no space left on device",
    29: "illegal seek",
    30: "read-only file system",
    31: "too many links",
    32: "broken pipe",
    33: "numerical argument out of domain",
    34: "numerical result out of range",
    35: "resource deadlock avoided",
    36: "file name too long",
    37: "no locks available",
    38: "function not implemented",
    39: "directory not empty",
    40: "too many levels of symbolic links",
    61: "no data available",
    62: "timer expired",
    71: "protocol error",
    75: "value too large for defined data type",
    79: "can not access a needed shared library",
    80: "accessing a corrupted shared library",
    87: "too many users",
    88: "socket operation on non-socket",
    90: "message too long",
    95: "operation not supported",
    97: "address family not supported by protocol",
    98: "address already in use",
    101: "network is unreachable",
    104: "connection reset by peer",
    105: "no buffer space available",
    107: "transport endpoint is not connected",
    110: "connection timed out",
    111: "connection refused",
    114: "operation already in progress",
    115: "operation now in progress",
    116: "stale file handle",
    122: "disk quota exceeded",
    125: "operation canceled",
    126: "required key not available",
    127: "key has expired",
    128: "key has been revoked",
    129: "key was rejected by service",
}


# --- kinds of operands: each returns a number's text; "" leaves the operand out --------------------------------------


def bits(table: dict[int, str], none: str = "") -> Shown:
    """Flags as NAME|NAME; what has no name is left as a number."""
    wide_first = sorted(table.items(), key=lambda entry: -entry[0].bit_count())

    def show(value: int) -> str:
        names = []
        for bit, name in wide_first:
            if value & bit == bit and bit:
                names.append((bit, name))
                value &= ~bit
        words = [name for _, name in sorted(names)]
        return "|".join([*words, hex(value)] if value else words) or none

    return show


def member(table: tuple[str, ...] | dict[int, str]) -> Shown:
    """One of the values of a table."""
    known = table if isinstance(table, dict) else dict(enumerate(table))
    return lambda value: known.get(value, str(value))


_open_bits = bits(OPEN)


def open_flags(value: int) -> str:
    access = ("O_RDONLY", "O_WRONLY", "O_RDWR", "")[value & 3]
    rest = _open_bits(value & ~3)
    # O_PATH opens for neither.
    return rest if "O_PATH" in rest else "|".join(filter(None, (access, rest)))


def octal(value: int) -> str:
    return f"0{value:o}" if value else "0"


def magic_or_none(value: int) -> str:
    return member(MAGIC)(value) if value else ""


def node_mode(value: int) -> str:
    return f"{FILE_TYPES.get(value & 0o170000, '?')}:0{value & 0o7777:o}"


def device(value: int) -> str:
    return f"{value >> 32}:{value & 0xFFFFFFFF}"


def owner(value: int) -> str:
    return f"{value & 0xFFFFFFFF}:{value >> 32}"


def optional(value: int) -> str:
    return str(value) if value else ""


def yes(value: int) -> str:
    return "yes" if value else ""


def hidden(value: object) -> str:
    return ""


def limit(value: int) -> str:
    return "unlimited" if value & INFINITY == INFINITY else str(value)


def milliseconds(value: int) -> str:
    return f"{value / 1000:g}s" if value else ""


def instructions(value: bytes) -> str:
    return f"{len(value) // 8} instructions"


def netlink(value: bytes) -> str:
    kind = int.from_bytes(value[4:6], "little")
    return f"{RTM.get(kind, kind)}, {len(value)} bytes"


def numbers(value: bytes) -> str:
    """The numbers of the bits that are set, as 0-3,7."""
    mask = int.from_bytes(value, "little")
    found: list[list[int]] = []
    set_bits = [i for i in range(mask.bit_length()) if mask >> i & 1]
    for i in set_bits:
        if found and found[-1][1] == i - 1:
            found[-1][1] = i
        else:
            found.append([i, i])
    return ",".join(f"{a}-{b}" if a != b else str(a) for a, b in found) or "none"


def scheduler(value: bytes) -> str:
    policy = int.from_bytes(value[4:8], "little")
    nice, priority = int.from_bytes(value[16:20], "little", signed=True), int.from_bytes(value[20:24], "little")
    return (
        f"{member(SCHED)(policy)}" + (f" nice {nice}" if nice else "") + (f" priority {priority}" if priority else "")
    )


def ioprio(value: int) -> str:
    return f"{member(IOPRIO)(value >> 13)}:{value & 0x1FFF}"


def capabilities(mask: int) -> str:
    """A mask by the names without CAP_; where most are set, by those that are not."""
    from ...oci.names import CAPABILITIES

    known = {1 << number: name[4:] for name, number in CAPABILITIES.items()}
    have = [name for bit, name in known.items() if mask & bit]
    lack = [name for bit, name in known.items() if not mask & bit]
    if not lack:
        return "all"
    if len(lack) <= 5:
        return f"all but {'|'.join(lack)}"
    return "|".join(have) or "none"


def signal(number: int) -> str:
    from ...oci.names import SIGNALS

    return next((f"SIG{name}" for name, value in SIGNALS.items() if value == number), str(number))


def resource(number: int) -> str:
    from ...oci.names import RLIMITS

    return next((name for name, value in RLIMITS.items() if value == number), str(number))


def persona(value: int) -> str:
    domain = {0: "LINUX", 8: "LINUX32"}.get(value & 0xFF, hex(value & 0xFF))
    return "|".join(filter(None, (domain, bits(PERSONALITY)(value & ~0xFF))))


def memory_mode(value: int) -> str:
    return "|".join(filter(None, (member(MPOL)(value & 0x1FFF), bits(MPOL_F)(value & ~0x1FFF))))


def stdin(value: str) -> str:
    return "the state" if value.startswith("{") else value


def count(value: tuple[str, ...]) -> str:
    return f"{len(value)} variable" + ("" if len(value) == 1 else "s")


# How operands are shown that are neither slots nor plain words and numbers.
OPERANDS: dict[type[s.Step], dict[str, Shown]] = {
    s.Openat2: {"flags": open_flags, "mode": octal, "resolve": bits(RESOLVE), "pid": yes},
    s.OpenTree: {"flags": bits(OPEN_TREE)},
    s.MoveMount: {"flags": bits(MOVE_MOUNT)},
    s.MountSetattr: {"at_flags": bits(AT), "set": bits(MOUNT_ATTR), "clear": bits(MOUNT_ATTR), "propagation": bits(MS)},
    s.Fsconfig: {"cmd": member(FSCONFIG), "aux": optional},
    s.Fsmount: {"attrs": bits(MOUNT_ATTR)},
    s.Mount: {"flags": bits(MS)},
    s.MakeTarget: {"mode": octal, "resolve": bits(RESOLVE), "forbid": magic_or_none, "mount": yes},
    s.Mkdirat: {"mode": octal},
    s.Mknodat: {"mode": node_mode, "dev": device, "owner": owner},
    s.Unlinkat: {"flags": bits(AT)},
    s.Umount: {"flags": bits(UMOUNT)},
    s.WriteFile: {"flags": _open_bits, "magic": hidden, "resolve": bits(RESOLVE), "pid": yes},
    s.CreateFile: {"mode": octal},
    s.CopyUp: {"keep_root": yes},
    s.CheckType: {"type": member(FILE_TYPES), "dev": device},
    s.CheckFs: {"magic": member(MAGIC)},
    s.CheckNs: {"nstype": bits(CLONE), "own": optional},
    s.Mkfifoat: {"mode": octal},
    s.Clone3: {"flags": bits(CLONE), "load": member(IMAGES)},
    s.Clone3Init: {"flags": bits(CLONE, "0"), "told": hidden},
    s.Setns: {"nstype": bits(CLONE, "any")},
    s.Unshare: {"flags": bits(CLONE)},
    s.Meet: {"point": member(POINTS)},
    s.Await: {"point": member(POINTS), "patience_ms": hidden},
    s.AwaitPid: {"patience_ms": hidden},
    s.WaitExec: {"patience_ms": hidden},
    s.SavePid: {"offset": hidden, "status": member(STATUSES)},
    s.SaveCgroup: {"offset": hidden},
    s.Umask: {"mask": octal},
    s.Prctl: {"option": member(PRCTL), "arg3": optional, "arg4": optional},
    s.Capbset: {"keep": capabilities},
    s.Capset: {"effective": capabilities, "permitted": capabilities, "inheritable": capabilities},
    s.Ambient: {"raise_": capabilities},
    s.Seccomp: {"prog": instructions, "flags": bits(SECCOMP)},
    s.Setrlimit: {"resource": resource, "soft": limit, "hard": limit, "raise_only": yes},
    s.Personality: {"persona": persona},
    s.SchedSetattr: {"attr": scheduler},
    s.IoprioSet: {"ioprio": ioprio},
    s.SchedSetaffinity: {"mask": numbers},
    s.SetMempolicy: {"mode": memory_mode, "nodes": numbers, "maxnode": hidden},
    s.Execve: {"env": count},
    s.Spawn: {"env": count, "stdin": stdin, "timeout_ms": milliseconds},
    s.BpfProgLoad: {"insns": instructions},
    s.BpfProgAttach: {"flags": bits(BPF_F)},
    s.Netlink: {"msg": netlink, "patch": hidden},
    s.Chdir: {"again": yes, "late": yes},
    s.FindExecutable: {"late": yes},
    s.RemoveCgroup: {"kill": yes},
    s.Openpt: {"columns": optional, "rows": optional},
    s.Bind: {"mode": octal, "listen": yes},
    s.PidfdOpen: {"start": hidden},
}  # fmt: skip


def step_name(cls: type[s.Step]) -> str:
    """MoveMount -> move_mount."""
    name = cls.__name__
    return "".join([("_" + c.lower() if i and c.isupper() else c.lower()) for i, c in enumerate(name)])


def errno_name(number: int) -> str:
    from errno import errorcode

    return "any error" if number == s.ANY else "as told" if number > 999 else errorcode.get(number, f"errno {number}")


def errno_text(number: int) -> str:
    """What strerror(3) says without a locale, in lower case as Go writes it and engines look for it."""
    return ERRNO_TEXTS.get(number, "unknown error")
