"""create: config.json and the host's facts become a plan, the plan becomes a container.

Everything that is made is made by the plan's steps, the state directory and the record among them, so that what fails
is undone in one place. What a later start and delete will do is planned here too and kept in the record for the
launcher to replay.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` costs an enum
import posix
import time

from ..errors import ConfigError, PyrunError, reason
from ..executor import Outcome, StepFailed, run_plan
from ..facts import Facts, collect_facts
from ..oci.load import load_bytes, read_file
from ..oci.model import Spec
from ..plan.cgroup.cgroups import cgroup_path, check_no_limits, is_writable
from ..plan.create import plan_create
from ..plan.lifecycle import hooks_begun, plan_delete, plan_start
from ..plan.model.request import Request
from ..plan.namespace.namespaces import namespaces
from ..plan.process.hooks import hooks_of, quote
from ..plan.process.process import ignored_caps
from . import record as rec
from .descriptors import kept_descriptors, with_listen_fds
from .store import Store, boot_id, is_there, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..plan.model.plan import Plan
    from .run import Joint
    from .systemd import Scope

    Traced = Callable[[Plan, list[int], int | None], None]

NO_PIVOT = "--no-pivot is not supported: without pivot_root a container can climb out of its root"


class Prepared:
    """A create that is planned but not begun: spec, facts, request and plan."""

    __slots__ = ("facts", "plan", "request", "spec")

    def __init__(self, spec: Spec, facts: Facts, request: Request) -> None:
        self.spec = spec
        self.facts = facts
        self.request = request
        self.plan = plan_create(spec, facts, request)


def load_bundle(bundle: str, config: str | None = None) -> tuple[str, bytes, Spec]:
    """(absolute bundle, bytes of its config, Spec). config: another file than BUNDLE/config.json."""
    path = _absolute(bundle)
    try:
        posix.stat(path)
    except OSError as e:
        raise PyrunError(
            f"bundle {path}: {reason(e)}",
            hint="--bundle names a directory with config.json; the default is the working directory",
        ) from None
    data = read_file(config or path + "/config.json")
    return path, data, load_bytes(data)


def prepare(
    store: Store,
    container: str,
    bundle: str,
    *,
    config: str | None = None,
    park: bool = True,
    rootless: bool | None = None,
    preserve_fds: int = 0,
    listen_fds: int = 0,
    foreground: Joint | None = None,
    imagine: bool = False,
    **words: object,
) -> Prepared:
    """Plans a create (park) or a run. foreground: gets the terminal. imagine: the plan is only to be shown, so rare
    things of the host are taken to be there. words: attributes of Request. Raises PyrunError; nothing has been made
    then."""
    directory = _state_directory(store, container)
    path, data, spec = load_bundle(bundle, config)
    kept = kept_descriptors(preserve_fds, listen_fds)
    spec = with_listen_fds(spec, listen_fds)
    notify = bool(posix.environ.get(b"NOTIFY_SOCKET")) and spec.process is not None
    if notify:
        from ..plan.rootfs.notify import with_notify

        spec = with_notify(spec, directory)
    facts = collect_facts(rootless)
    if spec.linux is not None and (spec.linux.net_devices or spec.linux.intel_rdt or is_writable(spec)):
        from ..facts_rare import collect_rare

        collect_rare(facts, spec, container, imagine=imagine)
    _check(spec, words.get("console_socket") is not None, foreground is not None)
    if foreground is not None and spec.process is not None and spec.process.terminal:
        words["console"], words["plain_output"] = foreground.socket()
        spec = foreground.size(spec)
    request = Request(
        id=container,
        bundle=path,
        state_dir=directory,
        config=data,
        park=park,
        rootfs=_rootfs(spec, path),
        preserve_fds=kept,
        notify=notify,
        **words,
    )
    request.cgroup = _cgroup(spec, facts, request, imagine)
    request.record = _record(spec, facts, request).pack()
    return Prepared(spec, facts, request)


def _state_directory(store: Store, container: str) -> str:
    """Where the state of a container of this id goes. Who gave the path of a bundle in its place is told so."""
    try:
        return store.directory(container)
    except PyrunError as error:
        path = container.rstrip("/")
        if is_there(path + "/config.json"):
            name = path.rpartition("/")[2]
            error.hint = f"that is a bundle, and an id is a name: did you mean --bundle {path} {name}?"
        raise


def run_prepared(
    store: Store,
    prepared: Prepared,
    *,
    traced: Traced | None = None,
    fault: dict[str, int] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Outcome:
    """Carries a create or run out. The outcome holds the init's pidfd; the caller closes it. warn: see delete().

    traced: called with the plan, the nanoseconds that each step took, and the number of the step that failed, or
    None."""
    _warn(prepared, warn)
    _make_root(store.root)
    scope = _scope(prepared)
    try:
        outcome = run_plan(
            prepared.plan, trace=traced is not None, fault=fault, on_yield=scope.on_yield if scope else None
        )
        if traced is not None:
            traced(prepared.plan, outcome.took(), None)
        return outcome
    except StepFailed as e:
        from ..plan.words.step_errors import explain_failure

        if traced is not None:
            traced(prepared.plan, e.took, e.step)
        error = explain_failure(e, prepared.request.id)
        if scope:
            _undo_scope(scope, warn)
        if hooks_begun(prepared.plan, e.lane, e.step):
            from .delete import run_poststop

            run_poststop(prepared.spec, prepared.request, warn)
        raise error from None


def _undo_scope(scope: Scope, warn: Callable[[str], None] | None) -> None:
    """The unit goes. Where systemd can't be asked, that does not hide what failed before."""
    try:
        scope.undo()
    except PyrunError as e:
        from .delete import say

        (warn or say)("\n".join(e.lines()))


def _scope(prepared: Prepared) -> Scope | None:
    """What answers the plan's Yield, with --systemd-cgroup."""
    if not prepared.request.systemd:
        return None
    from .systemd import Scope

    return Scope(prepared.spec, prepared.facts, prepared.request.id)


def _warn(prepared: Prepared, warn: Callable[[str], None] | None) -> None:
    """Says what of config.json is left out, where that is no error."""
    spec = prepared.spec
    if warn is None or spec.process is None:
        return
    ignored = ignored_caps(spec.process, prepared.facts, "user" in namespaces(spec))
    if ignored:
        warn(f"ignoring unknown or unavailable capabilities: {' '.join(ignored)}")


def create(
    store: Store,
    container: str,
    bundle: str,
    *,
    warn: Callable[[str], None] | None = None,
    begin: Callable[[], None] = lambda: None,
    **words: object,
) -> None:
    """pyrun create: leaves the container created, its init parked. begin: called before the first step."""
    prepared = prepare(store, container, bundle, **words)  # type: ignore[arg-type]
    begin()
    run_prepared(store, prepared, warn=warn).close()


def hold_interrupts() -> None:
    """From here on ^C does not end us, whose exit status tells whether the container was made. A hook that hangs gets
    it from the terminal as well, and when that fails all is undone. For the main thread of a command."""
    _signal.signal(_signal.SIGINT, lambda *_: None)


def _check(spec: Spec, socket: bool, foreground: bool) -> None:
    if spec.process is None:
        raise ConfigError(
            [("/process", "needed to create a container")],
            hint="config.json may leave it out only for tools that never start one",
        )
    if spec.process.terminal and not socket and not foreground:
        raise ConfigError([("/process/terminal", "a terminal needs --console-socket, or `run` in the foreground")])
    if socket and not spec.process.terminal:
        raise PyrunError(
            "--console-socket is given, but the container has no terminal",
            pointer="/process/terminal",
            hint="set process.terminal, or leave the option out",
        )


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        path = posix.getcwd() + "/" + path
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/" + "/".join(parts)


def _rootfs(spec: Spec, bundle: str) -> str:
    path = spec.root.path
    return _absolute(path if path.startswith("/") else f"{bundle}/{path}")


def _cgroup(spec: Spec, facts: Facts, req: Request, imagine: bool = False) -> str | None:
    container = req.id
    if req.no_cgroup:
        check_no_limits(spec, facts)
        return None
    if req.systemd:
        from .systemd import unit_cgroup

        return unit_cgroup(spec, facts, container, imagine=imagine)
    if facts.cgroup_mount is None and facts.rootless:
        return None
    return cgroup_path(spec, facts, container)


def _record(spec: Spec, facts: Facts, req: Request) -> rec.Record:
    me = posix.getpid()
    kinds = {ns.type: ns.path for ns in spec.linux.namespaces} if spec.linux else {}
    flags = (
        rec.HAS_POSTSTART * bool(hooks_of(spec, "poststart") or hooks_of(spec, "startContainer") or req.notify)
        | rec.HAS_POSTSTOP * bool(hooks_of(spec, "poststop"))
        | rec.SHARED_PIDNS * (kinds.get("pid", "") is not None)
        | rec.SYSTEMD * req.systemd
        | rec.ROOTLESS * facts.rootless
        | rec.NO_KEYRING * (not req.keyring)
        | rec.NOTIFY * req.notify
    )
    created, owner = _now(), _owner(facts.euid)
    pairs = [f"\n    {quote(k)}: {quote(v)}" for k, v in spec.annotations.items()]
    annotations = ",".join(pairs)
    head = f'{{\n  "ociVersion": {quote(spec.oci_version)},\n  "id": {quote(req.id)},\n  "pid": '
    closed = annotations + "\n  " if annotations else ""
    lines = (
        f'",\n  "bundle": {quote(req.bundle)}',
        f'  "rootfs": {quote(req.rootfs)}',
        f'  "created": "{created}"',
        f'  "annotations": {{{closed}}}',
        f'  "owner": {quote(owner)}\n}}\n',
    )
    tail = ",\n".join(lines)
    text = {
        "id": req.id,
        "bundle": req.bundle,
        "rootfs": req.rootfs,
        "created": created,
        "owner": owner,
        "annotations": annotations,
        "cgroup": req.cgroup or "",
        "state_head": head,
        "state_tail": tail,
    }
    blobs: dict[str, object] = {"b_" + name: value.encode("utf-8", "surrogateescape") for name, value in text.items()}
    blobs["b_start"] = plan_start(spec, req).encode()
    blobs["b_delete"] = plan_delete(spec, req, facts.resctrl_mount).encode()
    return rec.Record(flags=flags, creator=(me, start_time(me)), boot_id=boot_id(), **blobs)


def _now() -> str:
    """RFC 3339 with nanoseconds, UTC."""
    ns = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000)) + f".{ns % 1_000_000_000:09d}Z"


def _owner(uid: int) -> str:
    if uid == 0:
        return "root"
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _make_root(root: str) -> None:
    """The root directory with mode 0700, its parents as they come."""
    at = ""
    for name in root.strip("/").split("/"):
        at += "/" + name
        try:
            posix.mkdir(at, 0o700 if at == root else 0o755)
        except FileExistsError:
            continue
        except OSError as e:
            raise PyrunError(
                f"--root {root}: {reason(e)}", hint="name a directory that you may write to, with --root"
            ) from None
