"""A pod's own files on the node: /etc/hosts, and the directory for what its containers say at their end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from ...errors import PyrunError, reason
from ...kube.objects.pods import Pod
from .sandbox_config import host_names

# Programs and tests of Kubernetes' look for the first line.
HEADER, HEADER_HOST = "# Kubernetes-managed hosts file.\n", "# Kubernetes-managed hosts file (host network).\n"
LOCAL = (
    HEADER
    + """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""
)


def hosts_text(pod: Pod, addresses: Sequence[str], own: str, domain: str = "") -> str:
    """PURE. own: the node's /etc/hosts, which a pod of the node's network has in place of ours. domain: the cluster's,
    for a pod with a subdomain."""
    assert pod.spec is not None
    name, whole = host_names(pod, domain)
    names = f"{whole}\t{name}" if whole != name else name
    lines = [HEADER_HOST + own if pod.spec.hostNetwork else LOCAL]
    if not pod.spec.hostNetwork:
        lines += [f"{address}\t{names}\n" for address in addresses]
    if pod.spec.hostAliases:
        lines.append("\n# Entries added by HostAliases.\n")
        lines += ["\t".join([alias.ip, *(alias.hostnames or ())]) + "\n" for alias in pod.spec.hostAliases]
    return "".join(lines)


def hosts_file(path: str, pod: Pod, addresses: Sequence[str], domain: str) -> None:
    """Written in place: containers that run have this inode. PyrunError."""
    own = ""
    try:
        if pod.spec is not None and pod.spec.hostNetwork:
            with open("/etc/hosts", encoding="utf-8", errors="surrogateescape") as file:
                own = file.read()
        text = hosts_text(pod, addresses, own, domain).encode(errors="surrogateescape")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(fd, "r+b") as held:
            if held.read(len(text) + 1) != text:  # a container may have written to it
                held.seek(0)
                held.write(text)
                held.truncate()
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}") from None


def remove_tree(path: str) -> None:
    """No error for one that is not there. PyrunError."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}") from None
