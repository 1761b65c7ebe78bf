"""The face: the volumes of this node's pods, on disk and in memory.

Nothing is kept in this object that a restart would need: what is there is told by the directories and mounts, so each
call finds out and does what is missing. One call at a time for a pod; any number of pods at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from ... import cri_api as v1
from ...errors import InvalidArgument, PyrunError, reason
from ...executor import StepFailed, run_plan
from ...kube.objects.containers import Container, EphemeralContainer, VolumeMount
from ...kube.objects.pods import Pod
from ...kube.objects.volumes import Volume
from ...kube.validate.volumes import FILLED, kind_of
from ...plan.model.plan import Plan
from ...plan.volumes import (
    MS_PRIVATE,
    MS_SHARED,
    MS_SLAVE,
    plan_bind,
    plan_end,
    plan_gone,
    plan_holder,
    plan_sub_path,
    plan_tmpfs,
)
from ...pod.sandbox.sandbox import explain, prepare_state
from ...pod.trees import remove_tree
from ..expansion import expand_strictly
from .atomic import write_payload
from .contents import Objects
from .errors import VolumeError
from .host_path import check_host_path
from .limits import disk_limits, over_limit
from .ownership import set_group
from .plan import Directory, Filled, HostPath, Planned, plan_volumes
from .sub_path import open_sub_path
from .variables_file import read_beneath

UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
PROPAGATION = {"HostToContainer": 1, "Bidirectional": 2}  # v1.MountPropagation; None is 0
_OF_CLONES = {0: MS_PRIVATE, 1: MS_SLAVE, 2: MS_SHARED}
_MOUNTED = (errno.EBUSY, errno.EXDEV)
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
AnyContainer = Container | EphemeralContainer
T = TypeVar("T")


class Volumes:
    """disk: where emptyDirs are, ROOT/UID/NAME; they are there again after a reboot, as with a kubelet. memory: where
    all is mounted, ROOT/UID/NAME, and nothing is left after a reboot. Both are ours, and root's alone."""

    def __init__(self, disk: str, memory: str) -> None:
        self.disk = disk
        self.memory = memory

    def prepare(self) -> None:
        """Once, before all else. PyrunError."""
        try:
            os.makedirs(self.disk, 0o700, exist_ok=True)
            os.chmod(self.disk, 0o700)
        except OSError as error:
            raise PyrunError(f"{self.disk}: {reason(error)}") from None
        prepare_state(self.memory)

    def known(self) -> list[str]:
        """The pods of which something is there."""
        return sorted({*os.listdir(self.disk), *os.listdir(self.memory)})

    # --- their life ---------------------------------------------------------------------------------------------------

    def make(self, pod: Pod, uid: str, objects: Objects) -> None:
        """Every volume of the pod; what is there already stays, with what is in it. VolumeError: try again later."""
        holder = self._holder(uid)
        for one in plan_volumes(pod, uid, objects):
            if isinstance(one, HostPath):
                check_host_path(one.name, one.path, one.type)
                continue
            if not _is_mount(holder):
                _run(plan_holder(holder), one.name)
            self._make(one, uid, holder)

    def update(self, pod: Pod, uid: str, objects: Objects) -> None:
        """Writes the files that differ. A volume that can't be had any more keeps its files, and the others are brought
        up to date before the VolumeError."""
        failed: VolumeError | None = None
        holder = self._holder(uid)
        for volume in (pod.spec and pod.spec.volumes) or ():
            if kind_of(volume) not in FILLED or not _is_mount(f"{holder}/{volume.name}"):
                continue
            try:
                for one in plan_volumes(_only(pod, volume), uid, objects):
                    assert isinstance(one, Filled)
                    self._fill(one, holder)
            except VolumeError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def over_limit(self, pod: Pod, uid: str) -> tuple[str, float]:
        """Why the pod is to be evicted, "" if it is not, and in how many seconds to look again; 0: never."""
        limits = disk_limits(pod)
        return over_limit(f"{self.disk}/{uid}", pod, limits) if limits else ("", 0.0)

    def remove(self, uid: str) -> None:
        """All of it, whole or half made; no error where there is nothing. What lies on another mount, or behind a
        symlink, is not touched."""
        holder = self._holder(uid)
        _run(plan_end(holder), "")
        try:
            remove_tree(f"{self.disk}/{uid}")
        except OSError as error:
            where = f" at {error.filename!r}" if error.filename else ""
            hint = f"something is mounted there: findmnt -R {self.disk}" if error.errno in _MOUNTED else None
            raise PyrunError(f"{self.disk}/{uid} can't be removed{where}: {reason(error)}", hint=hint) from None

    # --- a container's ------------------------------------------------------------------------------------------------

    def mounts(
        self,
        pod: Pod,
        uid: str,
        container: AnyContainer,
        env: Mapping[str, str],
        images: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Any]:
        """Its volumeMounts for a CreateContainer, with their subPaths in place. env: its variables. images: reference →
        id. VolumeError."""
        volumes = {v.name: v for v in (pod.spec and pod.spec.volumes) or ()}
        found = []
        for index, mount in enumerate(container.volumeMounts or ()):
            volume = volumes[mount.name]
            if volume.image is not None:
                found.append(_image(mount, images.get(volume.image.reference or "", volume.image.reference), env))
                continue
            source = self._source(volume, uid)
            if path := _sub_path(mount, env):
                source = self._sub_path(volume, source, path, uid, mount, f"sub.{container.name}.{index}")
            found.append(_mount(mount, volume, source))
        return found

    def texts(self, pod: Pod, uid: str, container: AnyContainer) -> dict[tuple[str, str], str]:
        """(volume, path) → what the files hold that its variables are taken from; those that are there. VolumeError."""
        volumes = {v.name: v for v in (pod.spec and pod.spec.volumes) or ()}
        refs = [one.valueFrom.fileKeyRef for one in container.env or () if one.valueFrom and one.valueFrom.fileKeyRef]
        found = {}
        for name, path in {(ref.volumeName, ref.path) for ref in refs}:
            if volumes[name].image is not None:
                raise VolumeError(name, "variables can't be taken from an image")
            try:
                root = os.open(self._source(volumes[name], uid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    text = read_beneath(root, path)
                finally:
                    os.close(root)
            except OSError as error:
                told = "it leads out of the volume" if error.errno == errno.EXDEV else reason(error)
                raise VolumeError(name, f"file {path!r} of variables: {told}") from None
            if text is not None:
                found[name, path] = text
        return found

    def release(self, uid: str, container: str) -> None:
        """What mounts() has put in place for a container that is gone."""
        holder = self._holder(uid)
        names = tuple(n for n in _names(holder) if n.startswith(f"sub.{container}."))
        if names:
            _run(plan_gone(holder, names), "")

    # ------------------------------------------------------------------------------------------------------------------

    def _holder(self, uid: str) -> str:
        if not UID.fullmatch(uid):
            raise InvalidArgument(f"{uid!r} is no uid of a pod")
        return f"{self.memory}/{uid}"

    def _source(self, volume: Volume, uid: str) -> str:
        return volume.hostPath.path if volume.hostPath is not None else f"{self._holder(uid)}/{volume.name}"

    def _make(self, one: Planned, uid: str, holder: str) -> None:
        if isinstance(one, Filled):
            if not _is_mount(f"{holder}/{one.name}"):
                _run(plan_tmpfs(holder, one.name, {"mode": "0777"}), one.name)
            self._fill(one, holder)
        elif isinstance(one, Directory) and not _is_mount(f"{holder}/{one.name}"):
            if one.size is None:
                made = _told(one.name, lambda: self._directory(one, f"{self.disk}/{uid}"))
                _run(plan_bind(holder, one.name, made), one.name)
                return
            options = {"mode": f"{one.mode:04o}"} | ({"size": str(one.size)} if one.size else {})
            if one.group is not None:
                options |= {"gid": str(one.group), "mode": f"{one.mode | 0o2770:04o}"}
            _run(plan_tmpfs(holder, one.name, options), one.name)

    def _directory(self, one: Directory, above: str) -> str:
        """Of an emptyDir on disk. Its name appears when it has its mode and group, so one that is there is whole."""
        path, new = f"{above}/{one.name}", f"{above}/..{one.name}"
        os.makedirs(above, 0o700, exist_ok=True)
        if os.path.isdir(path) and not os.path.islink(path):
            return path
        remove_tree(new)
        os.mkdir(new, 0o700)
        fd = os.open(new, _OPEN)
        try:
            os.fchmod(fd, one.mode)
            if one.group is not None:
                set_group(fd, one.group)
        finally:
            os.close(fd)
        os.rename(new, path)
        return path

    def _fill(self, one: Filled, holder: str) -> None:
        def write() -> None:
            root = os.open(f"{holder}/{one.name}", _OPEN)
            try:
                if one.group is not None and os.fstat(root).st_gid != one.group:
                    os.fchown(root, -1, one.group)
                    os.fchmod(root, 0o2777)
                write_payload(root, one.payload, one.group)
            finally:
                os.close(root)

        _told(one.name, write)

    def _sub_path(self, volume: Volume, source: str, path: str, uid: str, mount: VolumeMount, name: str) -> str:
        holder = self._holder(uid)
        if not _is_mount(holder):
            _run(plan_holder(holder), volume.name)  # of a pod with nothing but hostPaths
        try:
            root = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                found = open_sub_path(root, path, make=kind_of(volume) not in FILLED)
            finally:
                os.close(root)
        except OSError as error:
            told = "it leads out of the volume" if error.errno == errno.EXDEV else reason(error)
            raise VolumeError(volume.name, f"subPath {path!r} of {mount.mountPath}: {told}") from None
        try:
            plan = plan_sub_path(
                holder,
                name,
                directory=stat.S_ISDIR(os.fstat(found).st_mode),
                propagation=_OF_CLONES[PROPAGATION.get(mount.mountPropagation or "", 0)],
            )
            _run(plan, volume.name, held=(found,))
        finally:
            os.close(found)
        return f"{holder}/{name}"


def _sub_path(mount: VolumeMount, env: Mapping[str, str]) -> str:
    path = mount.subPath or ""
    if mount.subPathExpr:
        try:
            path = expand_strictly(mount.subPathExpr, env)
        except ValueError as error:
            raise VolumeError(mount.name, f"subPathExpr {mount.subPathExpr!r} of {mount.mountPath}: {error}") from None
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise VolumeError(mount.name, f"subPath {path!r} of {mount.mountPath} must be relative and without ..")
    return path


def _mount(mount: VolumeMount, volume: Volume, source: str) -> Any:
    readonly = bool(mount.readOnly) or kind_of(volume) in FILLED
    return v1.Mount(
        container_path=mount.mountPath if mount.mountPath.startswith("/") else f"/{mount.mountPath}",
        host_path=source,
        readonly=readonly,
        propagation=PROPAGATION.get(mount.mountPropagation or "", 0),
        selinux_relabel=kind_of(volume) != "hostPath",
        recursive_read_only=mount.recursiveReadOnly in ("IfPossible", "Enabled"),
        mount_options=mount.bindMountOptions or [],
    )


def _image(mount: VolumeMount, image: str | None, env: Mapping[str, str]) -> Any:
    """The subPath is looked up by the runtime, in the image."""
    return v1.Mount(
        container_path=mount.mountPath if mount.mountPath.startswith("/") else f"/{mount.mountPath}",
        image=v1.ImageSpec(image=image or ""),
        image_sub_path=_sub_path(mount, env),
        readonly=True,
    )


def _only(pod: Pod, volume: Volume) -> Pod:
    """The pod with one volume, for a plan of that."""
    import msgspec

    assert pod.spec is not None
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, volumes=[volume]))


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _is_mount(path: str) -> bool:
    """Of what we mount: each is another file system than what it is mounted on."""
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(path).st_dev != os.lstat(os.path.dirname(path)).st_dev
    return False


def _told(volume: str, work: Callable[[], T]) -> T:
    try:
        return work()
    except OSError as error:
        raise VolumeError(volume, reason(error)) from None


def _run(plan: Plan, volume: str, held: tuple[int, ...] = ()) -> None:
    """volume: whose mount it is; empty where something is taken away."""
    try:
        run_plan(plan, held=held).close()
    except StepFailed as failure:
        error = explain(failure, "volumes")
        raise VolumeError(volume, error.text, error.hint) if volume else error from None
    except OSError as error:
        raise PyrunError(f"volumes: {reason(error)}") from None
