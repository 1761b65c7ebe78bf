"""Known attacks on a process that enters a container, each tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.bundle import CAPABILITIES, Bundle, BundleMaker
from tests.support.container.gated import ATTACKER, Gated, attack
from tests.support.container.runner import REPO, Runner, wait_for

IDLE = ["sleep", "1000"]
CAPS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@pytest.fixture
def gated(bundle: BundleMaker) -> Bundle:
    made = bundle(IDLE)
    os.mkfifo(made.rootfs / "gate")
    return made


# --- CVE-2016-9962: a process that joins is traced, and its descriptors opened ---------------------------------------


@pytest.mark.parametrize("position", ["joined", "user", "exec"])
def test_cve_2016_9962_nothing_gets_at_a_process_that_joins(pyrun: Runner, gated: Bundle, position: str) -> None:
    with Gated(pyrun, gated, position) as at:
        assert attack(at, CAPABILITIES) == []
        assert at.release() == 0


def test_cve_2016_9962_nor_as_an_unprivileged_user_of_the_same_id(pyrun: Runner, gated: Bundle) -> None:
    gated.update(process={"user": {"uid": 1000, "gid": 1000}})
    with Gated(pyrun, gated, "exec") as at:
        command = ["nsenter", "-t", str(at.init), "--pid", "--", "setpriv", "--reuid", "1000", "--regid", "1000"]
        command += ["--clear-groups", sys.executable, str(ATTACKER), str(at.pid), str(at.inside)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        assert done.stdout == ""
        assert at.release() == 0


def test_cve_2016_9962_the_attack_works_on_what_is_not_protected(pyrun: Runner, gated: Bundle) -> None:
    with Gated(pyrun, gated, "exec", "unprotected") as at:
        worked = attack(at, CAPABILITIES)
        assert "open fd" in worked and "open root" in worked
        assert at.release() == 0


# --- CVE-2019-5736: the runtime's binary is overwritten through /proc/PID/exe ----------------------------------------

# Opens the file that the victim runs, waits until it has ended, and writes through the handle.
OVERWRITE = """
exec 9</proc/$1/exe || exit 10
echo held
while [ -e /proc/$1 ] && ! grep -q '^State:.Z' /proc/$1/status; do sleep 0.02; done
sleep 0.1
echo overwritten 2>/dev/null >/proc/self/fd/9 && exit 0
exit 11
"""


@pytest.fixture
def unharmed() -> Iterator[None]:
    """The programs of ours that run in or beside a container are programs still."""
    files = [REPO / "pyrun/bin/pyrun", REPO / "pyrun/bin/pyrun-init", Path(sys.executable).resolve()]
    yield
    for file in files:
        with file.open("rb") as opened:
            assert opened.read(4) == b"\x7fELF", file


def test_cve_2019_5736_the_file_of_a_joining_process(pyrun: Runner, gated: Bundle, unharmed: None) -> None:
    """Even a container that may trace all that is in it gets no more than a sealed memfd."""
    every = [*CAPABILITIES, "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]
    gated.update(process={"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), every)})
    with Gated(pyrun, gated, "exec") as at:
        command = pyrun.command("exec", at.id, "sh", "-c", OVERWRITE, "sh", str(at.inside))
        attacker = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert attacker.stdout is not None and attacker.stdout.readline() == b"held\n"
        assert at.release() == 0
        assert attacker.wait(60) == 11


def test_cve_2019_5736_the_attack_works_on_an_ordinary_file(pyrun: Runner, gated: Bundle) -> None:
    victim = gated.rootfs / "opt" / "sleep"
    victim.parent.mkdir(exist_ok=True)
    victim.write_bytes((gated.rootfs / "bin" / "busybox").resolve().read_bytes())
    victim.chmod(0o755)
    id = pyrun.create_started(gated)
    script = f"/opt/sleep 0.5 & pid=$!; sleep 0.2; set -- $pid; {OVERWRITE}"
    assert pyrun.exec(id, "sh", "-c", script).ok().out == "held\n"
    assert victim.read_bytes() == b"overwritten\n"


@pytest.mark.parametrize("args", [["/proc/self/exe"], ["/proc/self/exe", "3"], ["/bin/evil"], ["/bin/self"]])
def test_cve_2019_5736_a_program_that_is_the_runtime(
    pyrun: Runner, bundle: BundleMaker, unharmed: None, args: list[str]
) -> None:
    """What runs then is pyrun-init from its memfd, without the descriptors that it needs: it ends at once."""
    made = bundle(args)
    (made.rootfs / "bin/evil").write_text("#!/proc/self/exe\n")
    (made.rootfs / "bin/evil").chmod(0o755)
    (made.rootfs / "bin/self").symlink_to("/proc/self/exe")
    assert pyrun.run(made).rc in (1, 2)
    made.update(process={"args": IDLE})
    assert pyrun.exec(pyrun.create_started(made), *args).rc in (1, 2, 255)


# --- CVE-2022-29162, and crun's CVE-2022-27650: inheritable capabilities ---------------------------------------------


def capabilities_of(status: str) -> dict[str, int]:
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {name: int(fields[name], 16) for name in CAPS}


def test_cve_2022_29162_no_inheritable_capabilities(pyrun: Runner, bundle: BundleMaker) -> None:
    """Not from the caller, not by default, and not by exec --cap."""
    made = bundle(["cat", "/proc/self/status"])
    command = ["setpriv", "--inh-caps", "+kill,+net_raw", *pyrun.command("run", "-b", made.path, pyrun.new_id())]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    own = capabilities_of(done.stdout)
    assert own["CapInh"] == own["CapAmb"] == 0 and own["CapPrm"] != 0
    id = pyrun.create_started(bundle(IDLE))
    extra = pyrun.exec(id, "cat", "/proc/self/status", options=["--cap", "CAP_NET_RAW"]).ok()
    more = capabilities_of(extra.out)
    assert more["CapInh"] == more["CapAmb"] == 0
    assert more["CapPrm"] == more["CapEff"] == more["CapBnd"] == own["CapPrm"] | 1 << 13


def test_cve_2022_27650_exec_adds_none_that_are_inheritable(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    id = pyrun.create_started(bundle(IDLE))
    assert capabilities_of(pyrun.exec(id, "cat", "/proc/self/status").ok().out)["CapInh"] == 0
    process = {
        "args": ["cat", "/proc/self/status"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), ["CAP_KILL"]),
    }
    (tmp_path / "process.json").write_text(json.dumps(process))
    found = capabilities_of(pyrun("exec", "--process", tmp_path / "process.json", id).ok().out)
    assert found == {"CapInh": 0, "CapPrm": 32, "CapEff": 32, "CapBnd": 32, "CapAmb": 0}


# --- CVE-2024-21626: a descriptor of the host's as working directory, program or interpreter -------------------------

NUMBERS = range(3, 24)


def with_host_directories(argv: list[str]) -> subprocess.CompletedProcess[str]:
    """argv with the host's root open as descriptors 3 to 9, as a careless caller leaves them."""
    opens = "".join(f"exec {n}</;" for n in range(3, 10))
    return subprocess.run(
        ["bash", "-c", f'{opens} exec "$@"', "bash", *argv],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A program of the host's that says so."""
    file = tmp_path / "escaped"
    file.write_text("#!/bin/sh\necho ESCAPED\n")
    file.chmod(0o755)
    return file


def ways(number: int, marker: Path) -> list[tuple[str, list[str]]]:
    """(working directory, program) for one descriptor."""
    up = f"/proc/self/fd/{number}" + "/.." * 8
    return [
        (f"/proc/self/fd/{number}", ["sh", "-c", f"./{'../' * 12}{marker}; .{marker}"]),
        (f"/proc/self/fd/{number}/..", ["sh", "-c", f"./{'../' * 12}{marker}"]),
        (f"/dir{number}", ["sh", "-c", f"./{'../' * 12}{marker}"]),
        ("/", [f"{up}{marker}"]),
        ("/", [f"/proc/self/fd/{number}{marker}"]),
        ("/", [f"/bin/link{number}"]),
        ("/", [f"/bin/script{number}"]),
    ]


def lay_traps(rootfs: Path, marker: Path) -> None:
    """What an image can hold: links to directories and programs through our descriptors, and scripts run by them."""
    for number in NUMBERS:
        target = f"/proc/self/fd/{number}"
        (rootfs / f"dir{number}").symlink_to(target)
        (rootfs / f"bin/link{number}").symlink_to(f"{target}{marker}")
        script = rootfs / f"bin/script{number}"
        script.write_text(f"#!{target}/bin/sh\necho ESCAPED\n")
        script.chmod(0o755)


def test_cve_2024_21626_exec(pyrun: Runner, bundle: BundleMaker, marker: Path) -> None:
    made = bundle(IDLE)
    lay_traps(made.rootfs, marker)
    id = pyrun.create_started(made)
    for number in NUMBERS:
        for cwd, args in ways(number, marker):
            done = with_host_directories(pyrun.command("exec", "--cwd", cwd, id, *args))
            assert done.returncode != 0, (cwd, args)
            assert "ESCAPED" not in done.stdout, (cwd, args)


def test_cve_2024_21626_run(pyrun: Runner, bundle: BundleMaker, marker: Path) -> None:
    made = bundle(IDLE)
    lay_traps(made.rootfs, marker)
    for number in NUMBERS:
        for cwd, args in ways(number, marker):
            made.update(process={"cwd": cwd, "args": args})
            done = with_host_directories(pyrun.command("run", "-b", made.path, pyrun.new_id()))
            assert done.returncode != 0, (cwd, args)
            assert "ESCAPED" not in done.stdout, (cwd, args)


def test_cve_2024_21626_created_container_holds_nothing_of_the_hosts(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(IDLE)
    command = pyrun.command("create", "-b", made.path, "one")
    subprocess.run(
        ["bash", "-c", 'for n in 3 4 5 6 7; do eval "exec $n</"; done; exec "$@" >/dev/null 2>&1', "bash", *command],
        stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    init = Path(f"/proc/{pyrun.pid('one')}")

    def only_its_own() -> bool:
        held = {os.readlink(fd) for fd in (init / "fd").iterdir()} - {"/dev/null"}
        # The sync socket, whose other end is gone, is closed by the exec.
        return {n for n in held if not n.startswith("socket:")} == {f"{pyrun.root}/one/{n}" for n in ("go", "status")}

    wait_for(only_its_own, 30, "the init to park")


# --- CVE-2026-30892 (crun): exec -u, read wrongly, leaves root -------------------------------------------------------


@pytest.mark.parametrize(
    "user",
    [
        "", ":", "1:", ":1", "a", "root", "1a", "a1", "-1", "+1", " 1", "1 ", "1\n", "0x1", "1_0", "１", "1.0", "1e3",
        "1:2:3", "1,2", "4294967295", "4294967296", "18446744073709551616", "99999999999999999999999", "1:-1",
        "1:4294967295", "1:b",
    ],
)  # fmt: skip
def test_cve_2026_30892_what_is_no_user_is_refused(pyrun: Runner, bundle: BundleMaker, user: str) -> None:
    id = pyrun.create_started(bundle(IDLE))
    done = pyrun.exec(id, "id", "-u", options=[f"--user={user}"]).fails(1, "--user")
    assert done.out == ""


@pytest.mark.parametrize(
    "user, ids",
    [("1", "1 0"), ("1:2", "1 2"), ("0", "0 0"), ("01:02", "1 2"), ("4294967294:7", "4294967294 7")],
)  # fmt: skip
def test_cve_2026_30892_what_is_one_is_that_one(pyrun: Runner, bundle: BundleMaker, user: str, ids: str) -> None:
    id = pyrun.create_started(bundle(IDLE))
    out = pyrun.exec(id, "sh", "-c", "echo $(id -u) $(id -g)", options=["--user", user]).ok().out
    assert out.strip() == ids


# --- no CVE: what enters a container ---------------------------------------------------------------------------------


@pytest.mark.parametrize("position", ["joined", "exec"])
def test_nothing_of_python_is_in_the_containers_cgroup(pyrun: Runner, gated: Bundle, position: str) -> None:
    with Gated(pyrun, gated, position) as at:
        running = [os.readlink(f"/proc/{pid}/exe") for pid in at.procs.read_text().split()]
        assert sorted(Path(name).name for name in running) == ["busybox", "memfd:pyrun-init (deleted)"]
        maps = Path(f"/proc/{at.pid}/maps").read_text()
        assert "python" not in maps and "libc" not in maps
        assert at.release() == 0
