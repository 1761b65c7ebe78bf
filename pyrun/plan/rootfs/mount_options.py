"""The options of a mount in config.json, as the kernel's mount API has them: attributes of the mount, flags of the
superblock, data.

mount(8)'s strings mix three things that the new API keeps apart. An option that is not known here is the file
system's own (config.md, "Linux mount options"). Later options win over earlier ones, as in mount(8). What only
mount(8) itself would look at (nofail, x-…) is dropped. The atime options are one choice out of three, not flags:
mount_setattr(2) wants all of its bits cleared to set one.
"""

from __future__ import annotations

RDONLY, NOSUID, NODEV, NOEXEC, NODIRATIME, NOSYMFOLLOW = 0x1, 0x2, 0x4, 0x8, 0x80, 0x200000
ATIME, RELATIME, NOATIME, STRICTATIME = 0x70, 0x0, 0x10, 0x20
IDMAP = 0x100000
# What a bind that says anything of flags sets or clears, all of it: the source's flags are not inherited then, as
# with runc. The atime flags are, until one of them is asked for.
BIND_FLAGS = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW

MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
_MS_REMOUNT, _MS_RELATIME, _MS_I_VERSION = 1 << 5, 1 << 21, 1 << 23
# MOUNT_ATTR_* or the name of a superblock flag -> MS_*, for mount(2).
_MS_ATTRS = ((RDONLY, 1), (NOSUID, 2), (NODEV, 4), (NOEXEC, 8), (NOSYMFOLLOW, 256), (NODIRATIME, 2048))
_MS_ATIME = {RELATIME: _MS_RELATIME, NOATIME: 1024, STRICTATIME: 1 << 24}
_MS_SUPER = {"sync": 16, "mand": 64, "dirsync": 128, "lazytime": 1 << 25}

_SET, _CLEAR, _TIME, _UNTIME, _SUPER, _UNSUPER, _REC_SET, _REC_CLEAR, _REC_TIME, _PROPAGATION, _WORD = range(11)

_FLAGS = {
    "ro": RDONLY, "nosuid": NOSUID, "nodev": NODEV, "noexec": NOEXEC, "nodiratime": NODIRATIME,
    "nosymfollow": NOSYMFOLLOW,
}  # fmt: skip
_UNFLAGS = {
    "rw": RDONLY, "suid": NOSUID, "dev": NODEV, "exec": NOEXEC, "diratime": NODIRATIME, "symfollow": NOSYMFOLLOW,
}  # fmt: skip
_TIMES = {"relatime": RELATIME, "noatime": NOATIME, "strictatime": STRICTATIME}
_UNTIMES = {"norelatime": RELATIME, "atime": NOATIME, "nostrictatime": STRICTATIME}
_SUPERS = {"sync": "sync", "dirsync": "dirsync", "lazytime": "lazytime", "mand": "mand"}
_UNSUPERS = {"async": "sync", "nolazytime": "lazytime", "nomand": "mand"}
_PROPAGATIONS = {
    "private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED, "unbindable": MS_UNBINDABLE,
}  # fmt: skip
_WORDS = (
    "bind",
    "rbind",
    "defaults",
    "remount",
    "silent",
    "loud",
    "iversion",
    "noiversion",
    "tmpcopyup",
    "idmap",
    "ridmap",
)
# mount(8)'s own: they mean nothing to a kernel.
_MOUNT8 = (
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
)

TABLE: dict[str, tuple[int, int | str]] = {
    **{name: (_SET, bit) for name, bit in _FLAGS.items()},
    **{name: (_CLEAR, bit) for name, bit in _UNFLAGS.items()},
    **{name: (_TIME, bit) for name, bit in _TIMES.items()},
    **{name: (_UNTIME, bit) for name, bit in _UNTIMES.items()},
    **{name: (_SUPER, flag) for name, flag in _SUPERS.items()},
    **{name: (_UNSUPER, flag) for name, flag in _UNSUPERS.items()},
    **{"r" + name: (_REC_SET, bit) for name, bit in _FLAGS.items()},
    **{"r" + name: (_REC_CLEAR, bit) for name, bit in _UNFLAGS.items()},
    **{"r" + name: (_REC_TIME, bit) for name, bit in _TIMES.items()},
    **{"r" + name: (_REC_TIME, RELATIME) for name in _UNTIMES},
    **{name: (_PROPAGATION, bit) for name, bit in _PROPAGATIONS.items()},
    **{"r" + name: (_PROPAGATION, bit | 1) for name, bit in _PROPAGATIONS.items()},
    **{name: (_WORD, name) for name in _WORDS},
}  # fmt: skip


class MountOptions:
    """bind: a bind mount; recursive: with what is mounted below. remount, iversion: only mount(2) has these. copyup:
    tmpcopyup.

    set, clear: MOUNT_ATTR_* wanted and unwanted by name; atime: RELATIME, NOATIME, STRICTATIME or None; flagged: some
    such option was there at all. rec_set, rec_clear: the same for the mount and all below. propagation: pairs (MS_*,
    recursive). idmap: 0, 1, or 2 for the whole tree. super: names of superblock flags. data: triples (key, value or
    None, index of the option).
    """

    __slots__ = (
        "atime",
        "bind",
        "clear",
        "copyup",
        "data",
        "flagged",
        "idmap",
        "iversion",
        "joined",
        "propagation",
        "rec_clear",
        "rec_set",
        "recursive",
        "remount",
        "set",
        "super",
    )

    def __init__(self) -> None:
        self.bind = self.recursive = self.remount = self.iversion = self.copyup = self.flagged = False
        self.set = self.clear = self.rec_set = self.rec_clear = self.idmap = 0
        self.atime: int | None = None
        self.propagation: list[tuple[int, bool]] = []
        self.super: list[str] = []
        self.data: list[tuple[str, str | None, int]] = []
        self.joined: list[int] = []

    def attrs(self) -> int:
        """The attributes for fsmount(2)."""
        return self.set | (self.atime or 0)

    def ms_flags(self) -> int:
        """The same and the superblock's flags for mount(2)."""
        flags = _MS_ATIME[self.atime] if self.atime is not None else 0
        for attr, flag in _MS_ATTRS:
            if self.set & attr:
                flags |= flag
        for name in self.super:
            flags |= _MS_SUPER[name]
        return flags | (_MS_REMOUNT if self.remount else 0) | (_MS_I_VERSION if self.iversion else 0)

    def ms_data(self) -> str:
        """The data for mount(2)."""
        return ",".join(key if value is None else f"{key}={value}" for key, value, _ in self.data)


def parse_options(options: tuple[str, ...]) -> MountOptions:
    """What the options of a mount say, in their order."""
    o = MountOptions()
    for index, text in enumerate(options):
        kind, value = TABLE.get(text, (-1, 0))
        if kind == -1:
            _data(o, text, index)
        elif kind == _WORD:
            _word(o, text)
        else:
            _flag(o, kind, value)
    return o


def _flag(o: MountOptions, kind: int, value: int | str) -> None:
    if kind <= _UNSUPER:
        o.flagged = True
    if kind == _SET:
        o.set |= value  # type: ignore[operator]
        o.clear &= ~value  # type: ignore[operator]
    elif kind == _CLEAR:
        o.clear |= value  # type: ignore[operator]
        o.set &= ~value  # type: ignore[operator]
    elif kind == _TIME:
        o.atime = value  # type: ignore[assignment]
    elif kind == _UNTIME:
        _untime(o, value)  # type: ignore[arg-type]
    elif kind == _SUPER:
        o.super = [*(name for name in o.super if name != value), value]  # type: ignore[list-item]
    elif kind == _UNSUPER:
        o.super = [name for name in o.super if name != value]
    elif kind == _PROPAGATION:
        o.propagation.append((value & ~1, bool(value & 1)))  # type: ignore[operator]
    else:
        _recursive(o, kind, value)  # type: ignore[arg-type]


def _untime(o: MountOptions, value: int) -> None:
    """atime, norelatime, nostrictatime: the choice is the kernel's, which is relatime. Only atime also ends what a
    bind's source has.
    """
    if o.atime == value:
        o.atime = None
    if value == NOATIME and o.atime is None:
        o.atime = RELATIME


def _recursive(o: MountOptions, kind: int, value: int) -> None:
    if kind == _REC_SET:
        o.rec_set |= value
        o.rec_clear &= ~value
    elif kind == _REC_CLEAR:
        o.rec_clear |= value
        o.rec_set &= ~value
    else:
        o.rec_set = o.rec_set & ~ATIME | value
        o.rec_clear |= ATIME


def _word(o: MountOptions, text: str) -> None:
    if text == "bind":
        o.bind = True
    elif text == "rbind":
        o.bind = o.recursive = True
    elif text == "tmpcopyup":
        o.copyup = True
    elif text == "idmap":
        o.idmap = o.idmap or 1
    elif text == "ridmap":
        o.idmap = 2
    elif text == "remount":
        o.remount = True
    elif text in ("iversion", "noiversion"):
        o.iversion = text == "iversion"


def _data(o: MountOptions, text: str, index: int) -> None:
    parts = split_data(text)
    if len(parts) > 1 and any(_is_flag_of_mount(part) for part in parts):
        o.joined.append(index)
    for part in parts:
        if not part or part in _MOUNT8 or part.startswith(("x-", "X-", "comment=")):
            continue
        key, equals, value = part.partition("=")
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        o.data.append((key, value if equals else None, index))


def _is_flag_of_mount(word: str) -> bool:
    """Whether we must see it, as an option of its own; fsconfig(2) takes the few that are the superblock's."""
    return word in TABLE and word not in ("ro", "rw") and TABLE[word][0] not in (_SUPER, _UNSUPER)


def split_data(text: str) -> list[str]:
    """Splits one option at its commas, but for those in double quotes (SELinux contexts) or behind a backslash
    (overlay's paths).
    """
    if "," not in text:
        return [text]
    if '"' not in text and "\\" not in text:
        return text.split(",")
    parts, start, quoted, i = [], 0, False, 0
    while i < len(text):
        c = text[i]
        if c == "\\":
            i += 1
        elif c == '"':
            quoted = not quoted
        elif c == "," and not quoted:
            parts.append(text[start:i])
            start = i + 1
        i += 1
    return [*parts, text[start:]]


KNOWN_OPTIONS = tuple(sorted(TABLE))
