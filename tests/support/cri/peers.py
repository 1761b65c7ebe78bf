"""runc and crun as a node's runtime handlers.

crun 1.8 raises RLIMIT_MEMLOCK before it loads a program for devices, and gives up where it may not (CAP_SYS_RESOURCE),
though the kernel has not counted such programs there since 5.11. On such a machine a library lets it go on."""

from __future__ import annotations

import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from pyrun.facts import collect_facts

PEERS = ("runc", "crun")
HANDLERS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"))
    for name in PEERS
]
CAP_SYS_RESOURCE = 24
LIBRARY = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/resource.h>
int setrlimit(__rlimit_resource_t what, const struct rlimit *limit)
{
	int (*next)(__rlimit_resource_t, const struct rlimit *) = dlsym(RTLD_NEXT, "setrlimit");
	return what == RLIMIT_MEMLOCK ? 0 : next(what, limit);
}
"""


def program(name: str, directory: Path) -> str:
    """What a handler of this name runs. directory: for what that takes."""
    found = shutil.which(name)
    assert found is not None
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if name != "crun" or hard == resource.RLIM_INFINITY or collect_facts(False).has_cap(CAP_SYS_RESOURCE):
        return found
    library, script = directory / "memlock.so", directory / "crun"
    if not script.exists():
        compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
        subprocess.run(compiler, input=LIBRARY, text=True, check=True)
        script.write_text(f'#!/bin/sh\nLD_PRELOAD={library} exec {found} "$@"\n')
        script.chmod(0o755)
    return str(script)


def configuration(directory: Path) -> str:
    """pyrun.toml with those that are installed."""
    tables = [f'[runtimes.{name}]\npath = "{program(name, directory)}"\n' for name in PEERS if shutil.which(name)]
    return 'cgroup_driver = "cgroupfs"\n' + "".join(tables)
