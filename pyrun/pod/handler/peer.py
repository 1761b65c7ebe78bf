"""Another OCI runtime: runc or crun, by the commands that both have. create and exec are plans of the supervisor's
(plan/peer.py), as the container's init must become its child; all else is a command that we run and wait for."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess

from ...errors import FailedPrecondition, InvalidArgument, PyrunError, reason
from ...executor import StepFailed
from ...facts import read_text
from ...plan.model.steps import Spawn
from ...plan.peer import LOG, PROCESS, plan_peer_create, plan_peer_exec
from ...plan.peer import ROOT as MAPPED_ROOT
from ...plan.peer import Peer as Program
from ...plan.rootfs.overlay import IDMAPPED_LAYERS
from ...plan.words.step_errors import explain_failure
from ...runtime.prepare import Config
from ..carried import MakerDied
from ..records import remove_directory
from ..spec.mounts import mappings
from ..spec.namespaces import POD
from ..spec.signals import parse_signal
from .features import Features, read_features
from .handler import Handler
from .own import streams_of, supervisor_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...facts import Facts
    from ...plan.model.overlay import Overlay
    from ...plan.model.plan import Plan
    from ..carried import Exec
    from ..pod import Container
    from ..sandbox import Sandbox

ENV = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
OCI_VERSION = "1.0.0"  # crun refuses newer ones than it knows; what is of a newer one here, features tell of
COMMAND_S = 60.0
CREATE_S = 200.0  # less than the supervisor's client waits
TEXT = 1000
ECHILD = 10
CONFIG, ROOT = "config.json", "root"
ALL = (0, 1, 2)  # standard streams
NULL = os.makedev(1, 3)
POD_USERNS = "linux.security_context.namespace_options.userns_options"


class Peer(Handler):
    """name: as a pod's runtime_handler has it. program: an absolute path. root: where its state is, ours alone."""

    def __init__(self, name: str, program: str, root: str, facts: Facts, features: Features) -> None:
        self.name, self.program, self.features = name, program, features
        self._root, self._facts = root, facts

    def _peer(self, systemd: bool = False) -> Program:
        options = ("--root", self._root, *(("--systemd-cgroup",) if systemd else ()))
        return Program(self.program, options, ENV)

    # --- what it can't do ---

    def check_pod(self, config: Any) -> None:
        options = config.linux.security_context.namespace_options
        asked = options.HasField("userns_options") and options.userns_options.mode == POD
        if asked and self._facts.kernel < IDMAPPED_LAYERS:
            raise InvalidArgument(f"{POD_USERNS}: layers in a user namespace need Linux 5.19 or newer")

    def check(self, config: Any, sandbox: Sandbox) -> None:
        for index, mount in enumerate(config.mounts):
            place = f"mounts.{index}"
            if mount.image.image and sandbox.user:
                self._refuse(f"{place}.image", "can't mount an image in a user namespace")
            if mount.recursive_read_only and not self.features.recursive_read_only:
                self._refuse(f"{place}.recursive_read_only", "does not say that it makes mounts so")
            if (mount.uidMappings or mount.gidMappings) and not self.features.idmap:
                self._refuse(f"{place}.uidMappings", "does not say that it maps owners")
            for number, word in enumerate(mount.mount_options):
                if word not in self.features.mount_options:
                    self._refuse(f"{place}.mount_options.{number}", f"does not say that it knows {word}")

    def _refuse(self, place: str, what: str) -> None:
        version = f" ({self.features.version})" if self.features.version else ""
        raise InvalidArgument(
            f"{place}: the runtime of handler {self.name}{version} {what}",
            hint="run the pod without this, or by the handler pyrun",
        )

    # --- a container's life ---

    def create(self, c: Container, doc: dict[str, Any], overlay: Overlay, log: int) -> None:
        sandbox, supervisor = c.pod.sandbox, supervisor_of(c)
        systemd = bool(sandbox and sandbox.slice)
        userns = sandbox.user if sandbox else None
        root = MAPPED_ROOT if userns else f"{c.pod.run_directory}/{ROOT}"
        doc["ociVersion"], doc["root"]["path"] = OCI_VERSION, root
        if sandbox and sandbox.user:
            self._map(doc, sandbox)
        data = json.dumps(doc).encode()
        c.record.cgroup = self._cgroup(c.id, data, systemd)
        for directory in (self._root, root):
            _make(directory, 0o711 if directory == MAPPED_ROOT else 0o700)
        _write(f"{c.directory}/{CONFIG}", data)
        plan = plan_peer_create(
            self._peer(systemd),
            c.id,
            c.directory,
            root,
            overlay,
            tty=c.config.tty,
            nulls=ALL if c.config.tty else () if c.config.stdin else (0,),
            timeout_ms=int(CREATE_S * 1000),
            label=doc["linux"].get("mountLabel"),
            readonly=doc["root"]["readonly"],
            userns=userns,
        )
        try:
            made = supervisor.carry_create(c.id, plan, c.record.cgroup, **streams_of(c, log))
        except StepFailed as failure:
            raise self._explain(failure, plan, c.directory, "create") from None
        except MakerDied:
            self.delete(c)
            raise
        c.record.cgroup = self._cgroup_of(made.pid, c.record.cgroup)
        made.close()

    def _map(self, doc: dict[str, Any], sandbox: Sandbox) -> None:
        """These runtimes want a user namespace's mappings told though they join it. Files of ours in /etc are nobody's
        in it where mounts can't be mapped."""
        doc["linux"] |= mappings(sandbox)
        if not self.features.idmap:
            for mount in doc["mounts"]:
                if mount["source"].startswith(sandbox.directory + "/"):
                    mount.pop("uidMappings", None)
                    mount.pop("gidMappings", None)

    def _cgroup_of(self, pid: int, planned: str) -> str:
        """Where the init is, if that is below: crun makes `container` in a scope of systemd's, to which its execs'
        cgroups are relative."""
        lines = read_text(f"/proc/{pid}/cgroup").splitlines()
        below = next((line[3:] for line in lines if line.startswith("0::")), "")
        now = (self._facts.cgroup_mount or "").rstrip("/") + below
        return now if planned and now.startswith(planned + "/") else planned

    def _cgroup(self, id: str, data: bytes, systemd: bool) -> str:
        """Where the runtime will make it; "" without a cgroup2."""
        spec = Config(data).spec
        if self._facts.cgroup_mount is None:
            return ""
        if systemd:
            from ...runtime.systemd import unit_cgroup

            return unit_cgroup(spec, self._facts, id)
        from ...plan.cgroup.cgroups import cgroup_path

        return cgroup_path(spec, self._facts, id)

    def start(self, c: Container) -> None:
        self._run("start", c.id)

    def kill(self, c: Container, signal: str, *, everyone: bool = False) -> None:
        if everyone and _kill_cgroup(c.record.cgroup):
            return
        self._run("kill", c.id, str(parse_signal(signal)))

    def delete(self, c: Container) -> None:
        """Also what the runtime had not noted yet when it was killed: its cgroup."""
        _kill_cgroup(c.record.cgroup)
        self.delete_id(c.id)
        if c.record.cgroup:
            _remove_cgroup(c.record.cgroup)

    def delete_id(self, id: str) -> None:
        if os.path.isdir(f"{self._root}/{id}"):
            self._run("delete", "--force", id)

    def ids(self) -> list[str]:
        try:
            return sorted(os.listdir(self._root))
        except FileNotFoundError:
            return []

    def pid(self, c: Container) -> int:
        try:
            state = self._state(c)
        except PyrunError:
            return 0
        pid = state.get("pid")
        return pid if isinstance(pid, int) and state.get("status") != "stopped" else 0

    def config_path(self, c: Container) -> str:
        return f"{c.directory}/{CONFIG}"

    def is_started(self, c: Container) -> bool:
        return self._state(c).get("status") not in ("creating", "created")

    def _state(self, c: Container) -> dict[str, Any]:
        text = self._run("state", c.id)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise PyrunError(f"{self.program} state {c.id[:13]} says what is no state of a container")
        return found

    def update(self, c: Container, resources: dict[str, Any]) -> None:
        if resources.get("hugepageLimits"):
            self._refuse("linux.hugepage_limits", "changes no limits on huge pages of a container that is there")
        self._run("update", "--resources", "-", c.id, given=json.dumps(resources))

    def exec(
        self,
        c: Container,
        argv: tuple[str, ...],
        cgroup: str | None,
        stdio: tuple[int, int, int] | None,
        console: int = -1,
    ) -> Exec:
        directory = f"{c.directory}/{cgroup or 'exec-' + os.urandom(6).hex()}"
        process = self._process(c) | {"args": list(argv), "terminal": stdio is None}
        process.pop("consoleSize", None)
        _make(directory)
        try:
            _write(f"{directory}/{PROCESS}", json.dumps(process).encode())
            words: dict[str, Any] = {"cgroup": cgroup, "tty": stdio is None, "timeout_ms": int(CREATE_S * 1000)}
            nulls = ALL if stdio is None else tuple(number for number in ALL if _is_null(stdio[number]))
            plan = plan_peer_exec(self._peer(), c.id, directory, nulls=nulls, **words)
            try:
                return supervisor_of(c).carry_exec(c.id, plan, stdio, console=console)
            except StepFailed as failure:
                raise self._explain(failure, plan, directory, "exec") from None
        finally:
            with contextlib.suppress(PyrunError):  # it goes with the container
                remove_directory(directory)

    def _process(self, c: Container) -> dict[str, Any]:
        try:
            with open(f"{c.directory}/{CONFIG}", "rb") as file:
                found: dict[str, Any] = json.load(file)["process"]
        except (OSError, ValueError, KeyError) as error:
            raise PyrunError(
                f"{c.directory}/{CONFIG}: {error}", hint="it is written when a container is made"
            ) from None
        return found

    # --- commands ---

    def _run(self, *words: str, given: str | None = None) -> str:
        """What it says. PyrunError with what it said of its failure, also where its time is up."""
        argv = self._peer().argv(*words)
        try:
            done = subprocess.run(
                argv,
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                env=dict(item.split("=", 1) for item in ENV),
                timeout=COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PyrunError(
                f"{self.name} {words[0]} has not ended in {COMMAND_S:.0f} s, and was killed", hint="is a disk stuck?"
            ) from None
        except OSError as error:
            raise self._cannot_run(error) from None
        if done.returncode:
            raise PyrunError(f"{self.name} {words[0]}: {_short(done.stderr or done.stdout) or done.returncode}")
        return done.stdout

    def _cannot_run(self, error: OSError) -> PyrunError:
        hint = f"it is the runtime of handler {self.name} (runtimes.{self.name}.path): is it installed?"
        return FailedPrecondition(f"{self.program}: {reason(error)}", hint=hint)

    def _explain(self, failure: StepFailed, plan: Plan, directory: str, verb: str) -> PyrunError:
        """The runtime's own words where it was the runtime that failed."""
        step = plan.steps[failure.step]
        if not isinstance(step, Spawn):
            return explain_failure(failure)
        if failure.errno != ECHILD:
            return self._cannot_run(OSError(failure.errno, os.strerror(failure.errno)))
        said = _last_error(f"{directory}/{LOG}") or failure.text.strip()
        return PyrunError(f"{self.name} {verb}: {_short(said)}")


def handler_root(state: str, name: str) -> str:
    """Where a handler's runtime keeps its state. state: the daemon's."""
    return f"{state}/handlers/{name}"


def probe(name: str, program: str, root: str, facts: Facts) -> Peer:
    """With what it says of itself. FailedPrecondition where it can't be run."""
    peer = Peer(name, program, root, facts, Features())
    version = peer._run("--version").partition("\n")[0]
    try:
        said = peer._run("features")
    except PyrunError:  # crun has the command since 1.9
        said = ""
    peer.features = read_features(said, _short(version))
    return peer


def _last_error(path: str) -> str:
    """Of a log with a JSON object a line: the message of the last error."""
    said = ""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        for line in file.read(1 << 20).splitlines():
            with contextlib.suppress(ValueError, AttributeError):
                entry = json.loads(line)
                if entry.get("level") in ("error", "fatal"):
                    said = str(entry.get("msg", ""))
    return said


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= TEXT else "\u2026" + words[-TEXT:]


def _make(directory: str, mode: int = 0o700) -> None:
    try:
        os.makedirs(directory, mode, exist_ok=True)
        os.chmod(directory, mode)  # whatever our umask
    except OSError as error:
        raise PyrunError(f"{directory}: {reason(error)}") from None


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600)) as file:
            file.write(data)
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}") from None


def _is_null(fd: int) -> bool:
    found = os.fstat(fd)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == NULL


def _kill_cgroup(path: str) -> bool:
    """Whether there is such a cgroup. All in it is killed."""
    try:
        with open(f"{path}/cgroup.kill", "w") as file:
            file.write("1")
    except OSError:
        return False
    return True


def _remove_cgroup(path: str) -> None:
    """With what is below it, where nothing is in it any more."""
    for directory, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


__all__ = ["Peer", "handler_root", "probe"]
