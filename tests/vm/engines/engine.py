"""What the tests of engines share: an image that needs no registry, a client that runs command lines, and the pages in
docs/, whose configuration is the one that is tested.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from tests.support.container.disk import unmount
from tests.support.container.runner import REPO, Result

IMAGE = "localhost/busybox:latest"
ISOLATED = ("--network", "none")
TIMEOUT_S = 120.0
# What a container says about itself for test_options of each engine; each line starts with a word to find it by.
REPORT = """
echo here $(pwd) $A $(hostname)
cd /sys/fs/cgroup
for f in memory.max memory.low memory.swap.max cpu.max cpu.weight cpuset.cpus pids.max; do echo $f $(cat $f); done
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
echo nofile $(ulimit -n) $(ulimit -Hn)
echo user $(id -u) $(id -g)
touch /x 2>/dev/null && echo writable yes
echo tmpfs $(grep ' /t ' /proc/mounts)
echo volume $(cat /bind/hello) && touch /vol/made && ! touch /bind/x 2>/dev/null && echo volumes ok
echo device $(ls -l /dev/mynull)
echo sysctl $(cat /proc/sys/net/ipv4/ip_forward)
echo apparmor $(cat /proc/self/attr/current)
"""


def make_image(rootfs: Path, target: Path) -> Path:
    """A docker archive of this root, tagged IMAGE: all three engines load it. Its command is to sleep."""
    layer = BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(rootfs, ".")
    data = layer.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "history": [{"created_by": "the tests"}],
            "config": {"Cmd": ["sleep", "100000"], "Env": ["PATH=/bin:/sbin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest()]},
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w") as tar:
        for file, content in ((name, config), ("layer.tar", data), ("manifest.json", manifest)):
            info = tarfile.TarInfo(file)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return target


def config_of(page: str, path: str, index: int = 0) -> str:
    """The index-th block of docs/PAGE that follows a line which begins with this path."""
    text = (REPO / "docs" / page).read_text()
    blocks = re.findall(rf"^`{re.escape(path)}`[^\n]*\n+```\w*\n(.*?)^```$", text, re.M | re.S)
    return str(blocks[index])


@contextmanager
def mounted(directory: Path) -> Iterator[Path]:
    """A tmpfs there that propagates, while it lasts."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "--make-shared", "tmpfs", directory], check=True, timeout=TIMEOUT_S)
    try:
        yield directory
    finally:
        unmount(directory)


def share(directory: Path) -> Path:
    """Lets everybody into a directory of pytest's, which is root's alone."""
    for path in (directory, *directory.parents[:2]):
        path.chmod(0o755)
    return directory


def add_subordinate_ids(name: str, first: int, count: int) -> None:
    """Gives a user a range of /etc/subuid and /etc/subgid, unless it has one."""
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        if f"{name}:" not in file.read_text():
            file.write_text(file.read_text() + f"{name}:{first}:{count}\n")


@contextmanager
def config_file(path: str, text: str) -> Iterator[None]:
    """The file, while it lasts; what was there comes back."""
    file = Path(path)
    before = file.read_bytes() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    try:
        yield
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)


def systemctl(*argv: str) -> str:
    done = subprocess.run(["systemctl", *argv], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"systemctl {' '.join(argv)}: {done.stderr}"
    return done.stdout


def restart(unit: str) -> None:
    """Starts it anew, however often that was done: systemd's limit is for units that fail."""
    subprocess.run(["systemctl", "reset-failed", unit], capture_output=True, timeout=TIMEOUT_S)  # may not be loaded
    systemctl("restart", unit)


class Client:
    """An engine's command line. Calling it runs one and waits."""

    def __init__(self, *argv: str) -> None:
        self.argv = argv

    def __call__(self, *argv: str, input: str | None = None, timeout: float = TIMEOUT_S) -> Result:
        return self._run((*self.argv, *argv), input, timeout)

    def says(self, *argv: str) -> str:
        """What it prints, when it exits 0."""
        return self(*argv).ok().out.strip()

    def version(self) -> tuple[int, int]:
        """The engine's: (20, 10), (4, 3). What another version does otherwise, a test asks for by this."""
        found = re.search(r"(\d+)\.(\d+)", self.says("--version"))
        assert found
        return int(found[1]), int(found[2])

    def terminal(self, *argv: str) -> Result:
        """The same on a terminal of its own."""
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in (*self.argv, *argv))
        silent, open_end = os.pipe()  # at the end of its input script types an end of file, which the terminal echoes
        try:
            return self._run(("script", "-qec", words, "/dev/null"), None, TIMEOUT_S, silent)
        finally:
            os.close(silent)
            os.close(open_end)

    def _run(
        self, command: tuple[str, ...], input: str | None, timeout: float, silent: int = subprocess.DEVNULL
    ) -> Result:
        stdin: dict[str, Any] = {"stdin": silent} if input is None else {"input": input}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, **stdin)
        return Result(command, done.returncode, done.stdout, done.stderr)


def everything(docker: Client) -> str:
    """The capabilities of a privileged container: docker 20.10 knows 38 of them, a newer one asks the kernel."""
    if docker.version() < (23, 0):
        return "0000003fffffffff"
    return Path("/proc/1/status").read_text().partition("CapBnd:\t")[2].split()[0]


def report_of(result: Result) -> dict[str, str]:
    """What REPORT printed, by the first word of each line."""
    rows = [line.replace(":\t", " ").split(maxsplit=1) for line in result.ok().out.splitlines() if line]
    return {row[0]: row[-1] for row in rows}


# Patterns for what the options of `options` do.
WANTED = {
    "memory.max": str(64 << 20),
    "memory.swap.max": str(16 << 20),
    "memory.low": str(32 << 20),
    "cpu.max": "50000 100000",
    "cpu.weight": "59",
    "cpuset.cpus": "1",
    "pids.max": "33",
    "CapBnd": "0000000000000400",
    "NoNewPrivs": "1",
    "Seccomp": "2",
    "nofile": "100 200",
    "user": "1000 5",
    "here": "/tmp b hh",
    "tmpfs": ".*size=1024k.*",
    "volume": "there",
    "volumes": "ok",
    "device": "crw.*",
    "sysctl": "1",
    "apparmor": ".*enforce.*",
    "writable": "",
}


def wrong_options(told: dict[str, str]) -> dict[str, str]:
    """What `run` with options() made otherwise than it should be."""
    found = {name: told.get(name, "") for name in WANTED}
    return {name: value for name, value in found.items() if not re.fullmatch(WANTED[name], value)}


def options(bind: Path, volume: str) -> list[str]:
    """The options of `run` that podman and docker share; WANTED has what they do."""
    words = f"""--network none --memory 64m --memory-swap 80m --memory-reservation 32m --cpus 0.5 --cpu-shares 512
        --cpuset-cpus 1 --pids-limit 33 --cap-drop all --cap-add net_bind_service --security-opt no-new-privileges
        --ulimit nofile=100:200 --read-only --tmpfs /t:size=1m --device /dev/null:/dev/mynull:r
        --sysctl net.ipv4.ip_forward=1 -v {bind}:/bind:ro -v {volume}:/vol -u 1000:5 -w /tmp -e A=b --hostname hh"""
    return words.split()


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 150.0) -> None:
    """Polls slowly: each look is a process of the engine's, and the processor is emulated."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.2)


def containers_in(root: Path) -> list[str]:
    """Those that pyrun has state of below this directory, beside which it keeps plans."""
    return sorted(name for name in os.listdir(root) if not name.startswith("."))


def pids_named(name: str, having: str = "") -> list[int]:
    """The processes of this program, with these words in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if words[0].rpartition("/")[2] == name and having in " ".join(words):
                found.append(int(entry))
    return found
