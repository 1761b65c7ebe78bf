"""The steps of a plan: one class per Linux primitive, each a name, an opcode and named operands.

A step is data. `FIELDS` says where each operand goes in the wire record (cffi_build/wire.h: three input slots, an output slot, four
integers, three strings), and the class's docstring says what the executor does with it. Operands are slots (ints from
Builder.slot), ints, strings or bytes. Every step also carries `at`, the JSON pointer that asked for it, `why`, half a line for a
reader, and `on`, its errno rules: pairs (errno, label), where label None means "take it as done and go on".
"""

from __future__ import annotations

IN0, IN1, IN2, OUT, A, B, C, D, S0, S1, S2 = range(11)
ANY = 0xFFFF  # an errno rule that matches every errno
NEXT = 0xFFFFFFFF
PID_MARK = "\x01" * 10  # ten characters that become the container's pid when the step runs
PID_PREFIX = 1  # Openat2, WriteFile: put "PID/" in front of the path

PARENT, STAGE1, STAGE2, UNDO = range(4)
LANE_NAMES = ("parent", "stage1", "stage2", "undo")


class Label:
    """A place in a lane that an errno rule of an earlier step jumps to."""

    __slots__ = ("index", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.index = -1


class Step:
    """One step. Unknown operands raise KeyError when the plan is encoded."""

    __slots__ = ("args", "at", "on", "why")
    OP = 0
    FIELDS: dict[str, int] = {}

    def __init__(self, *, at: str | None = None, why: str = "", on: tuple[tuple[int, Label | None], ...] = (), **args: object) -> None:
        self.args = args
        self.at = at
        self.why = why
        self.on = on

    def wire(self) -> dict[str, object]:
        """The operands as they are encoded."""
        return self.args


class Openat2(Step):
    """openat2(2): dir (none: the working directory), path, flags, mode, resolve; pid=PID_PREFIX; out."""

    OP = 1
    FIELDS = {"dir": IN0, "path": S0, "flags": A, "mode": B, "resolve": C, "pid": D, "out": OUT}


class OpenTree(Step):
    """open_tree(2): dir, path ("" with AT_EMPTY_PATH: dir itself), flags; out."""

    OP = 2
    FIELDS = {"dir": IN0, "path": S0, "flags": A, "out": OUT}


class MoveMount(Step):
    """move_mount(2): mount (an O_PATH or detached mount), onto (the target) or dst (its path), flags."""

    OP = 3
    FIELDS = {"mount": IN0, "onto": IN1, "dst": S0, "flags": A}


class MountSetattr(Step):
    """mount_setattr(2): mount or path, at_flags, set, clear, propagation, userns (for MOUNT_ATTR_IDMAP)."""

    OP = 4
    FIELDS = {"mount": IN0, "path": S0, "userns": IN1, "at_flags": A, "set": B, "clear": C, "propagation": D}


class Fsopen(Step):
    """fsopen(2): fstype; out."""

    OP = 5
    FIELDS = {"fstype": S0, "out": OUT}


class Fsconfig(Step):
    """fsconfig(2): fs, cmd, key, value, fd (a slot). What the file system says of an error becomes the error's text."""

    OP = 6
    FIELDS = {"fs": IN0, "cmd": A, "key": S0, "value": S1, "fd": IN1, "aux": B}


class Fsmount(Step):
    """fsmount(2): fs, attrs (MOUNT_ATTR_*); out: a detached mount."""

    OP = 7
    FIELDS = {"fs": IN0, "attrs": B, "out": OUT}


class Mount(Step):
    """mount(2) on the target's descriptor, for data that fsconfig does not take: onto, fstype, source, data, flags."""

    OP = 8
    FIELDS = {"onto": IN0, "fstype": S0, "source": S1, "data": S2, "flags": A}


class MakeTarget(Step):
    """Opens path below root as O_PATH, making what is missing: a directory, or a file when `like` (what will be mounted) is none.

    mode: of the new directory, or file without the x bits; those above it get 0755. resolve: more RESOLVE_* flags, as RESOLVE_NO_SYMLINKS
    for /proc. mount: 1 when it is for a mount, which may not be on the root itself (EBUSY) nor on a file system with magic `forbid` (EXDEV).
    """

    OP = 9
    FIELDS = {"root": IN0, "path": S0, "like": IN1, "mode": A, "forbid": B, "resolve": C, "mount": D, "out": OUT}


class Mkdirat(Step):
    """mkdirat(2): dir, path, mode."""

    OP = 10
    FIELDS = {"dir": IN0, "path": S0, "mode": A}


class Mknodat(Step):
    """mknodat(2) and chown: dir, name, mode with type, dev = major << 32 | minor, owner = gid << 32 | uid.

    EEXIST is a success only when the node is the same device, which then keeps its owner and mode."""

    OP = 11
    FIELDS = {"dir": IN0, "name": S0, "mode": A, "dev": B, "owner": C}


class Symlinkat(Step):
    """symlinkat(2): dir, target, name."""

    OP = 12
    FIELDS = {"target": S0, "dir": IN0, "name": S1}


class Unlinkat(Step):
    """unlinkat(2): dir, path, flags; tries: how often EBUSY is tried again (10 ms apart); guard: only if that step made it."""

    OP = 13
    FIELDS = {"dir": IN0, "path": S0, "flags": A, "tries": B, "guard": D}


class WriteFile(Step):
    """One write to an existing file: dir, path, data, flags, magic (the file system it must be on), resolve, pid=PID_PREFIX."""

    OP = 14
    FIELDS = {"dir": IN0, "path": S0, "data": S1, "flags": A, "magic": B, "resolve": C, "pid": D, "guard": D}


class CreateFile(Step):
    """A new file (O_EXCL) with data: dir, name, mode, data; out: it, open."""

    OP = 15
    FIELDS = {"dir": IN0, "name": S0, "data": S1, "mode": A, "out": OUT}


class CopyUp(Step):
    """tmpcopyup: copies the tree below `hidden` (O_PATH) into the root of `mount`; keep_root: leave that root's owner and mode."""

    OP = 16
    FIELDS = {"hidden": IN0, "mount": IN1, "keep_root": A}


class Fchownat(Step):
    """fchownat(2) with AT_SYMLINK_NOFOLLOW: dir, path ("": dir itself), uid, gid."""

    OP = 17
    FIELDS = {"dir": IN0, "path": S0, "uid": A, "gid": B}


class Close(Step):
    """close(2) of a slot."""

    OP = 18
    FIELDS = {"fd": IN0}


class CheckType(Step):
    """fstat(2): fd must be of the S_IFMT type; ENOTDIR where a directory was wanted, EISDIR where something else was."""

    OP = 19
    FIELDS = {"fd": IN0, "type": A}


class CheckDevice(Step):
    """fstat(2): fd must be the character device major:minor, or ENODEV."""

    OP = 20
    FIELDS = {"fd": IN0, "major": A, "minor": B}


class CheckFs(Step):
    """fstatfs(2): fd must be on a file system with this magic, or EXDEV."""

    OP = 21
    FIELDS = {"fd": IN0, "magic": A}


class Goto(Step):
    """Nothing: its one rule (ANY, label) leads on. For the way round an alternative."""

    OP = 22
    FIELDS: dict[str, int] = {}


class Mkfifoat(Step):
    """mknodat(2) of a FIFO: dir, name, mode; out: it, open for reading and writing."""

    OP = 23
    FIELDS = {"dir": IN0, "name": S0, "mode": A, "out": OUT}


class Clone3(Step):
    """clone3(2) of stage 1 with CLONE_VM|CLONE_VFORK|CLONE_PIDFD, and CLONE_INTO_CGROUP with cgroup; execveat of image.

    load: 0 a memfd, 1 a memfd made with MFD_EXEC, 2 the file through a read-only mount; flags: more CLONE_* flags; out: its pidfd."""

    OP = 24
    FIELDS = {"image": S0, "cgroup": IN0, "flags": A, "load": B, "out": OUT}


class Clone3Init(Step):
    """clone3(2) with CLONE_PARENT and flags: makes stage 2. Stage 1 tells its pid and exits."""

    OP = 25
    FIELDS = {"flags": A}


class Setns(Step):
    """setns(2): ns, nstype (CLONE_NEW*; with a pidfd: all of them at once)."""

    OP = 26
    FIELDS = {"ns": IN0, "nstype": A}


class Unshare(Step):
    """unshare(2): flags."""

    OP = 27
    FIELDS = {"flags": A}


class Meet(Step):
    """A child's rendezvous: tells `point` and waits until the parent's Ack."""

    OP = 28
    FIELDS = {"point": A}


class Await(Step):
    """The parent waits for a child to reach `point`."""

    OP = 29
    FIELDS = {"point": A}


class Ack(Step):
    """The parent lets the child go on."""

    OP = 30
    FIELDS: dict[str, int] = {}


class AwaitPid(Step):
    """The parent learns the pid of stage 2 and reaps stage 1; out: the pidfd."""

    OP = 31
    FIELDS = {"out": OUT}


class SavePid(Step):
    """Writes pid, start time and `status` (8 bytes each) at `offset` of the record; proc: the host's /proc."""

    OP = 32
    FIELDS = {"record": IN0, "proc": IN1, "offset": A, "status": D}


class PidfdGetfd(Step):
    """pidfd_getfd(2) of the seccomp listener that the child announced; out."""

    OP = 33
    FIELDS = {"out": OUT}


class Yield(Step):
    """The executor returns to its caller, which acts (D-Bus) and resumes: code."""

    OP = 34
    FIELDS = {"code": A}


class Setresuid(Step):
    """setresuid(2), all three: uid."""

    OP = 35
    FIELDS = {"uid": A}


class Setresgid(Step):
    """setresgid(2), all three: gid."""

    OP = 36
    FIELDS = {"gid": A}


class Setgroups(Step):
    """setgroups(2): groups, a tuple of gids."""

    OP = 37
    FIELDS = {"groups": S0}

    def wire(self) -> dict[str, object]:
        groups = self.args["groups"]
        return {"groups": b"".join(g.to_bytes(4, "little") for g in groups)}  # type: ignore[attr-defined]


class Sethostname(Step):
    """sethostname(2): name."""

    OP = 38
    FIELDS = {"name": S0}


class Setdomainname(Step):
    """setdomainname(2): name."""

    OP = 39
    FIELDS = {"name": S0}


class PivotRoot(Step):
    """pivot_root(2) to root, then the old root is made a slave and unmounted; the working directory is the new root."""

    OP = 40
    FIELDS = {"root": IN0}


class Chdir(Step):
    """chdir(2): path; EPERM when the directory lies outside our root (getcwd(2)). again: only if no Chdir has succeeded yet."""

    OP = 41
    FIELDS = {"path": S0, "again": A}


class Setsid(Step):
    """setsid(2)."""

    OP = 42
    FIELDS: dict[str, int] = {}


class Umask(Step):
    """umask(2): mask."""

    OP = 43
    FIELDS = {"mask": A}


class Prctl(Step):
    """prctl(2): option, arg2, arg3, arg4."""

    OP = 44
    FIELDS = {"option": A, "arg2": B, "arg3": C, "arg4": D}


class Capbset(Step):
    """PR_CAPBSET_DROP of every capability that the mask `keep` does not name."""

    OP = 45
    FIELDS = {"keep": A}


class Capset(Step):
    """capset(2): effective, permitted, inheritable, as masks."""

    OP = 46
    FIELDS = {"effective": A, "permitted": B, "inheritable": C}


class Ambient(Step):
    """PR_CAP_AMBIENT: clears all, then raises the mask `raise_`."""

    OP = 47
    FIELDS = {"raise_": A}


class Seccomp(Step):
    """seccomp(2) SECCOMP_SET_MODE_FILTER: prog (bytes), flags."""

    OP = 48
    FIELDS = {"prog": S0, "flags": A}


class Setrlimit(Step):
    """prlimit(2) on ourselves: resource, soft, hard; raise_only: lift the hard limit if it is lower, leave the soft one."""

    OP = 49
    FIELDS = {"resource": A, "soft": B, "hard": C, "raise_only": D}


class Personality(Step):
    """personality(2): persona."""

    OP = 50
    FIELDS = {"persona": A}


class SchedSetattr(Step):
    """sched_setattr(2): attr, the bytes of struct sched_attr."""

    OP = 51
    FIELDS = {"attr": S0}


class IoprioSet(Step):
    """ioprio_set(2) on ourselves: ioprio = class << 13 | priority."""

    OP = 52
    FIELDS = {"ioprio": A}


class SchedSetaffinity(Step):
    """sched_setaffinity(2): mask (bytes)."""

    OP = 53
    FIELDS = {"mask": S0}


class SetMempolicy(Step):
    """set_mempolicy(2): mode with its flags, nodes (bytes), maxnode."""

    OP = 54
    FIELDS = {"mode": A, "nodes": S0, "maxnode": B}


class KeyctlSession(Step):
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: name."""

    OP = 55
    FIELDS = {"name": S0}


class FindExecutable(Step):
    """Finds the file to run: name, and the PATH where name has no slash. ENOENT: none; EACCES: found, but it may not be run."""

    OP = 56
    FIELDS = {"name": S0, "path": S1}


class SetHome(Step):
    """HOME for uid from the container's /etc/passwd, "/" where that does not say; Execve adds it."""

    OP = 57
    FIELDS = {"uid": A}


class CloseFds(Step):
    """close(2) of every slot but go and status, and close_range(2) with CLOSE_RANGE_CLOEXEC on what else is not the user's."""

    OP = 58
    FIELDS = {"go": IN0, "status": IN1}


class Park(Step):
    """Waits for `start` on the FIFO go; from there on errors go to the FIFO status."""

    OP = 59
    FIELDS = {"go": IN0, "status": IN1}


class Execve(Step):
    """execve(2) of what FindExecutable found: argv, env (tuples of strings)."""

    OP = 60
    FIELDS = {"argv": S0, "env": S1, "argc": A, "envc": B}

    def wire(self) -> dict[str, object]:
        argv, env = self.args["argv"], self.args["env"]
        return {"argv": "\0".join(argv), "env": "\0".join(env), "argc": len(argv), "envc": len(env)}  # type: ignore[arg-type]


class Spawn(Step):
    """Runs a hook or helper and waits: path, argv, env, stdin, timeout_ms (0: none), dir (its working directory). PID_MARK in argv and stdin
    becomes the pid. number: an error's substep is number << 8 | what failed.

    ECHILD with what it said when it does not exit 0, ETIMEDOUT when its time is up."""

    OP = 61
    FIELDS = {"args": S0, "env": S1, "stdin": S2, "timeout_ms": A, "stdin_pid": B, "args_pid": C, "counts": D, "dir": IN0}

    def wire(self) -> dict[str, object]:
        a = self.args
        argv: tuple[str, ...] = a["argv"] or (a["path"],)  # type: ignore[assignment]
        env: tuple[str, ...] = a.get("env", ())  # type: ignore[assignment]
        args = "\0".join((a["path"], *argv))  # type: ignore[arg-type]
        stdin: str = a.get("stdin", "")  # type: ignore[assignment]
        mark = PID_MARK.encode()
        where = [s.encode("utf-8", "surrogateescape").find(mark) for s in (stdin, args)]
        stdin_pid, args_pid = (NEXT if w < 0 else w for w in where)
        return {"args": args, "env": "\0".join(env), "stdin": stdin, "timeout_ms": a.get("timeout_ms", 0) | a.get("number", 0) << 32, "stdin_pid": stdin_pid,
                "args_pid": args_pid, "counts": len(argv) + 1 | len(env) << 32, "dir": a.get("dir")}


class BpfProgLoad(Step):
    """bpf(2) BPF_PROG_LOAD of a cgroup device program: insns (bytes); out."""

    OP = 62
    FIELDS = {"insns": S0, "out": OUT}


class BpfProgAttach(Step):
    """bpf(2) BPF_PROG_ATTACH: cgroup, prog, flags."""

    OP = 63
    FIELDS = {"cgroup": IN0, "prog": IN1, "flags": A}


class Netlink(Step):
    """One rtnetlink request, acknowledged: msg (bytes); patch: the offset where fd's number goes."""

    OP = 64
    FIELDS = {"msg": S0, "patch": A, "fd": IN0}


class Openpt(Step):
    """A new terminal of the devpts mount dev: path ("ptmx"), columns, rows; out the master, slave a slot for the other side."""

    OP = 65
    FIELDS = {"dev": IN0, "path": S0, "columns": A, "rows": B, "slave": IN2, "out": OUT}


class SendFd(Step):
    """sendmsg(2) with SCM_RIGHTS: socket, fd, data (PID_MARK becomes the pid)."""

    OP = 66
    FIELDS = {"socket": IN0, "fd": IN1, "data": S0, "pid_at": A}

    def wire(self) -> dict[str, object]:
        at = str(self.args["data"]).encode("utf-8", "surrogateescape").find(PID_MARK.encode())
        return {**self.args, "pid_at": NEXT if at < 0 else at}


class SetStdio(Step):
    """TIOCSCTTY and dup3(2) of terminal onto 0, 1 and 2."""

    OP = 67
    FIELDS = {"terminal": IN0}


class FchownStdio(Step):
    """fchown(2) of 0, 1 and 2 to uid, but for /dev/null and what can't change hands."""

    OP = 68
    FIELDS = {"uid": A}


class Connect(Step):
    """connect(2) to a unix stream socket: path; out."""

    OP = 69
    FIELDS = {"path": S0, "out": OUT}


class KillChild(Step):
    """Kills and reaps what Clone3 made."""

    OP = 70
    FIELDS: dict[str, int] = {}


class Signal(Step):
    """pidfd_send_signal(2): pidfd, signal."""

    OP = 71
    FIELDS = {"pidfd": IN0, "signal": A}


class Release(Step):
    """Writes to the FIFO that a parked init reads: fifo."""

    OP = 72
    FIELDS = {"fifo": IN0}


class WaitExec(Step):
    """Waits until the init execs (end of file) or says why not: status (none: the sync socket)."""

    OP = 73
    FIELDS = {"status": IN0}


class Fchdir(Step):
    """fchdir(2): dir."""

    OP = 74
    FIELDS = {"dir": IN0}


class CheckEmpty(Step):
    """ENOTEMPTY when a process runs in the cgroup."""

    OP = 75
    FIELDS = {"cgroup": IN0}


class RemoveCgroup(Step):
    """Kills what is in the cgroup at path (cgroup.kill) and removes it; recursive: with its children. guard as in Unlinkat."""

    OP = 76
    FIELDS = {"path": S0, "recursive": A, "guard": D}


class PidFile(Step):
    """Writes the pid to the file at path, whole or not at all (through tmp, beside it)."""

    OP = 77
    FIELDS = {"tmp": S0, "path": S1}


class TmpfsMode(Step):
    """The mode= of a tmpfs being configured, from the directory `hidden` that it will hide, unless the last MakeTarget made that: fs, hidden."""

    OP = 78
    FIELDS = {"fs": IN0, "hidden": IN1}


class Chroot(Step):
    """chroot(2) into the directory root, and chdir there: for a container in the host's mount namespace."""

    OP = 79
    FIELDS = {"root": IN0}


class MakeUserns(Step):
    """A user namespace with these maps and no process in it, for idmapped mounts: proc (the host's), uid_map, gid_map; out."""

    OP = 80
    FIELDS = {"proc": IN0, "uid_map": S0, "gid_map": S1, "out": OUT}


class PidfdOpen(Step):
    """pidfd_open(2): pid, start (its start time, clock ticks since boot), proc (the host's /proc); out. ESRCH when the number is another's now."""

    OP = 81
    FIELDS = {"proc": IN0, "pid": A, "start": B, "out": OUT}


class Dup(Step):
    """fcntl(2) F_DUPFD_CLOEXEC of fd, a descriptor of the caller's by its number; out."""

    OP = 82
    FIELDS = {"fd": A, "out": OUT}


class Bind(Step):
    """bind(2) of a new unix datagram socket: dir, name, mode; out."""

    OP = 83
    FIELDS = {"dir": IN0, "name": S0, "mode": A, "out": OUT}


class CheckNs(Step):
    """ioctl(2) NS_GET_NSTYPE: ns must be a namespace (else ENOTTY) of nstype (else EINVAL) and not `own`, a path below proc (else EBUSY)."""

    OP = 84
    FIELDS = {"ns": IN0, "nstype": A, "proc": IN1, "own": S0}
