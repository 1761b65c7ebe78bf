"""Steps on files, mounts, the root and cgroups; see steps.py."""

from __future__ import annotations

from .step import IN0, IN1, OUT, S0, S1, S2, A, B, C, D, Step


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
    """mount(2) on the target's descriptor, for data that fsconfig does not take: onto, fstype, source, data, flags.
    marks: 1 where data has marks of slots (slot_mark), which become the numbers of the descriptors in them."""

    OP = 8
    FIELDS = {"onto": IN0, "fstype": S0, "source": S1, "data": S2, "flags": A, "marks": B}


class Umount(Step):
    """umount2(2): path, or mount (where the working directory goes, so not in the parent), flags; guard: only if that
    step (a MoveMount) mounted it."""

    OP = 85
    FIELDS = {"mount": IN0, "path": S0, "flags": A, "guard": D}


class MakeTarget(Step):
    """Opens path below root as O_PATH, making what is missing: a directory, or a file when `like` (what will be
    mounted) is none.

    mode: of the new directory, or file without the x bits; those above it get 0755. resolve: more RESOLVE_* flags, as
    RESOLVE_NO_SYMLINKS for /proc. mount: 1 when it is for a mount, which may not be on the root itself (EBUSY) nor on
    a file system with magic `forbid` (EXDEV).
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
    """unlinkat(2): dir, path, flags; guard: only if that step made it; still: only while that directory has not been
    removed, since the name may be another's after that."""

    OP = 13
    FIELDS = {"dir": IN0, "still": IN1, "path": S0, "flags": A, "guard": D}


class WriteFile(Step):
    """One write to an existing file: dir, path, data, flags, magic (the file system it must be on), resolve,
    pid=PID_PREFIX, or PID_DATA."""

    OP = 14
    FIELDS = {"dir": IN0, "path": S0, "data": S1, "flags": A, "magic": B, "resolve": C, "pid": D, "guard": D}


class CreateFile(Step):
    """A new file (O_EXCL) with data: dir, name, mode, data; out: it, open. lock: with a write lock of its open file
    description (fcntl(2), F_OFD_SETLK) from before it has data on, as long as out is open."""

    OP = 15
    FIELDS = {"dir": IN0, "name": S0, "data": S1, "mode": A, "lock": B, "out": OUT}


class Fchownat(Step):
    """fchownat(2), not through a symlink: the file name in dir, or dir itself without one, to uid; its group stays."""

    OP = 82
    FIELDS = {"dir": IN0, "name": S0, "uid": A}


class Setxattr(Step):
    """setxattr(2): the attribute name of fd, which may be O_PATH or a mount that is nowhere yet, to value."""

    OP = 83
    FIELDS = {"fd": IN0, "name": S0, "value": S1}


class CopyUp(Step):
    """tmpcopyup: copies the tree below `hidden` (O_PATH) into the root of `mount`; keep_root: leave that root's owner
    and mode, as where the last MakeTarget made `hidden`."""

    OP = 16
    FIELDS = {"hidden": IN0, "mount": IN1, "keep_root": A}


class Close(Step):
    """close(2) of a slot."""

    OP = 17
    FIELDS = {"fd": IN0}


class CheckType(Step):
    """fstat(2): fd must be of the S_IFMT type; ENOTDIR where a directory was wanted, EISDIR where something else
    was. dev: the number that a device must have, major << 32 | minor; ENODEV where it has another."""

    OP = 18
    FIELDS = {"fd": IN0, "type": A, "dev": B}


class CheckDevice(Step):
    """fstat(2): fd must be the character device major:minor, or ENODEV."""

    OP = 19
    FIELDS = {"fd": IN0, "major": A, "minor": B}


class CheckFs(Step):
    """fstatfs(2): fd must be on a file system with this magic, or EXDEV."""

    OP = 20
    FIELDS = {"fd": IN0, "magic": A}


class Goto(Step):
    """Nothing: its one rule (ANY, label) leads on. For the way round an alternative."""

    OP = 21
    FIELDS: dict[str, int] = {}


class Mkfifoat(Step):
    """mknodat(2) of a FIFO: dir, name, mode; out: it, open for reading and writing."""

    OP = 22
    FIELDS = {"dir": IN0, "name": S0, "mode": A, "out": OUT}


class PivotRoot(Step):
    """pivot_root(2) to root, also out of a chroot; then the old root is made a slave and unmounted; the working
    directory is the new root."""

    OP = 39
    FIELDS = {"root": IN0}


class Chdir(Step):
    """chdir(2): path; EPERM when the directory lies outside our root (getcwd(2)). again: only if no Chdir has
    succeeded yet. late: where it can't be entered, Execve fails with that."""

    OP = 40
    FIELDS = {"path": S0, "again": A, "late": B}


class CheckEmpty(Step):
    """ENOTEMPTY when a process runs in the cgroup."""

    OP = 71
    FIELDS = {"cgroup": IN0}


class RemoveCgroup(Step):
    """Removes the cgroup at path and its children, if path still leads to cgroup, which is held; nothing where none is
    held. kill: what runs in it is killed (cgroup.kill), else that is EBUSY. With guard, as in Unlinkat, only if nothing
    is in it where no cgroup is held, or once the directory `still` has been removed."""

    OP = 72
    FIELDS = {"cgroup": IN0, "still": IN1, "path": S0, "kill": A, "guard": D}


class PidFile(Step):
    """Writes the pid to the file at path, whole or not at all (through tmp, beside it)."""

    OP = 73
    FIELDS = {"tmp": S0, "path": S1}


class TmpfsMode(Step):
    """The mode= of a tmpfs being configured, from the directory `hidden` that it will hide, unless the last
    MakeTarget made that: fs, hidden."""

    OP = 74
    FIELDS = {"fs": IN0, "hidden": IN1}


class MakeUserns(Step):
    """A user namespace with these maps and no process in it, for idmapped mounts: proc (the host's), uid_map,
    gid_map; out."""

    OP = 76
    FIELDS = {"proc": IN0, "uid_map": S0, "gid_map": S1, "out": OUT}
