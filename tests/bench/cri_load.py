"""The rest of `make bench-cri`: what a pull, a removal, a log and doing nothing cost, in CPU seconds of a peer's own
programs (the daemon with the children that it has waited for, and what it has for each pod). Containers and the
registry, which is this process, are not in it; a machine that is busy adds little to such figures."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from pyrun import cri_api as v1
from tests.support.container.runner import REPO
from tests.support.registry.made import make_image, tree_tar
from tests.support.registry.stub import Stub, running

if TYPE_CHECKING:
    from tests.bench.cri import Peer

LOG_BYTES = 100_000_000
IDLE_S = 20.0
PATIENCE_S = 300.0
QUIET_S, QUIET_CPU_S = 1.0, 0.02
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(peer: Peer) -> float:
    """Of all that is the peer's now."""
    ticks = 0
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if directory.name.isdigit() and peer.is_ours(directory):
                words = (directory / "stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, words[11 : 15 if int(directory.name) == peer.process.pid else 13]))
    return ticks / TICK


@contextlib.asynccontextmanager
async def counted(peer: Peer, name: str) -> AsyncIterator[None]:
    """Notes what the block costs: "NAME, s" until it is answered, and "NAME, CPU s" with what goes on behind that."""
    cpu, begun = cpu_seconds(peer), time.monotonic()
    yield
    peer.times.setdefault(f"{name}, s", []).append(time.monotonic() - begun)
    await settle(peer)
    peer.times.setdefault(f"{name}, CPU s", []).append(cpu_seconds(peer) - cpu)


async def settle(peer: Peer) -> None:
    """Until it unpacks and removes nothing and uses next to nothing, so that what it does later for one call is not the
    next one's."""
    last = time.monotonic() + PATIENCE_S
    while time.monotonic() < last:
        before = cpu_seconds(peer)
        await asyncio.sleep(QUIET_S)
        if not has_layers_under_way(peer) and cpu_seconds(peer) - before <= QUIET_CPU_S:
            return


def has_layers_under_way(peer: Peer) -> bool:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            if name == "pyrun-layer" and int(rest.split()[1]) == peer.process.pid:
                return True
    return False


async def measure_load(peers: list[Peer], pulls: int) -> None:
    tree = tree_tar(REPO / ".cache/rootfs/debian")
    print(f"a pull is of one layer of {len(tree) / 1e6:.0f} MB, by gzip; a log is of {LOG_BYTES / 1e6:.0f} MB")
    with running() as stub:
        for peer in peers:  # containerd has to be told that it speaks plain HTTP
            told = peer.socket.parent / "certs.d" / stub.host / "hosts.toml"
            told.parent.mkdir(parents=True)
            told.write_text(f'server = "{stub.url}"\n[host."{stub.url}"]\n')
        for number in range(pulls):
            for peer in peers:
                await pull(peer, stub, f"{number}-{peer.name}", tree)
    for _ in range(2):
        for peer in peers:
            await write_log(peer)


async def pull(peer: Peer, stub: Stub, name: str, tree: bytes) -> None:
    """A layer that the peer has never seen: what it has removed may still lie there."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(f"of-{name}"))
    end = len(tree) - 1024
    while not any(tree[end - 512 : end]):
        end -= 512
    reference = stub.add("org/app", name, make_image([tree[:end] + out.getvalue()]))
    spec = v1.ImageSpec(image=reference)
    service = v1.SERVICES["ImageService"]
    async with counted(peer, "PullImage"):
        await peer.call("PullImage", v1.PullImageRequest(image=spec), note="-", service=service, timeout=PATIENCE_S)
    async with counted(peer, "RemoveImage"):
        await peer.call("RemoveImage", v1.RemoveImageRequest(image=spec), note="-", service=service)


async def write_log(peer: Peer) -> None:
    """One container that writes lines of 100 bytes."""
    from tests.bench.cri import IMAGE, end_pod, pod_config

    pod = pod_config(peer, 5000)
    sandbox = (await peer.call("RunPodSandbox", v1.RunPodSandboxRequest(config=pod), note="-")).pod_sandbox_id
    words = f"yes $(printf %099d 0) | head -c {LOG_BYTES}"
    config = v1.ContainerConfig(command=["sh", "-c", words], log_path="c.log", image=v1.ImageSpec(image=IMAGE))
    config.metadata.name = "log"
    config.linux.security_context.namespace_options.pid = v1.CONTAINER
    request = v1.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=pod)
    id = (await peer.call("CreateContainer", request, note="-")).container_id
    last = time.monotonic() + PATIENCE_S
    async with counted(peer, "a log"):
        await peer.call("StartContainer", v1.StartContainerRequest(container_id=id), note="-")
        while time.monotonic() < last:
            status = await peer.call("ContainerStatus", v1.ContainerStatusRequest(container_id=id), note="-")
            if status.status.state == v1.CONTAINER_EXITED:
                break
            await asyncio.sleep(0.25)
    size = sum(path.stat().st_size for path in Path(pod.log_directory).glob("c.log*"))
    assert size > LOG_BYTES, f"{peer.name}: the log has {size} bytes"
    await end_pod(peer, sandbox, id)


async def idle(peer: Peer) -> float:
    """Of a core, in percent, while nobody asks anything."""
    before = cpu_seconds(peer)
    await asyncio.sleep(IDLE_S)
    return (cpu_seconds(peer) - before) / IDLE_S * 100
