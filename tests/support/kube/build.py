"""Kubernetes' programs that tests run, built from their Go module once and kept.

`go install` refuses k8s.io/kubernetes, whose go.mod replaces its staging modules by directories; so they are built in a
module of ours that requires it and replaces each staging module by the one of the same release. A kubelet costs ten
CPU minutes, the node's end-to-end suite (with an API server and etcd inside) another fifteen, a control plane as much
where none of these is there: nothing here is built unless it is asked for, by `make kubelet`, `make e2e-node` and
`make control-plane`; and in continuous integration, beside other tests (beside.py).

With --quick they are compiled without optimisation and debugging information, in little more than half the time: for
what they do, not for how fast.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.support.container.runner import REPO
from tests.support.engines.golang import STRIPPED, Unavailable, find_go, kept

MODULE = "k8s.io/kubernetes"
MINOR, PATCH = 37, 2
VERSION = f"v1.{MINOR}.{PATCH}"
STAGING = f"v0.{MINOR}.{PATCH}"
CACHE = REPO / ".cache" / "kubernetes" / VERSION
TIMEOUT_S = 3600.0  # on a slow machine
GO_MINOR = 26
# A kubelet of no version is refused by what compares versions.
STAMP = " ".join(
    f"-X {package}.{name}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for name, value in (
        ("gitVersion", VERSION),
        ("gitMajor", "1"),
        ("gitMinor", str(MINOR)),
        ("gitTreeState", "clean"),
        ("gitCommit", "0" * 40),
        ("buildDate", "2026-01-01T00:00:00Z"),
    )
)
STAMPED = ("-trimpath", "-ldflags", f"-s -w {STAMP}")
COMMANDS = {
    **{
        name: ("build", *STAMPED, f"{MODULE}/cmd/{name}")
        for name in ("kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
    },
    "etcd": ("build", *STRIPPED, "go.etcd.io/etcd/server/v3"),
    "e2e_node.test": ("test", "-c", "-vet=off", *STAMPED, f"{MODULE}/test/e2e_node"),
    "e2e.test": ("test", "-c", "-vet=off", *STAMPED, f"{MODULE}/test/e2e"),
    "ginkgo": ("build", *STRIPPED, "github.com/onsi/ginkgo/v2/ginkgo"),
    "agnhost": ("build", *STRIPPED, f"{MODULE}/test/images/agnhost"),
    "nonewprivs": ("build", *STRIPPED, f"{MODULE}/test/images/nonewprivs"),
}
MAINS = (
    "cmd/kubelet",
    "cmd/kube-controller-manager",
    "cmd/kubectl",
    "test/e2e_node",
    "test/e2e",
    "test/images/agnhost",
)
PACKAGES = [f"{MODULE}/{of}@{VERSION}" for of in MAINS]
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")
# Much memory spares the compiler most of its garbage collection; one thread each (-c=1), what several cost.
QUICK = ("-gcflags=all=-N -l -dwarf=false -c=1",)
QUICK_ENV = {"GOGC": "400", "GOMEMLIMIT": "1500MiB"}


def built(name: str) -> Path | None:
    """Its path where it has been built."""
    path = CACHE / name
    return path if path.exists() else None


def why_not(cache: Path = CACHE) -> str:
    """Why the last build beside other tests has not made all, in brackets; empty where there was none, or it has."""
    word = cache / "why-not"
    return f" ({word.read_text().strip()})" if word.exists() else ""


def program(name: str, quick: bool = False) -> Path:
    """Its path, built now if need be. Raises Unavailable."""
    return kept(CACHE / name, lambda path: _build(path, quick))


def _build(path: Path, quick: bool) -> None:
    name, source = path.name, CACHE / "source"
    source.mkdir(exist_ok=True)
    go = find_go(source)
    if not (source / "go.sum").exists():
        (source / "go.mod").write_text(_module(go, source))
        _run(go, source, "get", "-t", *PACKAGES)
    verb, *options = COMMANDS[name]
    partial = path.with_name(f"{name}.partial")
    how, env = (QUICK, QUICK_ENV) if quick else ((), {})
    _run(go, source, verb, "-mod=mod", *how, "-o", str(partial), *options, **env)
    partial.rename(path)


def _module(go: str, source: Path) -> str:
    """A go.mod with the replacements of Kubernetes' own, each by the staging module that its release was published
    with."""
    _run(go, source, "version")
    downloaded = json.loads(_run(go, source, "mod", "download", "-json", f"{MODULE}@{VERSION}"))
    theirs = Path(downloaded["GoMod"]).read_text()
    staging = re.findall(r"^\t(k8s\.io/[a-z0-9-]+) => \./staging/", theirs, re.MULTILINE)
    replaced = "\n".join(f"\t{name} => {name} {STAGING}" for name in staging)
    head = f"module parts\n\ngo 1.{GO_MINOR}.0\n\ngodebug default=go1.{GO_MINOR}\n\nrequire {MODULE} {VERSION}\n\n"
    return f"{head}replace (\n{replaced}\n)\n"


def _run(go: str, source: Path, *argv: str, **more: str) -> str:
    env = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", **more}
    command = [*(() if os.nice(0) else ("nice",)), go, *argv]
    done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{MODULE} {VERSION}: go {argv[0]} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


def end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Ends what this process has started, which is in its process group, and then itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if name != "--quick"]
    if os.getpgid(0) == os.getpid():
        signal.signal(signal.SIGTERM, end)
    try:
        print(*[program(name, quick="--quick" in sys.argv) for name in names or ["kubelet"]])
    except Unavailable as error:
        sys.exit(str(error))
