"""Programs of others that come as Go modules: tests drive them, so they are built here, once a version, and kept."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.machines_network import machines_network

# The oldest Go that is of use (Debian 12 has 1.19), and the module that it can be had as.
GO_MINOR = 21
TOOLCHAIN = "golang.org/toolchain@v0.0.1-go1.21.13.linux-"
GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
STRIPPED = ("-trimpath", "-ldflags", "-s -w")
TIMEOUT_S = 900.0


class Unavailable(Exception):
    """The programs can't be had on this machine; the text says why."""


def kept(program: Path, make: Callable[[Path], None]) -> Path:
    """The program, made where it is not there yet, by one process at a time and in the machine's network: a test may
    be in one of its own. What make() raises."""
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            with machines_network():
                make(program)
    return program


def find_go(directory: Path) -> str:
    """A go command that is new enough; raises Unavailable where there is none to be had. Works in this directory."""
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise Unavailable("Go is not on this machine, and these programs are built with it")
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"go1\.(\d+)", said)
    return go if version is None or int(version[1]) >= GO_MINOR else download_go(go, directory)


def download_go(old: str, directory: Path) -> str:
    """A newer Go, by way of an old one, as a module. Go before 1.21 loses the mode of the programs in it."""
    root = download_module(old, TOOLCHAIN + GO_ARCH.get(platform.machine(), platform.machine()), directory)
    for folder in ("bin", "pkg/tool"):
        for path in (root / folder).rglob("*"):
            path.chmod(0o755)
    return str(root / "bin" / "go")


def download_module(go: str, module: str, directory: Path) -> Path:
    """The directory of a module's source; raises Unavailable when it can't be had."""
    argv = [go, "mod", "download", "-json", module]
    env = os.environ | {"GOFLAGS": "-mod=mod"}
    done = subprocess.run(argv, env=env, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{module} can't be had: {(done.stderr or done.stdout).strip()[-500:]}")
    return Path(json.loads(done.stdout)["Dir"])


def build(go: str, source: Path, program: Path, *argv: str) -> None:
    """Builds a program, static, in its module's source: argv is `build` or `test` with its options, and the package."""
    verb, *options = argv
    partial = program.with_name(f"{program.name}.partial")
    # A module may come with a list of a vendor directory that it comes without.
    env = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    command = [go, verb, "-o", str(partial), *options]
    done = subprocess.run(command, env=env, cwd=source, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{program.name} can't be built: {done.stderr.strip()[-500:]}")
    partial.rename(program)
