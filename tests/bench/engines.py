"""How long `ctr run --rm` and `podman run --rm` of true take with each runtime, which take turns.

    .venv/bin/python -m tests.bench.engines --guest [--rounds N] [--only ctr|podman] [pyrun crun runc]

In the guest, whose containerd and podman are Debian's. Milliseconds of the whole command; docker takes its runtime from
the same shim as containerd.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.container.runner import REPO
from tests.vm.engines.engine import IMAGE, make_image, systemctl

NAMES = ("pyrun", "crun", "runc")


def command_of(engine: str, path: str, number: int) -> list[str]:
    """One container that runs `true` and is gone then."""
    if engine == "ctr":
        return ["ctr", "run", "--rm", "--runc-binary", path, IMAGE, f"bench{number}", "true"]
    return ["podman", "--runtime", path, "run", "--rm", "--network", "none", IMAGE, "true"]


def measure(engine: str, paths: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Milliseconds by name. The first round does not count. CalledProcessError when a container fails."""
    took: dict[str, list[float]] = {name: [] for name in paths}
    names = list(paths)
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            argv = command_of(engine, paths[name], number)
            begin = time.perf_counter()
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
            if number:
                took[name].append((time.perf_counter() - begin) * 1e3)
    return took


def report(engine: str, took: dict[str, list[float]]) -> str:
    """A row of a table: medians, and pyrun's share of each peer's."""
    medians = {name: statistics.median(each) for name, each in took.items()}
    cells = [f"{medians[name]:.0f}" for name in took]
    cells += [f"{medians['pyrun'] / medians[name]:.2f}" for name in took if name != "pyrun" and "pyrun" in took]
    return f"| `{engine} run --rm` true | {' | '.join(cells)} |"


def in_guest(words: list[str]) -> int:
    """The same in a guest, its output on ours."""
    from tests.support.vm import __main__ as vm

    return vm.run(f"cd /job/src && PYTHONPATH=/job/site {shlex.join(['python3', '-m', 'tests.bench.engines', *words])}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", choices=("ctr", "podman"))
    parser.add_argument("--guest", action="store_true", help="boot a guest, and measure in it")
    parser.add_argument("runtime", nargs="*", default=list(NAMES))
    options = parser.parse_args()
    if options.guest:
        return in_guest([word for word in sys.argv[1:] if word != "--guest"])
    paths = {name: path for name in options.runtime if (path := shutil.which(name))}
    made = subprocess.run([REPO / "bundles" / "make-rootfs", "busybox"], check=True, stdout=subprocess.PIPE, text=True)
    with tempfile.TemporaryDirectory() as name:
        image = make_image(Path(made.stdout.strip()), Path(name) / "image.tar")
        systemctl("start", "containerd")
        subprocess.run(["ctr", "images", "import", image], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["podman", "load", "-q", "-i", image], check=True, stdout=subprocess.DEVNULL)
    shares = " | ".join(f"pyrun / {name}" for name in paths if name != "pyrun")
    print(f"| engines, ms | {' | '.join(paths)} | {shares} |", flush=True)
    for engine in [options.only] if options.only else ("ctr", "podman"):
        print(report(engine, measure(engine, paths, options.rounds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
