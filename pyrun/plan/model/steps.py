"""The steps of a plan: one class per Linux primitive, each a name, an opcode and named operands.

A step is data. `FIELDS` says where each operand goes in the wire record (executor/wire.h: three input slots, an
output slot, four integers, three strings), and the class's docstring says what the executor does with it. Operands
are slots (ints from Builder.slot), ints, strings or bytes. Every step also carries `at`, the JSON pointer that asked
for it, `why`, half a line for a reader, and `on`, its errno rules: pairs (errno, label), where label None means "take
it as done and go on".
"""

from __future__ import annotations

from .step import (
    ANY,
    IN0,
    IN1,
    IN2,
    LANE_NAMES,
    NEXT,
    O_DIRECTORY,
    O_PATH,
    O_PATH_DIRECTORY,
    OUT,
    PARENT,
    PID_DATA,
    PID_MARK,
    PID_PREFIX,
    S0,
    S1,
    S2,
    STAGE1,
    STAGE2,
    UNDO,
    A,
    B,
    C,
    D,
    Label,
    Step,
    slot_mark,
)
from .steps_fs import (
    Chdir,
    CheckDevice,
    CheckEmpty,
    CheckFs,
    CheckType,
    Close,
    CopyUp,
    CreateFile,
    Fchownat,
    Fsconfig,
    Fsmount,
    Fsopen,
    Goto,
    MakeTarget,
    MakeUserns,
    Mkdirat,
    Mkfifoat,
    Mknodat,
    Mount,
    MountSetattr,
    MoveMount,
    Openat2,
    OpenTree,
    PidFile,
    PivotRoot,
    RemoveCgroup,
    Setxattr,
    Symlinkat,
    TmpfsMode,
    Umount,
    Unlinkat,
    WriteFile,
)

__all__ = [
    "A", "ANY", "B", "C", "D", "IN0", "IN1", "IN2", "LANE_NAMES", "NEXT", "OUT", "O_DIRECTORY", "O_PATH",
    "O_PATH_DIRECTORY", "PARENT", "PID_DATA", "PID_MARK", "PID_PREFIX", "S0", "S1", "S2", "STAGE1", "STAGE2",
    "UNDO", "Ack", "AdoptPid", "Ambient", "Await", "AwaitPid", "Bind", "BpfProgAttach", "BpfProgLoad", "Capbset",
    "Capset",
    "Chdir", "CheckDevice", "CheckEmpty", "CheckFs", "CheckNs", "CheckType", "Chroot", "Clone3", "Clone3Init",
    "Close", "CloseFds", "Connect", "CopyUp", "CreateFile", "Dup", "Dup3", "Execve", "FchownStdio", "Fchownat",
    "FindExecutable", "Fsconfig", "Fsmount", "Fsopen", "Goto", "IoprioSet", "KeyctlSession",
    "Label", "MakeTarget", "MakeUserns", "Meet", "Mkdirat", "Mkfifoat", "Mknodat", "Mount",
    "MountSetattr", "MoveMount", "Netlink", "OpenTree", "Openat2", "Openpt", "Park", "Personality", "PidFile",
    "PidfdGetfd", "PidfdOpen", "PivotRoot", "Prctl", "Reap", "ReceiveFd", "Release", "RemoveCgroup", "SaveCgroup",
    "SavePid",
    "SchedSetaffinity", "SchedSetattr", "Seccomp", "SendFd", "SetHome", "SetMempolicy", "SetStdio", "Setdomainname",
    "Setgroups", "Sethostname", "Setns", "Setresgid", "Setresuid", "Setrlimit", "Setsid", "Setxattr", "Spawn",
    "Step",
    "Symlinkat", "TmpfsMode", "TtyOutput", "Umask", "Umount", "Unlinkat", "Unshare", "WaitExec", "WriteFile", "Yield",
    "slot_mark",
]  # fmt: skip


class Clone3(Step):
    """clone3(2) of stage 1 with CLONE_VM|CLONE_VFORK|CLONE_PIDFD, and CLONE_INTO_CGROUP with cgroup; execveat of image.

    load: 0 a memfd, 1 a memfd made with MFD_EXEC, 2 the file through a read-only mount; flags: more CLONE_* flags;
    out: its pidfd."""

    OP = 23
    FIELDS = {"image": S0, "cgroup": IN0, "flags": A, "load": B, "out": OUT}


class Clone3Init(Step):
    """clone3(2) with CLONE_PARENT and flags, CLONE_INTO_CGROUP with cgroup: makes stage 2. Stage 1 tells its pid
    and exits. told: an errno that AwaitPid is to give then."""

    OP = 24
    FIELDS = {"flags": A, "cgroup": IN0, "told": B}


class Setns(Step):
    """setns(2): ns, nstype (CLONE_NEW*; with a pidfd: all of them at once)."""

    OP = 25
    FIELDS = {"ns": IN0, "nstype": A}


class Unshare(Step):
    """unshare(2): flags."""

    OP = 26
    FIELDS = {"flags": A}


class Meet(Step):
    """A child's rendezvous: tells `point` and waits until the parent's Ack. fd: what the parent takes a copy of."""

    OP = 27
    FIELDS = {"fd": IN0, "point": A}


class Await(Step):
    """The parent waits for a child to reach `point`, for patience_ms; 0: as long as nobody cancels the plan. out: a
    copy of the descriptor that the child has come with (pidfd_getfd(2))."""

    OP = 28
    FIELDS = {"point": A, "patience_ms": B, "out": OUT}


class Ack(Step):
    """The parent lets the child go on."""

    OP = 29
    FIELDS: dict[str, int] = {}


class AwaitPid(Step):
    """The parent learns the pid of stage 2 and reaps stage 1; out: the pidfd. Stage 2 waits for the answer, which is
    left to an Ack where stage 1 told an errno. patience_ms as with Await."""

    OP = 30
    FIELDS = {"out": OUT, "patience_ms": A}


class SavePid(Step):
    """Writes pid, start time, `status` and the inode of the cgroup (0: none; 8 bytes each) at `offset` of the record;
    proc: the host's /proc."""

    OP = 31
    FIELDS = {"record": IN0, "proc": IN1, "cgroup": IN2, "offset": A, "status": D}


class SaveCgroup(Step):
    """Writes the inode of `cgroup` (8 bytes) at `offset` of the record. Without a cgroup: CLAIMED, if there is none at
    `path`."""

    OP = 87
    FIELDS = {"record": IN0, "cgroup": IN1, "offset": A, "path": S0}


class Reap(Step):
    """Waits for the end of stage 1, which makes no stage 2, for patience_ms: ECHILD where it did not end well."""

    OP = 86
    FIELDS = {"patience_ms": A}


class PidfdGetfd(Step):
    """pidfd_getfd(2) of the seccomp listener that the child announced; out."""

    OP = 32
    FIELDS = {"out": OUT}


class Yield(Step):
    """The executor returns to its caller, which acts (D-Bus) and resumes: code."""

    OP = 33
    FIELDS = {"code": A}


class Setresuid(Step):
    """setresuid(2), all three: uid."""

    OP = 34
    FIELDS = {"uid": A}


class Setresgid(Step):
    """setresgid(2), all three: gid."""

    OP = 35
    FIELDS = {"gid": A}


class Setgroups(Step):
    """setgroups(2): groups, a tuple of gids."""

    OP = 36
    FIELDS = {"groups": S0}

    def wire(self) -> dict[str, object]:
        groups = self.args["groups"]
        return {"groups": b"".join(g.to_bytes(4, "little") for g in groups)}  # type: ignore[attr-defined]


class Sethostname(Step):
    """sethostname(2): name."""

    OP = 37
    FIELDS = {"name": S0}


class Setdomainname(Step):
    """setdomainname(2): name."""

    OP = 38
    FIELDS = {"name": S0}


class Setsid(Step):
    """setsid(2)."""

    OP = 41
    FIELDS: dict[str, int] = {}


class Umask(Step):
    """umask(2): mask."""

    OP = 42
    FIELDS = {"mask": A}


class Prctl(Step):
    """prctl(2): option, arg2, arg3, arg4."""

    OP = 43
    FIELDS = {"option": A, "arg2": B, "arg3": C, "arg4": D}


class Capbset(Step):
    """PR_CAPBSET_DROP of every capability that the mask `keep` does not name."""

    OP = 44
    FIELDS = {"keep": A}


class Capset(Step):
    """capset(2): effective, permitted, inheritable, as masks."""

    OP = 45
    FIELDS = {"effective": A, "permitted": B, "inheritable": C}


class Ambient(Step):
    """PR_CAP_AMBIENT: clears all, then raises the mask `raise_`."""

    OP = 46
    FIELDS = {"raise_": A}


class Seccomp(Step):
    """seccomp(2) SECCOMP_SET_MODE_FILTER: prog (bytes), flags."""

    OP = 47
    FIELDS = {"prog": S0, "flags": A}


class Setrlimit(Step):
    """prlimit(2) on ourselves: resource, soft, hard; raise_only: lift the hard limit if it is lower, leave the soft
    one."""

    OP = 48
    FIELDS = {"resource": A, "soft": B, "hard": C, "raise_only": D}


class Personality(Step):
    """personality(2): persona."""

    OP = 49
    FIELDS = {"persona": A}


class SchedSetattr(Step):
    """sched_setattr(2): attr, the bytes of struct sched_attr."""

    OP = 50
    FIELDS = {"attr": S0}


class IoprioSet(Step):
    """ioprio_set(2) on ourselves: ioprio = class << 13 | priority."""

    OP = 51
    FIELDS = {"ioprio": A}


class SchedSetaffinity(Step):
    """sched_setaffinity(2): mask (bytes)."""

    OP = 52
    FIELDS = {"mask": S0}


class SetMempolicy(Step):
    """set_mempolicy(2): mode with its flags, nodes (bytes), maxnode."""

    OP = 53
    FIELDS = {"mode": A, "nodes": S0, "maxnode": B}


class KeyctlSession(Step):
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING of a new one without a name."""

    OP = 54
    FIELDS: dict[str, int] = {}


class FindExecutable(Step):
    """Finds the file to run: name, and the PATH where name has no slash. ENOENT: none; EACCES: found, but it may not
    be run. late: it is Execve that fails so."""

    OP = 55
    FIELDS = {"name": S0, "path": S1, "late": A}


class SetHome(Step):
    """HOME for uid from the container's /etc/passwd, "/" where that does not say; Execve adds it."""

    OP = 56
    FIELDS = {"uid": A}


class CloseFds(Step):
    """close(2) of every slot but go and status, and close_range(2) with CLOSE_RANGE_CLOEXEC on what else is not the
    user's."""

    OP = 57
    FIELDS = {"go": IN0, "status": IN1}


class Park(Step):
    """Waits for `start` on the FIFO go; from there on errors go to the FIFO status. forever: waits for nothing, with no
    descriptor but the standard streams, and its children become no zombies."""

    OP = 58
    FIELDS = {"go": IN0, "status": IN1, "forever": A}


class Execve(Step):
    """execve(2) of what FindExecutable found: argv, env (tuples of strings). Substep 1: the working directory could
    not be entered, 2: there was nothing to run (Chdir and FindExecutable that were late)."""

    OP = 59
    FIELDS = {"argv": S0, "env": S1, "argc": A, "envc": B}

    def wire(self) -> dict[str, object]:
        argv, env = self.args["argv"], self.args["env"]
        return {"argv": "\0".join(argv), "env": "\0".join(env), "argc": len(argv), "envc": len(env)}  # type: ignore[arg-type]


class Spawn(Step):
    """Runs a hook or helper and waits: path, argv, env, stdin, timeout_ms (0: none), dir (its working directory).
    PID_MARK in argv and stdin becomes the pid. number: an error's substep is number << 8 | what failed. home: HOME
    joins the environment where SetHome found one. stdio: it has our standard streams and ends with us, so nothing of
    what it says is kept.

    ECHILD with what it said when it does not exit 0, ETIMEDOUT when its time is up."""

    OP = 60
    FIELDS = {
        "args": S0,
        "env": S1,
        "stdin": S2,
        "timeout_ms": A,
        "stdin_pid": B,
        "args_pid": C,
        "counts": D,
        "dir": IN0,
    }

    def wire(self) -> dict[str, object]:
        a = self.args
        argv: tuple[str, ...] = a["argv"] or (a["path"],)  # type: ignore[assignment]
        env: tuple[str, ...] = a.get("env", ())  # type: ignore[assignment]
        args = "\0".join((a["path"], *argv))  # type: ignore[arg-type]
        stdin: str = a.get("stdin", "")  # type: ignore[assignment]
        mark = PID_MARK.encode()
        where = [s.encode("utf-8", "surrogateescape").find(mark) for s in (stdin, args)]
        stdin_pid, args_pid = (NEXT if w < 0 else w for w in where)
        return {
            "args": args,
            "env": "\0".join(env),
            "stdin": stdin,
            "timeout_ms": int(a.get("timeout_ms", 0)) | int(a.get("number", 0)) << 32,  # type: ignore[call-overload]
            "stdin_pid": stdin_pid,
            "args_pid": args_pid,
            "counts": len(argv) + 1 | len(env) << 32 | int(bool(a.get("home"))) << 63 | int(bool(a.get("stdio"))) << 62,
            "dir": a.get("dir"),
        }


class BpfProgLoad(Step):
    """bpf(2) BPF_PROG_LOAD of a cgroup device program: insns (bytes); out."""

    OP = 61
    FIELDS = {"insns": S0, "out": OUT}


class BpfProgAttach(Step):
    """bpf(2) BPF_PROG_ATTACH: cgroup, prog, flags."""

    OP = 62
    FIELDS = {"cgroup": IN0, "prog": IN1, "flags": A}


class Netlink(Step):
    """rtnetlink requests, each acknowledged before the next is sent: msg (bytes, one behind the other); patch: the
    offset where fd's number goes; ns: the network namespace that they are sent in (none: ours). An error's substep is
    2 and the number of the request, from 0."""

    OP = 63
    FIELDS = {"msg": S0, "patch": A, "fd": IN0, "ns": IN1, "guard": D}


class Openpt(Step):
    """A new terminal of the devpts mount dev: path ("ptmx"), columns, rows; out the master, slave a slot for the
    other side."""

    OP = 64
    FIELDS = {"dev": IN0, "path": S0, "columns": A, "rows": B, "slave": IN2, "out": OUT}


class SendFd(Step):
    """sendmsg(2) with SCM_RIGHTS: socket, fd, data (PID_MARK becomes the pid, in two places at the most)."""

    OP = 65
    FIELDS = {"socket": IN0, "fd": IN1, "data": S0, "pid_at": A, "pid_at_2": B}

    def wire(self) -> dict[str, object]:
        data, mark = str(self.args["data"]).encode("utf-8", "surrogateescape"), PID_MARK.encode()
        first = data.find(mark)
        second = data.find(mark, first + 1)
        return {**self.args, "pid_at": NEXT if first < 0 else first, "pid_at_2": NEXT if second < 0 else second}


class SetStdio(Step):
    """TIOCSCTTY and dup3(2) of terminal onto 0, 1 and 2."""

    OP = 66
    FIELDS = {"terminal": IN0}


class FchownStdio(Step):
    """fchown(2) of 0, 1 and 2 to uid, but for /dev/null and what can't change hands."""

    OP = 67
    FIELDS = {"uid": A}


class Connect(Step):
    """connect(2) to a unix stream socket: path, which may be longer than an address (unix(7): 107 bytes); out."""

    OP = 68
    FIELDS = {"path": S0, "out": OUT}


class Release(Step):
    """Writes to the FIFO that a parked init reads: fifo."""

    OP = 69
    FIELDS = {"fifo": IN0}


class WaitExec(Step):
    """Waits until the init execs, or parks for good (end of file), or says why not: status (none: the sync socket).
    patience_ms as with Await. proc (the host's /proc), of a child of ours: ESRCH when it was killed and did not exec,
    which its flags tell (PF_FORKNOEXEC, proc_pid_stat(5))."""

    OP = 70
    FIELDS = {"status": IN0, "proc": IN1, "patience_ms": A}


class Chroot(Step):
    """chroot(2) into the directory root, and chdir there: for a container in the host's mount namespace."""

    OP = 75
    FIELDS = {"root": IN0}


class PidfdOpen(Step):
    """pidfd_open(2): pid, start (its start time, clock ticks since boot), proc (the host's /proc); out. ESRCH when
    the number is another's now."""

    OP = 77
    FIELDS = {"proc": IN0, "pid": A, "start": B, "out": OUT}


class Dup(Step):
    """fcntl(2) F_DUPFD_CLOEXEC of fd, a descriptor of the caller's by its number; out."""

    OP = 78
    FIELDS = {"fd": A, "out": OUT}


class Dup3(Step):
    """dup3(2) of fd to number: 0, 1 or 2, a standard stream."""

    OP = 84
    FIELDS = {"fd": IN0, "number": A}


class Bind(Step):
    """bind(2) of a new unix datagram socket: dir, name, mode; out. listen: a stream socket to which one may connect."""

    OP = 79
    FIELDS = {"dir": IN0, "name": S0, "mode": A, "listen": B, "out": OUT}


class ReceiveFd(Step):
    """accept4(2) and recvmsg(2): the one descriptor that somebody has sent to listener, which Bind made; out. EAGAIN
    when nobody has, EPROTO when it was none."""

    OP = 88
    FIELDS = {"listener": IN0, "out": OUT}


class AdoptPid(Step):
    """The process whose pid is in dir/name is the plan's from now on: its pid and pidfd are told, and undoing kills it.
    It must be a child of ours, left to us as a subreaper. EPROTO when the file has no pid."""

    OP = 89
    FIELDS = {"dir": IN0, "name": S0}


class CheckNs(Step):
    """ioctl(2) NS_GET_NSTYPE: ns must be a namespace (else ENOTTY) of nstype (else EINVAL) and not `own`, a path
    below proc (else EBUSY)."""

    OP = 80
    FIELDS = {"ns": IN0, "nstype": A, "proc": IN1, "own": S0}


class TtyOutput(Step):
    """ioctl(2) TCSETS: clears the output flags `clear` (c_oflag) of terminal."""

    OP = 81
    FIELDS = {"terminal": IN0, "clear": A}
