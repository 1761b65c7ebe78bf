"""SELinux labels by their effect: the guest boots with SELinux, and policy.cil of this directory is all of its policy.

The kernel allows what the policy does not name, and is permissive but where a test says otherwise.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.runner import Runner
from tests.support.vm.cgroup import use_host_tools

pytestmark = pytest.mark.vm("selinux", each=4, cpus=1, append="security=selinux selinux=1")

POLICY = Path(__file__).with_name("policy.cil")
SELINUX = Path("/sys/fs/selinux")
HOST, BOX, GUEST, STRANGER = (f"u:r:{name}_t" for name in ("host", "box", "guest", "stranger"))
FILE, GUARDED = "u:object_r:file_t", "u:object_r:guarded_t"
OWN_LABEL = ["cat", "/proc/self/attr/current"]
WRITE = ["sh", "-c", "echo written >/guarded/file && cat /guarded/file"]
KEYRING_LABEL = """
import ctypes
KEYCTL, GET_SECURITY, SESSION = 250, 17, -3
label = ctypes.create_string_buffer(256)
assert ctypes.CDLL(None, use_errno=True).syscall(KEYCTL, GET_SECURITY, SESSION, label, 256) > 0, ctypes.get_errno()
print(label.value.decode())
"""


@pytest.fixture(scope="module", autouse=True)
def policy(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The policy, loaded into the kernel, where it stays: everything that runs is then HOST."""
    binary = tmp_path_factory.mktemp("policy") / "policy"
    version = (SELINUX / "policyvers").read_text()
    subprocess.run(["secilc", "-c", version, "-o", binary, "-f", "/dev/null", POLICY], check=True)
    (SELINUX / "load").write_bytes(binary.read_bytes())
    assert label_of(os.getpid()) == HOST


@contextmanager
def enforcing() -> Iterator[None]:
    """Denies what the policy does not allow, and not only writes it to the log."""
    (SELINUX / "enforce").write_text("1")
    try:
        yield
    finally:
        (SELINUX / "enforce").write_text("0")


def label_of(pid: int) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text().strip("\0\n")


def label_of_file(path: str) -> str:
    return os.getxattr(path, "security.selinux").decode().strip("\0")


def labelled(
    bundle: BundleMaker, args: list[str], label: str | None = BOX, mount_label: str | None = GUARDED
) -> Bundle:
    """With a tmpfs at /guarded, whose files have the mount label."""
    made = bundle(args, process={"selinuxLabel": label}, linux={"mountLabel": mount_label})
    return made.add_mount("/guarded", "tmpfs", "nosuid", type="tmpfs")


def test_the_process_has_its_label(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(labelled(bundle, ["sleep", "1000"]))
    assert label_of(pyrun.pid(id)) == BOX
    unlabelled = pyrun.create_started(labelled(bundle, ["sleep", "1000"], None))
    assert label_of(pyrun.pid(unlabelled)) == HOST


def test_exec_has_the_containers_label_or_its_own(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    id = pyrun.create_started(labelled(bundle, ["sleep", "1000"]))
    assert pyrun.exec(id, *OWN_LABEL).ok().out.strip("\0\n") == BOX
    options = ["--process-label", GUEST]
    assert pyrun.exec(id, *OWN_LABEL, options=options).ok().out.strip("\0\n") == GUEST
    file = tmp_path / "process.json"
    file.write_text(f'{{"args": ["/bin/cat", "{OWN_LABEL[1]}"], "cwd": "/", "selinuxLabel": "{GUEST}"}}')
    assert pyrun("exec", "--process", file, id).ok().out.strip("\0\n") == GUEST


def test_the_mount_label(pyrun: Runner, bundle: BundleMaker) -> None:
    """On what has files of the container's own, and not on what shows the kernel's."""
    id = pyrun.create_started(labelled(bundle, ["sh", "-c", "echo >/dev/shm/new; echo >/guarded/new; sleep 1000"]))
    root = f"/proc/{pyrun.pid(id)}/root"
    pyrun.exec(id, "sh", "-c", "while ! [ -e /guarded/new ]; do :; done").ok()
    for path in ("dev", "dev/null", "dev/shm/new", "dev/pts", "dev/mqueue", "guarded", "guarded/new"):
        assert label_of_file(f"{root}/{path}") == GUARDED, path
    assert label_of_file(f"{root}/bin/busybox") == FILE
    mounts = Path(f"/proc/{pyrun.pid(id)}/mountinfo").read_text().splitlines()
    with_label = {line.split()[4] for line in mounts if f"context={GUARDED}" in line}
    assert {"/dev", "/dev/pts", "/dev/shm", "/guarded"} <= with_label
    assert not with_label & {"/", "/proc", "/sys", "/sys/fs/cgroup", "/dev/mqueue"}


def test_a_rule_is_enforced(pyrun: Runner, bundle: BundleMaker) -> None:
    """BOX may not write to GUARDED; to FILE it may, and HOST may to both."""
    with enforcing():
        denied = pyrun.run(labelled(bundle, WRITE))
        assert denied.rc == 1 and "Permission denied" in denied.err and not denied.out, denied.describe()
        for label, mount_label in ((BOX, FILE), (HOST, GUARDED), (None, GUARDED)):
            assert pyrun.run(labelled(bundle, WRITE, label, mount_label)).ok().out == "written\n"
        id = pyrun.create_started(labelled(bundle, ["sleep", "1000"]))
        assert "Permission denied" in pyrun.exec(id, *WRITE).err
        assert pyrun.exec(id, *WRITE, options=["--process-label", HOST]).ok().out == "written\n"
    assert pyrun.run(labelled(bundle, WRITE)).ok().out == "written\n"


def test_a_label_that_may_not_be_taken(pyrun: Runner, bundle: BundleMaker) -> None:
    with enforcing():
        pyrun.run(labelled(bundle, ["true"], STRANGER)).fails(1, "process.selinuxLabel")
        id = pyrun.create_started(labelled(bundle, ["sleep", "1000"]))
        pyrun.exec(id, "true", options=["--process-label", STRANGER]).fails(255, "process.selinuxLabel")
        pyrun.delete(id, "--force").ok()
    assert pyrun.ids() == []


@pytest.mark.parametrize("options", [(), ("--no-new-keyring",)])
def test_a_label_that_is_none(pyrun: Runner, bundle: BundleMaker, options: tuple[str, ...]) -> None:
    """By where it is written first: the keyring, or the exec."""
    wrong = "u:r:nobody_t"
    pyrun.run(labelled(bundle, ["true"], wrong), *options).fails(1, wrong, "/process/selinuxLabel")
    assert pyrun.ids() == []


def test_a_mount_label_that_is_none(pyrun: Runner, bundle: BundleMaker) -> None:
    wrong = "u:object_r:nothing_t"
    pyrun.run(labelled(bundle, ["true"], mount_label=wrong)).fails(1, wrong, "/linux/mountLabel")
    assert pyrun.ids() == []


def test_exec_with_a_label_that_is_none(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(labelled(bundle, ["sleep", "1000"]))
    wrong = "u:r:nobody_t"
    pyrun.exec(id, "true", options=["--process-label", wrong]).fails(1, wrong, "process.selinuxLabel")
    assert label_of(pyrun.pid(id)) == BOX


def test_the_keyring_has_the_label(pyrun: Runner, bundle: BundleMaker) -> None:
    show = ["/usr/bin/python3", "-I", "-S", "-c", KEYRING_LABEL]
    assert pyrun.run(use_host_tools(labelled(bundle, show))).ok().out == f"{BOX}\n"
