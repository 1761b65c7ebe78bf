"""The option strings of a mount: each one's meaning, what wins over what, and what is left to the file system."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from pyrun.errors import ConfigError
from pyrun.oci import model
from pyrun.plan.rootfs.mount_entry import Entry
from pyrun.plan.rootfs.mount_options import (
    ATIME,
    KNOWN_OPTIONS,
    MS_PRIVATE,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
    NOATIME,
    NODEV,
    NODIRATIME,
    NOEXEC,
    NOSUID,
    NOSYMFOLLOW,
    RDONLY,
    RELATIME,
    STRICTATIME,
    parse_options,
    split_data,
)
from tests.support.properties import given

# config-linux.md lists these under "Linux mount options"; each must be known, so that none reaches a file system.
SPEC_OPTIONS = """async
    atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime
    noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime
    relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate
    rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid
    symfollow sync tmpcopyup unbindable idmap ridmap""".split()


@pytest.mark.parametrize("option", [*SPEC_OPTIONS, "rnodev"])
def test_every_option_of_the_spec_is_known(option: str) -> None:
    assert option in KNOWN_OPTIONS
    assert parse_options((option,)).data == []


@pytest.mark.parametrize(
    ("option", "attr"),
    [
        ("ro", RDONLY),
        ("nosuid", NOSUID),
        ("nodev", NODEV),
        ("noexec", NOEXEC),
        ("nodiratime", NODIRATIME),
        ("nosymfollow", NOSYMFOLLOW),
    ],
)
def test_flags_and_their_recursive_forms(option: str, attr: int) -> None:
    plain, recursive = parse_options((option,)), parse_options(("r" + option,))
    assert (plain.set, plain.clear, plain.rec_set) == (attr, 0, 0)
    assert (recursive.set, recursive.rec_set, recursive.flagged) == (0, attr, False)


@pytest.mark.parametrize(("on", "off"), [("ro", "rw"), ("nosuid", "suid"), ("noexec", "exec"), ("nodev", "dev")])
def test_the_last_of_two_opposites_wins(on: str, off: str) -> None:
    assert (parse_options((on, off)).set, parse_options((off, on)).clear) == (0, 0)
    assert parse_options((on, off)).clear == parse_options((off, on)).set != 0
    both = parse_options(("r" + on, "r" + off))
    assert both.rec_set == 0 and both.rec_clear != 0


@pytest.mark.parametrize(
    ("options", "atime"),
    [
        (("noatime",), NOATIME),
        (("strictatime",), STRICTATIME),
        (("relatime",), RELATIME),
        (("noatime", "relatime"), RELATIME),
        (("relatime", "noatime"), NOATIME),
        (("noatime", "atime"), RELATIME),
        (("strictatime", "nostrictatime"), None),
        (("relatime", "norelatime"), None),
        (("strictatime", "norelatime"), STRICTATIME),
        ((), None),
    ],
)
def test_atime_is_one_choice(options: tuple[str, ...], atime: int | None) -> None:
    assert parse_options(options).atime == atime


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("rnoatime",), NOATIME),
        (("rstrictatime", "rnoatime"), NOATIME),
        (("rnoatime", "ratime"), RELATIME),
        (("rstrictatime", "rro"), STRICTATIME | RDONLY),
    ],
)
def test_recursive_atime_clears_the_whole_field(options: tuple[str, ...], wanted: int) -> None:
    """mount_setattr(2): EINVAL when a part of MOUNT_ATTR__ATIME is cleared."""
    o = parse_options(options)
    assert o.rec_set == wanted
    assert o.rec_clear & ATIME == ATIME


def test_propagation_keeps_the_order() -> None:
    o = parse_options(("rslave", "shared", "unbindable", "rprivate"))
    assert o.propagation == [(MS_SLAVE, True), (MS_SHARED, False), (MS_UNBINDABLE, False), (MS_PRIVATE, True)]


def test_words() -> None:
    o = parse_options(("bind",))
    assert (o.bind, o.recursive, o.flagged) == (True, False, False)
    o = parse_options(("rbind", "remount", "tmpcopyup", "ridmap", "iversion"))
    assert (o.bind, o.recursive, o.remount, o.copyup, o.idmap, o.iversion) == (True, True, True, True, 2, True)
    assert parse_options(("ridmap", "idmap")).idmap == 2
    assert parse_options(("iversion", "noiversion")).iversion is False


def test_superblock_flags() -> None:
    assert parse_options(("sync", "dirsync", "lazytime", "sync")).super == ["dirsync", "lazytime", "sync"]
    assert parse_options(("sync", "async", "lazytime", "nolazytime")).super == []


def test_data_is_the_file_systems() -> None:
    o = parse_options(("size=64k", "ro", "newinstance", "mode=755,uid=3", "empty="))
    assert o.data == [
        ("size", "64k", 0),
        ("newinstance", None, 2),
        ("mode", "755", 3),
        ("uid", "3", 3),
        ("empty", "", 4),
    ]
    assert o.ms_data() == "size=64k,newinstance,mode=755,uid=3,empty="


def test_what_only_mount8_reads_is_dropped() -> None:
    assert (
        parse_options(("nofail", "_netdev", "x-systemd.automount", "X-mount.mkdir", "comment=me", "noauto")).data == []
    )


def test_quotes_and_escapes_hold_commas() -> None:
    assert split_data('context="u:r:t:s0:c1,c2",size=1') == ['context="u:r:t:s0:c1,c2"', "size=1"]
    assert split_data("lowerdir=/a\\,b:/c,upperdir=/d") == ["lowerdir=/a\\,b:/c", "upperdir=/d"]
    assert parse_options(('context="u:r:t:s0:c1,c2"',)).data == [("context", "u:r:t:s0:c1,c2", 0)]


def test_flags_for_mount2() -> None:
    o = parse_options(("ro", "nosuid", "nodev", "noexec", "strictatime", "nodiratime", "sync", "iversion", "remount"))
    ms = {
        "ro": 1,
        "nosuid": 2,
        "nodev": 4,
        "noexec": 8,
        "strict": 1 << 24,
        "nodir": 2048,
        "sync": 16,
        "iv": 1 << 23,
        "re": 32,
    }
    assert o.ms_flags() == sum(ms.values())


@given(st.lists(st.sampled_from(KNOWN_OPTIONS) | st.text(max_size=12), max_size=12))
def test_anything_parses_and_stays_in_bounds(options: list[str]) -> None:
    o = parse_options(tuple(options))
    assert o.set & o.clear == 0
    assert o.rec_set & o.rec_clear & ~ATIME == 0
    assert o.rec_clear & ATIME in (0, ATIME)
    assert o.atime in (None, RELATIME, NOATIME, STRICTATIME)
    assert all(0 <= index < len(options) for _, _, index in o.data)


@pytest.mark.parametrize(
    ("options", "joined"),
    [
        (("rbind,ro",), [0]),
        (("size=4k", "nosuid,size=4k"), [1]),
        (("ro,size=4k", "size=4k,mode=700", "rbind", "ro"), []),
        (('context="u:r:t:s0:nosuid,bind"', "lowerdir=/a\\,bind"), []),
    ],
)
def test_options_in_one_string_are_told_apart(options: tuple[str, ...], joined: list[int]) -> None:
    """Flags of mount(2) among a file system's own would be handed to it, and it does not know them."""
    assert parse_options(options).joined == joined
    mount = model.Mount(destination="/m", type="bind", source="/s", options=options)
    if joined:
        with pytest.raises(ConfigError, match=r"/mounts/0/options/\d: \".*,.*\" is several in one"):
            Entry(0, mount)
    else:
        Entry(0, mount)
