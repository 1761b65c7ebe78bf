"""A pod's volumes with real mounts, and what a container may do to them while we work."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyrun.errors import InvalidArgument, PyrunError
from pyrun.executor import StepFailed, run_plan
from pyrun.kube.objects.config import ConfigMap, Secret
from pyrun.kube.objects.containers import Container
from pyrun.kube.objects.pods import Pod
from pyrun.node.volumes import Objects, VolumeError, Volumes
from pyrun.node.volumes.ownership import set_group
from pyrun.plan.model.plan import Plan
from pyrun.plan.model.steps import PARENT
from pyrun.plan.volumes import MS_PRIVATE, plan_bind, plan_gone, plan_holder, plan_sub_path, plan_tmpfs
from tests.support.executor.faults import faults_build

pytestmark = pytest.mark.root
UID = "0d8e5c1a-static"
PATIENCE_S = 60.0


def objects(value: str = "1") -> Objects:
    secret = Secret(data={"key": base64.b64encode(b"s3cret").decode()})
    return Objects({("ns", "config"): ConfigMap(data={"file": value})}, {("ns", "secret"): secret})


class World:
    """Volumes of one pod, whose container's mounts are looked at by the paths that it would be given."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.volumes = Volumes(str(top / "disk"), str(top / "memory"))
        self.volumes.prepare()
        self.pod = Pod()

    def make(self, *volumes: dict[str, Any], mounts: list[dict[str, Any]] | None = None, **spec: Any) -> None:
        container = {"name": "c", "volumeMounts": mounts or []}
        value = {
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": [container], "volumes": list(volumes), **spec},
        }
        self.pod = msgspec.convert(value, Pod)
        self.volumes.make(self.pod, UID, objects())

    def mounts(self, **env: str) -> list[Any]:
        return self.volumes.mounts(self.pod, UID, self.container, env)

    @property
    def container(self) -> Container:
        assert self.pod.spec is not None
        return self.pod.spec.containers[0]

    def path(self, name: str) -> Path:
        return self.top / "memory" / UID / name

    def mounted(self) -> list[str]:
        """Mount points below ours."""
        points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return sorted(p for p in points if p.startswith(f"{self.top}/"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    w = World(tmp_path)
    yield w
    for uid in w.volumes.known():
        w.volumes.remove(uid)
    assert w.mounted() == [f"{tmp_path}/memory"], "a mount was left"
    assert (os.listdir(tmp_path / "disk"), os.listdir(tmp_path / "memory")) == ([], [])
    subprocess.run(["umount", tmp_path / "memory"], check=True)


EMPTY = {"name": "empty", "emptyDir": {}}
CONFIG = {"name": "config", "configMap": {"name": "config"}}
SECRET = {"name": "secret", "secret": {"secretName": "secret", "defaultMode": 0o400}}


def test_life(world: World) -> None:
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("empty", "config", "secret")]
    world.make(EMPTY, CONFIG, SECRET, mounts=mounts)
    assert world.volumes.known() == [UID]
    found = {m.container_path: m for m in world.mounts()}
    assert [m.readonly for m in found.values()] == [False, True, True]
    assert stat.S_IMODE(os.stat(found["/empty"].host_path).st_mode) == 0o777
    assert Path(found["/secret"].host_path, "key").read_bytes() == b"s3cret"
    Path(found["/empty"].host_path, "kept").touch()
    before = world.mounted()
    Volumes(world.volumes.disk, world.volumes.memory).make(world.pod, UID, objects())  # another agent's start
    assert world.mounted() == before
    assert world.path("empty/kept").exists()
    world.volumes.update(world.pod, UID, objects("2"))
    assert Path(found["/config"].host_path, "file").read_text() == "2"
    world.volumes.remove(UID)
    world.volumes.remove(UID)
    assert world.volumes.known() == []


def test_an_empty_dir_outlives_a_reboot(world: World) -> None:
    """After which no mount is there, and the pod of a file has the same uid."""
    world.make(EMPTY)
    world.path("empty/kept").touch()
    subprocess.run(["umount", "-R", world.path("")], check=True)
    assert not world.path("empty/kept").exists()
    world.make(EMPTY)
    assert world.path("empty/kept").exists()


def test_update_goes_on_where_one_volume_fails(world: World) -> None:
    world.make(SECRET, CONFIG)
    gone = Objects(objects("2").config_maps, {})
    with pytest.raises(VolumeError, match='secret "secret" not found'):
        world.volumes.update(world.pod, UID, gone)
    assert world.path("config/file").read_text() == "2"
    assert world.path("secret/key").read_bytes() == b"s3cret"


def test_what_is_missing_is_made_later(world: World) -> None:
    with pytest.raises(VolumeError, match='volume "other".*not found'):
        world.make(EMPTY, {"name": "other", "configMap": {"name": "other"}})
    assert world.volumes.known() == []
    world.make(EMPTY, CONFIG)


def test_memory_has_its_size(world: World) -> None:
    world.make({"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    with pytest.raises(OSError, match="No space left"):
        world.path("m/file").write_bytes(b"x" * (2 << 20))
    assert os.stat(world.path("m/file")).st_size <= 1 << 20


def test_a_limit_on_disk(world: World) -> None:
    world.make({"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, EMPTY)
    world.path("empty/file").write_bytes(b"x" * (4 << 20))
    (world.path("v") / "link").symlink_to(world.path("empty"))
    assert world.volumes.over_limit(world.pod, UID) == ("", 10.0)
    world.path("v/file").write_bytes(b"x" * (2 << 20))
    why, again = world.volumes.over_limit(world.pod, UID)
    assert why == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi".'
    assert again >= 10
    world.make(EMPTY)
    assert world.volumes.over_limit(world.pod, UID) == ("", 0.0)


def test_fs_group(world: World) -> None:
    memory = {"name": "memory", "emptyDir": {"medium": "Memory"}}
    world.make(EMPTY, memory, CONFIG, SECRET, securityContext={"fsGroup": 4242})
    for name in ("empty", "memory"):
        found = os.stat(world.path(name))
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (4242, 0o2777)
    for name, mode in (("config/file", 0o644), ("secret/key", 0o440)):
        found = os.stat(world.path(name))
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (4242, mode)
    swapped = os.readlink(world.path("config/..data"))
    world.volumes.update(world.pod, UID, objects())
    assert os.readlink(world.path("config/..data")) == swapped


def test_fs_group_follows_no_link_and_enters_no_mount(tmp_path: Path) -> None:
    kept, volume = tmp_path / "kept", tmp_path / "volume"
    (kept / "d").mkdir(parents=True)
    (kept / "file").touch()
    (volume / "a/b").mkdir(parents=True)
    (volume / "a/file").touch(0o600)
    (volume / "a/b/out").symlink_to(kept)
    (volume / "a/b/file").symlink_to(kept / "file")
    os.mkfifo(volume / "a/fifo", 0o600)
    (volume / "mounted").mkdir()
    subprocess.run(["mount", "--bind", kept, volume / "mounted"], check=True)
    fd = os.open(volume, os.O_RDONLY)
    try:
        set_group(fd, 4242)
    finally:
        os.close(fd)
        subprocess.run(["umount", volume / "mounted"], check=True)
    assert {os.lstat(p).st_gid for p in (kept, kept / "d", kept / "file")} == {0}
    assert os.lstat(volume / "a/b/out").st_gid == 4242
    modes = {p: stat.S_IMODE(os.lstat(volume / p).st_mode) for p in ("a", "a/file", "a/fifo")}
    assert modes == {"a": 0o2775, "a/file": 0o660, "a/fifo": 0o660}


# --- hostPath ---------------------------------------------------------------------------------------------------------


def host(path: Path, type: str = "", **words: Any) -> dict[str, Any]:
    return {"name": "host", "hostPath": {"path": str(path), "type": type}, **words}


def test_host_path_types(world: World) -> None:
    top = world.top / "host"
    top.mkdir()
    (top / "file").touch()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(top / "sock"))
    sock.close()
    there = {"Directory": top, "File": top / "file", "Socket": top / "sock", "CharDevice": Path("/dev/null")}
    for type, path in there.items():
        world.make(host(path, type))
        for other in there.keys() - {type}:
            with pytest.raises(VolumeError, match=f"hostPath type check failed: {path} is not a .*, it is a"):
                world.make(host(path, other))
    with pytest.raises(VolumeError, match="is not a directory: no such file"):
        world.make(host(top / "none", "Directory"))
    world.make(host(top / "none"))
    assert not (top / "none").exists()
    world.make(host(top / "made/deep", "DirectoryOrCreate"))
    world.make(host(top / "made/file", "FileOrCreate"))
    assert stat.S_IMODE((top / "made/deep").stat().st_mode) == 0o755
    assert stat.S_IMODE((top / "made/file").stat().st_mode) == 0o644
    with pytest.raises(VolumeError, match="is not a directory"):
        world.make(host(top / "file/below", "DirectoryOrCreate"))
    world.volumes.remove(UID)
    assert (top / "made/file").exists() and (top / "file").exists()


def test_a_host_path_outlives_the_pod(world: World) -> None:
    """Also where subPaths of it were mounted, and mounts below those: none of the host's ends with ours."""
    top = world.top / "host"
    (top / "sub/inner").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "--make-shared", "tmpfs", top], check=True)
    try:
        (top / "sub/inner").mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top / "sub/inner"], check=True)
        (top / "sub/inner/file").touch()
        for propagation in ("None", "HostToContainer", "Bidirectional"):
            mount = {"name": "host", "mountPath": "/x", "subPath": "sub", "mountPropagation": propagation}
            world.make(host(top), mounts=[mount])
            (found,) = world.mounts()
            assert Path(found.host_path, "inner/file").exists()
            world.volumes.release(UID, "c")
            assert (top / "sub/inner/file").exists()
            world.mounts()
            world.volumes.remove(UID)
            assert (top / "sub/inner/file").exists()
    finally:
        subprocess.run(["umount", "-R", top], check=True)


# --- subPath ----------------------------------------------------------------------------------------------------------


def sub(path: str, name: str = "empty", **words: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": "/x", "subPath": path} | words


def test_sub_paths(world: World) -> None:
    mounts = [sub("made/deep"), sub("file", "config"), {**sub("", "empty"), "subPathExpr": "$(WHO)/$$x"}]
    world.make(EMPTY, CONFIG, mounts=mounts)
    deep, file, named = world.mounts(WHO="me")
    Path(deep.host_path, "here").touch()
    assert world.path("empty/made/deep/here").exists()
    assert stat.S_IMODE(os.stat(deep.host_path).st_mode) == 0o777
    assert Path(file.host_path).read_text() == "1"
    assert world.path("empty/me/$x").is_dir()
    assert (file.readonly, named.readonly) == (True, False)
    world.volumes.update(world.pod, UID, objects("2"))
    assert Path(file.host_path).read_text() == "1", "a subPath is not brought up to date, as everywhere"
    (again,) = world.mounts(WHO="me")[1:2]  # the container's next attempt
    assert Path(again.host_path).read_text() == "2"
    world.volumes.release(UID, "c")
    assert not [p for p in world.mounted() if "/sub." in p]


@pytest.mark.parametrize(
    "mount, told",
    [
        (sub("../up"), "must be relative and without .."),
        (sub("/etc"), "must be relative and without .."),
        ({**sub(""), "subPathExpr": "$(NONE)"}, "there is no variable 'NONE'"),
        ({**sub(""), "subPathExpr": "$(UP)"}, "must be relative and without .."),
        (sub("none", "config"), "no such file"),
        (sub("file/below", "config"), "not a directory"),
    ],
)
def test_sub_paths_that_can_not_be_had(world: World, mount: dict[str, Any], told: str) -> None:
    world.make(EMPTY, CONFIG, mounts=[mount])
    before = world.mounted()
    with pytest.raises(VolumeError, match="volume") as caught:
        world.mounts(UP="a/../../..")
    assert told in str(caught.value)
    assert world.mounted() == before


@pytest.mark.parametrize("link", ["/etc", "../../../../../../../../etc", "/proc/self/root/etc", "inner"])
@pytest.mark.parametrize("path", ["link", "link/passwd", "link/new/deep"])
def test_cve_2017_1002101_links_that_lead_out_of_a_volume(world: World, link: str, path: str) -> None:
    world.make(EMPTY, mounts=[sub(path)])
    empty = world.path("empty")
    (empty / "link").symlink_to(link)
    if link == "inner":  # and one that does not
        (empty / "inner").mkdir()
        (found,) = world.mounts()
        Path(found.host_path, "here").touch()
        assert (empty / "inner" / path.removeprefix("link").lstrip("/") / "here").exists()
        return
    with pytest.raises(VolumeError, match="leads out of the volume"):
        world.mounts()
    assert not os.path.lexists("/etc/new")


def of_file(path: str) -> Container:
    ref = {"volumeName": "empty", "path": path, "key": "A"}
    return msgspec.convert({"name": "c", "env": [{"name": "A", "valueFrom": {"fileKeyRef": ref}}]}, Container)


def test_files_of_variables_lie_in_the_volume(world: World) -> None:
    """What the pod makes of them neither leads out, nor holds up the agent, nor fills its memory."""
    world.make(EMPTY)
    empty = world.path("empty")
    (empty / "dir").mkdir()
    (empty / "dir/env").write_text("A='1'")
    (empty / "inside").symlink_to("dir/env")
    for path in ("dir/env", "inside"):
        assert world.volumes.texts(world.pod, UID, of_file(path)) == {("empty", path): "A='1'"}
    assert world.volumes.texts(world.pod, UID, of_file("none")) == {}
    (empty / "out").symlink_to("/etc/passwd")
    (empty / "up").symlink_to("../../../../../../../../etc/passwd")
    os.mkfifo(empty / "fifo")
    with open(empty / "huge", "wb") as file:
        file.truncate(1 << 40)
    faults = {"out": "leads out", "up": "leads out", "fifo": "no file", "dir": "directory", "huge": "more than"}
    for path, told in faults.items():
        with pytest.raises(VolumeError, match=told):
            world.volumes.texts(world.pod, UID, of_file(path))


# argv: two names in one directory, which it exchanges for as long as it lives.
EXCHANGE = """
import ctypes, os, sys
libc, (a, b) = ctypes.CDLL(None), map(os.fsencode, sys.argv[1:])
print(flush=True)
while True:
    libc.renameat2(-100, a, -100, b, 2)
"""


@contextlib.contextmanager
def exchanging(a: Path, b: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", EXCHANGE, a, b], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("path", ["swapped", "swapped/below"])
def test_cve_2021_25741_a_directory_that_becomes_a_link_while_we_look(world: World, path: str) -> None:
    """Whatever the moment, what is mounted lies in the volume."""
    outside = world.top / "outside"
    (outside / "below").mkdir(parents=True)
    world.make(EMPTY, mounts=[sub(path)])
    empty = world.path("empty")
    (empty / "swapped/below").mkdir(parents=True)
    (empty / "link").symlink_to(outside)
    inside = {os.stat(empty / "swapped").st_ino, os.stat(empty / "swapped/below").st_ino}
    good = bad = 0
    last = time.monotonic() + PATIENCE_S
    with exchanging(empty / "swapped", empty / "link"):
        while good + bad < 400 or not (good and bad):
            assert time.monotonic() < last, f"{good} mounts and {bad} refusals: nothing was exchanged in time"
            try:
                (found,) = world.mounts()
            except PyrunError:
                bad += 1
                continue
            good += 1
            assert os.stat(found.host_path).st_ino in inside
    assert os.listdir(outside / "below") == []


def test_cve_2021_25741_while_directories_are_made(world: World) -> None:
    outside = world.top / "outside"
    outside.mkdir()
    world.make(EMPTY, mounts=[sub("swapped/new")])
    empty = world.path("empty")
    (empty / "swapped").mkdir()
    (empty / "link").symlink_to(outside)
    with exchanging(empty / "swapped", empty / "link"):
        for _ in range(400):
            with contextlib.suppress(PyrunError):
                world.mounts()
            for place in ("swapped/new", "link/new"):
                with contextlib.suppress(OSError):
                    if not (empty / place).parent.is_symlink():
                        os.rmdir(empty / place)
    assert os.listdir(outside) == []


# --- the end ----------------------------------------------------------------------------------------------------------


def test_removal_leaves_what_links_and_mounts_lead_to(world: World) -> None:
    kept = world.top / "kept"
    kept.mkdir()
    (kept / "file").touch()
    world.make(EMPTY, CONFIG)
    disk = Path(world.volumes.disk, UID, "empty")
    (disk / "deep").mkdir()
    for place in (world.path("empty"), disk / "deep", world.path("config")):
        (place / "out").symlink_to(kept)
    (world.path("empty") / "in").mkdir()
    subprocess.run(["mount", "--bind", kept, world.path("empty/in")], check=True)  # as a Bidirectional container does
    (disk / "on-disk").mkdir()
    subprocess.run(["mount", "--bind", kept, disk / "on-disk"], check=True)
    with pytest.raises(PyrunError, match="can't be removed at 'on-disk'"):
        world.volumes.remove(UID)
    assert (kept / "file").exists()
    subprocess.run(["umount", disk / "on-disk"], check=True)
    world.volumes.remove(UID)
    assert (kept / "file").exists()
    assert world.volumes.known() == []


def test_any_step_may_fail(world: World) -> None:
    """What was made for it goes again, and the next try has all."""
    faults_build()
    holder, source = str(world.path("")).rstrip("/"), world.top / "source"
    source.mkdir()
    found = os.open(source, os.O_PATH)
    plans: dict[str, tuple[Callable[[], Plan], tuple[int, ...]]] = {
        "": (lambda: plan_holder(holder), ()),
        "tmpfs": (lambda: plan_tmpfs(holder, "tmpfs", {"mode": "0777"}), ()),
        "bind": (lambda: plan_bind(holder, "bind", str(source)), ()),
        "sub.c.0": (lambda: plan_sub_path(holder, "sub.c.0", directory=True, propagation=MS_PRIVATE), (found,)),
    }
    try:
        for name, (make, held) in plans.items():
            before, failed = world.mounted(), 0
            for step in range(len(make().lanes[PARENT])):
                try:
                    run_plan(make(), held=held, fault={"fail_step": step, "fail_errno": 5}).close()
                except StepFailed:
                    failed += 1
                    assert world.mounted() == before
                    if not held:
                        assert not os.path.lexists(world.path(name))
                else:  # one of those that are for what was there before
                    assert held and name in os.listdir(holder)
                    run_plan(plan_gone(holder, (name,))).close()
            assert failed >= 5
            run_plan(make(), held=held).close()
            assert world.mounted() == sorted([*before, str(world.path(name)).rstrip("/")])
    finally:
        os.close(found)


def test_killed_at_any_moment(world: World) -> None:
    """Of one that makes, updates and removes for ever: the next one goes on, and removes all."""
    mounts = [sub("a/b"), sub("file", "config", mountPath="/y")]
    memory = {"name": "memory", "emptyDir": {"medium": "Memory"}}
    world.make(EMPTY, CONFIG, SECRET, memory, mounts=mounts, securityContext={"fsGroup": 7})
    for turn in range(12):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _work_for_ever(world, writer)
        os.close(writer)
        assert os.read(reader, 1) == b"."
        time.sleep(0.002 * turn)  # any moment will do
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        if turn % 2:
            world.volumes.remove(UID)
            assert world.volumes.known() == [] and world.mounted() == [f"{world.top}/memory"]
        world.volumes.make(world.pod, UID, objects())
        found = world.mounts()
        assert Path(found[1].host_path).read_text() == world.path("config/file").read_text() == "1"
        assert os.stat(world.path("empty")).st_gid == os.stat(world.path("memory")).st_gid == 7


def _work_for_ever(world: World, told: int) -> None:
    """In a child of ours: never returns."""
    try:
        os.write(told, b".")
        for turn in itertools.count():
            world.volumes.make(world.pod, UID, objects())
            world.volumes.update(world.pod, UID, objects(str(turn)))
            world.mounts()
            world.volumes.remove(UID)
    finally:
        os._exit(1)


@pytest.mark.parametrize("uid", ["", ".", "..", "../x", "a/b", "x" * 300])
def test_a_uid_is_a_name(world: World, uid: str) -> None:
    for call in (world.volumes.remove, lambda u: world.volumes.make(world.pod, u, objects())):
        with pytest.raises(InvalidArgument, match="is no uid"):
            call(uid)


def test_a_recursive_bind_of_what_is_above_has_none_of_them(world: World) -> None:
    world.make(EMPTY, SECRET)
    other = world.top / "other"
    other.mkdir()
    subprocess.run(["mount", "--rbind", world.top / "memory", other], check=True)
    try:
        assert [p for p in world.mounted() if p.startswith(f"{other}/")] == []
        assert os.listdir(other / UID) == []
    finally:
        subprocess.run(["umount", "-R", other], check=True)
