"""crictl, which does what a kubelet asks of containerd, and critest, the validation tests of the CRI.

The module replaces some of its requirements, and `go install` takes no such module; so they are built in its source.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.container.runner import REPO
from tests.support.engines.golang import Unavailable, download_module, find_go

MODULE = "sigs.k8s.io/cri-tools"
VERSION = "v1.30.0"  # of the CRI's version 1, which containerd 1.6 speaks
CACHE = REPO / ".cache" / "cri-tools" / VERSION
WHY_NOT = CACHE / "why-not"
STRIPPED = ("-trimpath", "-ldflags", "-s -w")
COMMANDS = {
    "crictl": ("build", *STRIPPED, "./cmd/crictl"),
    "critest": ("test", "-c", *STRIPPED, "./cmd/critest"),
}
TIMEOUT_S = 900.0


def build_cri_tools() -> None:
    """Builds them into CACHE, static, unless they are there; where they can't be had, WHY_NOT says why."""
    if all((CACHE / name).exists() for name in COMMANDS):
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    WHY_NOT.unlink(missing_ok=True)
    try:
        go = find_go(CACHE)
        source = download_module(go, f"{MODULE}@{VERSION}", CACHE)
        for name in COMMANDS:
            build(go, name, source)
    except Unavailable as error:
        WHY_NOT.write_text(f"{error}\n")


def build(go: str, name: str, source: Path) -> None:
    """One of the programs."""
    verb, *options = COMMANDS[name]
    partial = CACHE / f"{name}.partial"
    # The module comes with a list of a vendor directory that it comes without.
    env = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    argv = [go, verb, "-o", str(partial), *options]
    done = subprocess.run(argv, env=env, cwd=source, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{name} can't be built: {done.stderr.strip()[-500:]}")
    partial.rename(CACHE / name)
