"""Builds the native parts in place: the cffi modules, pyrun-init, the launcher and the pods' supervisor.

Run as ``python cffi_build/build.py [--faults] [--only NAME] [--cc CC] [--out DIR]``; setuptools calls it too. A C
compiler, the kernel's headers and libseccomp's are all it needs, and for pyrun-layer those of the libraries that it is
linked with. Warnings are errors. pyrun-init, the launcher and pyrun-pod are freestanding: no C library, so they start
in a fraction of a millisecond and park in little memory. ``--faults`` builds the second set that the tests of failure
use. ``--cc aarch64-linux-gnu-gcc --only init --out DIR`` compiles for another machine.

``--asan`` builds hosted/run_plan.c and the init on a C library with ASan and UBSan instead, and ``--fuzz`` the
fuzzers, with clang; with ``--seconds N`` it runs each for that long.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PKG = HERE.parent / "pyrun"
EXECUTOR = HERE / "executor"
STEPS = [
    f"executor/{name}.c"
    for name in ("ctx", "interp", "steps_fs", "steps_mount", "steps_root", "steps_proc", "steps_io")
]
PARENT = ["executor/parent.c", "executor/stage1.c", "executor/cgroup.c", *STEPS]
INIT = ["init/init.c", "init/start.c", *STEPS]
LAUNCHER = [f"launcher/{name}.c" for name in ("main", "reading", "hand_over", "record", "verbs", "planned")]
LAUNCHER += ["init/start.c"]
LAYER_PARTS = [f"layers/{name}.c" for name in ("stream", "tree", "remove", "untar", "image", "erofs")]
LAYERS = [*LAYER_PARTS, *(f"layers/{name}.c" for name in ("main", "report", "sandbox", "digest"))]
LAYER_LIBRARIES = ["-larchive", "-lisal", "-lzstd", "-lnettle", "-pthread"]
LAYER_HEADERS = {  # header → Debian package
    "archive.h": "libarchive-dev",
    "isa-l/igzip_lib.h": "libisal-dev",
    "zstd.h": "libzstd-dev",
    "nettle/sha2.h": "nettle-dev",
}
POD = [f"pod/{name}.c" for name in ("main", "message", "socket", "serve", "maker", "reap", "log", "attach", "stamp")]
POD += ["init/start.c"]
DATAPLANE_PARTS = (
    "hash image table apply choose limits tcp connect pump sctp udp own_socket flow hand_over control counters loop"
)
DATAPLANE = [f"dataplane/{name}.c" for name in ("main", "sandbox", *DATAPLANE_PARTS.split())]
DNS_NAMES = ("query", "table", "answer", "path", "cache", "limit", "waiting", "serve", "count", "tcp", "control")
DNS_PARTS = [f"dns/{name}.c" for name in DNS_NAMES]
DNS = [*DNS_PARTS, "dns/udp.c", "dns/sandbox.c", "dns/main.c"]
PROBE_PARTS = ["probe/main.c", "probe/loop.c", "probe/http.c"]
PROBE = [*PROBE_PARTS, "probe/sandbox.c"]
sys.path.insert(0, str(PKG.parent))
from pyrun.dns.responder import PROTOCOL  # noqa: E402
from pyrun.plan.model.plan import version  # noqa: E402

VERSIONS = [f"-DPX_VERSION={version():#x}u", f"-DDNS_PROTOCOL={PROTOCOL:#x}u"]
WARN = [
    *VERSIONS,
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-address-of-packed-member",
    "-fno-strict-aliasing",
]
FREE = [
    "-ffreestanding",
    "-nostdlib",
    "-static",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-fno-pie",
    "-no-pie",
    "-fno-tree-loop-distribute-patterns",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-z,norelro",
    "-s",
]
SANITIZE = [
    *VERSIONS,
    "-std=gnu11",
    "-g",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-address-of-packed-member",
    "-fno-strict-aliasing",
    "-fno-omit-frame-pointer",
    "-fno-sanitize-recover=all",
]
HOSTED = PKG.parent / ".cache" / "hosted"


def freestanding(cc: str, out: Path, sources: list[str], extra: list[str]) -> None:
    """Compiles `sources` to the static program `out`, written beside it first: a running one is never half new."""
    out.parent.mkdir(parents=True, exist_ok=True)
    new = out.with_name(out.name + ".new")
    if subprocess.check_output([cc, "-dumpmachine"], text=True).startswith("aarch64"):
        extra = [*extra, "-mno-outline-atomics"]  # which are functions of libgcc
    command = [cc, *WARN, "-Os", *FREE, f"-I{EXECUTOR}", *extra, "-o", str(new), *(str(HERE / s) for s in sources)]
    subprocess.run(command, check=True)
    new.replace(out)


def missing_packages(cc: str) -> list[str]:
    """Packages whose headers pyrun-layer needs, and this compiler does not find."""

    def has(header: str) -> bool:
        source = f"#include <{header}>\n"
        return subprocess.run([cc, "-E", "-xc", "-"], input=source, text=True, capture_output=True).returncode == 0

    return [package for header, package in LAYER_HEADERS.items() if not has(header)]


def layer_program(cc: str, out: Path) -> None:
    """pyrun-layer, linked with Debian's libraries. Who runs single containers needs none of them: so where they are
    missing the rest is built, and `pyrun image` tells what to install."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if missing := missing_packages(cc):
        out.unlink(missing_ok=True)
        print(f"build.py: no pyrun-layer, for which to install: {' '.join(missing)}", file=sys.stderr)
        return
    linked(cc, out, LAYERS, LAYER_LIBRARIES)


def linked(cc: str, out: Path, sources: list[str], libraries: Sequence[str] = ()) -> None:
    """Compiles `sources` to the program `out` on the C library, hardened, written beside it first."""
    out.parent.mkdir(parents=True, exist_ok=True)
    new = out.with_name(out.name + ".new")
    hard = ["-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-fPIE", "-pie", "-Wl,-z,relro,-z,now", "-s"]
    command = [cc, *WARN, *hard, "-o", str(new), *(str(HERE / s) for s in sources), *libraries]
    subprocess.run(command, check=True)
    new.replace(out)


def native(name: str, sources: list[str], extra: list[str]) -> None:
    """Compiles the cffi module pyrun/<name> around px.h."""
    from cffi import FFI

    ffi = FFI()
    header = (EXECUTOR / "px.h").read_text()
    ffi.cdef("\n".join(line for line in header.splitlines() if not line.startswith("#")))
    ffi.set_source(
        f"pyrun.{name}",
        '#include "px.h"',
        sources=[str(HERE / s) for s in sources],
        include_dirs=[str(EXECUTOR)],
        extra_compile_args=[*WARN, "-Wno-unused-parameter", "-Wno-missing-field-initializers", *extra],
    )
    compile_ffi(ffi)


def compile_ffi(ffi: object) -> None:
    """Runs cffi's compiler in a scratch directory and moves the module into the package."""
    with tempfile.TemporaryDirectory() as tmp:
        made = Path(ffi.compile(tmpdir=tmp))  # type: ignore[attr-defined]
        target = PKG / made.name
        shutil.copy2(made, target.with_name(target.name + ".new"))
        target.with_name(target.name + ".new").replace(target)


def tokens() -> None:
    """Compiles the cffi module pyrun/_tokens, the filters of log blocks."""
    from cffi import FFI

    ffi, header = FFI(), (HERE / "logs" / "tokens.h").read_text()
    ffi.cdef("\n".join(line for line in header.splitlines() if not line.startswith("#")))
    ffi.set_source(
        "pyrun._tokens",
        '#include "tokens.h"',
        sources=[str(HERE / "logs" / "tokens.c")],
        include_dirs=[str(HERE / "logs")],
        extra_compile_args=[*WARN, "-Wno-unused-parameter", "-Wno-missing-field-initializers"],
    )
    compile_ffi(ffi)


def seccomp() -> None:
    sys.path.insert(0, str(HERE))
    import seccomp as module  # type: ignore[import-not-found]  # found by the line above

    compile_ffi(module.ffibuilder)


def hosted(cc: str, out: Path, sources: list[str], extra: list[str], libraries: Sequence[str] = ()) -> None:
    """Compiles `sources` to a program of this machine with sanitizers."""
    out.parent.mkdir(parents=True, exist_ok=True)
    new = out.with_name(out.name + ".new")
    command = [cc, *SANITIZE, f"-I{EXECUTOR}", *extra, "-o", str(new), *(str(HERE / s) for s in sources), *libraries]
    subprocess.run(command, check=True)
    new.replace(out)


def asan(cc: str, out: Path) -> None:
    flags = ["-fsanitize=address,undefined"]
    hosted(cc, out / "run-plan", ["hosted/run_plan.c", *PARENT], flags)
    hosted(cc, out / "pyrun-init", ["hosted/init_main.c", "init/init.c", *STEPS], flags)


def fuzz(out: Path, seconds: int) -> None:
    """Builds both fuzzers and runs them. What a crash was made of stays in `out` as crash-*."""
    flags = ["-fsanitize=fuzzer,address,undefined", "-DPX_DRY=1", "-Wno-unused-function"]
    hosted("clang", out / "fuzz-parent", ["hosted/fuzz.c", "executor/cgroup.c", *STEPS], flags)
    hosted("clang", out / "fuzz-init", ["hosted/fuzz.c", *STEPS], [*flags, "-DFUZZ_INIT"])
    if not seconds:
        return
    subprocess.run([sys.executable, str(HERE / "hosted" / "seeds.py"), str(out / "seeds")], check=True)
    for name in ("fuzz-parent", "fuzz-init"):
        (out / f"corpus-{name}").mkdir(exist_ok=True)
        subprocess.run(
            [
                str(out / name),
                f"-max_total_time={seconds}",
                "-max_len=65536",
                "-timeout=10",
                "-print_final_stats=1",
                f"corpus-{name}",
                "seeds",
            ],
            check=True,
            cwd=out,
        )


def asan_layer(cc: str, out: Path) -> None:
    """pyrun-layer under ASan, without the sandbox, in which a sanitizer can't live. For the tests of attacks."""
    flags = ["-fsanitize=address,undefined"]
    sources = ["hosted/layer_open.c", *(source for source in LAYERS if source != "layers/sandbox.c")]
    hosted(cc, out / "pyrun-layer", sources, flags, LAYER_LIBRARIES)


def fuzz_layer(out: Path, seconds: int) -> None:
    """Builds the unpacker's fuzzer and runs it, as root and on a tmpfs: it writes real files."""
    flags = ["-fsanitize=fuzzer,address,undefined"]
    hosted("clang", out / "fuzz-layer", ["hosted/fuzz_layer.c", *LAYER_PARTS], flags, LAYER_LIBRARIES)
    if not seconds:
        return
    subprocess.run([sys.executable, str(HERE / "hosted" / "layer_seeds.py"), str(out / "seeds-layer")], check=True)
    (out / "corpus-fuzz-layer").mkdir(exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        "-max_len=16384",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        command = [str(out / "fuzz-layer"), *options, "corpus-fuzz-layer", "seeds-layer"]
        subprocess.run(command, check=True, cwd=out, env={**os.environ, "PYRUN_FUZZ_DIRECTORY": directory})


def fuzz_pod(out: Path, seconds: int) -> None:
    """Builds the supervisor's fuzzer, of its messages and its logs, and runs it."""
    flags = ["-fsanitize=fuzzer,address,undefined", "-Wno-unused-function"]
    hosted("clang", out / "fuzz-pod", ["hosted/fuzz_pod.c"], flags)
    if not seconds:
        return
    subprocess.run([sys.executable, str(HERE / "hosted" / "pod_seeds.py"), str(out / "seeds-pod")], check=True)
    (out / "corpus-fuzz-pod").mkdir(exist_ok=True)
    options = [f"-max_total_time={seconds}", "-max_len=65536", "-timeout=10", "-print_final_stats=1"]
    subprocess.run([str(out / "fuzz-pod"), *options, "corpus-fuzz-pod", "seeds-pod"], check=True, cwd=out)


def asan_dns(cc: str, out: Path) -> None:
    """pyrun-dns under ASan, without the sandbox, in which a sanitizer can't live."""
    sources = ["hosted/dns_open.c", *(source for source in DNS if source != "dns/sandbox.c")]
    hosted(cc, out / "pyrun-dns", sources, ["-fsanitize=address,undefined"])


def fuzz_dns(out: Path, seconds: int) -> None:
    """Builds the fuzzer of DNS queries, tables and control messages, and runs it."""
    hosted("clang", out / "fuzz-dns", ["hosted/fuzz_dns.c", *DNS_PARTS], ["-fsanitize=fuzzer,address,undefined"])
    if not seconds:
        return
    subprocess.run([sys.executable, str(HERE / "hosted" / "dns_seeds.py"), str(out / "seeds-dns")], check=True)
    (out / "corpus-fuzz-dns").mkdir(exist_ok=True)
    options = [f"-max_total_time={seconds}", "-max_len=65000", "-timeout=10", "-print_final_stats=1"]
    command = [str(out / "fuzz-dns"), *options, "corpus-fuzz-dns", "seeds-dns"]
    subprocess.run(command, check=True, cwd=out, env={**os.environ, "PYRUN_FUZZ_TABLE": str(out / "dns-table")})


def asan_probe(cc: str, out: Path) -> None:
    """pyrun-probe under ASan and UBSan, without its sandbox."""
    hosted(cc, out / "pyrun-probe", ["hosted/probe_open.c", *PROBE_PARTS], ["-fsanitize=address,undefined"])


def fuzz_probe(out: Path, seconds: int) -> None:
    """Builds the fuzzer of what servers answer to a probe, and runs it."""
    flags = ["-fsanitize=fuzzer,address,undefined"]
    hosted("clang", out / "fuzz-probe", ["hosted/fuzz_probe.c", "probe/http.c"], flags)
    if not seconds:
        return
    (out / "corpus-fuzz-probe").mkdir(exist_ok=True)
    seed = b"\x07HTTP/1.1 200 OK\r\nContent-Length: 4\r\nDate: now\r\n\r\nfine"
    (out / "corpus-fuzz-probe" / "seed").write_bytes(seed)
    dictionary = out / "probe.dict"
    words = ("HTTP/1.1 200 OK", "HTTP/1.0 503 ", "Content-Length: ", "Transfer-Encoding: chunked", "Location: /")
    dictionary.write_text("".join(f'"{word}"\n' for word in words) + '"\\x0d\\x0a"\n"\\x0d\\x0a\\x0d\\x0a"\n')
    options = [f"-max_total_time={seconds}", "-max_len=40000", "-timeout=10", "-print_final_stats=1"]
    command = [str(out / "fuzz-probe"), *options, f"-dict={dictionary}", "corpus-fuzz-probe"]
    subprocess.run(command, check=True, cwd=out)


def asan_dataplane(cc: str, out: Path) -> None:
    """pyrun-dataplane under ASan and UBSan, without its sandbox. Its tests run with it as they are."""
    sources = ["dataplane/main.c", "hosted/dataplane_open.c", *(f"dataplane/{p}.c" for p in DATAPLANE_PARTS.split())]
    hosted(cc, out / "pyrun-dataplane", sources, ["-fsanitize=address,undefined"])


def fuzz_dataplane(out: Path, seconds: int) -> None:
    """Builds the fuzzers of the data plane's images and of its messages, and runs each."""
    flags = ["-fsanitize=fuzzer,address,undefined"]
    image = [f"dataplane/{name}.c" for name in ("hash", "image", "table", "apply", "choose")]
    hosted("clang", out / "fuzz-dataplane", ["hosted/fuzz_dataplane.c", *image], flags)
    behind = [f"dataplane/{name}.c" for name in DATAPLANE_PARTS.split() if name != "control"]
    hosted("clang", out / "fuzz-control", ["hosted/fuzz_control.c", *behind], flags)
    if not seconds:
        return
    seeds = str(HERE / "hosted" / "dataplane_seeds.py")
    subprocess.run([sys.executable, seeds, str(out)], check=True)
    options = [f"-max_total_time={seconds}", "-max_len=16384", "-timeout=10", "-print_final_stats=1"]
    for name in ("dataplane", "control"):
        (out / f"corpus-fuzz-{name}").mkdir(exist_ok=True)
        command = [str(out / f"fuzz-{name}"), *options, f"corpus-fuzz-{name}", f"seeds-{name}"]
        subprocess.run(command, check=True, cwd=out)


def sanitized(args: argparse.Namespace) -> bool:
    """Builds, and runs, what was asked for with a sanitizer; False: nothing was."""
    out = args.out or HOSTED
    builds = {"asan": asan, "asan_layer": asan_layer, "asan_dns": asan_dns, "asan_dataplane": asan_dataplane}
    builds |= {"asan_probe": asan_probe}
    fuzzers = {"fuzz": fuzz, "fuzz_layer": fuzz_layer, "fuzz_pod": fuzz_pod}
    fuzzers |= {"fuzz_dns": fuzz_dns, "fuzz_dataplane": fuzz_dataplane, "fuzz_probe": fuzz_probe}
    wanted = [name for name in (*builds, *fuzzers) if getattr(args, name)]
    for name in wanted:
        if name in builds:
            builds[name](args.cc, out)
        else:
            fuzzers[name](out.resolve(), args.seconds)
    return bool(wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", action="store_true", help="build _native_faults and pyrun-init-faults")
    parser.add_argument("--only", choices="native seccomp tokens init launcher layer pod dns dataplane probe".split())
    parser.add_argument("--cc", default=os.environ.get("CC", "cc"))
    parser.add_argument("--out", type=Path, help="where programs go; the default is pyrun/bin, or .cache/hosted")
    parser.add_argument("--asan", action="store_true", help="build the hosted programs with ASan and UBSan")
    parser.add_argument("--fuzz", action="store_true", help="build the fuzzers")
    parser.add_argument("--asan-layer", action="store_true", help="build pyrun-layer with ASan and UBSan")
    parser.add_argument("--fuzz-layer", action="store_true", help="build the unpacker's fuzzer")
    parser.add_argument("--fuzz-pod", action="store_true", help="build the fuzzer of the pods' supervisor")
    parser.add_argument("--asan-dns", action="store_true", help="build pyrun-dns with ASan and UBSan")
    parser.add_argument("--fuzz-dns", action="store_true", help="build the fuzzer of pyrun-dns")
    parser.add_argument("--asan-dataplane", action="store_true", help="build pyrun-dataplane with ASan and UBSan")
    parser.add_argument("--fuzz-dataplane", action="store_true", help="build the data plane's fuzzers")
    parser.add_argument("--asan-probe", action="store_true", help="build pyrun-probe with ASan and UBSan")
    parser.add_argument("--fuzz-probe", action="store_true", help="build the fuzzer of pyrun-probe")
    parser.add_argument("--seconds", type=int, default=0, help="with --fuzz or --fuzz-layer: run each fuzzer that long")
    args = parser.parse_args()
    if sanitized(args):
        return
    bin = args.out or PKG / "bin"
    suffix, extra = ("-faults", ["-DPX_FAULTS"]) if args.faults else ("", [])
    rest = [] if args.faults else ["launcher", "pod", "seccomp", "tokens", "layer", "dns", "dataplane", "probe"]
    want = [args.only] if args.only else ["init", "native", *rest]
    if "init" in want:
        freestanding(args.cc, bin / f"pyrun-init{suffix}", INIT, extra)
    if "launcher" in want:
        freestanding(args.cc, bin / "pyrun", [*LAUNCHER, *PARENT], extra)
    if "layer" in want:
        layer_program(args.cc, bin / "pyrun-layer")
    if "pod" in want:
        freestanding(args.cc, bin / "pyrun-pod", [*POD, *PARENT], extra)
    if "dataplane" in want:
        linked(args.cc, bin / "pyrun-dataplane", DATAPLANE)
    if "dns" in want:
        linked(args.cc, bin / "pyrun-dns", DNS)
    if "probe" in want:
        linked(args.cc, bin / "pyrun-probe", PROBE)
    if "native" in want:
        native("_native" + suffix.replace("-", "_"), PARENT, extra)
    if "seccomp" in want:
        seccomp()
    if "tokens" in want:
        tokens()


if __name__ == "__main__":
    assert sysconfig.get_platform().startswith("linux"), "pyrun runs on Linux"
    main()
