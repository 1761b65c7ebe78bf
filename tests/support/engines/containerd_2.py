"""containerd 2.4, ctr and the shim: newer than Debian's, to drive pyrun on the host. `make containerd-2` builds them,
without what the tests do not need: the CRI, some snapshotters, tracing."""

from __future__ import annotations

import sys

from tests.support.container.runner import REPO
from tests.support.engines.containerd import NEEDED
from tests.support.engines.golang import STRIPPED, Unavailable, build, download_module, find_go

MODULE = "github.com/containerd/containerd/v2"
VERSION = "v2.4.2"
CACHE = REPO / ".cache" / "containerd" / VERSION
TAGS = "no_cri,no_devmapper,no_tracing,no_zfs"


def build_containerd() -> None:
    """Builds them into CACHE, static, unless they are there; raises Unavailable where they can't be had."""
    if is_built():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    go = find_go(CACHE)
    source = download_module(go, f"{MODULE}@{VERSION}", CACHE)
    for name in NEEDED:
        build(go, source, CACHE / name, "build", *STRIPPED, "-tags", TAGS, f"./cmd/{name}")


def is_built() -> bool:
    return all((CACHE / name).exists() for name in NEEDED)


if __name__ == "__main__":
    try:
        build_containerd()
    except Unavailable as error:
        sys.exit(str(error))
    print(CACHE)
