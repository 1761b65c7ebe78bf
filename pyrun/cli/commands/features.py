"""`pyrun features`: what this runtime can do, as JSON by the spec's features.md. It says nothing of the host."""

from __future__ import annotations

from pyrun import SPEC_VERSION, __version__
from pyrun.cli.output import indented, write
from pyrun.cli.version import commit, libseccomp_version
from pyrun.oci import names
from pyrun.plan.rootfs.mount_options import KNOWN_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    write(indented(features(), "    ") + "\n")
    return 0


def features() -> dict[str, Any]:
    on = {"enabled": True}
    annotations = {"org.opencontainers.runc.checkpoint.enabled": "false", "io.github.pyrun.version": __version__}
    annotations["io.github.pyrun.commit"] = commit()
    if version := libseccomp_version():
        annotations["io.github.seccomp.libseccomp.version"] = version
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": list(KNOWN_OPTIONS),
        "linux": {
            "namespaces": sorted(names.NAMESPACES),
            "capabilities": list(names.CAPABILITIES),
            "cgroup": {"v1": False, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(names.SECCOMP_ACTIONS),
                "operators": sorted(names.SECCOMP_OPERATORS),
                "archs": sorted(names.SECCOMP_ARCHITECTURES),
                "knownFlags": sorted(names.SECCOMP_FLAGS),
                "supportedFlags": sorted(names.SECCOMP_FLAGS),
            },
            "apparmor": on,
            "selinux": on,
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {"modes": sorted(names.MEMORY_POLICY_MODES), "flags": sorted(names.MEMORY_POLICY_FLAGS)},
            "mountExtensions": {"idmap": on},
            "netDevices": on,
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
    }
