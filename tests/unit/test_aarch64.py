"""The freestanding programs, here and on aarch64: cross-compiled, and run under qemu-user as far as that goes.

qemu-user has no clone3 with CLONE_INTO_CGROUP and no new mount calls of its own, so what runs there is the start of the
init, the decoder, and steps that any kernel has.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pyrun.plan.model import steps as s
from pyrun.plan.model.plan import Builder, version
from pyrun.plan.model.steps import PARENT, STAGE1, Step
from tests.support.container.runner import REPO
from tests.support.executor.wire import enum, every_step, size_of

BUILD = REPO / "cffi_build" / "build.py"
CROSS, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
PF_X, PF_W, PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_GNU_STACK = 1, 2, 1, 2, 3, 0x6474E551
MACHINES = {"x86_64": 62, "aarch64": 183}
MOST = 64 * 1024


def program_headers(data: bytes) -> list[tuple[int, int]]:
    """(type, flags) of each segment of a 64-bit ELF."""
    (offset,) = struct.unpack_from("<Q", data, 32)
    each, count = struct.unpack_from("<HH", data, 54)
    return [struct.unpack_from("<II", data, offset + i * each) for i in range(count)]


def section_types(data: bytes) -> list[int]:
    (offset,) = struct.unpack_from("<Q", data, 40)
    each, count = struct.unpack_from("<HH", data, 58)
    return [struct.unpack_from("<I", data, offset + i * each + 4)[0] for i in range(count)]


def check_freestanding(path: Path, machine: str) -> None:
    data = path.read_bytes()
    assert data[:5] == b"\x7fELF\x02" and struct.unpack_from("<HH", data, 16) == (2, MACHINES[machine]), (
        "a fixed executable"
    )
    segments = program_headers(data)
    assert segments and not {PT_DYNAMIC, PT_INTERP} & {kind for kind, _ in segments}
    loads = [flags for kind, flags in segments if kind in (PT_LOAD, PT_GNU_STACK)]
    assert not any(flags & PF_W and flags & PF_X for flags in loads), "nothing is writable and executable"
    assert [flags & PF_X for kind, flags in segments if kind == PT_GNU_STACK] == [0]
    assert not {2, 4, 6, 9, 11} & set(section_types(data)), "no symbols, relocations or dynamic section"


def compiled(name: str) -> Path:
    """A program that build.py made for aarch64, where a warning is an error; kept for as long as sources and compiler
    are the same."""
    if shutil.which(CROSS) is None:
        pytest.skip("needs aarch64-linux-gnu-gcc (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross)")
    digest = hashlib.sha256(subprocess.check_output([CROSS, "--version"]))
    for path in sorted(BUILD.parent.rglob("*")):
        if path.suffix in (".c", ".h", ".py"):
            digest.update(f"{path.relative_to(REPO)}\0".encode() + path.read_bytes())
    kept = REPO / ".cache" / "aarch64" / name
    target = kept / digest.hexdigest()[:16]
    if not target.exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        subprocess.run([sys.executable, BUILD, "--only", name, "--cc", CROSS, "--out", kept / "new"], check=True)
        (kept / "new").rename(target)
    return next(target.iterdir())


@pytest.mark.parametrize("name", ["pyrun-init", "pyrun", "pyrun-pod"])
def test_freestanding(name: str) -> None:
    """As `bootstrap build` has made them."""
    program = REPO / "pyrun" / "bin" / name
    check_freestanding(program, os.uname().machine)
    assert program.stat().st_size < MOST


def test_nothing_is_undefined(tmp_path: Path) -> None:
    """The objects of the init need nobody: the compiler calls no function of a C library."""
    sources = [
        REPO / "cffi_build" / name for name in ("init/init.c", "init/start.c", "executor/ctx.c", "executor/interp.c")
    ]
    sources += sorted((REPO / "cffi_build" / "executor").glob("steps_*.c"))
    out = str(tmp_path / "init.o")
    flags = ["-Os", "-ffreestanding", "-nostdlib", "-r", "-fno-stack-protector", "-fno-pie"]
    flags += [f"-DPX_VERSION={version():#x}u", "-I", str(REPO / "cffi_build" / "executor"), "-o", out]
    subprocess.run(["cc", *flags, *map(str, sources)], check=True)
    done = subprocess.run(["nm", "--undefined-only", out], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == ""


@pytest.fixture(scope="module")
def aarch64() -> Path:
    """pyrun-init for aarch64."""
    return compiled("init")


def test_cross(aarch64: Path) -> None:
    check_freestanding(aarch64, "aarch64")
    assert aarch64.stat().st_size < MOST
    check_freestanding(compiled("launcher"), "aarch64")
    check_freestanding(compiled("pod"), "aarch64")


def run_init(program: Path, *steps: Step, plan: bytes | None = None, keep: int = 10) -> tuple[int, bytes]:
    """Runs stage 1 as the parent lane starts it: socket and plan behind `keep`. (exit code, what it sent.)"""
    if shutil.which(QEMU) is None:
        pytest.skip("needs qemu-aarch64-static (Debian: qemu-user-static)")
    if plan is None:
        b = Builder(keep_fds=keep)
        b.add(STAGE1, *steps)
        plan = b.plan().encode()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory = os.memfd_create("plan")
    os.write(memory, plan)

    def place() -> None:
        for number, fd in enumerate((theirs.fileno(), memory, memory)):
            os.dup2(os.dup(fd), 500 + number)
        for number in range(3):
            os.dup2(500 + number, keep + number)

    with ours, theirs:
        child = subprocess.Popen([QEMU, program, str(keep)], preexec_fn=place, pass_fds=range(keep, keep + 3))
        theirs.close()
        ours.settimeout(20)
        said = ours.recv(8192)
        if said and struct.unpack_from("<I", said)[0] == enum("px_msg_kind")["MSG_MEET"]:
            ours.send(struct.pack("<i", 4242))
            said += ours.recv(8192)
        code = child.wait(20)
    os.close(memory)
    return code, said


def message(said: bytes) -> dict[str, int]:
    names = ("kind", "lane", "step", "substep", "err", "value", "text_len")
    return dict(zip(names, struct.unpack_from("<4I2iI", said), strict=True))


@pytest.mark.parametrize("arguments", [(), ("3",), ("x",), ("2",), ("99999999999",), ("3", "4"), ("",)])
def test_bad_arguments(aarch64: Path, arguments: tuple[str, ...]) -> None:
    if shutil.which(QEMU) is None:
        pytest.skip("needs qemu-aarch64-static (Debian: qemu-user-static)")
    done = subprocess.run([QEMU, aarch64, *arguments], stdin=subprocess.DEVNULL, timeout=20, check=False)
    assert done.returncode == 2


def test_runs_to_its_end(aarch64: Path, tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    steps = (
        s.Mkdirat(path=f"{tmp_path}/dir", mode=0o700),
        s.Symlinkat(target="to", name=f"{tmp_path}/dir/link"),
        s.CreateFile(name=f"{tmp_path}/dir/file", mode=0o600, data=data),
        s.Umask(mask=0o77),
        s.Chdir(path=str(tmp_path)),
        s.FindExecutable(name="sh", path="/nowhere:/bin"),
    )
    assert run_init(aarch64, *steps) == (0, b"")
    assert os.readlink(tmp_path / "dir/link") == "to" and (tmp_path / "dir/file").read_bytes() == data


def test_meets_and_fails(aarch64: Path, tmp_path: Path) -> None:
    """A rendezvous, its answer, and a failure: 1, and a message with the place and errno."""
    code, said = run_init(aarch64, s.Setsid(), s.Meet(point=7), s.Chdir(path=f"{tmp_path}/missing"))
    head = size_of("px_msg") - 4096
    first, second = message(said[:head]), message(said[head:])
    assert (first["kind"], first["step"], first["value"]) == (enum("px_msg_kind")["MSG_MEET"], 1, 7)
    assert (second["kind"], second["step"], second["err"]) == (enum("px_msg_kind")["MSG_ERROR"], 2, 2)
    assert code == 1


def test_refuses_a_damaged_plan(aarch64: Path) -> None:
    plan = bytearray(every_step().encode())
    plan[4] = 99
    assert run_init(aarch64, plan=bytes(plan)) == (2, b"")


def test_decodes_every_step(aarch64: Path) -> None:
    """A plan with each class of step in the lanes that do not run here."""
    b = Builder(keep_fds=10)
    whole = every_step()
    for _ in whole.slots:
        b.slot("s")
    b.add(PARENT, *(step for step in whole.lanes[PARENT] if not step.on))
    assert run_init(aarch64, plan=b.plan().encode()) == (0, b"")
