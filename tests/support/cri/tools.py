"""crictl and critest of the CRI that pyrun speaks, built from their Go module once and kept. critest's package has only
tests, which `go install` refuses, so both are built in a module of ours that requires theirs. With them NNP, a program
of one of critest's images: a guest has no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.container.runner import REPO
from tests.support.engines.golang import STRIPPED, TIMEOUT_S, Unavailable, build, find_go, kept

MODULE = "sigs.k8s.io/cri-tools"
VERSION = "v1.37.0"
CACHE = REPO / ".cache" / "cri-tools" / VERSION
# The setuid program of e2e-test-images/nonewprivs.
NNP = "nnp"
NNP_SOURCE = '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("Effective uid: %d\\n", geteuid()); }\n'
COMMANDS = {
    "crictl": ("build", *STRIPPED, f"{MODULE}/cmd/crictl"),
    "critest": ("test", "-c", *STRIPPED, f"{MODULE}/cmd/critest"),
}


def program(name: str) -> Path:
    """Its path, built now if need be. Raises Unavailable."""
    return kept(CACHE / name, _build)


def _build(path: Path) -> None:
    if path.name == NNP:
        compiler = ["gcc", "-Os", "-static", "-s", "-x", "c", "-o", str(path), "-"]
        subprocess.run(compiler, input=NNP_SOURCE, text=True, check=True)
        return
    source = CACHE / "source"
    source.mkdir(exist_ok=True)
    go = find_go(source)
    _run(go, source, "get", "-t", f"{MODULE}/cmd/critest@{VERSION}", f"{MODULE}/cmd/crictl@{VERSION}")
    build(go, source, path, *COMMANDS[path.name])


def _run(go: str, source: Path, *argv: str) -> None:
    (source / "go.mod").write_text(f"module tools\n\ngo 1.{_minor(go)}\n")
    done = subprocess.run(
        [go, *argv], cwd=source, env=os.environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"{MODULE} can't be had: {done.stderr.strip()[-500:]}")


def _minor(go: str) -> str:
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    return said.removeprefix("go1.").split(".")[0]


if __name__ == "__main__":
    try:
        print(*[program(name) for name in (*COMMANDS, NNP)])
    except Unavailable as error:
        sys.exit(str(error))
