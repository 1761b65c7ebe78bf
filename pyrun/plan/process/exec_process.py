"""The process that `exec` runs: what a file or the command line says, over what the container's own process has.

As runc has it: COMMAND runs with the container's user, environment, directory and privileges, each of which an option
changes. A process from a file stands for itself, and the container lends it only what it leaves out. Ids are read
strictly: 4294967295 is (uid_t)-1, "no change" to setresuid(2), so a caller's typo would leave root (CVE-2026-30892 was
such a parser).
"""

from __future__ import annotations

from ...errors import PyrunError
from ...oci import names
from ...oci.model import Capabilities, ConsoleSize, Process, User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Words(Protocol):
        """The options of exec, as the command line has them; None or () where one is not given."""

        command: tuple[str, ...]
        cwd: str | None
        env: tuple[str, ...]
        user: str | None
        additional_gids: tuple[int, ...]
        cap: tuple[str, ...]
        no_new_privs: bool | None
        apparmor: str | None
        process_label: str | None
        tty: bool


LAST_ID = 0xFFFFFFFE
LENT = (
    "capabilities",
    "rlimits",
    "apparmor_profile",
    "selinux_label",
    "oom_score_adj",
    "scheduler",
    "io_priority",
    "exec_cpu_affinity",
)


def process_of_words(own: Process, words: Words) -> Process:
    """The container's own process, changed by the options. PyrunError where one can't be read."""
    cwd = words.cwd or own.cwd
    if not cwd.startswith("/"):
        raise PyrunError(
            f'--cwd "{cwd}" is not an absolute path', hint="it is a directory in the container, from its root on"
        )
    privileges = own.no_new_privileges if words.no_new_privs is None else words.no_new_privs
    return own.replace(
        args=words.command,
        cwd=cwd,
        env=own.env + _variables(words.env),
        terminal=words.tty,
        console_size=None,
        user=_user(own.user, words),
        capabilities=_capabilities(own.capabilities, words.cap),
        no_new_privileges=privileges,
        apparmor_profile=words.apparmor or own.apparmor_profile,
        selinux_label=words.process_label or own.selinux_label,
    )


def lend(own: Process, process: Process) -> Process:
    """The process with the container's own values where it has none."""
    changes = {name: getattr(own, name) for name in LENT if getattr(process, name) in (None, "", ())}
    if process.user.umask is None:
        changes["user"] = process.user.replace(umask=own.user.umask)
    return process.replace(**changes)


def with_size(process: Process, rows: int, columns: int) -> Process:
    """The process with a terminal of this size, so that it is right from the first moment."""
    return process.replace(console_size=ConsoleSize(height=rows, width=columns))


def parse_id(text: str, what: str) -> int:
    """A uid or gid: ASCII digits, 0 to 4294967294."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= LAST_ID):
        raise PyrunError(
            f'--user: "{text}" is not a {what}',
            hint=f"write it as UID or UID:GID, by number, each from 0 to {LAST_ID}; names are not looked up",
        )
    return int(text)


def _user(own: User, words: Words) -> User:
    uid, gid = own.uid, own.gid
    if words.user is not None:
        left, colon, right = words.user.partition(":")
        uid = parse_id(left, "uid")
        gid = parse_id(right, "gid") if colon else gid
    for more in words.additional_gids:
        if not 0 <= more <= LAST_ID:
            raise PyrunError(f"--additional-gids {more} is not a gid", hint=f"a number from 0 to {LAST_ID}")
    return own.replace(uid=uid, gid=gid, additional_gids=own.additional_gids + words.additional_gids)


def _variables(given: tuple[str, ...]) -> tuple[str, ...]:
    for variable in given:
        if variable.find("=") < 1:
            raise PyrunError(f'--env "{variable}" is not NAME=VALUE')
    return given


def _capabilities(own: Capabilities | None, more: tuple[str, ...]) -> Capabilities | None:
    """More in the bounding, effective and permitted sets. Never in the inheritable one (CVE-2022-29162), and so ambient
    only what is in there.
    """
    if not more:
        return own
    wanted = tuple([_capability(name) for name in more])
    sets = own or Capabilities()
    ambient = tuple([name for name in wanted if name in sets.inheritable])
    return sets.replace(
        bounding=sets.bounding + wanted,
        effective=sets.effective + wanted,
        permitted=sets.permitted + wanted,
        ambient=sets.ambient + ambient,
    )


def _capability(text: str) -> str:
    name = text.upper()
    name = name if name.startswith("CAP_") else "CAP_" + name
    if name not in names.CAPABILITIES:
        raise PyrunError(f'--cap "{text}" is not a capability', hint="see capabilities(7); for example CAP_NET_ADMIN")
    return name
