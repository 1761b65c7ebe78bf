"""The same `run` on two runtimes, and what the container then sees of itself, line by line.

Where pyrun differs from a peer on purpose, `normal` evens it out and says why. Whatever else differs is a fault.
"""

from __future__ import annotations

import os
import re
from difflib import unified_diff
from pathlib import Path

from tests.support.container.runner import Result

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
# What asks for no propagation: pyrun and crun make it private, runc leaves it a slave of the host's.
PRIVATE = ("/", "/v", "/sbin/docker-init")
PROBE = r"""
echo id $(id) cwd $PWD umask $(umask) host $(hostname)
env | sort | grep -vE '^(HOSTNAME|SHLVL|container_uuid)='
grep -E '^(Cap|NoNew|Seccomp|SigIgn|SigBlk|Cpus_allowed:|Mems_allowed:)' /proc/self/status
cd /proc/self
for file in uid_map gid_map oom_score_adj attr/current cgroup loginuid limits; do echo $file; cat $file; done
for namespace in cgroup ipc mnt net pid time user uts; do echo $namespace $(readlink ns/$namespace); done
echo mounts; cat mountinfo
echo files; ls -ln / /dev /dev/pts | grep -v ^total
ls -l /dev/console 2>/dev/null
cd /sys/fs/cgroup && grep . memory.max memory.low memory.high memory.swap.max cpu.max cpuset.cpus cpuset.mems pids.max \
    io.max cgroup.type 2>&1
cd /proc/sys && grep . net/ipv4/ip_forward net/ipv4/ping_group_range kernel/shmmax kernel/domainname fs/mqueue/msg_max
for file in kcore keys latency_stats scsi timer_list sched_debug acpi; do
    echo masked $file $(head -c 1 /proc/$file 2>&1 | wc -c) $(ls /proc/$file 2>&1 | wc -l)
done
echo may; touch /new 2>&1; mkdir /sys/fs/cgroup/new 2>&1 && rmdir /sys/fs/cgroup/new
mount -t tmpfs none /mnt 2>&1; echo 0 2>&1 >/proc/sys/kernel/panic; unshare -U true 2>&1; mknod /tmp/null c 1 3 2>&1
echo x 2>&1 >/tmp/null; head -c 1 /dev/mem 2>&1; mkdir /tmp/made 2>&1
cat /proc/1/comm
"""


def normal(told: str) -> list[str]:
    """The lines of PROBE's output without what no two containers have alike."""
    own = {os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}
    lines = []
    for line in told.splitlines():
        words = line.split()
        if words and words[0] in NAMESPACES:
            line = f"{words[0]} {'the host' if words[-1] in own else 'its own'}"
        elif " - " in line:
            line = _mount(line)
        elif re.match(r"[-dlcbps][-r][-w]", line):
            line = _file(words)
        line = re.sub(r"^(0::.*)/container$", r"\1", line)  # a cgroup below its scope, which only crun makes
        # Debian 13 has AppArmor profiles for crun and runc themselves, which confine nothing. A container of theirs has
        # that where it asks for none, and has it beside its own where it asks for no new privileges.
        line = re.sub(r"^(crun|runc) \(unconfined\)$", "unconfined", line)
        line = re.sub(r"//&(crun|runc) \(mixed\)$", " (enforce)", line)
        lines.append(re.sub(r"\b[0-9a-f]{64}\b", "ID", re.sub(r"\b[0-9a-f]{12}\b", "ID", line)))
    return sorted(set(lines))


def _mount(line: str) -> str:
    """Where, with what flags and propagation, and of what type; not which device, nor the peer groups' numbers."""
    head, _, tail = line.partition(" - ")
    fields, kind = head.split(), tail.split()[0]
    target, flags = fields[4], set(fields[5].split(","))
    tags = {tag.partition(":")[0] for tag in fields[6:]}
    if target.startswith(("/proc/", "/sys/firmware", "/sys/dev")):
        return f"mount {target} hidden"  # what hides there is for `masked` to say; pyrun keeps procfs's flags on top
    if re.match(r"/(etc/|run/.*env$|dev/)", target):
        # A bind mount keeps the flags of its source, as with runc; crun takes them off. pyrun's devices in a user
        # namespace are the host's; a console is of a devpts with the container's own flags.
        flags -= {"nosuid", "nodev", "noexec"}
        tags -= {"master"}
    if target in PRIVATE:
        tags -= {"master"}
    return f"mount {target} {kind} {','.join(sorted(flags))} {' '.join(sorted(tags))}"


def _file(words: list[str]) -> str:
    """Rights, owner, and device numbers. crun gives /dev/null to the container's user, who may use it anyway."""
    mode, _, uid, gid, *rest = words
    if rest[-1] == "null":
        return f"file null {mode}"
    if rest[-1] in ("run", "srv"):
        return f"file {rest[-1]}"  # a tmpfs has the mode of what it hides, as with runc; with crun it has 1777
    device = " ".join(rest[:2]) if mode[0] in "bc" else ""
    name = " ".join(words[8:] if mode[0] not in "bc" else words[9:])
    return f"file {name} {mode} {uid} {gid} {device}"


def differences(first: Result, second: Result) -> list[str]:
    """What the second container saw otherwise than the first; each line with its sign."""
    if first.rc != second.rc:
        return [first.describe(), second.describe()]
    lines = unified_diff(normal(first.out), normal(second.out), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def write_seccomp(path: Path) -> Path:
    """A profile that fails mkdir with EIO, which PROBE shows."""
    call = '{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}'
    path.write_text(f'{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{call}]}}')
    return path
