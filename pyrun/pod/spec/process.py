"""The program: what it is called with, by whom and with which rights.

Command and arguments take the place of the image's entrypoint and command as Kubernetes says: a command alone drops the
image's arguments too, arguments alone keep its entrypoint.
"""

from __future__ import annotations

from ...oci import names
from .draft import CONTEXT, Draft, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .node import Node
    from .users import User

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What a container has where nothing is said: enough to own its files, change its user and listen below port 1024.
CAPABILITIES = (
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip
CAP_SYS_RESOURCE = 24


def plan_process(d: Draft, config: Any, pod: Any, image: Any, user: User, sandbox: Any, node: Node) -> None:
    context = config.linux.security_context
    args, place = _args(config, image)
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": args,
        "env": _env(config, image, user, sandbox, node),
        "cwd": _cwd(config, image),
        "capabilities": plan_capabilities(context, sandbox, node),
        "noNewPrivileges": context.no_new_privs,
    }
    if node.settings.rlimits:
        process["rlimits"] = [
            {"type": name, "soft": soft, "hard": hard} for name, (soft, hard) in sorted(node.settings.rlimits.items())
        ]
    if config.linux.HasField("resources"):
        process["oomScoreAdj"] = _oom_score_adj(config.linux.resources.oom_score_adj, node)
        d.note("/process/oomScoreAdj", "linux.resources.oom_score_adj")
    d.doc["process"] = process
    d.note("/process/args", place)
    d.note("/process/terminal", "tty")
    d.note("/process/env", "envs")
    d.note("/process/cwd", "working_dir" if config.working_dir else "image")
    d.note("/process/user", user.place)
    d.note("/process/capabilities", f"{CONTEXT}.capabilities")
    d.note("/process/noNewPrivileges", f"{CONTEXT}.no_new_privs")


def _args(config: Any, image: Any) -> tuple[list[str], str]:
    command, args, place = list(config.command), list(config.args), "command"
    if not command:
        place = "args" if args else "image"
        if not args:
            args = list(image.cmd)
        entrypoint = list(image.entrypoint)
        command = [] if entrypoint == [""] else entrypoint
    words = command + args
    if not words or not words[0]:
        refuse("command", "there is none, and the image has none either", hint="set the container's command")
    if any("\0" in word for word in words):
        refuse(place, "a word has no NUL in it")
    return words, place


def _env(config: Any, image: Any, user: User, sandbox: Any, node: Node) -> list[str]:
    """The image's, then the request's, each name once; before them what a program may count on."""
    env = {"PATH": PATH, "HOSTNAME": f"HOSTNAME={sandbox.hostname or node.hostname}"}
    if config.tty:
        env["TERM"] = "TERM=xterm"
    for variable in image.env:
        name, equals, _ = variable.partition("=")
        if name and equals and "\0" not in variable:  # others no program could read; docker build lets them in
            env[name] = variable
    for index, pair in enumerate(config.envs):
        value = pair.value if isinstance(pair.value, str) else pair.value.decode("utf-8", "surrogateescape")
        if not pair.key or "=" in pair.key or "\0" in pair.key + value:
            refuse(f"envs.{index}", f"{pair.key!r} can't be the name, or this the value, of a variable")
        env[pair.key] = f"{pair.key}={value}"
    if not env.get("HOME", "HOME=")[5:]:
        env["HOME"] = f"HOME={user.home}"
    return list(env.values())


def _cwd(config: Any, image: Any) -> str:
    """A relative one is below the root, as docker and runc take it."""
    cwd = config.working_dir or image.working_dir or "/"
    if "\0" in cwd:
        refuse("working_dir", "a path has no NUL in it")
    return cwd if cwd.startswith("/") else "/" + cwd


def _oom_score_adj(wanted: int, node: Node) -> int:
    if not -1000 <= wanted <= 1000:
        refuse("linux.resources.oom_score_adj", f"is from -1000 to 1000, not {wanted}")
    if wanted < node.oom_score_adj and not node.facts.has_cap(CAP_SYS_RESOURCE):
        text = f"oom_score_adj {wanted} takes CAP_SYS_RESOURCE: it stays at {node.oom_score_adj}"
        node.left_out("linux.resources.oom_score_adj", text)
        return node.oom_score_adj
    return wanted


def plan_capabilities(context: Any, sandbox: Any, node: Node) -> dict[str, list[str]]:
    """All five sets. Inheritable stays empty (CVE-2022-24769) but for what is ambient, which the kernel wants there."""
    known = [name for name, number in names.CAPABILITIES.items() if number <= node.facts.last_cap]
    ours = known if sandbox.user else [name for name in known if node.facts.has_cap(names.CAPABILITIES[name])]
    given = context.capabilities
    add, drop, ambient = (
        _names(f"{CONTEXT}.capabilities.{kind}", getattr(given, kind), known)
        for kind in ("add_capabilities", "drop_capabilities", "add_ambient_capabilities")
    )
    if context.privileged:
        have = dict.fromkeys(ours)
    else:
        have = dict.fromkeys(name for name in CAPABILITIES if name in ours)
        if "ALL" in add:
            have = dict.fromkeys(ours)
        if "ALL" in drop:
            have = {}
        have.update(dict.fromkeys(name for name in add if name != "ALL"))
        for name in drop:
            have.pop(name, None)
    raised = ours if "ALL" in ambient else ambient
    have.update(dict.fromkeys(raised))
    sets = {kind: sorted(have) for kind in ("bounding", "effective", "permitted")}
    return sets | {"inheritable": sorted(raised), "ambient": sorted(raised)} if raised else sets


def _names(place: str, given: Any, known: list[str]) -> list[str]:
    """With CAP_ in front or without, in small letters or large, as peers take them."""
    found = []
    for index, text in enumerate(given):
        name = text.upper()
        if name != "ALL" and not name.startswith("CAP_"):
            name = "CAP_" + name
        if name != "ALL" and name not in known:
            refuse(f"{place}.{index}", f"{text!r} is no capability of this kernel")
        found.append(name)
    return found
