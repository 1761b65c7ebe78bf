"""Volumes, and where containers mount them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..objects.containers import Container, EphemeralContainer, VolumeMount
from ..objects.pods import PodSpec
from ..objects.volumes import (
    DownwardAPIVolumeFile,
    KeyToPath,
    ProjectedVolumeSource,
    Volume,
    VolumeProjection,
)
from ..quantity import parse
from ..strict import Fault
from .fields import field_ref_fault, resource_ref_fault
from .names import check, config_key_fault, label_fault, number_range, one_of, relative_path_fault
from .projected import PATHS, file_path, validate_bundle, validate_certificate

SOURCES = tuple(Volume.__struct_fields__[1:])
FILLED = ("configMap", "secret", "downwardAPI", "projected")  # those with files, which are read-only
PROJECTIONS = tuple(VolumeProjection.__struct_fields__)
HOST_PATH_TYPES = (
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
)
BIND_OPTIONS = ("noexec", "nodev", "nosuid")
MODE = 0o777


def kind_of(volume: Volume) -> str:
    return next((kind for kind in SOURCES if getattr(volume, kind) is not None), "emptyDir")


def validate_volumes(spec: PodSpec, at: str = "/spec/volumes") -> Iterator[Fault]:
    names: set[str] = set()
    for i, volume in enumerate(spec.volumes or ()):
        here = f"{at}/{i}"
        yield from check(label_fault(volume.name), f"{here}/name")
        if volume.name in names:
            yield Fault(f"{here}/name", f"{volume.name!r} is the name of another volume")
        names.add(volume.name)
        set_ = [name for name in SOURCES if getattr(volume, name) is not None]
        for other in set_[1:]:
            yield Fault(f"{here}/{other}", f"must not be set beside {set_[0]}: a volume is of one kind")
        for name in set_:
            yield from _source(name, getattr(volume, name), f"{here}/{name}")
        if volume.projected is not None and not spec.serviceAccountName:
            for j, one in enumerate(volume.projected.sources or ()):
                if one.serviceAccountToken is not None:
                    pointer = f"{here}/projected/sources/{j}/serviceAccountToken"
                    yield Fault(pointer, "needs serviceAccountName: whose token it is")


def _source(kind: str, source: Any, at: str) -> Iterator[Fault]:
    match kind:
        case "emptyDir":
            if not (source.medium or "").startswith("HugePages-"):
                yield from one_of(source.medium, ("", "Memory", "HugePages"), f"{at}/medium")
            yield from number_range(source.mode, 0, 0o1777, f"{at}/mode")
            yield from _size(source.sizeLimit, f"{at}/sizeLimit")
        case "hostPath":
            if not source.path:
                yield Fault(f"{at}/path", "is empty")
            elif ".." in source.path.split("/"):
                yield Fault(f"{at}/path", "must not have a part ..")
            yield from one_of(source.type, HOST_PATH_TYPES, f"{at}/type")
        case "configMap":
            if not source.name:
                yield Fault(f"{at}/name", "is missing")
            yield from _modes_and_items(source, at)
        case "secret":
            if not source.secretName:
                yield Fault(f"{at}/secretName", "is missing")
            yield from _modes_and_items(source, at)
        case "downwardAPI":
            yield from number_range(source.defaultMode, 0, MODE, f"{at}/defaultMode")
            yield from _downward(source.items, f"{at}/items")
        case "projected":
            yield from _projected(source, at)
        case "image":
            yield from one_of(source.pullPolicy, ("Always", "IfNotPresent", "Never"), f"{at}/pullPolicy")
            if not source.reference:
                yield Fault(f"{at}/reference", "is missing")
            elif source.reference != source.reference.strip():
                yield Fault(f"{at}/reference", "must not begin or end with white space")
        case "persistentVolumeClaim":
            if not source.claimName:
                yield Fault(f"{at}/claimName", "is missing")
        case "csi":
            if not source.driver:
                yield Fault(f"{at}/driver", "is missing")
        case "ephemeral":
            if source.volumeClaimTemplate is None:
                yield Fault(f"{at}/volumeClaimTemplate", "is missing")
        case "nfs":
            for field in ("server", "path"):
                if not getattr(source, field):
                    yield Fault(f"{at}/{field}", "is empty")
            if source.path and not source.path.startswith("/"):
                yield Fault(f"{at}/path", "must be absolute")


def _size(size: Any, at: str) -> Iterator[Fault]:
    if size is None:
        return
    try:
        if parse(size) < 0:
            yield Fault(at, f"{size} is less than nothing")
    except ValueError as error:
        yield Fault(at, str(error))


def _modes_and_items(source: Any, at: str) -> Iterator[Fault]:
    yield from number_range(source.defaultMode, 0, MODE, f"{at}/defaultMode")
    yield from _items(source.items, f"{at}/items")


def _items(items: list[KeyToPath] | None, at: str) -> Iterator[Fault]:
    for i, item in enumerate(items or ()):
        yield from check(config_key_fault(item.key), f"{at}/{i}/key")
        yield from file_path(item.path, f"{at}/{i}/path")
        yield from number_range(item.mode, 0, MODE, f"{at}/{i}/mode")


def _downward(items: list[DownwardAPIVolumeFile] | None, at: str) -> Iterator[Fault]:
    for i, item in enumerate(items or ()):
        yield from file_path(item.path, f"{at}/{i}/path")
        yield from number_range(item.mode, 0, MODE, f"{at}/{i}/mode")
        if (item.fieldRef is None) == (item.resourceFieldRef is None):
            yield Fault(f"{at}/{i}", "must have one of fieldRef and resourceFieldRef")
        if item.fieldRef is not None:
            yield from check(field_ref_fault(item.fieldRef, of_file=True), f"{at}/{i}/fieldRef/fieldPath")
        if item.resourceFieldRef is not None:
            yield from check(resource_ref_fault(item.resourceFieldRef, of_file=True), f"{at}/{i}/resourceFieldRef")


def _projected(source: ProjectedVolumeSource, at: str) -> Iterator[Fault]:
    yield from number_range(source.defaultMode, 0, MODE, f"{at}/defaultMode")
    paths: dict[str, str] = {}
    for i, one in enumerate(source.sources or ()):
        here = f"{at}/sources/{i}"
        set_ = [name for name in PROJECTIONS if getattr(one, name) is not None]
        for other in set_[1:]:
            yield Fault(f"{here}/{other}", f"must not be set beside {set_[0]}")
        for kind in ("configMap", "secret"):
            found = getattr(one, kind)
            if found is not None:
                if not found.name:
                    yield Fault(f"{here}/{kind}/name", "is missing")
                yield from _items(found.items, f"{here}/{kind}/items")
        if one.downwardAPI is not None:
            yield from _downward(one.downwardAPI.items, f"{here}/downwardAPI/items")
        if one.clusterTrustBundle is not None:
            yield from validate_bundle(one.clusterTrustBundle, f"{here}/clusterTrustBundle")
        if one.podCertificate is not None:
            yield from validate_certificate(one.podCertificate, f"{here}/podCertificate")
        if (token := one.serviceAccountToken) is not None:
            yield from file_path(token.path, f"{here}/serviceAccountToken/path")
            yield from number_range(
                token.expirationSeconds, 600, 1 << 32, f"{here}/serviceAccountToken/expirationSeconds"
            )
        for path, where in _paths_of(one, here):
            if path in paths:
                yield Fault(where, f"{path!r} is a path of {paths[path]} already")
            paths[path] = where


def _paths_of(one: VolumeProjection, at: str) -> Iterator[tuple[str, str]]:
    for kind in ("configMap", "secret", "downwardAPI"):
        for i, item in enumerate(getattr(getattr(one, kind), "items", None) or ()):
            yield item.path, f"{at}/{kind}/items/{i}/path"
    for kind in ("serviceAccountToken", "clusterTrustBundle"):
        if (found := getattr(one, kind)) is not None:
            yield found.path, f"{at}/{kind}/path"
    for field in PATHS if one.podCertificate is not None else ():
        if path := getattr(one.podCertificate, field):
            yield path, f"{at}/podCertificate/{field}"


def validate_mounts(c: Container | EphemeralContainer, spec: PodSpec, at: str) -> Iterator[Fault]:
    volumes = {v.name: v for v in spec.volumes or ()}
    paths = set()
    for i, mount in enumerate(c.volumeMounts or ()):
        here = f"{at}/volumeMounts/{i}"
        if mount.name not in volumes:
            yield Fault(f"{here}/name", f"the pod has no volume {mount.name!r}")
        if not mount.mountPath:
            yield Fault(f"{here}/mountPath", "is missing")
        elif mount.mountPath in paths:
            yield Fault(f"{here}/mountPath", f"{mount.mountPath!r} is the path of another mount")
        paths.add(mount.mountPath)
        yield from _mount(mount, volumes.get(mount.name), c, here)
    mounted = {mount.name for mount in c.volumeMounts or ()}
    for i, device in enumerate(c.volumeDevices or ()):
        if device.name not in volumes:
            yield Fault(f"{at}/volumeDevices/{i}/name", f"the pod has no volume {device.name!r}")
        elif device.name in mounted or device.devicePath in paths:
            yield Fault(f"{at}/volumeDevices/{i}", "is mounted as a file system, too")
        elif spec.hostUsers is False:
            yield Fault(f"{at}/volumeDevices/{i}", "is not for a pod with hostUsers: false")
        elif volumes[device.name].persistentVolumeClaim is None and volumes[device.name].ephemeral is None:
            yield Fault(f"{at}/volumeDevices/{i}/name", "must be a persistentVolumeClaim or ephemeral volume")


def _mount(mount: VolumeMount, volume: Volume | None, c: Container | EphemeralContainer, at: str) -> Iterator[Fault]:
    if mount.subPath and mount.subPathExpr:
        yield Fault(f"{at}/subPathExpr", "must not be set beside subPath")
    for field in ("subPath", "subPathExpr"):
        if path := getattr(mount, field):
            yield from check(relative_path_fault(path), f"{at}/{field}")
    propagation = mount.mountPropagation or "None"
    yield from one_of(propagation, ("None", "HostToContainer", "Bidirectional"), f"{at}/mountPropagation")
    if propagation == "Bidirectional" and not (c.securityContext and c.securityContext.privileged):
        yield Fault(f"{at}/mountPropagation", "Bidirectional is for privileged containers alone")
    recursive = mount.recursiveReadOnly or "Disabled"
    yield from one_of(recursive, ("Disabled", "IfPossible", "Enabled"), f"{at}/recursiveReadOnly")
    if recursive in ("IfPossible", "Enabled"):
        if not mount.readOnly:
            yield Fault(f"{at}/recursiveReadOnly", f"{recursive} needs readOnly: true")
        if propagation != "None":
            yield Fault(f"{at}/recursiveReadOnly", f"{recursive} needs mountPropagation None")
    for i, option in enumerate(mount.bindMountOptions or ()):
        yield from one_of(option, BIND_OPTIONS, f"{at}/bindMountOptions/{i}")
    if volume is not None and volume.image is not None and mount.bindMountOptions:
        yield Fault(f"{at}/bindMountOptions", "is not for image volumes")
