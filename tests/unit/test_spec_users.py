"""Who a container runs as: tables over an image's passwd and group, and images that mean harm."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import FailedPrecondition, InvalidArgument
from pyrun.image.merged import look_up, read_file
from pyrun.pod.spec import look_up_user
from tests.support.cri.requests import Image, container, context

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
web:x:1000:1001:Web:/home/web:/bin/sh
4294967296:x:0:0::/:
17:x:0:0::/:
bad:x:-1:0::/:
wide:x:4294967295:0::/:
minus:x:5:-5::/:
relative:x:30:30::home:
line:x:31:31::/home\ttab:
short:x:40:41
noise
"""
GROUP = "root:x:0:\nweb:x:1001:\nlogs:x:2000:web,other\nall:x:2001:web,root\nhuge:x:99999999999:web\nnone:x:2002\n"


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    etc = tmp_path / "layer" / "etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(PASSWD)
    (etc / "group").write_text(GROUP)
    return tmp_path / "layer"


def user(layer: Path, image: str = "", **fields: Any) -> tuple[int, int, tuple[int, ...], str]:
    found = look_up_user((str(layer),), container(**context(**fields)), Image(user=image))
    return found.uid, found.gid, found.groups, found.home


@pytest.mark.parametrize(
    ("image", "fields", "wanted"),
    [
        ("", {}, (0, 0, (0, 2001), "/root")),
        ("web", {}, (1000, 1001, (1001, 2000, 2001), "/home/web")),
        ("1000", {}, (1000, 1001, (1001, 2000, 2001), "/home/web")),
        ("web:logs", {}, (1000, 2000, (2000, 2001), "/home/web")),
        ("web:7", {}, (1000, 7, (7, 2000, 2001), "/home/web")),
        ("12345", {}, (12345, 0, (0,), "/")),
        ("12345:6", {}, (12345, 6, (6,), "/")),
        (":6", {}, (0, 6, (6, 2001), "/root")),
        ("relative", {}, (30, 30, (30,), "/")),
        ("line", {}, (31, 31, (31,), "/")),
        ("short", {}, (40, 41, (41,), "/")),
        ("web", {"run_as_user": {"value": 0}}, (0, 0, (0, 2001), "/root")),
        ("web", {"run_as_user": {"value": 7}, "run_as_group": {"value": 8}}, (7, 8, (8,), "/")),
        ("", {"run_as_username": "web"}, (1000, 1001, (1001, 2000, 2001), "/home/web")),
        ("", {"run_as_username": "web", "run_as_user": {"value": 5}}, (1000, 1001, (1001, 2000, 2001), "/home/web")),
        ("", {"run_as_username": "web", "run_as_group": {"value": 5}}, (1000, 5, (5, 2000, 2001), "/home/web")),
        ("web", {"supplemental_groups": [3, 2000]}, (1000, 1001, (1001, 3, 2000, 2001), "/home/web")),
        ("web", {"supplemental_groups_policy": "Strict"}, (1000, 1001, (1001,), "/home/web")),
        (
            "web",
            {"supplemental_groups_policy": "Strict", "supplemental_groups": [3]},
            (1000, 1001, (1001, 3), "/home/web"),
        ),
        ("4294967294", {}, (4294967294, 0, (0,), "/")),
        ("0000001000", {}, (1000, 1001, (1001, 2000, 2001), "/home/web")),
        ("17", {}, (17, 0, (0,), "/")),
    ],
)
def test_cve_2026_46680_and_2023_25173_who_it_is(layer: Path, image: str, fields: dict[str, Any], wanted: Any) -> None:
    """The last: a name of digits is nobody's (CVE-2026-46680)."""
    assert user(layer, image, **fields) == wanted


@pytest.mark.parametrize(
    ("image", "fields", "place"),
    [
        ("nobody-here", {}, "image"),
        ("web:nogroup-here", {}, "image"),
        ("4294967295", {}, "image"),
        ("4294967296", {}, "image"),
        ("18446744073709551616", {}, "image"),
        ("99999999999999999999999", {}, "image"),
        ("web:4294967295", {}, "image"),
        ("-1", {}, "image"),
        ("+5", {}, "image"),
        ("\u0661", {}, "image"),
        ("bad", {}, "image"),
        ("wide", {}, "image"),
        ("minus", {}, "image"),
        ("we\nb", {}, "image"),
        ("", {"run_as_user": {"value": -1}}, "linux.security_context.run_as_user"),
        ("", {"run_as_user": {"value": 1 << 32}}, "linux.security_context.run_as_user"),
        ("", {"run_as_user": {"value": (1 << 32) - 1}}, "linux.security_context.run_as_user"),
        ("", {"run_as_group": {"value": 5}}, "linux.security_context.run_as_group"),
        ("", {"run_as_user": {"value": 1}, "run_as_group": {"value": -5}}, "linux.security_context.run_as_group"),
        ("", {"run_as_username": "web:root"}, "linux.security_context.run_as_username"),
        ("", {"run_as_username": "nobody-here"}, "linux.security_context.run_as_username"),
        ("", {"supplemental_groups": [1, -1]}, "linux.security_context.supplemental_groups.1"),
    ],
)
def test_cve_2024_40635_who_it_can_not_be(layer: Path, image: str, fields: dict[str, Any], place: str) -> None:
    """CVE-2024-40635: nothing that is out of range wraps around to somebody else."""
    with pytest.raises(InvalidArgument) as caught:
        user(layer, image, **fields)
    assert caught.value.text.startswith(place + ":"), caught.value.text


def test_an_image_without_users(tmp_path: Path) -> None:
    assert user(tmp_path, "7:8") == (7, 8, (8,), "/")
    assert user(tmp_path) == (0, 0, (0,), "/")


# --- images that mean harm -------------------------------------------------------------------------------------------


def test_cve_2025_4437_a_passwd_without_end(layer: Path) -> None:
    """CVE-2025-4437: sparse, so that it costs nobody anything but who reads it all."""
    with (layer / "etc/passwd").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidArgument, match="larger than"):
        user(layer)


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_cve_2026_47262_a_fifo_that_nobody_writes_to(layer: Path, name: str) -> None:
    (layer / "etc" / name).unlink()
    os.mkfifo(layer / "etc" / name)
    began = time.monotonic()
    with pytest.raises(InvalidArgument, match="no regular file"):
        user(layer, "web")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("target", ["/etc/hostile", "../../../../../../../etc/hostile", "../etc/./hostile"])
def test_cve_2024_9676_links_lead_to_files_of_the_image_alone(layer: Path, target: str) -> None:
    """CVE-2024-9676."""
    (layer / "etc/passwd").rename(layer / "etc/hostile")
    (layer / "etc/passwd").symlink_to(target)
    assert user(layer, "web")[0] == 1000
    (layer / "etc/hostile").unlink()
    assert user(layer)[0] == 0 and user(layer, "1000")[1] == 0
    with pytest.raises(InvalidArgument, match="not in the image"):
        user(layer, "web")


def test_etc_itself_may_be_a_link(layer: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("web:x:0:0::/:\n")
    (layer / "etc").rename(layer / "files")
    (layer / "etc").symlink_to(f"/../..{tmp_path}/etc")
    with pytest.raises(InvalidArgument, match="not in the image"):
        user(layer, "web")
    (layer / "etc").unlink()
    (layer / "etc").symlink_to("/files")
    assert user(layer, "web")[0] == 1000


def test_a_circle_of_links(layer: Path) -> None:
    (layer / "etc/passwd").unlink()
    (layer / "etc/passwd").symlink_to("group")
    (layer / "etc/group").unlink()
    (layer / "etc/group").symlink_to("passwd")
    with pytest.raises(InvalidArgument, match="too many levels"):
        user(layer)


def test_a_directory_and_a_file_in_its_place(layer: Path) -> None:
    (layer / "etc/passwd").unlink()
    (layer / "etc/passwd").mkdir()
    with pytest.raises(InvalidArgument, match="directory"):
        user(layer)
    assert look_up((str(layer),), "etc/group/more") is None


def test_a_layer_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="no such file"):
        user(tmp_path / "gone")


# --- layers above each other -----------------------------------------------------------------------------------------


def layers(tmp_path: Path, *trees: dict[str, str]) -> tuple[str, ...]:
    """Topmost first; a path that ends in a slash is a directory, "-> x" a link."""
    made = []
    for number, tree in enumerate(trees):
        root = tmp_path / f"l{number}"
        root.mkdir()
        for path, text in tree.items():
            place = root / path.rstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.endswith("/"):
                place.mkdir(exist_ok=True)
            elif text.startswith("-> "):
                place.symlink_to(text[3:])
            else:
                place.write_text(text)
        made.append(str(root))
    return tuple(made)


@pytest.mark.parametrize(
    ("trees", "path", "wanted"),
    [
        (({"a/x": "1"}, {"a/x": "2"}), "/a/x", b"1"),
        (({"a/y": "1"}, {"a/x": "2"}), "/a/x", b"2"),
        (({"a": "1"}, {"a/x": "2"}), "/a/x", None),
        (({"a/": ""}, {"a": "-> b", "b/x": "2"}), "/a/x", None),
        (({"a": "-> b"}, {"a/x": "1", "b/x": "2"}), "/a/x", b"2"),
        (({"a": "-> b"}, {"b": "-> /c/d"}, {"c/d/x": "3"}), "/a/x", b"3"),
        (({"a/l": "-> ../b/x"}, {"b/x": "2"}), "/a/l", b"2"),
        (({"a/": ""}, {"a/": ""}, {"a/x": "3"}), "/a/../a/./x", b"3"),
    ],
)
def test_what_a_path_leads_to(
    tmp_path: Path, trees: tuple[dict[str, str], ...], path: str, wanted: bytes | None
) -> None:
    assert read_file(layers(tmp_path, *trees), path, 100) == wanted


def test_no_descriptor_is_left(layer: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        user(layer, "web")
        with pytest.raises(InvalidArgument):
            user(layer, "nobody-here")
        (layer / "etc/x").unlink(missing_ok=True)
        (layer / "etc/x").symlink_to("x")
        with pytest.raises(InvalidArgument):
            look_up((str(layer),), "/etc/x")
    assert sorted(os.listdir("/proc/self/fd")) == before
