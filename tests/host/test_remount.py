"""The option remount: what is mounted there already changes, by the file system's type or, as a bind, by its flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner

pytestmark = pytest.mark.root
IDS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def test_remount_changes_what_is_there(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "grep ' /t ' /proc/self/mountinfo"]).add_mount("/t", "tmpfs", "size=1m", type="tmpfs")
    made.add_mount("/t", "tmpfs", "remount", "size=2m", "noexec", type="tmpfs")
    (line,) = pyrun.run(made).ok().out.splitlines()
    assert line.split()[5] == "rw,noexec,relatime" and line.endswith("size=2048k")


@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_a_bind_that_remounts_changes_what_is_there(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, kind: str
) -> None:
    """Its source means nothing, and flags that it does not name go, as with mount(8) and runc."""
    made = bundle(["sh", "-c", "grep ' /t ' /proc/self/mountinfo; ls /t"]).add_mount(
        "/t", str(tmp_path), *(["bind"] if kind == "bind" else []), "nosuid", "shared", type=kind
    )
    made.add_mount("/t/below", "tmpfs", type="tmpfs").add_mount("/t", "/no/such", "bind", "remount", "ro", "noexec")
    line, *names = pyrun.run(made).ok().out.splitlines()
    words = line.split()
    assert words[5] == "ro,noexec,relatime" and words[6].startswith("shared:") and "below" in names


@pytest.mark.parametrize(
    ("option", "more", "says"),
    [
        ("ro", {}, "what is to be remounted is no mount"),
        ("noexce", {}, "noexce is not an option"),
        ("ro", {"uidMappings": IDS, "gidMappings": IDS}, "can't be mapped"),
    ],
)
def test_a_bind_that_remounts_what_it_cannot(
    pyrun: Runner, bundle: BundleMaker, option: str, more: dict[str, Any], says: str
) -> None:
    made = bundle(["true"]).add_mount("/t", "none", "bind", "remount", option, **more)
    pyrun.run(made).fails(1, says, "/mounts/7")
    assert pyrun.ids() == []
