"""Builds the native parts in place: the cffi modules, pyrun-init and the launcher.

Run as ``python cffi_build/build.py [--faults] [--only NAME] [--cc CC]``; setuptools calls it too. A C compiler, the kernel's headers and
libseccomp's are all it needs. Warnings are errors. pyrun-init and the launcher are freestanding: no C library, so they start in
a fraction of a millisecond and park in little memory. ``--faults`` builds the second set that the tests of failure use.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PKG = HERE.parent / "pyrun"
STEPS = ["interp.c", "steps_fs.c", "steps_proc.c", "steps_io.c"]
PARENT = ["parent.c", "cgroup.c", *STEPS]
LAUNCHER = ["launcher.c", "launcher_verbs.c", "launcher_create.c", "start.c"]
WARN = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-address-of-packed-member", "-fno-strict-aliasing"]
FREE = ["-ffreestanding", "-nostdlib", "-static", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables",
        "-fno-pie", "-no-pie", "-fno-tree-loop-distribute-patterns", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,norelro", "-s"]
CDEF_SKIP = ("#", "/*")


def freestanding(cc: str, out: Path, sources: list[str], extra: list[str]) -> None:
    """Compiles `sources` to the static program `out`, written beside it first so that a running one is never half new."""
    out.parent.mkdir(exist_ok=True)
    new = out.with_name(out.name + ".new")
    subprocess.run([cc, *WARN, "-Os", *FREE, *extra, "-o", str(new), *(str(HERE / s) for s in sources)], check=True)
    new.replace(out)


def native(name: str, sources: list[str], extra: list[str]) -> None:
    """Compiles the cffi module pyrun/<name> around px.h."""
    from cffi import FFI

    ffi = FFI()
    header = (HERE / "px.h").read_text()
    ffi.cdef("\n".join(line for line in header.splitlines() if not line.startswith("#")))
    ffi.set_source(f"pyrun.{name}", '#include "px.h"', sources=[str(HERE / s) for s in sources], include_dirs=[str(HERE)],
                   extra_compile_args=[*WARN, "-Wno-unused-parameter", "-Wno-missing-field-initializers", *extra])
    compile_ffi(ffi)


def compile_ffi(ffi: object) -> None:
    """Runs cffi's compiler in a scratch directory and moves the module into the package."""
    with tempfile.TemporaryDirectory() as tmp:
        made = Path(ffi.compile(tmpdir=tmp))  # type: ignore[attr-defined]
        target = PKG / made.name
        shutil.copy2(made, target.with_name(target.name + ".new"))
        target.with_name(target.name + ".new").replace(target)


def seccomp() -> None:
    sys.path.insert(0, str(HERE))
    import seccomp as module

    compile_ffi(module.ffibuilder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", action="store_true", help="build _native_faults and pyrun-init-faults")
    parser.add_argument("--only", choices=["native", "seccomp", "init", "launcher"])
    parser.add_argument("--cc", default=os.environ.get("CC", "cc"))
    args = parser.parse_args()
    suffix, extra = ("-faults", ["-DPX_FAULTS"]) if args.faults else ("", [])
    want = [args.only] if args.only else ["init", "native"] + ([] if args.faults else ["launcher", "seccomp"])
    if "init" in want:
        freestanding(args.cc, PKG / "bin" / f"pyrun-init{suffix}", ["init.c", "start.c", *STEPS], extra)
    if "launcher" in want and (HERE / "launcher.c").exists():
        freestanding(args.cc, PKG / "bin" / "pyrun", [*LAUNCHER, *PARENT], extra)
    if "native" in want:
        native("_native" + suffix.replace("-", "_"), PARENT, extra)
    if "seccomp" in want and (HERE / "seccomp.py").exists():
        seccomp()


if __name__ == "__main__":
    assert sysconfig.get_platform().startswith("linux"), "pyrun runs on Linux"
    main()
