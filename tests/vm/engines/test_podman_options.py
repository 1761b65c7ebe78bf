"""What podman's options do to a container on pyrun: by their effect, and compared with crun's."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.disk import unmount
from tests.vm.engines.compare import PROBE, differences, write_seccomp
from tests.vm.engines.engine import IMAGE, ISOLATED, REPORT, Client, mounted, options, report_of, share, wrong_options

# Each is one run on either runtime.
AS_CRUN = {
    "memory,cpus,cpuset,pids-limit,device-read-bps,cap-drop,cap-add,umask,oom-score-adj,init": (
        "--memory 64m --memory-swap 80m --memory-reservation 32m --cpus 0.5 --cpuset-cpus 1 --cpuset-mems 0 "
        "--pids-limit 33 --device-read-bps /dev/nvme0n1:1mb --device-write-iops /dev/nvme0n1:100 --cap-drop "
        "all --cap-add net_bind_service,sys_admin --umask 0077 --hostname hh --oom-score-adj=-500 "
        "--annotation io.x=y --init"
    ),
    "seccomp=FILE,apparmor=unconfined,mask,unmask,cgroup-parent,cgroup-conf": (
        "--security-opt seccomp={dir}/seccomp.json --security-opt apparmor=unconfined --security-opt "
        "mask=/srv:/etc/passwd --security-opt unmask=/proc/kcore --cgroup-parent=user.slice "
        "--cgroup-conf=memory.high=50000000"
    ),
    "seccomp=unconfined,label=disable,unmask=ALL,cgroups=disabled": (
        "--security-opt seccomp=unconfined --security-opt label=disable --security-opt unmask=ALL --cgroups=disabled"
    ),
    "no-new-privileges,user,group-add,ipc=none,cgroups=no-conmon": (
        "--security-opt no-new-privileges -u 1000:1000 --group-add 50 --group-add 60 --ipc=none --cgroups=no-conmon"
    ),
    "tmpfs,init,stop-signal,read-only,shm-size,ulimit,pids-limit=-1": (
        "--pids-limit -1 --tmpfs /t:size=1m --tmpfs /srv --init --stop-signal USR1 --read-only --mount "
        "type=tmpfs,dst=/u,tmpfs-mode=711 --shm-size=1m --ulimit nofile=100:200 --ulimit core=0 --ulimit "
        "nproc=50:60 --ulimit memlock=-1:-1"
    ),
    "device,device-cgroup-rule,sysctl,volume,mount,propagation": (
        "--device /dev/null:/dev/mynull:r --device /dev/nvme0n1 --device-cgroup-rule 'c 1:* rwm' --sysctl "
        "net.ipv4.ip_forward=1 --sysctl kernel.shmmax=1000000 --sysctl fs.mqueue.msg_max=20 -v {dir}:/ro:ro "
        "-v {dir}:/b2:rshared -v {dir}:/b3:nosuid,noexec,nodev,rslave -v {dir}:/o:O -v "
        "{dir}/seccomp.json:/etc/passwd -v sweep:/v:nocopy --mount "
        "type=bind,src={dir},dst=/x,ro=true,bind-nonrecursive --mount "
        "type=image,src=localhost/busybox,dst=/image"
    ),
    "network,pid,ipc,uts,cgroupns=host": "--network=host --pid=host --ipc=host --uts=host --cgroupns=host",
    "privileged": "--privileged",
    "systemd=always": "--systemd=always",
}


@pytest.fixture(scope="module")
def shared(podman: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for volumes, on a mount that propagates; a seccomp profile in it."""
    directory = tmp_path_factory.mktemp("shared")
    share(directory)
    (directory / "hello").write_text("there")
    write_seccomp(directory / "seccomp.json")
    yield directory


@pytest.mark.parametrize("name", AS_CRUN)
def test_as_with_crun(podman: Client, shared: Path, name: str) -> None:
    """The container sees the same on either."""
    words = shlex.split(AS_CRUN[name].format(dir=shared))
    network = () if "--network=host" in words else ISOLATED
    seen = [
        podman("--runtime", runtime, "run", "--rm", *network, *words, IMAGE, "sh", "-c", PROBE).ok()
        for runtime in ("crun", "/usr/local/bin/pyrun")
    ]
    found = differences(*seen)
    assert not found, "\n".join(found)


def test_memory_cpus_pids_limit_cap_ulimit_read_only_tmpfs_device_sysctl_volumes(podman: Client, shared: Path) -> None:
    podman("volume", "create", "--opt", "o=uid=1000", "options").ok()
    told = podman("run", "--rm", *options(shared, "options"), IMAGE, "sh", "-c", REPORT)
    assert wrong_options(report_of(told)) == {}
    podman("volume", "rm", "options").ok()


def test_memory_and_pids_limits_hold(podman: Client) -> None:
    """What eats too much is killed (this podman says so of no runtime's containers); at the limit of processes fork
    fails.
    """
    eat = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M")
    limited = ("run", "--rm", *ISOLATED, "--memory", "16m", IMAGE)
    assert podman(*limited, *eat).rc == 137
    events = f"{' '.join(eat)}; cat /sys/fs/cgroup/memory.events"
    assert "oom_kill 1\n" in podman(*limited, "sh", "-c", events).ok().out
    script = "for i in 1 2 3 4 5 6; do sleep 1 & done"
    assert "can't fork" in podman("run", "--rm", *ISOLATED, "--pids-limit", "4", IMAGE, "sh", "-c", script).err


def test_userns_auto(podman: Client) -> None:
    auto = podman.says("run", "--rm", *ISOLATED, "--userns=auto", IMAGE, "cat", "/proc/self/uid_map")
    assert auto.split() == ["0", "2000000", "1024"]
    assert os.stat("/dev/null").st_uid == 0


def test_uidmap_gidmap_and_an_idmapped_volume(podman: Client, shared: Path) -> None:
    """With idmap the files of root are root's in the container; without, nobody's."""
    maps = ("--uidmap", "0:200000:5000", "--gidmap", "0:300000:5000")
    volumes = ("-v", f"{shared}:/mapped:idmap", "-v", f"{shared}:/plain")
    script = "cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /mapped/hello /plain/hello"
    told = podman.says("run", "--rm", *ISOLATED, *maps, *volumes, IMAGE, "sh", "-c", script).split()
    assert told == ["0", "200000", "5000", "0", "300000", "5000", "0:0", "65534:65534"]


def test_namespaces_of_another_container(podman: Client) -> None:
    kinds = ("pid", "network", "ipc", "uts", "cgroupns")
    where = "cd /proc/1/ns; for n in pid net ipc uts cgroup; do readlink $n; done; cat /proc/1/comm"
    podman("run", "-d", "--name", "first", *ISOLATED, "--ipc=shareable", IMAGE).ok()
    try:
        theirs = podman.says("exec", "first", "sh", "-c", where)
        joins = (f"--{kind}=container:first" for kind in kinds)
        script = where.replace("/proc/1/ns", "/proc/self/ns")
        assert podman.says("run", "--rm", *joins, IMAGE, "sh", "-c", script) == theirs
    finally:
        podman("rm", "-f", "-t", "0", "first").ok()


def test_privileged_may_mount(podman: Client) -> None:
    script = "mkdir /m; mount -t tmpfs t /m && echo mounted; grep CapEff /proc/self/status; ls -l /dev/kmsg"
    privileged = podman("run", "--rm", *ISOLATED, "--privileged", IMAGE, "sh", "-c", script).ok()
    assert "mounted" in privileged.out and "000001ffffffffff" in privileged.out, privileged.describe()


def test_volumes_propagate_mounts(podman: Client, shared: Path) -> None:
    """rshared both ways, rslave into the container only, private not at all."""
    with mounted(shared / "sub"):
        volumes = (f"-v{shared}/sub:/{name}:{name}" for name in ("rshared", "rslave", "private"))
        rights = ("--cap-add", "sys_admin", "--security-opt", "apparmor=unconfined")
        podman("run", "-d", "--name", "mounts", *ISOLATED, *rights, *volumes, IMAGE).ok()
        try:
            with mounted(shared / "sub" / "from-host"):
                script = "mkdir /rshared/up && mount -t tmpfs up /rshared/up; cut -d' ' -f2 /proc/mounts"
                seen = podman("exec", "mounts", "sh", "-c", script).ok().out.split()
                assert {"/rshared/from-host", "/rslave/from-host", "/rshared/up", "/rslave/up"} <= set(seen)
                assert not {"/private/from-host", "/private/up"} & set(seen)
                assert os.path.ismount(shared / "sub" / "up")
        finally:
            podman("rm", "-f", "-t", "0", "mounts").ok()
            unmount(shared / "sub" / "up")


def test_cgroup_managers_and_cgroups_no_conmon_split_disabled(podman: Client) -> None:
    """Both managers: where the container's cgroup is. Split is of a service, whose processes podman moves aside."""
    where = ("--cgroupns=host", IMAGE, "cat", "/proc/self/cgroup")
    service = Client("systemd-run", "--quiet", "--wait", "--pipe", "--unit=pyrun-split", "podman")
    for client, manager, how, wanted in (
        (podman, "systemd", "no-conmon", r"0::/machine.slice/libpod-\w+\.scope"),
        (podman, "systemd", "disabled", r"0::/.*pyrun-job.service.*"),
        (podman, "cgroupfs", "no-conmon", r"0::/libpod_parent/libpod-\w+"),
        (podman, "cgroupfs", "disabled", r"0::/.*pyrun-job.service.*"),
        (service, "systemd", "split", r"0::/system.slice/pyrun-split.service/libpod-payload-\w+"),
    ):
        told = client.says("--cgroup-manager", manager, "run", "--rm", *ISOLATED, f"--cgroups={how}", *where)
        assert re.fullmatch(wanted, told), (manager, how, told)
    os.rmdir("/sys/fs/cgroup/libpod_parent")  # podman's
