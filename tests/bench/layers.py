"""What a layer costs to unpack, verify and remove: pyrun-layer against GNU tar, interleaved, on a tmpfs.

Run as ``python -m tests.bench.layers [DIRECTORY] [--rounds N]``; the layer is a tar of DIRECTORY, by default of the
tests' Debian root. CPU seconds are of the child with its children; the minimum of the rounds, because a busy machine
adds and never takes away. pyrun-layer verifies two digests, the others none.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pyrun.image import layers

ROOT = Path(__file__).resolve().parents[2] / ".cache" / "rootfs" / "debian"
SHM = "/dev/shm"


def ours(blob: Path) -> Callable[[Path], None]:
    def run(into: Path) -> None:
        fd = os.open(into, os.O_RDONLY)
        layers.unpack(str(blob), None, fd, digest=None, diff_id=None)
        os.close(fd)

    return run


def shell(command: str, blob: Path) -> Callable[[Path], None]:
    def run(into: Path) -> None:
        subprocess.run(["sh", "-c", command, "sh", blob, into], check=True)

    return run


def remove_ours(into: Path) -> None:
    parent = os.open(into.parent, os.O_RDONLY)
    layers.remove(parent, into.name)
    os.close(parent)


def measure(run: Callable[[Path], None], into: Path) -> tuple[float, float]:
    """CPU and wall seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run(into)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=SHM) as tmp:
        tar, gz, zst = (Path(tmp) / name for name in ("layer.tar", "layer.tar.gz", "layer.tar.zst"))
        subprocess.run(["tar", "-C", args.directory, "--exclude=./dev/*", "-cf", tar, "."], check=True)
        subprocess.run(["sh", "-c", f"gzip -c {tar} >{gz}; zstd -q -c {tar} >{zst} || rm {zst}"], check=True)
        ways = {
            "pyrun gz": ours(gz),
            "igzip | tar": shell('igzip -dc "$1" | tar -C "$2" --xattrs --numeric-owner -xf -', gz),
            "tar -xz": shell('tar -C "$2" --xattrs --numeric-owner -xzf "$1"', gz),
            "pyrun plain": ours(tar),
            "tar -x": shell('tar -C "$2" --xattrs --numeric-owner -xf "$1"', tar),
        }
        if zst.exists():
            ways["pyrun zstd"] = ours(zst)
            ways["zstd | tar"] = shell('zstd -dc "$1" | tar -C "$2" --xattrs --numeric-owner -xf -', zst)
        if not shutil.which("igzip"):
            del ways["igzip | tar"]
        figures: dict[str, list[tuple[float, float]]] = {}
        into = Path(tmp) / "into"
        for _ in range(args.rounds):
            for i, (name, run) in enumerate(ways.items()):
                into.mkdir()
                figures.setdefault(name, []).append(measure(run, into))
                remove, how = (
                    (remove_ours, "pyrun remove") if i % 2 == 0 else (lambda d: shell('rm -rf "$2"', d)(d), "rm -rf")
                )
                figures.setdefault(how, []).append(measure(remove, into))
        print(f"{tar.stat().st_size / 1e6:.0f} MB, {gz.stat().st_size / 1e6:.0f} MB as gzip, {args.rounds} rounds")
        print(f"{'':14} {'CPU s':>8} {'wall s':>8}")
        for name, seen in figures.items():
            print(f"{name:14} {min(c for c, _ in seen):8.3f} {min(w for _, w in seen):8.3f}")


if __name__ == "__main__":
    main()
