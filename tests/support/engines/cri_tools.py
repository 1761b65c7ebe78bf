"""crictl, which does what a kubelet asks of containerd, and critest, the validation tests of the CRI.

The module replaces some of its requirements, and `go install` takes no such module; so they are built in its source.
"""

from __future__ import annotations

from tests.support.container.runner import REPO
from tests.support.engines.golang import STRIPPED, Unavailable, build, download_module, find_go

MODULE = "sigs.k8s.io/cri-tools"
VERSION = "v1.30.0"  # of the CRI's version 1, which containerd 1.6 speaks
CACHE = REPO / ".cache" / "cri-tools" / VERSION
WHY_NOT = CACHE / "why-not"
COMMANDS = {
    "crictl": ("build", *STRIPPED, "./cmd/crictl"),
    "critest": ("test", "-c", *STRIPPED, "./cmd/critest"),
}


def build_cri_tools() -> None:
    """Builds them into CACHE, static, unless they are there; where they can't be had, WHY_NOT says why."""
    if all((CACHE / name).exists() for name in COMMANDS):
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    WHY_NOT.unlink(missing_ok=True)
    try:
        go = find_go(CACHE)
        source = download_module(go, f"{MODULE}@{VERSION}", CACHE)
        for name, argv in COMMANDS.items():
            build(go, source, CACHE / name, *argv)
    except Unavailable as error:
        WHY_NOT.write_text(f"{error}\n")
