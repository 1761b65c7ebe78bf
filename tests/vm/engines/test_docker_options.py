"""What docker's options do to a container on pyrun: by their effect, and compared with runc's."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.engines.compare import PROBE, differences, write_seccomp
from tests.vm.engines.engine import (
    IMAGE,
    REPORT,
    Client,
    everything,
    mounted,
    options,
    report_of,
    share,
    wait_until,
    wrong_options,
)

RUN = ("run", "--runtime", "pyrun", "--network", "none")
# Each is one run on either runtime.
AS_RUNC = {
    "memory,memory-swap,cpus,cpuset,pids-limit,device-read-bps,cap-drop,cap-add,oom-score-adj,init": (
        "--memory 64m --memory-swap 80m --memory-reservation 32m --cpus 0.5 --cpuset-cpus 1 --cpuset-mems 0 "
        "--pids-limit 33 --device-read-bps /dev/nvme0n1:1mb --device-write-iops /dev/nvme0n1:100 --cap-drop "
        "all --cap-add net_bind_service --cap-add sys_admin --hostname hh --domainname x.y "
        "--oom-score-adj=-500 --init"
    ),
    "seccomp=FILE,apparmor=unconfined,ipc=none,cgroupns=private,cgroup-parent": (
        "--security-opt seccomp={dir}/seccomp.json --security-opt apparmor=unconfined --ipc=none "
        "--cgroupns=private --cgroup-parent=user.slice"
    ),
    "seccomp=unconfined,systempaths=unconfined": (
        "--security-opt seccomp=unconfined --security-opt systempaths=unconfined"
    ),
    "no-new-privileges,user,group-add,read-only,tmpfs,shm-size,ulimit": (
        "--security-opt no-new-privileges -u 1000:1000 --group-add 50 --group-add 60 --read-only --tmpfs "
        "/t:size=1m,mode=700,uid=3 --mount type=tmpfs,dst=/u,tmpfs-mode=711 --shm-size=1m --ulimit "
        "nofile=100:200 --ulimit core=0 --ulimit nproc=50:60 --ulimit memlock=-1:-1"
    ),
    "device,device-cgroup-rule,sysctl,volume,mount,propagation": (
        "--device /dev/null:/dev/mynull:r --device /dev/nvme0n1 --device-cgroup-rule 'c 1:* rwm' --sysctl "
        "net.ipv4.ip_forward=1 --sysctl kernel.shmmax=1000000 --sysctl fs.mqueue.msg_max=20 -v {dir}:/ro:ro "
        "-v {dir}:/b3:rslave -v {dir}/seccomp.json:/etc/issue -v sweep:/v --mount "
        "type=bind,src={dir},dst=/x,readonly,bind-nonrecursive"
    ),
    "network,pid,ipc,uts,cgroupns,userns=host": (
        "--network=host --pid=host --ipc=host --uts=host --cgroupns=host --userns=host"
    ),
    "privileged": "--privileged",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for volumes; a seccomp profile in it."""
    directory = tmp_path_factory.mktemp("shared")
    share(directory)
    (directory / "hello").write_text("there")
    write_seccomp(directory / "seccomp.json")
    yield directory


@pytest.mark.parametrize("name", AS_RUNC)
def test_as_with_runc(docker: Client, shared: Path, name: str) -> None:
    """The container sees the same on either."""
    words = shlex.split(AS_RUNC[name].format(dir=shared))
    network = () if "--network=host" in words else ("--network", "none")
    limit = ("--pids-limit", "99")  # without, runc's scopes have systemd's default
    seen = [
        docker("run", "--runtime", runtime, "--rm", *network, *limit, *words, IMAGE, "sh", "-c", PROBE)
        for runtime in ("runc", "pyrun")
    ]
    found = differences(*seen)
    assert not found, "\n".join(found)


def test_memory_cpus_pids_limit_cap_ulimit_read_only_tmpfs_device_sysctl_volumes(docker: Client, shared: Path) -> None:
    docker("volume", "create", "options").ok()
    docker(*RUN, "--rm", "-v", "options:/vol", IMAGE, "chown", "1000", "/vol").ok()
    told = docker("run", "--runtime", "pyrun", "--rm", *options(shared, "options"), IMAGE, "sh", "-c", REPORT)
    assert wrong_options(report_of(told)) == {}
    docker("volume", "rm", "options").ok()


def test_a_read_only_volume_and_what_is_mounted_in_it(docker: Client, shared: Path) -> None:
    """Read-only as well since docker 25, where `features` of the runtime has `rro`; an older one leaves it writable."""
    with mounted(shared / "below"):
        told = docker(*RUN, "--rm", "-v", f"{shared}:/v:ro", IMAGE, "touch", "/v/below/made")
        assert (shared / "below" / "made").exists() == (docker.version() < (25, 0)), told.describe()
        assert "Read-only file system" in docker(*RUN, "--rm", "-v", f"{shared}:/v:ro", IMAGE, "touch", "/v/x").err


def test_a_privileged_one_and_out_of_memory(docker: Client, shared: Path) -> None:
    script = "mkdir /m; mount -t tmpfs t /m && echo mounted; grep CapEff /proc/self/status"
    privileged = docker(*RUN, "--rm", "--privileged", IMAGE, "sh", "-c", script).ok()
    assert "mounted" in privileged.out and everything(docker) in privileged.out, privileged.describe()
    # Until docker has heard: containerd reads of it in the cgroup, which would be gone with an init that was killed. So
    # it is dd that the kernel is to take, and the end comes by a file: an exec would be one more to choose from.
    dd = "(echo 1000 >/proc/self/oom_score_adj; exec dd if=/dev/zero of=/dev/null bs=64M)"
    eat = ("sh", "-c", f"until [ -e /v/end ]; do {dd}; sleep 0.5; done; exit 3")
    ending = shared / "ending"
    ending.mkdir()
    began = f"{time.time():.3f}"
    docker(*RUN, "-d", "--name", "eater", "--memory", "16m", "-v", f"{ending}:/v", IMAGE, *eat).ok()
    kills = ("events", "--since", began, "--filter", "container=eater", "--filter", "event=oom", "--until")
    wait_until(lambda: "oom" in docker.says(*kills, f"{time.time():.3f}"), "docker to hear of the kill")
    (ending / "end").touch()
    assert docker.says("wait", "eater") == "3"
    assert docker.says("inspect", "--format", "{{.State.OOMKilled}}", "eater") == "true"
    docker("rm", "eater").ok()
