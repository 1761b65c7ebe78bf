"""The Vagrant guest and its box, as far as their files say: nothing is booted here (docs/vagrant.md tells what was)."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
VAGRANT = REPO / "vagrant"
VAGRANTFILE = (VAGRANT / "Vagrantfile").read_text()
PROVISION = (VAGRANT / "provision.sh").read_text()
PYRUN = "/usr/local/bin/pyrun"
SCRIPTS = ["make-box", "make-guest", "make-prefix", "provision.sh", "box/setup", "guest/setup"]
SECTOR = 512


def written(path: str) -> str:
    """What provision.sh writes to this file."""
    found = re.search(rf"write_file {re.escape(path)} <<END\n(.*?)^END$", PROVISION, re.M | re.S)
    assert found, path
    return found[1].replace("$PYRUN", PYRUN)


def packages(path: Path) -> set[str]:
    return {word for line in path.read_text().splitlines() for word in line.partition("#")[0].split()}


def shell_list(name: str) -> set[str]:
    found = re.search(rf'^{name}="(.*?)"', PROVISION, re.M | re.S)
    assert found, name
    return set(found[1].split())


def shell_functions(path: Path) -> str:
    """A script up to where it looks at its arguments: the constants and the functions."""
    return path.read_text().partition("\n[ $# -eq 0 ]")[0]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse_and_may_be_run(name: str) -> None:
    path = VAGRANT / name
    assert path.stat().st_mode & 0o111 == 0o111
    subprocess.run(["sh", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--severity=warning", path], check=True)


@pytest.mark.parametrize(
    ("page", "path"),
    [("podman", "/etc/containers/containers.conf.d/pyrun.conf"), ("docker", "/etc/docker/daemon.json")],
)
def test_provision_writes_what_the_page_says(page: str, path: str) -> None:
    blocks = re.findall(r"^```(?:toml|json)\n(.*?)^```$", (REPO / "docs" / f"{page}.md").read_text(), re.M | re.S)
    assert written(path) in blocks


def test_provision_gives_containerd_both_handlers() -> None:
    cri = tomllib.loads(written("/etc/containerd/config.toml"))["plugins"]["io.containerd.grpc.v1.cri"]
    runtimes = cri["containerd"]["runtimes"]
    assert cri["containerd"]["default_runtime_name"] in runtimes
    assert {name: runtime["runtime_type"] for name, runtime in runtimes.items()} == {
        "pyrun": "io.containerd.runc.v2",
        "runc": "io.containerd.runc.v2",
    }
    assert runtimes["pyrun"]["options"] == {"BinaryName": PYRUN, "SystemdCgroup": True}
    assert "BinaryName" not in runtimes["runc"]["options"]


def test_the_box_has_what_provision_needs() -> None:
    """So that a guest of the box comes up without a network."""
    box = packages(VAGRANT / "guest" / "packages") | packages(VAGRANT / "box" / "packages")
    assert shell_list("PACKAGES") | shell_list("PREFIX_PACKAGES") <= box
    assert {"openssh-server", "rsync", "sudo"} <= box


def test_provision_keeps_what_was_there_once(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "daemon.json"
    found = re.search(r"^write_file\(\) \{.*?^\}$", PROVISION, re.M | re.S)
    assert found

    def write(text: str) -> None:
        subprocess.run(["sh", "-euc", f'{found[0]}\nwrite_file "$0"', path], input=text, text=True, check=True)

    kept = Path(f"{path}.before-pyrun")
    write("pyrun 1")
    write("pyrun 2")
    assert path.read_text() == "pyrun 2"
    assert not kept.exists()
    path.write_text("theirs")
    write("pyrun 3")
    write("pyrun 4")
    assert (path.read_text(), kept.read_text()) == ("pyrun 4", "theirs")


def test_provision_refuses_what_it_does_not_know() -> None:
    done = subprocess.run([VAGRANT / "provision.sh", "--prefxi", "/x"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "usage: provision.sh [--prefix DIR]" in done.stderr


def test_the_box_says_the_size_of_its_disk() -> None:
    size = re.search(r"^size=(\d+)", (VAGRANT / "make-box").read_text(), re.M)
    assert size
    metadata = json.loads((VAGRANT / "box" / "metadata.json").read_text())
    assert metadata == {"provider": "libvirt", "format": "qcow2", "virtual_size": int(size[1])}


def test_the_box_has_one_partition_behind_grub(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xaa" * (2 * SECTOR))
    script = shell_functions(VAGRANT / "make-box") + '\nwrite_table "$DISK"\necho "$size $start"'
    done = subprocess.run(
        ["sh", "-c", script, VAGRANT / "make-box"],
        env={"DISK": str(disk), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    size, start = map(int, done.stdout.split())
    head = disk.read_bytes()
    active, kind, first, count = struct.unpack("<B3xB3xII", head[446:462])
    assert (active, kind, first) == (0x80, 0x83, start)
    assert (first + count) * SECTOR == size << 30
    assert head[510:512] == b"\x55\xaa"
    # GRUB's code, before the table and behind it, is not this function's.
    assert head[:446] == b"\xaa" * 446
    assert head[SECTOR:] == b"\xaa" * SECTOR


def test_the_guest_gets_none_of_what_was_built_here() -> None:
    """The C parts and the virtual environment are of this machine: `bootstrap install` there must make its own."""
    found = re.search(r"^BUILT_HERE = %w\[(.*?)\]", VAGRANTFILE, re.M)
    assert found
    excluded = set(found[1].split())
    ignored = {line.lstrip("/") for line in (REPO / ".gitignore").read_text().split()}
    assert {".venv/", ".cache/", "build/", "pyrun/bin/", "*.so"} <= ignored & excluded


def test_links_stay_links_on_the_way_into_the_guest() -> None:
    """Vagrant's default is --copy-links, which never comes to an end in pyrun/bin/site-packages."""
    synced = re.findall(r'^  config\.vm\.synced_folder .*type: "rsync".*$', VAGRANTFILE, re.M)
    assert len(synced) == 2
    assert all("rsync__args: RSYNC" in line for line in synced)
    assert "--copy-links" not in VAGRANTFILE


def test_the_page_names_every_variable() -> None:
    page = (REPO / "docs" / "vagrant.md").read_text()
    assert set(re.findall(r"PYRUN_VAGRANT_\w+", page)) == set(re.findall(r'ENV(?:\.fetch\(|\[)"(\w+)"', VAGRANTFILE))
