"""Who carries SCTP in the mode userspace: sockets of the data plane, or the kernel by nf_tables. Pure, but for probe().

A socket of SCTP can't keep a client's address: the answers to it would have to be led to that socket, and nf_tables'
`socket transparent` looks for those of TCP and UDP alone (nf_sk_lookup_slow_v4() in the kernel). So sockets carry what
is masqueraded anyway, and what a Service's annotation asks for; the rest is translated by the kernel, which keeps it.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from .frontends import LOOPBACKS
from .rules import FORWARD, Frontend

CONNTRACK = "/proc/sys/net/netfilter/nf_conntrack_"
NO_SOCKETS = "this kernel has no sockets of SCTP (modprobe sctp)"
NO_TRACKING = "this kernel does not track connections of SCTP (CONFIG_NF_CT_PROTO_SCTP), so it can't translate them"
ON_LOOPBACK = "the kernel carries nothing from loopback to a pod"
KEEPS = "a socket can't keep the client's address; the annotation pyrun.io/proxy-mode: userspace does without it"


class Kernel(NamedTuple):
    """What the kernel has of SCTP. sockets: the module sctp; tracks: conntrack's part for it."""

    sockets: bool
    tracks: bool


def probe() -> Kernel:
    """Of this kernel. The module sctp is loaded by it; conntrack is not, and until then it is thought to be whole."""
    tracks = os.path.exists(f"{CONNTRACK}sctp_timeout_established") or not os.path.exists(f"{CONNTRACK}max")
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return Kernel(False, tracks)
    return Kernel(True, tracks)


def fits_sockets(frontend: Frontend) -> bool:
    """Whether sockets can do what it asks for: no client keeps its address. From loopback the node itself calls."""
    if frontend.kernel:
        return False
    kept = any(choice.action == FORWARD and not choice.replace_source for choice in frontend.choices)
    return not kept or frontend.address in LOOPBACKS


def why_not(frontend: Frontend, kernel: Kernel, *, userspace: bool) -> str:
    """Why nobody carries a frontend of SCTP; "": somebody does. userspace: the mode."""
    fits = userspace and fits_sockets(frontend)
    if fits and kernel.sockets:
        return ""
    if frontend.address in LOOPBACKS:
        return f"{ON_LOOPBACK}, and {NO_SOCKETS}" if fits else f"{ON_LOOPBACK}; --proxy-mode userspace does"
    if kernel.tracks:
        return ""
    if not userspace or frontend.kernel:
        return NO_TRACKING
    return f"{NO_TRACKING}, and {NO_SOCKETS if fits or not kernel.sockets else KEEPS}"
