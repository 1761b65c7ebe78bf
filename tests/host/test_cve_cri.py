"""What an image, a request or a container has done to other runtimes by way of the CRI, done to a daemon of ours.

Each test is named after the vulnerability. Those of the unpacker, of references and of who a user is lie with their
parts; docs/vulnerabilities.md lists all.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import InvalidArgument, PyrunError, Unimplemented
from pyrun.image.reference import parse_reference
from pyrun.image.store import Images
from tests.support.cri.node import OWN_PIDS, Node
from tests.support.cri.node import node as node
from tests.support.cri.node import one_node as one_node
from tests.support.layers import Tar
from tests.support.registry.made import make_image, tree_tar

MOST_BYTES = 16 << 20


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host's, which stays as it is."""
    made = tmp_path / "outside"
    made.mkdir()
    (made / "secret").write_text("the host's")
    yield made
    assert sorted(os.listdir(made)) == ["secret"] and (made / "secret").read_text() == "the host's"


def add_image(node: Node, name: str, *layers: bytes, annotations: dict[str, str] | None = None, **words: Any) -> str:
    """An image with busybox below its own layers. words: of its config, as User."""
    config = {"Cmd": ["sh"], "Env": ["PATH=/bin"], **{key.capitalize(): value for key, value in words.items()}}
    made = make_image([tree_tar(node.rootfs), *layers], config, form="", annotations=annotations)
    images = Images(str(node.root / "image"))
    try:
        images.add(made.source(), [parse_reference(name)])
    finally:
        images.close()
    return name


def exec_in(node: Node, id: str, script: str) -> Any:
    return node.call("ExecSync", container_id=id, cmd=["sh", "-c", script], timeout=20)


def daemon_kib(node: Node) -> int:
    text = Path(f"/proc/{node.pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")))


# --- exec ------------------------------------------------------------------------------------------------------------


def test_cve_2022_31030_and_2022_1708_output_without_an_end(node: Node) -> None:
    """Each stream is kept up to a limit; the rest is read, so that the program ends, and dropped."""
    id = node.run(node.run_pod())
    exec_in(node, id, "head -c 20000000 /dev/zero")
    before = daemon_kib(node)
    done = exec_in(node, id, "head -c 60000000 /dev/zero; head -c 60000000 /dev/zero >&2; exit 5")
    assert done.exit_code == 5
    assert 0 < len(done.stdout) <= MOST_BYTES and 0 < len(done.stderr) <= MOST_BYTES
    assert daemon_kib(node) - before < 120_000  # what was written is as much; and it comes back


def test_cve_2026_53495_a_child_that_keeps_the_pipe(node: Node) -> None:
    id = node.run(node.run_pod())
    begun = time.monotonic()
    assert exec_in(node, id, "sleep 100 & exit 3").exit_code == 3
    assert time.monotonic() - begun < 20


# --- what is in the image's /etc -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["etc", "etc/hosts", "etc/mtab", "dev", "proc/mounts"])
def test_cve_2024_5154_and_2024_9341_links_of_the_image_lead_nowhere_else(
    node: Node, outside: Path, tmp_path: Path, what: str
) -> None:
    """The files that a kubelet binds into /etc, and what a runtime makes there, stay in the container's root."""
    top = Tar()
    name = f"registry.test/link-{what.replace('/', '-')}:1"
    if what == "etc":
        top.file(".wh.etc")
    top.symlink(what, f"/../../../../../..{outside}/{'new' if '/' in what else ''}".rstrip("/"))
    add_image(node, name, top.bytes())
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 pod\n")
    mounts = [{"container_path": "/etc/hosts", "host_path": str(hosts)}]
    try:
        id = node.create(node.run_pod(), image={"image": name}, mounts=mounts)
        node.call("StartContainer", container_id=id)
    except PyrunError as error:  # refused is as good
        assert "outside" not in error.text
    else:
        assert exec_in(node, id, "cat /etc/hosts").stdout == b"127.0.0.1 pod\n"
    assert hosts.read_text() == "127.0.0.1 pod\n"


def test_cve_2022_4318_and_2026_15809_no_line_of_passwd_comes_of_a_variable(node: Node) -> None:
    home = "/x\nroot2::0:0::/:/bin/sh"
    envs = [{"key": "HOME", "value": _base64(home)}]
    context = {**OWN_PIDS["security_context"], "run_as_user": {"value": 4321}}
    id = node.run(node.run_pod(), envs=envs, linux={"security_context": context})
    done = exec_in(node, id, 'cat /etc/passwd; id -u; printf %s "$HOME"')
    assert b"4321" in done.stdout and b":0:0::/:/bin/sh\n" not in done.stdout.rpartition(b"4321")[0]
    assert done.stdout.endswith(home.encode())


def _base64(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("what", ["endless", "fifo", "link"])
def test_cve_2025_4437_and_2024_9676_and_2026_47262_users_of_a_request_are_the_images(
    node: Node, outside: Path, what: str
) -> None:
    """The daemon neither hangs, nor grows, nor looks at the host's files."""
    (outside.parent / "passwd").write_text("somebody:x:0:0::/:/bin/sh\n")
    tar = Tar().file("etc/.wh.passwd")
    if what == "endless":
        tar.file("etc/passwd", b"x" * (3 << 20))
    elif what == "fifo":
        tar.fifo("etc/passwd")
    else:
        tar.symlink("etc/passwd", f"../../../../../../..{outside.parent}/passwd")
    name = add_image(node, f"registry.test/passwd-{what}:1", tar.bytes())
    context = {**OWN_PIDS["security_context"], "run_as_username": "somebody"}
    pod, before = node.run_pod(), daemon_kib(node)
    with pytest.raises(InvalidArgument, match="run_as_username|passwd"):
        node.create(pod, image={"image": name}, linux={"security_context": context})
    assert daemon_kib(node) - before < 20_000
    node.check()


@pytest.mark.parametrize("user", ["4294967295", "4294967296", "18446744073709551616"])
def test_cve_2024_40635_and_2026_46680_a_user_that_wraps_or_is_a_name(node: Node, user: str) -> None:
    """Neither 0 by arithmetic nor by a line of the image's; also where the request says that root it may not be."""
    tar = Tar().file("etc/passwd", f"{user}:x:0:0::/:/bin/sh\n".encode())
    name = add_image(node, f"registry.test/user-{user}:1", tar.bytes(), user=user)
    with pytest.raises(InvalidArgument, match=user):
        node.create(node.run_pod(), image={"image": name})
    node.check()


def test_cve_2022_23648_a_volume_of_the_image_is_in_its_root(node: Node, outside: Path) -> None:
    tar = Tar().symlink("link", str(outside.parent))
    volumes: dict[str, Any] = {f"/../../../../../..{outside}": {}, "/link/outside": {}, "/link/new": {}}
    name = add_image(node, "registry.test/volumes:1", tar.bytes(), volumes=volumes)
    id = node.run(node.run_pod(), image={"image": name}, linux={"security_context": {**OWN_PIDS["security_context"]}})
    done = exec_in(node, id, f"ls -a {outside} /link/outside; echo mine > {outside}/x; cat {outside}/secret")
    assert b"secret\n" not in done.stdout and b"the host's" not in done.stdout
    assert not (outside.parent / "new").exists()


def test_cve_2026_53488_and_2026_53492_and_2024_3154_words_mean_nothing(node: Node, outside: Path) -> None:
    """Of an image and of a request: no label, log, device or property of a unit comes of them."""
    words = {
        "io.kubernetes.container.logpath": str(outside / "log"),
        "io.containerd.log.uri": f"binary:///bin/touch?{outside}/ran",
        "cdi.k8s.io/gpu": "vendor.test/device=0",
        "org.systemd.property.ExecStart": "x",
    }
    name = add_image(node, "registry.test/words:1", annotations=words, labels=words)
    id = node.run(node.run_pod(annotations=words), image={"image": name}, annotations=words, labels={"mine": "1"})
    status = node.status(id)
    assert dict(status.labels) == {"mine": "1"} and status.log_path == str(node.logs / "p" / "c.log")
    info = json.loads(node.call("ContainerStatus", container_id=id, verbose=True).info["info"])
    spec = json.dumps(info["runtimeSpec"])
    assert "ExecStart" not in spec and "vendor.test" not in spec and "binary:" not in spec and "hooks" not in spec


def test_cve_2025_0750_a_log_path_that_leads_out(node: Node, outside: Path) -> None:
    """By its name or by a link; nor is what it would have led to removed with the container."""
    pod = node.run_pod()
    (node.logs / "p").mkdir(parents=True, exist_ok=True)
    (node.logs / "p" / "link").symlink_to(outside)
    for path in (f"../../{outside.name}/log", str(outside / "log"), "link/log"):
        with pytest.raises(PyrunError, match="log"):
            node.create(pod, log_path=path)
    node.check()


# --- sysctls ---------------------------------------------------------------------------------------------------------


def test_cve_2022_0532_and_2022_0811_sysctls_of_a_pod(node: Node) -> None:
    """None is the node's: by its name, by a namespace that is the node's, or by what its value has in it."""
    paths = [Path(f"/proc/sys/{name}") for name in ("kernel/core_pattern", "net/ipv4/ip_forward", "kernel/shmmax")]
    before = [path.read_text() for path in paths]
    evil = "kernel.core_pattern=|/evil"
    nodes: dict[str, Any] = {"security_context": {"namespace_options": {"network": "NODE", "ipc": "NODE"}}}
    for linux in (
        {"sysctls": {"kernel.core_pattern": "|/evil"}},
        {"sysctls": {"net/../kernel/core_pattern": "|/evil"}},
        {"sysctls": {"kernel.shm_rmid_forced": f"1+{evil}"}},
        {"sysctls": {"kernel.shm_rmid_forced": f"1\n{evil}"}},
        {"sysctls": {"net.ipv4.ip_forward": "0"}, **nodes},
        {"sysctls": {"kernel.shmmax": "4096"}, **nodes},
    ):
        with pytest.raises(PyrunError, match="sysctl|shm_rmid_forced"):
            node.run_pod(linux=linux)
    assert [path.read_text() for path in paths] == before
    assert not node.call("ListPodSandbox").items
    node.check()


# --- where things are ------------------------------------------------------------------------------------------------


def test_cve_2020_15257_no_socket_is_abstract(node: Node) -> None:
    """An abstract socket may be reached from any container of the node's network, whatever it may see of files."""
    id = node.run(node.run_pod())
    assert exec_in(node, id, "true").exit_code == 0
    lines = Path("/proc/net/unix").read_text().splitlines()
    paths = [line.split(maxsplit=7)[7] for line in lines if "/" in line or "@" in line]
    assert any(path.startswith(str(node.state)) for path in paths)
    assert not [path for path in paths if path.startswith("@")]
    for directory in node.state.glob("pods/*"):
        assert directory.stat().st_mode & 0o077 == 0


def test_cve_2025_47291_a_pod_with_users_of_its_own_is_in_its_cgroup(node: Node) -> None:
    maps = [{"container_id": 0, "host_id": 200000, "length": 65536}]
    options = {"pid": "CONTAINER", "userns_options": {"mode": "POD", "uids": maps, "gids": maps}}
    linux = {"security_context": {"namespace_options": options}}
    pod = node.run_pod(linux=linux)
    id = node.run(pod, linux=linux)
    pid = next(p for p in os.listdir("/proc") if p.isdigit() and _cgroup_of(p).endswith(f"/pyrun/{pod}/{id}"))
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", "200000", "65536"]


def _cgroup_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text().rpartition("0::")[2].strip()
    except OSError:
        return ""


def test_cve_2024_23652_a_removal_follows_no_link(node: Node, outside: Path, tmp_path: Path) -> None:
    """BuildKit took a mount's target away after the run, by its path: which the program had made a link of."""
    source = tmp_path / "source"
    source.mkdir()
    mounts = [{"container_path": "/made/below", "host_path": str(source)}]
    swap = f"umount -l /made/below; rm -rf /made; ln -s {outside.parent} /made; ln -s {outside} /below; echo done"
    context = {**OWN_PIDS["security_context"], "privileged": True}
    pod = node.run_pod(linux={"security_context": {**context}})
    id = node.run(pod, script=f"{swap}; exit 0", mounts=mounts, linux={"security_context": context})
    node.wait_state(id, v1.CONTAINER_EXITED)
    assert node.log()[-1] == "done"
    node.call("RemoveContainer", container_id=id)
    assert source.is_dir()


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_cve_2024_8676_and_2026_50195_and_2026_53489_no_image_is_a_checkpoint(node: Node) -> None:
    """What an image says of itself makes no restore of it, and there is no way to make one."""
    marks = {
        "io.kubernetes.cri-o.annotations.checkpoint.name": "c",
        "org.criu.checkpoint.container.name": "c",
        "org.criu.checkpoint.engine.name": "containerd",
    }
    dump = Tar().file("config.dump", b"{}").file("spec.dump", b'{"process": {"args": ["evil"]}, "mounts": []}')
    name = add_image(node, "registry.test/checkpoint:1", dump.dir("checkpoint").bytes(), annotations=marks)
    id = node.run(node.run_pod(), image={"image": name}, script="echo mine; sleep 100; exit")
    assert exec_in(node, id, "cat /proc/1/cmdline").stdout.startswith(b"sh\0-c\0echo mine; sleep")
    for rpc, words in (("CheckpointContainer", {"container_id": id}), ("CheckpointPod", {}), ("RestorePod", {})):
        with pytest.raises(Unimplemented):
            node.call(rpc, **words)
