"""`make bench-cri`: the CRI's calls, pyrun's against containerd's, interleaved in one run.

Both are asked over their own socket by the same client, in a network namespace of this run's. containerd has runc and
the CNI plug-ins bridge and host-local; pyrun its own network, or by --cni these, too. containerd asks for limits that
this view's cgroups have not got, so a small program in front of runc takes them out of config.json.

    make bench-cri ARGS="--rounds 20 --pods 30"

The first time it builds containerd 2.4 with runc 1.5 from their Go modules. CNI's plug-ins are Debian's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from pyrun import cri_api as v1
from pyrun.image.reference import parse_reference
from pyrun.image.store import Images
from tests.bench.cri_load import idle, measure_load
from tests.support.container.disk import unmount_below
from tests.support.container.runner import REPO
from tests.support.engines.golang import STRIPPED, find_go
from tests.support.registry.made import Made, make_image, tree_tar

PAUSE = "registry.k8s.io/pause:3.10.2"
IMAGE = "docker.io/library/busybox:latest"
CNI = Path("/usr/lib/cni")
UP_S = 60.0  # for a daemon to listen, on a machine that is busy
CONTAINERD = "github.com/containerd/containerd/v2/cmd/"
MODULES = (
    ([f"{CONTAINERD}{name}@v2.4.2" for name in ("containerd", "containerd-shim-runc-v2", "ctr")], "", "0"),
    (["github.com/opencontainers/runc@v1.5.2"], "seccomp", "1"),
)
WITHOUT_LIMITS = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void take_out(char *text, const char *key) { for (char *at = text; (at = strstr(at, key));) at[1] = 'X'; }
int main(int argc, char **argv)
{
	static char path[4096], text[1 << 20];
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], "--bundle"))
			snprintf(path, sizeof path, "%s/config.json", argv[i + 1]);
	int fd = *path ? open(path, O_RDWR) : -1;
	if (fd >= 0 && read(fd, text, sizeof text - 1) > 0) {
		take_out(text, "\"cpu\":");
		take_out(text, "\"memory\":");
		take_out(text, "\"pids\":{");
		pwrite(fd, text, strlen(text), 0);
	}
	return execv(RUNC, argv);
}
"""


def pss_kib(directory: Path) -> int:
    """Of a process, by its directory in /proc. OSError, StopIteration where it has gone."""
    lines = (directory / "smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1])


class Peer:
    """name; socket; process: the daemon. times: ms by step."""

    def __init__(self, name: str, socket: Path, process: subprocess.Popen[bytes]) -> None:
        self.name, self.socket, self.process = name, socket, process
        self.times: dict[str, list[float]] = {}
        self.channel: Channel | None = None

    async def call(self, rpc: str, request: Any, *, note: str = "", service: Any = None, timeout: float = 60) -> Any:
        channel = self.channel = self.channel or Channel(path=str(self.socket))
        row = (service or v1.SERVICES["RuntimeService"])[rpc]
        method: Any = UnaryUnaryMethod(channel, row.path, row.request, row.response)
        start = time.perf_counter_ns()
        answer = await method(request, timeout=timeout)
        self.times.setdefault(note or rpc, []).append((time.perf_counter_ns() - start) / 1e6)
        return answer

    def memory_kib(self) -> int:
        """PSS of the daemon, of its shims or supervisors, and of pods' own processes."""
        total = 0
        for directory in Path("/proc").iterdir():
            with contextlib.suppress(OSError, StopIteration):
                if directory.name.isdigit() and self.is_ours(directory):
                    total += pss_kib(directory)
        return total

    def daemon_kib(self) -> int:
        """PSS of the daemon alone."""
        return pss_kib(Path(f"/proc/{self.process.pid}"))

    def is_ours(self, directory: Path) -> bool:
        """Not a container's own program, which is the same with both; nor what somebody else has started."""
        if int(directory.name) == self.process.pid:
            return True
        words = (directory / "cmdline").read_bytes().split(b"\0")
        if self.name == "pyrun":
            return (
                words[0] == b"pyrun-pod" and (directory / "ns/net").readlink() == Path("/proc/self/ns/net").readlink()
            )
        return words[0].endswith(b"containerd-shim-runc-v2") and str(self.socket).encode() in words


async def wait_for(peer: Peer) -> None:
    last, why = time.monotonic() + UP_S, "it was not asked"
    while time.monotonic() < last and peer.process.poll() is None:
        try:
            await peer.call("Version", v1.VersionRequest(), note="-")
            return
        except Exception as error:  # whatever: it may be about to listen
            why = repr(error)
        await asyncio.sleep(0.1)
    how = "has ended" if peer.process.poll() is not None else "does not answer"
    said = (peer.socket.parent / "log").read_text(errors="replace")[-2000:]
    raise SystemExit(f"{peer.name} {how}: {why}; its log ends with:\n{said}")


def pod_config(peer: Peer, number: int) -> Any:
    config = v1.PodSandboxConfig(hostname=f"pod{number}", log_directory=str(peer.socket.parent / "logs" / str(number)))
    config.metadata.name, config.metadata.uid, config.metadata.namespace = f"pod{number}", f"uid{number}", "bench"
    config.linux.security_context.namespace_options.pid = v1.CONTAINER
    return config


def container_config() -> Any:
    config = v1.ContainerConfig(command=["sh", "-c", "trap exit TERM; sleep 1000 & wait"], log_path="c.log")
    config.metadata.name, config.image.image = "c", IMAGE
    config.linux.security_context.namespace_options.pid = v1.CONTAINER
    return config


async def start_pod(peer: Peer, number: int) -> tuple[str, str]:
    pod = pod_config(peer, number)
    sandbox = (await peer.call("RunPodSandbox", v1.RunPodSandboxRequest(config=pod))).pod_sandbox_id
    request = v1.CreateContainerRequest(pod_sandbox_id=sandbox, config=container_config(), sandbox_config=pod)
    container = (await peer.call("CreateContainer", request)).container_id
    await peer.call("StartContainer", v1.StartContainerRequest(container_id=container))
    return sandbox, container


async def end_pod(peer: Peer, sandbox: str, container: str) -> None:
    await peer.call("StopContainer", v1.StopContainerRequest(container_id=container, timeout=10))
    await peer.call("RemoveContainer", v1.RemoveContainerRequest(container_id=container))
    await peer.call("StopPodSandbox", v1.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    await peer.call("RemovePodSandbox", v1.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


async def measure(peers: list[Peer], rounds: int, pods: int, pulls: int) -> None:
    for peer in peers:
        await wait_for(peer)
    for number in range(rounds):
        for peer in peers:
            sandbox, container = await start_pod(peer, number)
            request = v1.ExecSyncRequest(container_id=container, cmd=["true"], timeout=10)
            for _ in range(3):
                await peer.call("ExecSync", request)
            await end_pod(peer, sandbox, container)
    for peer in peers:
        empty = peer.memory_kib()
        times, peer.times = peer.times, {}
        made = [await start_pod(peer, 1000 + number) for number in range(pods)]
        full, daemon, of_a_core = peer.memory_kib(), peer.daemon_kib(), await idle(peer)
        peer.times = times
        for _ in range(20):
            await peer.call("ListPodSandbox", v1.ListPodSandboxRequest(), note=f"ListPodSandbox of {pods}")
            await peer.call("ListContainers", v1.ListContainersRequest(), note=f"ListContainers of {pods}")
            with contextlib.suppress(GRPCError):  # not in every version
                request = v1.ListContainerStatsRequest()
                await peer.call("ListContainerStats", request, note=f"ListContainerStats of {pods}")
        kept = {key: list(value) for key, value in peer.times.items()}
        for sandbox, container in made:
            await end_pod(peer, sandbox, container)
        peer.times = kept
        peer.times["daemon, KiB"] = [empty]
        peer.times[f"daemon with {pods} pods, KiB"] = [daemon]
        peer.times["a pod, KiB"] = [(full - empty) / pods]
        peer.times[f"idle with {pods} pods, % of a core"] = [of_a_core]
    if pulls:
        await measure_load(peers, pulls)


def report(peers: list[Peer]) -> None:
    ours, theirs = peers[0].times, peers[1].times
    print(f"{os.cpu_count()} cores; median of each, ms where it says nothing else")
    print(f"{'':34} {peers[0].name:>10} {peers[1].name:>12} {'ratio':>7}")
    for name in theirs:
        if name != "-" and name in ours:
            a, b = statistics.median(ours[name]), statistics.median(theirs[name])
            print(f"{name:34} {a:10.2f} {b:12.2f} {a / b if b else 0:7.2f}")


def busybox() -> Made:
    tree = Path(os.path.realpath(REPO / ".cache/rootfs/busybox"))
    return make_image([tree_tar(tree)], {"Cmd": ["sleep", "1000000"], "Env": ["PATH=/bin:/usr/bin"]})


def oci_archive(made: Made, names: list[str], work: Path) -> Path:
    """An OCI layout as a tar, with the image under each of these names."""
    layout = work / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    for digest, data in made.blobs.items():
        (layout / "blobs/sha256" / digest.partition(":")[2]).write_bytes(data)
    key = "io.containerd.image.name"
    manifests = [{**made.descriptor(), "annotations": {key: name}} for name in names]
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    subprocess.run(["tar", "-C", layout, "-cf", work / "images.tar", "."], check=True)
    return work / "images.tar"


def write_conflist(directory: Path, bridge: str, subnet: str) -> Path:
    """The plug-ins bridge and host-local, of which each peer has its own bridge and range. Returns the directory."""
    directory.mkdir()
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]], "dataDir": f"{directory}-ipam"}
    plugin = {"type": "bridge", "bridge": bridge, "isGateway": True, "ipam": ipam}
    conflist = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}
    (directory / "10.conflist").write_text(json.dumps(conflist))
    return directory


def start_pyrun(work: Path, made: Made, layers: str = "dir", plugins: bool = False) -> Peer:
    images = Images(f"{work}/root/image")
    images.add(made.source(), [parse_reference(IMAGE)])
    images.close()
    socket = work / "s"
    config = work / "config.toml"
    conf = write_conflist(work / "cni", "cni1", "10.79.0.0/16") if plugins else ""
    config.write_text(f'cni_conf_dir = "{conf}"\ncni_bin_dirs = ["{CNI}"]\nlayers = "{layers}"\n')
    argv = [f"{REPO}/pyrun/bin/pyrun", "cri", "--root", f"{work}/root", "--state", f"{work}/state"]
    argv += ["--listen", f"unix://{socket}", "--config", str(config)]
    with (work / "log").open("wb") as log:
        return Peer("pyrun", socket, subprocess.Popen(argv, stdout=log, stderr=log))


def start_containerd(work: Path, programs: Path, made: Made, syncs: bool = False) -> Peer:
    wrapper = work / "runc-without-limits"
    source = f'#define RUNC "{programs / "runc"}"\n{WITHOUT_LIMITS}'
    subprocess.run(["cc", "-O2", "-static", "-x", "c", "-o", wrapper, "-"], input=source, text=True, check=True)
    write_conflist(work / "cni", "cni0", "10.78.0.0/16")
    socket, off = work / "s", ("btrfs", "zfs", "devmapper", "blockfile")
    disabled = [f"io.containerd.snapshotter.v1.{name}" for name in off] + ["io.containerd.nri.v1.nri"]
    (work / "config.toml").write_text(
        f"""version = 3
root = "{work}/root"
state = "{work}/state"
disabled_plugins = {json.dumps(disabled)}
[grpc]
  address = "{socket}"
[plugins."io.containerd.cri.v1.images"]
  image_pull_with_sync_fs = {json.dumps(syncs)}
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{work}/certs.d"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI}"]
    conf_dir = "{work}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{wrapper}"
"""
    )
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    with (work / "log").open("wb") as log:
        argv = [str(programs / "containerd"), "-c", f"{work}/config.toml", "-l", "warn"]
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=env)
    archive = oci_archive(made, [IMAGE, PAUSE], work)
    ctr = [str(programs / "ctr"), "-a", str(socket), "-n", "k8s.io"]
    last = time.monotonic() + UP_S
    while subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode and time.monotonic() < last:
        time.sleep(0.1)
    subprocess.run([*ctr, "images", "import", archive], check=True, stdout=subprocess.DEVNULL)
    return Peer("containerd", socket, process)


def build_programs() -> Path:
    """Those of MODULES, once a version."""
    into = REPO / ".cache/bench-cri"
    if not all((into / name).exists() for name in ("containerd", "containerd-shim-runc-v2", "ctr", "runc")):
        into.mkdir(parents=True, exist_ok=True)
        go, env = find_go(into), os.environ | {"GOBIN": str(into)}
        for module, tags, cgo in MODULES:
            argv = [go, "install", *STRIPPED, f"-tags={tags}", *module]
            subprocess.run(argv, env=env | {"CGO_ENABLED": cgo}, check=True)
    return into


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--bin", type=Path, help="where containerd, its shim, ctr and runc are already")
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--pods", type=int, default=30)
    options.add_argument("--pulls", type=int, default=3, help="of each peer; 0: no pulls and no logs")
    options.add_argument("--layers", choices=("dir", "erofs"), default="dir", help="what pyrun's layers become")
    options.add_argument("--sync", action="store_true", help="containerd writes what it unpacks out, too")
    options.add_argument("--cni", action="store_true", help="pyrun's pods have their network by CNI's plug-ins, too")
    given = options.parse_args()
    programs = given.bin or build_programs()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    work = Path(tempfile.mkdtemp(prefix="bench-cri-"))
    peers: list[Peer] = []
    try:
        made = busybox()
        for name in ("pyrun", "containerd"):
            (work / name).mkdir()
        peers.append(start_pyrun(work / "pyrun", made, given.layers, given.cni))
        peers.append(start_containerd(work / "containerd", programs.resolve(), made, given.sync))
        try:
            asyncio.run(measure(peers, given.rounds, given.pods, given.pulls))
        finally:
            report(peers)
    finally:
        for peer in peers:
            peer.process.terminate()
            peer.process.wait(30)
        unmount_below(work)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
