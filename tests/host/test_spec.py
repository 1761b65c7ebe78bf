"""Containers of the CRI on the real kernel: a sandbox, an image of layers, the request's config.json, and what the
program in it sees. No daemon takes part."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import InvalidArgument, PyrunError
from pyrun.facts import Facts, collect_facts
from pyrun.image.merged import read_file
from pyrun.pod.sandbox import Sandbox, end_sandbox, make_sandbox, prepare_state
from pyrun.pod.spec import (
    collect_node,
    look_up_user,
    make_sources,
    make_writable,
    open_log,
    plan_container,
    plan_root,
)
from pyrun.pod.spec.layers import image_mount
from pyrun.runtime.runtime import Runtime
from tests.support.container.parked import parked
from tests.support.cri.requests import Image, container, context
from tests.support.pods.nets import pod_config, pod_id

MAPS = [v1.IDMapping(host_id=100000, container_id=0, length=65536)]
NOW, BOOKWORM = collect_facts().kernel, (6, 1)
KERNELS = pytest.mark.parametrize("kernel", [NOW, BOOKWORM], ids=["this kernel", "6.1"])
USERNS = pytest.mark.parametrize("userns", [False, True], ids=["plain", "user namespace"])
OWN = {"namespace_options": {"pid": "CONTAINER"}}


def host(kernel: tuple[int, int] = NOW) -> Facts:
    facts = collect_facts()
    facts.kernel = kernel
    return facts


class Place:
    """A pod's sandbox, made when the first container is, and where its containers are."""

    def __init__(self, path: Path, rootfs: Path) -> None:
        self.path = path
        self.layers = [path / "layers/top", rootfs]
        (self.layers[0] / "etc").mkdir(parents=True)
        (self.layers[0] / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n")
        (self.layers[0] / "etc/group").write_text("logs:x:2000:web\n")
        self.pods = path / "pods"
        prepare_state(str(self.pods))
        self.sandbox: Sandbox | None = None
        self.made = 0
        self.pid: str | None = None
        self.warnings: list[str] = []

    @property
    def lower(self) -> tuple[str, ...]:
        return tuple(map(str, self.layers))

    def run(
        self, script: str, *, image: Image | None = None, userns: bool = False, facts: Facts | None = None,
        options: dict[str, Any] | None = None, images: dict[int, tuple[tuple[str, ...], str]] | None = None,
        **fields: Any,
    ) -> list[str]:  # fmt: skip
        """Runs a script in a container of these fields; its lines."""
        facts, image = facts or host(), image or Image()
        words = dict(options or {})
        if userns:
            words["userns_options"] = v1.UserNamespace(mode=v1.POD, uids=MAPS, gids=MAPS)
        security = v1.LinuxSandboxSecurityContext(namespace_options=v1.NamespaceOption(**words))
        pod = pod_config(linux=v1.LinuxPodSandboxConfig(security_context=security))
        if self.sandbox is None:
            name = pod_id()
            self.sandbox = make_sandbox(str(self.pods / name), name, pod, facts)
            self.sandbox.pid = self.pid
        fields.setdefault("linux", {}).setdefault("security_context", {}).setdefault("namespace_options", {"pid": 1})
        config = container(command=["/bin/sh", "-c", script], **fields)
        self.made += 1
        directory = self.path / f"c{self.made}"
        directory.mkdir(mode=0o700)
        node = collect_node(facts, config)
        user = look_up_user(self.lower, config, image)
        make_sources(config)
        make_writable(str(directory), self.lower, self.sandbox)
        mounted = {i: image_mount(lower, sub, f"{directory}/empty") for i, (lower, sub) in (images or {}).items()}
        words = {"id": f"c{self.made}", "images": mounted}
        made = plan_container(config, pod, image, user, self.sandbox, node, **words)
        self.warnings = node.warnings
        overlay = plan_root(config, image, self.lower, str(directory), self.sandbox)
        return self._run(json.dumps(made).encode(), directory, facts, overlay)

    def _run(self, config: bytes, directory: Path, facts: Facts, overlay: Any) -> list[str]:
        runtime = Runtime(str(self.path / "state"), facts, warn=lambda text: pytest.fail(text))
        out = os.open(self.path / "out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            words = {"bundle": str(directory), "overlay": overlay, "stdio": (0, out, out)}
            made = runtime.run(config, id=directory.name, **words)
            try:
                code = made.wait()
            finally:
                made.delete(force=True)
        finally:
            os.close(out)
        text = (self.path / "out").read_text()
        assert code == 0, text
        return text.splitlines()

    def end(self) -> None:
        if self.sandbox is not None:
            end_sandbox(self.sandbox.directory)
        assert "overlay" not in Path("/proc/self/mountinfo").read_text()
        subprocess.run(["umount", self.pods], check=True)
        cgroup = Path("/sys/fs/cgroup/pyrun")
        if cgroup.exists():
            cgroup.rmdir()


@pytest.fixture
def place(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Place]:
    made = Place(tmp_path, busybox_rootfs)
    yield made
    made.end()


@KERNELS
@USERNS
def test_what_a_container_of_a_pod_sees(place: Place, kernel: tuple[int, int], userns: bool) -> None:
    script = """
        hostname; cat /etc/hostname; head -1 /etc/hosts; id; pwd; echo $HOME; echo $$
        ls /proc/1/exe >/dev/null && echo proc; ls /sys/class/net; grep ^0: /proc/self/cgroup
        mount | grep -c ' /dev/shm '; touch /dev/shm/x /new && echo new; grep NoNewPrivs /proc/self/status"""
    lines = place.run(script, image=Image(user="web", working_dir="/tmp"), userns=userns, facts=host(kernel),
                      **context(no_new_privs=True, run_as_user={"value": 0}))  # fmt: skip
    assert lines[:3] == ["web", "web", "127.0.0.1\tlocalhost"]
    assert lines[3].startswith("uid=0(root) gid=0") and lines[4:9] == ["/tmp", "/root", "1", "proc", "lo"]
    assert lines[9:] == ["0::/", "1", "new", "NoNewPrivs:\t1"]
    owner = os.stat(place.path / "c1/upper/new").st_uid
    assert owner == (100000 if userns else 0)


@USERNS
def test_the_images_user_and_groups(place: Place, userns: bool) -> None:
    lines = place.run("id; echo $HOME; grep CapEff /proc/self/status", image=Image(user="web"), userns=userns)
    assert lines == ["uid=1000(web) gid=1001 groups=1001,2000(logs)", "/home/web", "CapEff:\t0000000000000000"]
    strict = context(supplemental_groups_policy="Strict", supplemental_groups=[7])
    assert place.run("id", image=Image(user="web"), userns=userns, **strict) == ["uid=1000(web) gid=1001 groups=7,1001"]


@KERNELS
@USERNS
def test_a_readonly_root(place: Place, kernel: tuple[int, int], userns: bool) -> None:
    script = "touch /no || touch /data/yes && ls /data; (echo x >>/etc/hosts) 2>/dev/null || echo ro"
    image = Image(volumes=("/data",))
    lines = place.run(script, image=image, userns=userns, facts=host(kernel), **context(readonly_rootfs=True))
    assert lines == ["touch: /no: Read-only file system", "yes", "ro"]


@USERNS
def test_runtime_default_seccomp(place: Place, userns: bool) -> None:
    given = context(seccomp={"profile_type": "RuntimeDefault"})
    script = "grep Seccomp: /proc/self/status; unshare -U true; mount -t tmpfs none /tmp; umount /proc; true"
    lines = place.run(script, userns=userns, **given)
    assert lines[0] == "Seccomp:\t2" and len(lines) == 4 and all("ermi" in line for line in lines[1:]), lines


def test_a_localhost_profile(place: Place) -> None:
    profile = place.path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    given = context(seccomp={"profile_type": "Localhost", "localhost_ref": str(profile)})
    assert place.run("mkdir /x; true", **given) == ["mkdir: can't create directory '/x': Operation not supported"]
    for path in (place.path / "gone.json", Path("/dev/zero")):
        given = context(seccomp={"profile_type": "Localhost", "localhost_ref": str(path)})
        with pytest.raises(InvalidArgument, match="localhost_ref"):
            place.run("true", **given)


@USERNS
def test_mounts(place: Place, userns: bool) -> None:
    source = place.path / "volume"
    (source / "sub").mkdir(parents=True)
    os.chown(source, 100000 if userns else 0, 0)
    subprocess.run(["mount", "-t", "tmpfs", "below", source / "sub"], check=True)
    try:
        mounts = [
            {"container_path": "/v", "host_path": str(source)},
            {"container_path": "/ro", "host_path": str(source), "readonly": True},
            {"container_path": "/rro", "host_path": str(source), "readonly": True, "recursive_read_only": True},
            {"container_path": "/fresh", "host_path": str(place.path / "fresh/deep")},
        ]
        script = "touch /v/x && echo v; touch /ro/x; touch /rro/sub/x; ls -d /fresh; mount | grep -c ' /v/sub '"
        lines = place.run(script, userns=userns, mounts=mounts)
        assert lines == [
            "v",
            "touch: /ro/x: Read-only file system",
            "touch: /rro/sub/x: Read-only file system",
            "/fresh",
            "1",
        ]
        assert (place.path / "fresh/deep").is_dir(), "made, as peers do"
    finally:
        subprocess.run(["umount", source / "sub"], check=True)


def test_a_bidirectional_mount_reaches_the_host(place: Place) -> None:
    source = place.path / "shared"
    source.mkdir()
    subprocess.run(["mount", "--bind", source, source], check=True)
    try:
        given = {"container_path": "/s", "host_path": str(source), "propagation": "PROPAGATION_BIDIRECTIONAL"}
        subprocess.run(["mount", "--make-private", source], check=True)
        with pytest.raises(InvalidArgument, match="no shared mount"):
            place.run("true", mounts=[given])
        subprocess.run(["mount", "--make-shared", source], check=True)
        script = "mkdir -p /s/in && mount -t tmpfs made /s/in && echo mounted"
        assert place.run(script, mounts=[given], **context(privileged=True)) == ["mounted"]
        assert f" {source}/in " in Path("/proc/self/mountinfo").read_text()
    finally:
        subprocess.run(["umount", "-R", source], check=True)


@pytest.fixture
def shared_pid() -> Iterator[str]:
    """A PID namespace as a pod has it, with a process 1 that parks."""
    with parked("--pid") as pid:
        yield f"/proc/{pid}/ns/pid"


@KERNELS
@pytest.mark.parametrize("mode", ["plain", "user namespace", "shared PID namespace"])
def test_mounts_of_images(place: Place, kernel: tuple[int, int], mode: str, shared_pid: str) -> None:
    """In a shared PID namespace the init is born without the host's files, so it can't make them either."""
    userns = mode == "user namespace"
    shared = {**OWN, "namespace_options": {"pid": "POD"}} if mode.startswith("shared") else OWN
    place.pid = shared_pid
    other = [place.path / "other/top", place.path / "other/low"]
    for number, layer in enumerate(other):
        (layer / "models/a").mkdir(parents=True)
        (layer / "models/a" / f"of{number}").write_text(str(number))
        os.chown(layer / "models/a" / f"of{number}", 1000, 1000)
    (other[1] / "file").write_text("from the image\n")
    (other[0] / "link").symlink_to("/models/../models/a")
    lower = tuple(map(str, other))
    image = {"image": "other"}
    mounts = [{"container_path": f"/m{i}", "image": image, "readonly": True} for i in range(4)]
    script = """ls /m0/models/a; ls /m1; ls /m2; cat /m3; touch /m0/x; touch /m1/x; stat -c %u /m1/of0
        mount | grep ' /m0 ' | grep -o 'ro,nosuid,nodev'"""
    images = {0: (lower, ""), 1: (lower, "models/a"), 2: (lower, "link"), 3: (lower, "file")}
    lines = place.run(script, userns=userns, facts=host(kernel), mounts=mounts, images=images, **context(**shared))
    parts = ["of0", "of1"]
    refused = [f"touch: /m{i}/x: Read-only file system" for i in (0, 1)]
    assert lines == [*parts, *parts, *parts, "from the image", *refused, "1000", "ro,nosuid,nodev"]


def test_a_privileged_container(place: Place) -> None:
    script = (
        "ls /dev/null /dev/loop-control 2>&1 | wc -l; grep CapEff /proc/self/status; ls /sys/fs/cgroup/cgroup.procs"
    )
    lines = place.run(script, **context(privileged=True))
    assert lines[0] == "2" and int(lines[1].split()[1], 16) >> 21 & 1 and lines[2].endswith("cgroup.procs")


def test_a_device(place: Place) -> None:
    device = {"host_path": "/dev/full", "container_path": "/dev/mine", "permissions": "rw"}
    lines = place.run("echo x >/dev/mine || echo full; stat -c %t:%T /dev/mine", devices=[device])
    assert lines[-2:] == ["full", "1:7"]
    with pytest.raises(InvalidArgument, match="^devices.0.host_path: /dev/none"):
        place.run("true", devices=[{"host_path": "/dev/none", "container_path": "/dev/none", "permissions": "r"}])
    with pytest.raises(InvalidArgument, match="no device"):
        place.run("true", devices=[{"host_path": "/etc/passwd", "container_path": "/dev/x", "permissions": "r"}])


def test_limits_that_this_node_has_not_got_are_told(place: Place) -> None:
    given = {"resources": {"cpu_shares": 512, "memory_limit_in_bytes": 1 << 26}, "security_context": OWN}
    assert place.run("echo ran", linux=given) == ["ran"]
    missing = {"cpu", "memory"} - collect_facts().controllers
    assert len([text for text in place.warnings if "controller" in text]) == len(missing)


def test_the_nodes_network_and_ipc(place: Place) -> None:
    lines = place.run("hostname; ls /sys/class/net | sort | head -20", options={"network": v1.NODE, "ipc": v1.NODE})
    assert lines[0] == os.uname().nodename and lines[1:] == sorted(os.listdir("/sys/class/net"))[:20]


def test_a_layer_above_hides_what_is_below(place: Place) -> None:
    """Whiteouts and opaque directories, as overlayfs has them, also where the users are looked up."""
    low, high = place.path / "low", place.path / "high"
    (low / "etc").mkdir(parents=True)
    (low / "etc/passwd").write_text("low:x:5:5::/:\n")
    (low / "etc/gone").write_text("x")
    (high / "etc").mkdir(parents=True)
    os.mknod(high / "etc/gone", 0o020000, 0)
    place.layers[:0] = [high, low]
    os.rename(place.layers[2] / "etc/group", place.layers[2] / "etc/grp")
    assert place.run("id -un; cat /etc/gone || true", image=Image(user="low"))[0] == "low"
    assert read_file(place.lower, "/etc/gone", 10) is None and read_file(place.lower, "/etc/passwd", 99) is not None
    os.setxattr(high / "etc", "trusted.overlay.opaque", b"y")
    assert read_file(place.lower, "/etc/passwd", 99) is None
    with pytest.raises(InvalidArgument, match="not in the image"):
        place.run("true", image=Image(user="low"))
    os.mknod(high / "bin", 0o020000, 0)
    with pytest.raises(PyrunError, match="/bin/sh"):
        place.run("true")


# --- logs ------------------------------------------------------------------------------------------------------------


def test_cve_2025_0750_a_log_is_opened_beneath_its_directory_alone(tmp_path: Path) -> None:
    """CVE-2025-0750: whatever lies there already."""
    logs = tmp_path / "logs"
    fd = open_log(str(logs), "web/0.log")
    os.write(fd, b"line\n")
    os.close(fd)
    assert (logs / "web/0.log").read_bytes() == b"line\n"
    (logs / "link").symlink_to(tmp_path)
    (logs / "file.log").symlink_to(tmp_path / "secret")
    os.mkfifo(logs / "fifo.log")
    for path in ("link/0.log", "file.log", "fifo.log", "web/0.log/x", "../x", "/x"):
        with pytest.raises(PyrunError):
            open_log(str(logs), path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs"]
