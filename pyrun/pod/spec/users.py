"""Who the program runs as: the request's user, else the image's, looked up in the image's own passwd and group.

The rules that were broken elsewhere: digits are always a number and never a name, and one out of range is an error
(CVE-2024-40635, CVE-2026-46680); the main group is always among the groups (CVE-2023-25173); with policy Strict nothing
of the image's group file counts.
"""

from __future__ import annotations

from ...image.merged import read_file
from .draft import CONTEXT, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE_BYTES = 1 << 20
LARGEST = (1 << 32) - 2  # 2^32-1 means "leave it" to setresuid(2)
MERGE, STRICT = range(2)  # SupplementalGroupsPolicy
MOST_GROUPS = 65536  # NGROUPS_MAX


class User:
    """uid, gid; groups: the supplementary ones, gid first; home; place: who asked for it."""

    __slots__ = ("gid", "groups", "home", "place", "uid")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...] = (), home: str = "/", place: str = "image") -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home
        self.place = place


def look_up_user(lowers: tuple[str, ...], config: Any, image: Any) -> User:
    """Reads the image's files where they are needed. lowers: its layers' directories, topmost first. InvalidArgument:
    no such user or group, or files that are not what they should be."""
    context = config.linux.security_context
    files = _Files(lowers)
    user, group, place = _wanted(context, image)
    entry = files.user(user, place) if user else _Entry("", 0, None, "")
    if group:
        gid = files.group(group, place)
    elif entry.gid is not None:
        gid = entry.gid
    else:
        gid = 0
    groups = [gid, *_extra(context)]
    if context.supplemental_groups_policy == MERGE:
        if not user:
            entry = files.user("0", place)
        groups += files.groups_of(entry.name)
    elif context.supplemental_groups_policy != STRICT:
        refuse(f"{CONTEXT}.supplemental_groups_policy", f"{context.supplemental_groups_policy} is no policy")
    distinct = tuple(dict.fromkeys(groups))
    if len(distinct) > MOST_GROUPS:
        refuse(f"{CONTEXT}.supplemental_groups", f"{len(distinct)} groups are more than the kernel takes")
    if not user:
        entry = files.user("0", place)
    return User(entry.uid, gid, distinct, _home(entry.home), place)


def wanted_user(config: Any, image: Any) -> tuple[int, int, str]:
    """uid, gid and who asked for them, of a request that has numbers alone, without the image's files."""
    user, group, place = _wanted(config.linux.security_context, image)
    return _number(user or "0", place) or 0, _number(group or "0", place) or 0, place


def needed_name(config: Any, image: Any) -> str | None:
    """The name that only the image's files can say the number of."""
    user, group, place = _wanted(config.linux.security_context, image)
    return next((word for word in (user, group) if word and _number(word, place) is None), None)


def _wanted(context: Any, image: Any) -> tuple[str, str, str]:
    """User and group as words, and where they stand. run_as_username wins over run_as_user, as with peers."""
    user, place = "", "image"
    if context.run_as_username:
        user, place = context.run_as_username, f"{CONTEXT}.run_as_username"
        if ":" in user:
            refuse(place, f"{user!r} is no name of a user")
    elif context.HasField("run_as_user"):
        user, place = str(_in_range(f"{CONTEXT}.run_as_user", context.run_as_user.value)), f"{CONTEXT}.run_as_user"
    if context.HasField("run_as_group"):
        group = str(_in_range(f"{CONTEXT}.run_as_group", context.run_as_group.value))
        if not user:
            refuse(f"{CONTEXT}.run_as_group", "needs run_as_user or run_as_username")
        return user, group, place
    if user:
        return user, "", place
    user, _, group = image.user.partition(":")
    return user, group, place


def _in_range(place: str, number: int) -> int:
    if not 0 <= number <= LARGEST:
        refuse(place, f"{number} is no id: they are from 0 to {LARGEST}")
    return number


def _extra(context: Any) -> list[int]:
    given = context.supplemental_groups
    return [_in_range(f"{CONTEXT}.supplemental_groups.{i}", number) for i, number in enumerate(given)]


def _home(home: str) -> str:
    """What a passwd says goes into the environment: a path, and nothing that could look like a line of its own."""
    return home if home.startswith("/") and home.isprintable() else "/"


class _Entry:
    __slots__ = ("gid", "home", "name", "uid")

    def __init__(self, name: str, uid: int, gid: int | None, home: str) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.home = home


class _Files:
    """The image's passwd and group, each read when it is first asked for."""

    __slots__ = ("_groups", "_lowers", "_users")

    def __init__(self, lowers: tuple[str, ...]) -> None:
        self._lowers = lowers
        self._users: list[list[str]] | None = None
        self._groups: list[list[str]] | None = None

    def _rows(self, path: str, columns: int) -> list[list[str]]:
        data = read_file(self._lowers, path, FILE_BYTES) or b""
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        rows = [line.split(":") for line in lines if line and not line.startswith("#")]
        return [row for row in rows if len(row) >= columns and row[0]]

    def users(self) -> list[list[str]]:
        if self._users is None:
            self._users = self._rows("/etc/passwd", 4)
        return self._users

    def user(self, word: str, place: str) -> _Entry:
        """By number, which needs no entry, or by name, which does."""
        number = _number(word, place)
        for row in self.users():
            uid, gid = _id(row[2]), _id(row[3])
            if uid is None or gid is None:
                continue  # of no use to anyone, least of all as another number
            if uid == number if number is not None else row[0] == word:
                return _Entry(row[0], uid, gid, row[5] if len(row) > 5 else "")
        if number is None:
            refuse(place, f"user {word!r} is not in the image's /etc/passwd")
        return _Entry("", number, None, "")

    def group(self, word: str, place: str) -> int:
        number = _number(word, place)
        if number is not None:
            return number
        for row in self.groups():
            gid = _id(row[2])
            if row[0] == word and gid is not None:
                return gid
        refuse(place, f"group {word!r} is not in the image's /etc/group")

    def groups(self) -> list[list[str]]:
        if self._groups is None:
            self._groups = self._rows("/etc/group", 3)
        return self._groups

    def groups_of(self, name: str) -> list[int]:
        """Those in which a user of this name is listed."""
        found = []
        for row in self.groups() if name else ():
            gid = _id(row[2])
            if gid is not None and len(row) > 3 and name in row[3].split(","):
                found.append(gid)
        return found


def _number(word: str, place: str) -> int | None:
    """The number that a word is; None for a name. A sign or other digits than ours make it neither."""
    if word.isascii() and word.isdigit():
        if len(word) > 10 and word.lstrip("0") != word[-10:]:
            refuse(place, f"{word[:40]} is no id: they are from 0 to {LARGEST}")
        return _in_range(place, int(word))
    if word[:1] in "+-" or not word.isprintable() or word.strip() != word or word.isdigit():
        refuse(place, f"{word!r} is no name of a user or group")
    return None


def _id(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > LARGEST:
        return None
    return int(text)
