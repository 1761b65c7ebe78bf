"""Every kind of mount and option, in real containers: what the container sees is what config.json says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.console import FdSocket
from tests.support.container.disk import unmount
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import Runner, wait_for

MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
USERNS: dict[str, Any] = {"linux": {"uidMappings": MAPS, "gidMappings": MAPS}}
MOUNTINFO = ["cat", "/proc/self/mountinfo"]
TO_UMOUNT: list[Path] = []


def mounts_of(text: str) -> dict[str, tuple[set[str], str, str]]:
    """Target -> (flags, propagation, type) of the last mount there, from mountinfo."""
    found = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        words = left.split()
        found[words[4]] = (set(words[5].split(",")), " ".join(words[6:]), right.split()[0])
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with a file, and a tmpfs mounted on its `below`."""
    top = tmp_path / "source"
    (top / "below").mkdir(parents=True)
    (top / "file").write_text("content\n")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", top / "below"], check=True)
    (top / "below" / "deep").write_text("deep\n")
    TO_UMOUNT.append(top / "below")
    return top


@pytest.fixture(autouse=True)
def umount_sources(leak_check: None) -> Any:
    yield
    while TO_UMOUNT:
        subprocess.run(["umount", "-l", TO_UMOUNT.pop()], check=True)


@pytest.fixture
def in_userns(bundle: BundleMaker) -> Callable[..., Bundle]:
    """Makes a bundle in a user namespace, its root owned by the namespace's root."""

    def make(args: list[str], **overrides: Any) -> Bundle:
        made = bundle(args, **USERNS)
        made.add_namespace("user").update(**overrides)
        subprocess.run(["chown", "-hR", "100000:100000", made.rootfs], check=True)
        return made

    return make


def run_mountinfo(pyrun: Runner, bundle: Bundle) -> dict[str, tuple[set[str], str, str]]:
    return mounts_of(pyrun.run(bundle).ok().out)


# --- binds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "onto"), [("", "/etc/passwd"), ("file", "/etc")])
def test_a_directory_onto_a_file_and_a_file_onto_a_directory(
    pyrun: Runner, bundle: BundleMaker, source: Path, name: str, onto: str
) -> None:
    """By the words that docker looks for; the kernel's move_mount says EINVAL."""
    made = bundle(["true"])
    (made.rootfs / "etc").mkdir(exist_ok=True)
    (made.rootfs / "etc" / "passwd").touch()
    made.add_mount(onto, str(source / name), "rbind")
    pyrun.run(made).fails(1, "not a directory", "one of source and mount point is a directory and the other a file")


@pytest.mark.parametrize(
    ("options", "flags", "below"),
    [
        (["bind"], {"rw", "relatime"}, None),
        (["rbind"], {"rw", "relatime"}, {"rw", "relatime"}),
        (["bind", "ro", "nosuid", "nodev", "noexec"], {"ro", "nosuid", "nodev", "noexec", "relatime"}, None),
        (["rbind", "ro"], {"ro", "relatime"}, {"rw", "relatime"}),
        (["rbind", "rro"], {"ro", "relatime"}, {"ro", "relatime"}),
        (["rbind", "rro", "rw"], {"ro", "relatime"}, {"ro", "relatime"}),
        (
            ["rbind", "ro", "rnosuid", "rnodev"],
            {"ro", "nosuid", "nodev", "relatime"},
            {"rw", "nosuid", "nodev", "relatime"},
        ),
        (["rbind", "rnoexec", "rnoatime"], {"rw", "noexec", "noatime"}, {"rw", "noexec", "noatime"}),
        (["rbind", "rstrictatime", "rnosymfollow"], {"rw", "nosymfollow"}, {"rw", "nosymfollow"}),
        (["bind", "noatime", "nodiratime"], {"rw", "noatime", "nodiratime"}, None),
        (["bind", "strictatime", "nosymfollow"], {"rw", "nosymfollow"}, None),
        (["bind", "ro", "rw"], {"rw", "relatime"}, None),
    ],
)
def test_bind_flags(
    pyrun: Runner, bundle: BundleMaker, source: Path, options: list[str], flags: set[str], below: set[str] | None
) -> None:
    made = bundle(MOUNTINFO).add_mount("/data", str(source), *options)
    seen = run_mountinfo(pyrun, made)
    assert seen["/data"][0] == flags
    assert ("/data/below" in seen) is (below is not None)
    assert below is None or seen["/data/below"][0] == below


def test_flags_of_the_source_go_when_any_is_named(pyrun: Runner, bundle: BundleMaker, source: Path) -> None:
    """As runc does; without any, they stay."""
    subprocess.run(["mount", "-o", "remount,bind,nosuid,nodev,noexec", source / "below"], check=True)
    made = (
        bundle(MOUNTINFO)
        .add_mount("/a", str(source / "below"), "bind")
        .add_mount("/b", str(source / "below"), "bind", "ro")
    )
    seen = run_mountinfo(pyrun, made)
    assert seen["/a"][0] == {"rw", "nosuid", "nodev", "noexec", "relatime"}
    assert seen["/b"][0] == {"ro", "relatime"}


def test_locked_flags_stay_in_a_user_namespace(
    pyrun: Runner, in_userns: Callable[..., Bundle], source: Path, tmp_path: Path
) -> None:
    for parent in (source, tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    subprocess.run(["mount", "-o", "remount,bind,nosuid,nodev,noexec", source / "below"], check=True)
    made = in_userns(MOUNTINFO).add_mount("/b", str(source / "below"), "bind", "ro")
    assert run_mountinfo(pyrun, made)["/b"][0] == {"ro", "nosuid", "nodev", "noexec", "relatime"}
    made.config["mounts"][-1]["options"] = ["bind", "exec"]
    pyrun.run(made.save()).fails(1, "/mounts/7")


@pytest.mark.parametrize(
    ("option", "propagation"),
    [("rprivate", ""), ("rslave", "master"), ("rshared", "shared"), ("unbindable", "unbindable"), (None, "")],
)
def test_bind_propagation(
    pyrun: Runner, bundle: BundleMaker, source: Path, option: str | None, propagation: str
) -> None:
    subprocess.run(["mount", "--make-shared", source / "below"], check=True)
    made = bundle(MOUNTINFO, linux={"rootfsPropagation": "rshared" if option == "rshared" else "rslave"})
    made.add_mount("/data", str(source / "below"), "rbind", *([option] if option else []))
    seen = run_mountinfo(pyrun, made)["/data"][1]
    assert seen.startswith(propagation) and bool(seen) is bool(propagation)


def test_two_way_propagation(pyrun: Runner, bundle: BundleMaker, source: Path) -> None:
    """A mount that the container makes in an rshared volume is the host's too, and the other way round."""
    subprocess.run(["mount", "--make-shared", source / "below"], check=True)
    (source / "below" / "mine").mkdir()
    caps = dict.fromkeys(("bounding", "effective", "permitted"), ["CAP_SYS_ADMIN"])
    command = "mount -t tmpfs none /data/mine && touch /data/mine/seen; sleep 60"
    made = bundle(["sh", "-c", command], process={"capabilities": caps}, linux={"rootfsPropagation": "rshared"})
    made.add_mount("/data", str(source / "below"), "rbind", "rshared")
    id = pyrun.create_started(made)
    try:
        wait_for((source / "below" / "mine" / "seen").exists, 10, "the container's mount on the host")
    finally:
        pyrun.delete(id, "--force").ok()
        unmount(source / "below" / "mine")


def test_the_targets_type_is_the_sources(pyrun: Runner, bundle: BundleMaker, source: Path) -> None:
    made = bundle(["sh", "-c", "cat /new/dir/a-file; ls -d /new/dir2/; stat -c %a /new /new/dir2 /new/dir/a-file"])
    made.add_mount("/new/dir/a-file", str(source / "file"), "bind", "ro").add_mount("/new/dir2", str(source), "bind")
    assert pyrun.run(made).ok().out.split() == ["content", "/new/dir2/", "755", "755", "644"]
    assert (made.rootfs / "new" / "dir" / "a-file").read_text() == ""


def test_sources_are_relative_to_the_bundle(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["cat", "/data/x"])
    (made.path / "vol").mkdir()
    (made.path / "vol" / "x").write_text("found")
    assert pyrun.run(made.add_mount("/data", "vol", "bind")).ok().out == "found"


def test_a_missing_source_is_named(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle().add_mount("/data", "/no/such/source", "bind")
    pyrun.run(made).fails(1, "/mounts/7", "no such file or directory")


def test_an_unknown_option_is_named(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle().add_mount("/data", "/tmp", "bind", "size=1m", "nosuit")
    pyrun.run(made).fails(1, "/mounts/7/options/2", "nosuit")
    made = bundle().add_mount("/data", "tmpfs", "siz=1m", type="tmpfs")
    pyrun.run(made).fails(1, "/mounts/7/options/0", "siz")


def test_later_mounts_lie_on_earlier_ones(pyrun: Runner, bundle: BundleMaker, source: Path) -> None:
    made = bundle(["sh", "-c", "cat /t/x/file; ls /a"])
    made.add_mount("/t", "tmpfs", type="tmpfs").add_mount("/t/x", str(source), "bind")
    made.add_mount("/a/b", str(source), "bind").add_mount("/a", "tmpfs", type="tmpfs")
    assert pyrun.run(made).ok().out == "content\n", "the tmpfs on /a hides what was mounted below it before"
    assert not (made.rootfs / "t" / "x").exists()


def test_each_read_only_tmpfs_is_the_one_that_was_asked_for(pyrun: Runner, bundle: BundleMaker, source: Path) -> None:
    """What lies on it, or above it, stays as it is: a mount has its own flags, by its descriptor."""
    made = bundle(["sh", "-c", "touch /m/x && umount /m; touch /m/y; umount /a; touch /a/b/z; touch /a/n"])
    caps = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]
    made.update(process={"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps)})
    made.add_mount("/m", "tmpfs", "ro", type="tmpfs").add_mount("/m", str(source), "bind", "rw")
    made.add_mount("/a/b", "tmpfs", "ro", type="tmpfs").add_mount("/a", "tmpfs", type="tmpfs")
    result = pyrun.run(made)
    assert result.err.count("Read-only") == 2 and "/m/y" in result.err and "/a/b/z" in result.err, result.describe()
    assert (source / "x").exists() and (made.rootfs / "a" / "n").exists()


def test_a_source_that_an_earlier_entry_brings(pyrun: Runner, in_userns: Callable[..., Bundle], source: Path) -> None:
    """The parent can't clone it for a user namespace, as it is not there yet; and the one below is not it."""
    made = in_userns(["sh", "-c", "cat /two/sub /three"])
    for path in (made.path, *made.path.parents[:3], source, *source.parents[:2]):
        path.chmod(path.stat().st_mode | 0o011)
    (source / "dir").mkdir()
    (source / "dir" / "sub").write_text("brought\n")
    (made.rootfs / "one").mkdir()
    (made.rootfs / "one" / "file").write_text("hidden\n")
    made.add_mount("/one", str(source), "bind").add_mount("/two", f"{made.rootfs}/one/dir", "bind")
    made.add_mount("/three", f"{made.rootfs}/one/file", "bind")
    assert pyrun.run(made).ok().out == "brought\ncontent\n"


def test_a_source_below_the_root_that_nobody_brings(pyrun: Runner, in_userns: Callable[..., Bundle]) -> None:
    made = in_userns(["true"])
    pyrun.run(made.add_mount("/two", f"{made.rootfs}/nothing", "bind")).fails(1, "/mounts/7", "not there")


def test_a_closed_directory_is_no_obstacle_for_a_user_namespace(
    pyrun: Runner, in_userns: Callable[..., Bundle], source: Path, tmp_path: Path
) -> None:
    """Its root may walk neither to the root file system nor to the volume; the parent opens both for it."""
    closed = tmp_path
    closed.chmod(0o700)
    made = in_userns(["sh", "-c", "cat /data/file /data/below/deep; touch /data/x"])
    made.add_mount("/data", str(source), "rbind", "ro")
    result = pyrun.run(made)
    assert result.out == "content\ndeep\n" and "Read-only" in result.err, result.describe()


# --- file systems ----------------------------------------------------------------------------------------------------


def test_the_default_mounts(pyrun: Runner, bundle: BundleMaker) -> None:
    seen = run_mountinfo(pyrun, bundle(MOUNTINFO))
    expected = {
        "/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs", "/dev/mqueue": "mqueue",
        "/sys": "sysfs", "/sys/fs/cgroup": "cgroup2",
    }  # fmt: skip
    assert {target: seen[target][2] for target in expected} == expected
    assert seen["/dev"][0] == {"rw", "nosuid"}
    assert seen["/sys"][0] == {"ro", "nosuid", "nodev", "noexec", "relatime"}


def test_tmpfs_takes_the_mode_of_what_it_hides(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "stat -c %a /hidden /new/one /said; df -k /said | tail -1"])
    (made.rootfs / "hidden").mkdir(mode=0o750)
    (made.rootfs / "said").mkdir(mode=0o750)
    for dest, *options in (("/hidden",), ("/new/one",), ("/said", "mode=711", "size=128k")):
        made.add_mount(dest, "tmpfs", *options, type="tmpfs")
    words = pyrun.run(made).ok().out.split()
    assert words[:3] == ["750", "1777", "711"] and words[4] == "128"


def test_tmpcopyup(pyrun: Runner, bundle: BundleMaker) -> None:
    look = "cd /etc; cat sub/file; readlink link; stat -c '%a %u' sub sub/file .; touch new && rm passwd"
    made = bundle(["sh", "-c", look])
    etc = made.rootfs / "etc"
    (etc / "sub").mkdir()
    (etc / "sub" / "file").write_text("kept\n")
    os.symlink("/somewhere", etc / "link")
    os.chown(etc / "sub" / "file", 33, 33)
    (etc / "sub" / "file").chmod(0o604)
    etc.chmod(0o711)
    made.add_mount("/etc", "tmpfs", "tmpcopyup", type="tmpfs")
    assert pyrun.run(made).ok().out.split() == ["kept", "/somewhere", "755", "0", "604", "33", "711", "0"]
    assert (etc / "passwd").exists() and not (etc / "new").exists()


def test_tmpcopyup_of_what_is_no_file(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "cd /etc; stat -c '%n %F %a %u %t,%T' fifo socket zero"])
    etc = made.rootfs / "etc"
    os.mkfifo(etc / "fifo")
    os.mknod(etc / "socket", 0o140000)
    os.mknod(etc / "zero", 0o020000, os.makedev(1, 5))
    for name in ("fifo", "socket", "zero"):
        os.chown(etc / name, 33, 33)
        (etc / name).chmod(0o642)
    out = pyrun.run(made.add_mount("/etc", "tmpfs", "tmpcopyup", type="tmpfs")).ok().out.splitlines()
    assert out == ["fifo fifo 642 33 0,0", "socket socket 642 33 0,0", "zero character special file 642 33 1,5"]


def test_tmpcopyup_of_a_device_in_a_user_namespace(pyrun: Runner, in_userns: Callable[..., Bundle]) -> None:
    made = in_userns(["true"]).add_mount("/etc", "tmpfs", "tmpcopyup", type="tmpfs")
    os.mkfifo(made.rootfs / "etc" / "fifo")
    pyrun.run(made).ok()
    os.mknod(made.rootfs / "etc" / "zero", 0o020000, os.makedev(1, 5))
    pyrun.run(made).fails(1, "EPERM", "/mounts/7", "device", "tmpcopyup")


def test_tmpcopyup_of_nothing(pyrun: Runner, bundle: BundleMaker) -> None:
    """Where the image has no such directory everybody may write there, as in any tmpfs."""
    made = bundle(["stat", "-c", "%a %u", "/none"], process={"user": {"uid": 5, "gid": 5}})
    made.add_mount("/none", "tmpfs", "tmpcopyup", type="tmpfs")
    assert pyrun.run(made).ok().out == "1777 0\n"


def test_read_only_tmpfs_and_dev(pyrun: Runner, bundle: BundleMaker) -> None:
    """They are filled before they become read-only."""
    made = bundle(["sh", "-c", "ls /dev/null /ro/sub; touch /dev/x; touch /ro/x; echo >/dev/null"])
    made.config["mounts"][1]["options"].append("ro")
    made.save().add_mount("/ro", "tmpfs", "ro", type="tmpfs").add_mount("/ro/sub", "tmpfs", type="tmpfs")
    result = pyrun.run(made).ok()
    assert result.out.split() == ["/dev/null", "/ro/sub:"] and result.err.count("Read-only") == 2, result.describe()


@pytest.mark.parametrize("length", [20, 240])
def test_overlay(pyrun: Runner, bundle: BundleMaker, tmp_path: Path, length: int) -> None:
    """Seven layers whose names are 240 bytes long are more than fsconfig(2) takes in one string; both ways must do."""
    layers = [tmp_path / f"{i}{'x' * length}" for i in range(7)]
    for i, layer in enumerate(layers):
        layer.mkdir()
        (layer / f"f{i}").touch()
    (tmp_path / "up").mkdir()
    (tmp_path / "work").mkdir()
    data = ("lowerdir=" + ":".join(map(str, layers)), f"upperdir={tmp_path}/up", f"workdir={tmp_path}/work")
    made = bundle(["sh", "-c", "touch /o/new; ls /o; grep -c ' /o .*nosuid' /proc/self/mountinfo"])
    made.add_mount("/o", "overlay", "nosuid", *data, type="overlay")
    assert pyrun.run(made).ok().out.split() == [*(f"f{i}" for i in range(7)), "new", "1"]
    assert (tmp_path / "up" / "new").exists()


def test_devpts_in_a_namespace_without_its_group(pyrun: Runner, bundle: BundleMaker) -> None:
    one = [{"containerID": 0, "hostID": 100000, "size": 1}]
    made = bundle(["ls", "/dev/pts"], linux={"uidMappings": one, "gidMappings": one}).add_namespace("user")
    subprocess.run(["chown", "-hR", "100000:100000", made.rootfs], check=True)
    assert "ptmx" in pyrun.run(made).ok().out


def test_the_hosts_proc_and_dev(pyrun: Runner, bundle: BundleMaker) -> None:
    """Bound, they are used as they are: a real procfs may lie on /proc, and nothing is put into a /dev that is
    another's.
    """
    before = sorted(os.listdir("/dev"))
    made = bundle(["sh", "-c", f"cat /proc/{os.getpid()}/comm; ls /dev"])
    made.config["mounts"] = [m for m in made.config["mounts"] if not m["destination"].startswith(("/dev", "/proc"))]
    made.save().add_mount("/proc", "/proc", "rbind", type="none").add_mount("/dev", "/dev", "rbind", type="none")
    comm, *seen = pyrun.run(made).ok().out.split()
    assert comm == Path("/proc/self/comm").read_text().strip()
    assert sorted(seen) == before == sorted(os.listdir("/dev"))


# --- cgroup ----------------------------------------------------------------------------------------------------------


def test_cgroup_shows_the_containers_own(pyrun: Runner, bundle: BundleMaker) -> None:
    assert pyrun.run(bundle(["cat", "/sys/fs/cgroup/cgroup.procs"])).ok().out.split() == ["1"]


def test_cgroup_without_a_namespace(pyrun: Runner, bundle: BundleMaker) -> None:
    """The whole hierarchy, as config.json asked for no namespace; and the host's own mount keeps its options."""
    before = Path("/proc/self/mountinfo").read_text()
    made = bundle(["ls", "/sys/fs/cgroup"]).drop_namespace("cgroup")
    assert "init" in pyrun.run(made).ok().out.split()
    assert Path("/proc/self/mountinfo").read_text() == before
    assert (CGROUP_ROOT / "init").is_dir()


# --- idmapped --------------------------------------------------------------------------------------------------------


def owned(tmp_path: Path, uid: int, gid: int) -> Path:
    top = tmp_path / "owned"
    top.mkdir()
    (top / "file").touch()
    os.chown(top / "file", uid, gid)
    os.chown(top, uid, gid)
    return top


def test_idmap(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    maps = [{"containerID": 1000, "hostID": 0, "size": 1}]
    made = bundle(["sh", "-c", "stat -c '%u:%g' /data/file; touch /data/new"])
    made.add_mount("/data", str(owned(tmp_path, 1000, 1000)), "bind", "idmap", uidMappings=maps, gidMappings=maps)
    assert pyrun.run(made).ok().out == "0:0\n"
    assert (tmp_path / "owned" / "new").stat().st_uid == 1000


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_idmap_with_the_containers_user_namespace(
    pyrun: Runner, in_userns: Callable[..., Bundle], tmp_path: Path, option: str
) -> None:
    made = in_userns(["sh", "-c", "stat -c '%u:%g' /data/file; touch /data/new"])
    made.add_mount("/data", str(owned(tmp_path, 0, 7)), "rbind", option)
    assert pyrun.run(made).ok().out == "0:7\n"
    assert (tmp_path / "owned" / "new").stat().st_uid == 0


def test_ridmap_maps_what_is_below(pyrun: Runner, bundle: BundleMaker, source: Path) -> None:
    maps = [{"containerID": 0, "hostID": 5, "size": 1}]
    made = bundle(["stat", "-c", "%u", "/a/below/deep", "/b/below/deep"])
    for dest, option in (("/a", "idmap"), ("/b", "ridmap")):
        made.add_mount(dest, str(source), "rbind", option, uidMappings=maps, gidMappings=maps)
    assert pyrun.run(made).ok().out.split() == ["0", "5"]


# --- the root --------------------------------------------------------------------------------------------------------


def test_read_only_root(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "pwd; touch /x; touch /dev/shm/y && echo mounts are not"], root={"readonly": True})
    made.update(process={"cwd": "/made/for/it"})
    result = pyrun.run(made).ok()
    assert result.out == "/made/for/it\nmounts are not\n" and "Read-only file system" in result.err


@pytest.mark.parametrize(
    ("kind", "root", "proc"),
    [
        (None, "", ""),
        ("private", "", ""),
        ("shared", "shared:", ""),
        ("rshared", "shared:", "shared:"),
        ("unbindable", "unbindable", ""),
        ("runbindable", "unbindable", "unbindable"),
    ],
)
def test_rootfs_propagation(pyrun: Runner, bundle: BundleMaker, kind: str | None, root: str, proc: str) -> None:
    seen = run_mountinfo(pyrun, bundle(MOUNTINFO, linux={"rootfsPropagation": kind}))
    for target, expected in (("/", root), ("/proc", proc)):
        assert seen[target][1].startswith(expected) and bool(seen[target][1]) is bool(expected)


@pytest.mark.parametrize(("kind", "received"), [("rslave", True), ("rprivate", False)])
def test_a_slave_root_receives_the_hosts_mounts(pyrun: Runner, bundle: BundleMaker, kind: str, received: bool) -> None:
    made = bundle(["sleep", "60"], linux={"rootfsPropagation": kind})
    (made.rootfs / "later").mkdir()
    subprocess.run(["mount", "--bind", made.rootfs, made.rootfs], check=True)
    subprocess.run(["mount", "--make-shared", made.rootfs], check=True)
    TO_UMOUNT.append(made.rootfs)
    id = pyrun.create_started(made)
    subprocess.run(["mount", "-t", "tmpfs", "none", made.rootfs / "later"], check=True)
    TO_UMOUNT.append(made.rootfs / "later")
    seen = mounts_of(Path(f"/proc/{pyrun.pid(id)}/mountinfo").read_text())
    assert ("/later" in seen) is received
    pyrun.delete(id, "--force").ok()


@pytest.mark.parametrize("kind", ["rshared", "rslave", "rprivate", "unbindable"])
def test_nothing_of_ours_reaches_a_host_whose_mounts_are_shared(pyrun: Runner, bundle: BundleMaker, kind: str) -> None:
    """All mounts of the host are shared, as systemd has it. In a namespace of the test's own, as a bug here unmounts
    the host.
    """
    made = bundle(["true"], linux={"rootfsPropagation": kind})
    look = "cat /proc/self/mountinfo >"
    script = f'mount --make-rshared / && {look}"$0.before" && "$@"; rc=$?; {look}"$0.after"; exit $rc'
    notes = made.path / "notes"
    own = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, str(notes)]
    command = [*own, *pyrun.command("run", "--bundle", made.path, "x")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(f"{notes}.after").read_text() == Path(f"{notes}.before").read_text()


def test_without_a_mount_namespace(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "ls /; ls /proc"], linux={"maskedPaths": None, "readonlyPaths": None})
    before = Path("/proc/self/mountinfo").read_text()
    result = pyrun.run(made.drop_namespace("mount")).ok()
    assert "etc" in result.out and "ignoring the mounts" in result.err
    made.update(root={"readonly": True}).add_mount("/data", "/etc", "bind")
    pyrun.run(made).fails(1, "/mounts/7", "/root/readonly", "needs a mount namespace")
    assert Path("/proc/self/mountinfo").read_text() == before


# --- /dev ------------------------------------------------------------------------------------------------------------

DEFAULTS = {"null": "1,3", "zero": "1,5", "full": "1,7", "random": "1,8", "urandom": "1,9", "tty": "5,0"}


def device_listing(out: str) -> dict[str, tuple[str, str]]:
    """Name -> (mode string, device number or link target), from busybox's ls -ln."""
    found = {}
    for line in out.splitlines():
        words = line.split()
        if line[0] == "c":
            found[words[9]] = (words[0], words[4] + words[5])
        elif line[0] == "l":
            found[words[8]] = (words[0], words[10])
    return found


@pytest.mark.parametrize("user", [False, True])
def test_default_devices(pyrun: Runner, bundle: BundleMaker, in_userns: Callable[..., Bundle], user: bool) -> None:
    made = (in_userns if user else bundle)(["sh", "-c", "ls -ln /dev; echo x >/dev/null; head -c 3 /dev/zero | wc -c"])
    out = pyrun.run(made).ok().out
    seen = device_listing(out)
    assert {name: seen[name] for name in DEFAULTS} == {name: ("crw-rw-rw-", at) for name, at in DEFAULTS.items()}
    links = {name: seen[name][1] for name in ("fd", "stdin", "stdout", "stderr", "ptmx")}
    assert links == {
        "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
        "ptmx": "pts/ptmx",
    }  # fmt: skip
    assert ("core" in seen) is Path("/proc/kcore").exists()
    assert out.endswith("3\n")


def test_devices_of_the_config(pyrun: Runner, bundle: BundleMaker) -> None:
    devices = [
        {"type": "c", "path": "/dev/net/tun", "major": 10, "minor": 200, "fileMode": 0o640, "uid": 3, "gid": 4},
        {"type": "b", "path": "/dev/disk", "major": 7, "minor": 3},
        {"type": "p", "path": "/var/pipe", "fileMode": 0o600},
    ]
    look = ["stat", "-c", "%F %a %t:%T %u:%g", "/dev/net/tun", "/dev/disk", "/var/pipe"]
    made = bundle(look, linux={"devices": devices})
    os.umask(0o077)
    try:
        lines = pyrun.run(made).ok().out.splitlines()
    finally:
        os.umask(0o022)
    assert lines == [
        "character special file 640 a:c8 3:4", "block special file 666 7:3 0:0", "fifo 600 0:0 0:0",
    ]  # fmt: skip


def test_a_device_that_is_another_is_not_taken(pyrun: Runner, bundle: BundleMaker) -> None:
    """Without a mount on /dev the image's own nodes are there; /dev/null must be /dev/null."""
    made = bundle()
    made.config["mounts"] = [m for m in made.config["mounts"] if not m["destination"].startswith("/dev")]
    os.mknod(made.rootfs / "dev" / "null", 0o020666, os.makedev(1, 5))
    pyrun.run(made.save()).fails(1, "mknod")


def test_terminal(pyrun: Runner, bundle: BundleMaker) -> None:
    size = {"height": 31, "width": 91}
    command = "tty; stty size; ls -ln /dev/console /dev/pts/0; echo to the console >/dev/console"
    made = bundle(["sh", "-c", command], process={"terminal": True, "consoleSize": size})
    with FdSocket() as console:
        id = pyrun.create(made, "--console-socket", console.path)
        console.receive()
        pyrun("start", id).ok()
        text = console.read_until("to the console")
        pyrun.wait_status(id, "stopped")
        pyrun.delete(id).ok()
    words = text.split()
    assert words[0] == "/dev/pts/0" or words[0] == "/dev/console"
    assert words[1:3] == ["31", "91"]
    assert words.count("136,") == 2, "the console is the terminal"


# --- hidden paths and sysctls ----------------------------------------------------------------------------------------


def test_hidden_paths(pyrun: Runner, bundle: BundleMaker) -> None:
    look = "cat /secret/file | wc -c; ls -A /secret/dir | wc -l; touch /secret/dir/x; touch /fixed/x; cat /fixed/f"
    made = bundle(["sh", "-c", look])
    for folder in ("secret/dir", "fixed"):
        (made.rootfs / folder).mkdir(parents=True)
    (made.rootfs / "secret" / "file").write_text("key")
    (made.rootfs / "secret" / "dir" / "key").write_text("key")
    (made.rootfs / "fixed" / "f").write_text("f")
    masked, fixed = ["/secret/file", "/secret/dir", "/none", "/fixed/f/none"], ["/fixed", "/none"]
    made.update(linux={"maskedPaths": masked, "readonlyPaths": fixed})
    result = pyrun.run(made).ok()
    assert result.out == "0\n0\nf" and result.err.count("Read-only") == 2, result.describe()


@pytest.mark.parametrize("user", [False, True])
def test_sysctls(pyrun: Runner, bundle: BundleMaker, in_userns: Callable[..., Bundle], user: bool) -> None:
    sysctl = {"net.ipv4.ip_forward": "1", "net/ipv4/conf/lo/rp_filter": "2"}
    made = (in_userns if user else bundle)(["sh", "-c", "cd /proc/sys/net/ipv4; cat ip_forward conf/lo/rp_filter"])
    assert pyrun.run(made.update(linux={"sysctl": sysctl})).ok().out.split() == ["1", "2"]


def test_sysctl_without_a_proc_mount_and_with_a_bad_value(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["true"], linux={"sysctl": {"kernel.msgmax": "9000"}, "maskedPaths": None, "readonlyPaths": None})
    made.config["mounts"] = []
    pyrun.run(made.save()).ok()
    pyrun.run(made.update(linux={"sysctl": {"kernel.msgmax": "many"}})).fails(1, "/linux/sysctl/kernel.msgmax")
