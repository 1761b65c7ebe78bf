"""The known ways out of a root file system that is being set up, each tried as an attacker would.

What an attacker has: an image of any content, and another container that shares a volume and exchanges names in it
all the time. Exchange is renameat2(2) with RENAME_EXCHANGE, so that every look finds either a directory or a symlink.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.console import FdSocket
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import Runner

ROUNDS = 40
RENAME_EXCHANGE = 2
AT_FDCWD = -100
LIBC = ctypes.CDLL(None, use_errno=True)


class Exchanger:
    """A thread that exchanges two names as fast as it can, until the block ends. `count`: how often it did."""

    def __init__(self, one: Path, other: Path) -> None:
        self._names = os.fsencode(one), os.fsencode(other)
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.count = 0

    def _run(self) -> None:
        while not self._stop:
            self.count += LIBC.renameat2(AT_FDCWD, self._names[0], AT_FDCWD, self._names[1], RENAME_EXCHANGE) == 0

    def __enter__(self) -> Exchanger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()
        assert self.count > ROUNDS, "the race was not tried"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host's that no container may touch; the test fails when anything in or on it has changed."""
    place = tmp_path / "victim"
    place.mkdir()
    (place / "file").write_text("untouched")
    (place / "ptmx").write_text("untouched")
    before = snapshot(place)
    yield place
    assert snapshot(place) == before, "the host's files were changed"


def snapshot(place: Path) -> list[Any]:
    """What is there, and every mount that anybody put on it in this namespace."""
    files = [(p.name, *state_of(p.lstat()), p.is_file() and p.read_bytes()) for p in sorted(place.iterdir())]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(place) in line]
    return [files, mounts, *state_of(place.stat())]


def state_of(st: os.stat_result) -> list[int]:
    """All but the time of the last access, which looking changes."""
    return [st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_mtime_ns, st.st_ctime_ns]


def without_dev(made: Bundle) -> Bundle:
    """No mount on /dev, so the image's own directory is used."""
    made.config["mounts"] = [m for m in made.config["mounts"] if not m["destination"].startswith("/dev")]
    return made.save()


def mountinfo_of(result_out: str, target: str) -> list[str]:
    return [line for line in result_out.splitlines() if line.split()[4:5] == [target]]


# --- races on the target of a mount ----------------------------------------------------------------------------------


def run_race(
    pyrun: Runner,
    made: Bundle,
    names: tuple[Path, Path],
    check: Callable[[str], None] = lambda out: None,
    prepare: Callable[[int], object] = lambda turn: None,
) -> int:
    """Runs the container again and again while the names change places. Returns how often it ran; it fails with an
    error otherwise.
    """
    ran = 0
    with Exchanger(*names):
        for turn in range(ROUNDS):
            prepare(turn)
            result = pyrun.run(made)
            if result.rc == 0:
                ran += 1
                check(result.out)
            else:
                result.fails(1)
    return ran


def test_cve_2021_30465_symlink_exchange_on_a_mount_target(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, victim: Path
) -> None:
    """A volume's directory becomes a symlink to the host's / between the look and the mount. The mount stays in the
    container: there the symlink leads to the container's own root.
    """
    volume = tmp_path / "volume"
    (volume / "dir").mkdir(parents=True)
    (volume / "link").symlink_to("/../../../../../../../.." + str(victim))
    made = bundle(["sh", "-c", f"cat /proc/self/mountinfo; ls -d {victim}/file 2>/dev/null; true"])
    made.add_mount("/v", str(volume), "bind").add_mount("/v/dir", "tmpfs", "size=7k", type="tmpfs")

    def check(out: str) -> None:
        targets = [line.split()[4] for line in out.splitlines() if "size=8k" in line]
        assert targets and all(t in ("/v/dir", "/v/link", str(victim)) for t in targets), targets
        assert "/file" not in out, "the host's directory can be seen in the container"

    assert run_race(pyrun, made, (volume / "dir", volume / "link"), check) > 0
    assert not any("size=8k" in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_cve_2024_45310_nothing_is_made_on_the_host(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, victim: Path, kind: str
) -> None:
    """The parent of a target that is to be made becomes a symlink to the host between the look and the making."""
    volume = tmp_path / "volume"
    (volume / "dir").mkdir(parents=True)
    (volume / "link").symlink_to("/../../../../../../../.." + str(victim))
    source = tmp_path / "source"
    if kind == "file":
        source.touch()
    else:
        source.mkdir()
    made = bundle(["true"]).add_mount("/v", str(volume), "bind")
    first = len(made.config["mounts"])

    def prepare(turn: int) -> None:
        """New names each time, so that each has to be made."""
        del made.config["mounts"][first:]
        for i in range(8):
            made.add_mount(f"/v/dir/new{turn}.{i}", str(source), "bind")

    run_race(pyrun, made, (volume / "dir", volume / "link"), prepare=prepare)


def test_a_dangling_symlink_is_followed_in_the_container(
    pyrun: Runner, bundle: BundleMaker, victim: Path, tmp_path: Path
) -> None:
    """The image's symlink leads to a place that only the host has: it is made in the container."""
    made = bundle(["cat", "/link/new"])
    (made.rootfs / "link").symlink_to(victim)
    source = tmp_path / "source"
    source.write_text("inside")
    assert pyrun.run(made.add_mount("/link/new", str(source), "bind")).ok().out == "inside"
    assert (made.rootfs / str(victim)[1:] / "new").exists()


@pytest.mark.parametrize("target", ["/", "/../..", "."])
def test_a_symlink_to_the_root_is_no_target(pyrun: Runner, bundle: BundleMaker, target: str) -> None:
    """A mount on the root itself would be seen by exec, but not by the container."""
    made = bundle(["true"])
    (made.rootfs / "link").symlink_to(target)
    pyrun.run(made.add_mount("/link", "tmpfs", type="tmpfs")).fails(1, "/mounts/7")


# --- a false /proc ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fstype", ["proc", "sysfs"])
def test_cve_2023_27561_and_28642_proc_and_sys_are_no_symlinks(pyrun: Runner, bundle: BundleMaker, fstype: str) -> None:
    """An image whose /proc is a symlink would get its masks and its labels written elsewhere."""
    made = bundle(["true"])
    place = "proc" if fstype == "proc" else "sys"
    (made.rootfs / place).rmdir()
    (made.rootfs / "elsewhere").mkdir()
    (made.rootfs / place).symlink_to("/elsewhere")
    index = 0 if fstype == "proc" else 5
    pyrun.run(made).fails(1, f"/mounts/{index}", "symbolic link")


def test_cve_2019_19921_proc_exchanged_with_a_symlink(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """The root file system itself is shared with another container that exchanges /proc. Either the mount is on the
    real /proc, or create fails; never is it on what the symlink names.
    """
    made = bundle(["sh", "-c", "cat /proc/self/mountinfo"])
    (made.rootfs / "fake" / "self" / "attr").mkdir(parents=True)
    (made.rootfs / "link").symlink_to("/fake")

    def check(out: str) -> None:
        targets = [line.split()[4] for line in out.splitlines() if " - proc " in line]
        assert targets[0] in ("/proc", "/link"), "on the directory, under the name that it has now"
        assert not mountinfo_of(out, "/fake")

    run_race(pyrun, made, (made.rootfs / "proc", made.rootfs / "link"), check)


@pytest.mark.parametrize(
    ("dest", "options", "type"),
    [
        ("/proc", [], "tmpfs"),
        ("/proc", ["bind"], "bind"),
        ("/proc/self/attr", ["bind"], "bind"),
        ("/x/../proc/sys", [], "tmpfs"),
        ("/innocent", [], "tmpfs"),
        ("/innocent/self", ["bind"], "bind"),
    ],
)
def test_cve_2019_16884_nothing_comes_into_proc(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, dest: str, options: list[str], type: str
) -> None:
    """By its name, by the source, or through a symlink of the image's."""
    made = bundle(["true"])
    (made.rootfs / "innocent").symlink_to("/proc/self/attr" if dest == "/innocent" else "/proc")
    pyrun.run(made.add_mount(dest, str(tmp_path), *options, type=type)).fails(1, "/mounts/7")


def test_cve_2025_52881_sysctls_go_to_no_other_file(pyrun: Runner, bundle: BundleMaker, victim: Path) -> None:
    """/proc/sys of the container is the image's: a bind of procfs lies on /proc, and a file in its place would get
    what is written. The sysctl is set nevertheless, as it is not written through the container's /proc.
    """
    made = bundle(["sh", "-c", "cat /p/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward"])
    made.update(linux={"sysctl": {"net.ipv4.ip_forward": "1"}, "maskedPaths": [], "readonlyPaths": []})
    made.config["mounts"] = [{"destination": "/p", "type": "proc", "source": "proc"}]
    made.add_mount("/proc/sys/net/ipv4/ip_forward", str(victim / "file"), "bind")
    (made.rootfs / "proc" / "sys" / "net" / "ipv4").mkdir(parents=True)
    (made.rootfs / "proc" / "sys" / "net" / "ipv4" / "ip_forward").symlink_to(victim / "file")
    pyrun.run(made).fails(1, "/mounts/1")
    made.config["mounts"].pop()
    result = pyrun.run(made.save())
    assert result.out == "1\n" and "No such file" in result.err, result.describe()


# --- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fake", ["symlink", "file", "other"])
def test_cve_2025_31133_dev_null_of_the_image(pyrun: Runner, bundle: BundleMaker, fake: str) -> None:
    """The image's /dev/null is a symlink to what it wants to have mounted writable over the masked path. The mask is
    the host's.
    """
    made = without_dev(bundle(["sh", "-c", "cat /proc/self/mountinfo; cat /secret; echo x >/secret"]))
    made.update(linux={"maskedPaths": ["/secret"], "readonlyPaths": ["/proc/sys"]})
    (made.rootfs / "secret").write_text("SECRET")
    null = made.rootfs / "dev" / "null"
    if fake == "symlink":
        null.symlink_to("/proc/sys/kernel/core_pattern")
    elif fake == "file":
        null.write_text("mine")
    else:
        os.mknod(null, 0o020666, os.makedev(1, 5))
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    result = pyrun.run(made)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
    assert "SECRET" not in result.out
    result.fails(1, "mknod")


def test_cve_2025_31133_dev_null_exchanged(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """The same while /dev lies on a volume where null is exchanged all the time: the mask is /dev/null each time."""
    volume = tmp_path / "dev"
    volume.mkdir()
    os.mknod(volume / "null", 0o020666, os.makedev(1, 3))
    (volume / "fake").symlink_to("/proc/sys/kernel/core_pattern")
    made = without_dev(bundle(["cat", "/proc/self/mountinfo"]))
    made.update(linux={"maskedPaths": ["/secret"], "readonlyPaths": []})
    (made.rootfs / "secret").write_text("SECRET")
    made.add_mount("/dev", str(volume), "bind")

    def check(out: str) -> None:
        (line,) = mountinfo_of(out, "/secret")
        assert line.split()[3] == "/null" and " devtmpfs " in line, line

    assert run_race(pyrun, made, (volume / "null", volume / "fake"), check) == ROUNDS


def test_masks_do_not_reach_the_hosts_null(pyrun: Runner, bundle: BundleMaker) -> None:
    """A mask is the host's /dev/null: whoever owns it in the container must not change its mode, owner or times."""
    before = os.stat("/dev/null")
    script = "chmod 600 /secret; chown 5 /secret; touch -d 2001-01-01 /secret; cat /secret; echo x >/secret; cat $0"
    rights = dict.fromkeys(("bounding", "effective", "permitted"), ["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"])
    made = bundle(["sh", "-c", script, "/proc/self/mountinfo"], process={"capabilities": rights})
    made.update(linux={"maskedPaths": ["/secret"], "readonlyPaths": []})
    (made.rootfs / "secret").write_text("SECRET")
    result = pyrun.run(made).ok()
    after = os.stat("/dev/null")
    os.chmod("/dev/null", before.st_mode & 0o7777)
    os.chown("/dev/null", before.st_uid, before.st_gid)
    assert (after.st_mode, after.st_uid, after.st_mtime) == (before.st_mode, before.st_uid, before.st_mtime)
    assert result.err.count("Read-only file system") == 3, result.describe()
    (line,) = mountinfo_of(result.out, "/secret")
    assert "SECRET" not in result.out and "master:" not in line and "shared:" not in line


# --- /dev ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["absolute", "relative", "above"])
def test_cve_2026_41579_and_47766_dev_is_a_symlink(
    pyrun: Runner, bundle: BundleMaker, victim: Path, target: str
) -> None:
    """runc removed ptmx and made links below the host's directory that the image's /dev names; crun put devices
    there.
    """
    made = without_dev(bundle(["true"]))
    (made.rootfs / "dev").rmdir()
    link = {"absolute": str(victim), "relative": "../victim", "above": "../../../../../../../.." + str(victim)}[target]
    (made.rootfs / "dev").symlink_to(link)
    pyrun.run(made).fails(1, "symbolic link")


def test_cve_2026_41579_dev_exchanged_with_a_symlink(
    pyrun: Runner, bundle: BundleMaker, victim: Path, tmp_path: Path
) -> None:
    """The same as a race: whatever it finds, it is filled in the container or not at all."""
    made = without_dev(bundle(["ls", "/dev/null"]))
    (made.rootfs / "link").symlink_to(victim)

    names = made.rootfs / "dev", made.rootfs / "link"
    run_race(pyrun, made, names)
    (real,) = (name for name in names if not name.is_symlink())
    assert (real / "null").is_char_device(), "the devices went where they belong, some time"


def test_a_device_name_exchanged_with_a_symlink(
    pyrun: Runner, bundle: BundleMaker, victim: Path, tmp_path: Path
) -> None:
    """A node that was just made becomes a symlink to a file of the host's, which must keep its owner and mode."""
    made = without_dev(bundle(["true"], linux={"devices": [
        {"type": "c", "path": "/dev/own", "major": 1, "minor": 3, "fileMode": 0o777, "uid": 65534, "gid": 65534}
    ]}))  # fmt: skip
    os.mknod(made.rootfs / "dev" / "own", 0o020666, os.makedev(1, 3))
    (made.rootfs / "dev" / "bad").symlink_to(victim / "file")
    run_race(pyrun, made, (made.rootfs / "dev" / "own", made.rootfs / "dev" / "bad"))


@pytest.mark.parametrize("fake", ["symlink", "dangling"])
def test_cve_2025_52565_console_is_a_symlink(pyrun: Runner, bundle: BundleMaker, victim: Path, fake: str) -> None:
    """The terminal would be mounted on the host's or on a masked file, or a file made there."""
    made = bundle(["sh", "-c", "cat /proc/self/mountinfo"], process={"terminal": True})
    made.config["mounts"] = [m for m in made.config["mounts"] if m["destination"] not in ("/dev",)]
    (made.rootfs / "dev" / "pts").mkdir()
    (made.rootfs / "dev" / "console").symlink_to(victim / ("file" if fake == "symlink" else "new"))
    with FdSocket() as console:
        result = pyrun("create", "--bundle", made.save().path, "--console-socket", console.path, pyrun.new_id())
    result.fails(1, "/process/terminal")


def test_cve_2025_52565_pts_is_no_devpts(pyrun: Runner, bundle: BundleMaker) -> None:
    """The image's own directory with a ptmx of its choice."""
    made = without_dev(bundle(["true"], process={"terminal": True}))
    (made.rootfs / "dev" / "pts").mkdir()
    os.mknod(made.rootfs / "dev" / "pts" / "ptmx", 0o020666, os.makedev(1, 3))
    with FdSocket() as console:
        result = pyrun("create", "--bundle", made.path, "--console-socket", console.path, pyrun.new_id())
    result.fails(1, "/process/terminal")


# --- cgroup ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sys", ["sysfs", "rbind"])
def test_cve_2023_25809_cgroup_is_not_writable_without_its_namespace(
    pyrun: Runner, bundle: BundleMaker, sys: str
) -> None:
    """In a user namespace without a cgroup namespace the host's hierarchy is bound: read-only, whatever config.json
    says, and also where the container's root owns it.
    """
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    attack = ["sh", "-c", "mkdir /sys/fs/cgroup/evil && echo WRITABLE"]
    made = bundle(attack, linux={"uidMappings": maps, "gidMappings": maps})
    made.add_namespace("user").drop_namespace("cgroup")
    for mount in made.config["mounts"]:
        if mount["destination"] == "/sys/fs/cgroup":
            mount["options"] = ["rw"]
        if mount["destination"] == "/sys" and sys == "rbind":
            mount |= {"type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}
    subprocess.run(["chown", "-hR", "100000:100000", made.save().rootfs], check=True)
    os.chown(CGROUP_ROOT, 100000, 100000)
    try:
        result = pyrun.run(made)
    finally:
        os.chown(CGROUP_ROOT, 0, 0)
        if (CGROUP_ROOT / "evil").exists():
            (CGROUP_ROOT / "evil").rmdir()
    assert "WRITABLE" not in result.out and "Read-only file system" in result.err, result.describe()
