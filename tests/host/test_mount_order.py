"""Mounts in the listed order, where the source of one is what an earlier one brings, in a user namespace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner

MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


@pytest.mark.parametrize("covered", [False, True])
@pytest.mark.parametrize(("option", "owner"), [("idmap", "0:7"), ("rw", "65534:65534")])
def test_a_bind_of_what_an_earlier_mount_brings(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, option: str, owner: str, covered: bool
) -> None:
    """Also where something else lies below that mount; and no user but root may walk to the root directory."""
    made = bundle(["sh", "-c", "stat -c '%u:%g' /b/file; ls /b"], linux={"uidMappings": MAPS, "gidMappings": MAPS})
    made.add_namespace("user")
    if covered:
        (Path(made.rootfs) / "a/inner").mkdir(parents=True)
    subprocess.run(["chown", "-hR", "100000:100000", made.rootfs], check=True)
    file = tmp_path / "outer/inner/file"
    file.parent.mkdir(parents=True)
    file.touch()
    os.chown(file, 0, 7)
    made.add_mount("/a", str(tmp_path / "outer"), "rbind")
    made.add_mount("/b", f"{made.rootfs}/a/inner", "rbind", option)
    assert pyrun.run(made).ok().out == f"{owner}\nfile\n"
