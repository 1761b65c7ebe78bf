"""Hooks, and the state that they read on standard input (runtime.md, State; config.md, POSIX-platform Hooks).

The state is rendered once with a mark for the pid, which only the executor knows. prestart, createRuntime, poststart
and poststop run in the runtime's namespaces, so in the parent lane; createContainer and startContainer in the
container's, so in stage 2. A hook's path is always that of the runtime's file system, but for startContainer. They
begin in the bundle, createContainer in the root file system and startContainer in the process's directory, as runc
has it; the spec is silent.
"""

from __future__ import annotations

from _json import encode_basestring_ascii as quote

from ...oci.model import Hook, Spec
from ..model.plan import Builder
from ..model.request import Request
from ..model.steps import O_PATH_DIRECTORY, PARENT, PID_MARK, Openat2, Spawn, Step
from .process import environment

__all__ = ["PID_MARK", "hook_steps", "hooks_of", "open_bundle", "plan_hooks", "quote", "state_json"]

ENOENT, EACCES = 2, 13
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hooks_of(spec: Spec, kind: str) -> tuple[Hook, ...]:
    """kind as config.json spells it."""
    if spec.hooks is None:
        return ()
    attribute = {
        "createRuntime": "create_runtime",
        "createContainer": "create_container",
        "startContainer": "start_container",
    }.get(kind, kind)
    found: tuple[Hook, ...] = getattr(spec.hooks, attribute)
    return found


def state_json(spec: Spec, container: str, bundle: str, status: str, pid: str = PID_MARK) -> str:
    """The state of the spec: ociVersion, id, status, pid, bundle, annotations."""
    annotations = ",".join(f"{quote(k)}:{quote(v)}" for k, v in spec.annotations.items())
    return (
        f'{{"ociVersion":{quote(spec.oci_version)},"id":{quote(container)},"status":"{status}","pid":{pid},'
        f'"bundle":{quote(bundle)},"annotations":{{{annotations}}}}}'
    )


def hook_steps(
    spec: Spec, kind: str, state: str, directory: int | None = None, environ: tuple[str, ...] = ()
) -> list[Step]:
    """One Spawn for each hook of a kind, in order. directory: slot of where it begins. environ: the caller's."""
    steps: list[Step] = []
    for i, hook in enumerate(hooks_of(spec, kind)):
        timeout = (hook.timeout or 0) * 1000
        steps.append(
            Spawn(
                path=hook.path,
                argv=hook.args or (hook.path,),
                env=_default_env(spec, kind, environ) if hook.env is None else hook.env,
                home=hook.env is None and kind == "startContainer",
                stdin=state,
                timeout_ms=timeout,
                dir=directory,
                number=i + 1,
                at=f"/hooks/{kind}/{i}",
                why=f"{kind} hook, the state on its standard input",
            )
        )
    return steps


def _default_env(spec: Spec, kind: str, environ: tuple[str, ...]) -> tuple[str, ...]:
    """What a hook without env has: in the runtime's namespaces the caller's, for startContainer the program's, as with
    runc and crun. createContainer has none: there they differ, and with the image's words (LD_PRELOAD) a file of the
    host would run them as root (CVE-2025-23266)."""
    if kind == "startContainer":
        return environment(spec.process.env) if spec.process is not None else ()
    return () if kind == "createContainer" else environ


def plan_hooks(
    b: Builder,
    lane: int,
    spec: Spec,
    kind: str,
    state: str,
    directory: int | None = None,
    environ: tuple[str, ...] = (),
) -> None:
    b.add(lane, *hook_steps(spec, kind, state, directory, environ))


def open_bundle(b: Builder, spec: Spec, req: Request, *kinds: str) -> int | None:
    """Parent: the bundle, for hooks of these kinds to begin in; None where there are none. One that has gone since is
    no reason not to run them."""
    if not any(hooks_of(spec, kind) for kind in kinds):
        return None
    slot = b.slot("bundle")
    b.add(
        PARENT,
        Openat2(
            path=req.bundle,
            flags=O_PATH_DIRECTORY,
            out=slot,
            on=((ENOENT, None), (EACCES, None)),
            at="/hooks",
            why="where the hooks begin",
        ),
    )
    return slot
