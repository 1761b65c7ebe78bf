"""The verbs of `pyrun proxy`: rows of verbs.py."""

from __future__ import annotations

from pyrun.cli.options import (
    A_DIRECTORY,
    A_FILE,
    FOR_TOOLS,
    Argument,
    Verb,
    choice,
    flag,
    number,
    text,
)
from pyrun.cli.table import FORMAT

# Of commands that look at the proxy's rules; `proxy run` takes the same words.
PROXY_NODE = (
    text("node", "NAME", "this node's name (default: of the only Node that is there)"),
    text("node-ip", "ADDRESS", "an address of this node, the primary ones first (repeatable)", many=True),
    text("node-zone", "ZONE", "this node's zone (default: as its Node has it)"),
    text("cluster-cidr", "CIDR", "where pods have their addresses (repeatable)", many=True),
    text("service-cidr", "CIDR", "where Services have theirs (repeatable)", many=True),
    text("nodeport-addresses", "CIDR", "where NodePorts are to be had (default: primary; repeatable)", many=True),
    text("cluster-dns", "ADDRESS", "the cluster DNS' address (repeatable)", many=True),
    text("allow-external-ips", "CIDR", "take externalIPs in this range (default: none; repeatable)", many=True),
    flag("masquerade-all", "let endpoints see the node as the client, whoever calls a cluster IP"),
)
PROXY_OBJECTS = text(
    "objects",
    "DIR",
    "Services and EndpointSlices as YAML or JSON, in a directory or file (repeatable)",
    many=True,
    completes=A_FILE,
)
PROXY_STATE = text(
    "state",
    "DIR",
    "where its sockets and its lock are (default: /run/pyrun-proxy)",
    completes=A_DIRECTORY,
)
PROXY_TRACE = Verb(
    "proxy trace",
    "print what becomes of a packet, and by which rule of which object; needs no root",
    (),
    (
        PROXY_OBJECTS,
        *PROXY_NODE,
        text("from", "ADDRESS", "the client's address"),
        text("to", "ADDRESS:PORT/PROTOCOL", "where the packet goes, such as 10.96.0.10:53/udp or [fd00::1]:80/tcp"),
        FOR_TOOLS,
    ),
)
PROXY_LIST = Verb(
    "proxy list",
    "list the addresses and ports at which Services are to be had, of files or of a proxy that runs",
    (),
    (PROXY_OBJECTS, *PROXY_NODE, PROXY_STATE, FORMAT),
)
PROXY_EXPLAIN = Verb(
    "proxy explain",
    "print who gets a Service's traffic, from where and why, of files or of a proxy that runs",
    (Argument("service"),),
    (PROXY_OBJECTS, *PROXY_NODE, PROXY_STATE, FOR_TOOLS),
)
PROXY_RUN = Verb(
    "proxy run",
    "serve Services on this node",
    (),
    (
        PROXY_OBJECTS,
        text("kubeconfig", "FILE", "take objects from the API server that this names", completes=A_FILE),
        text("context", "NAME", "which context of the kubeconfig (default: its current one)"),
        flag("in-cluster", "take objects from the API server of the pod that this runs in"),
        text(
            "cri", "ADDRESS", "make slices of selectors over the pods of this runtime, such as /run/pyrun-cri/cri.sock"
        ),
        *PROXY_NODE,
        choice("proxy-mode", ("userspace", "nftables"), "who carries packets: the data plane, or the kernel alone"),
        PROXY_STATE,
        text("healthz-bind-address", "HOST:PORT", "where /healthz and /livez are (default: :10256; none: nowhere)"),
        text("metrics-bind-address", "HOST:PORT", "where /metrics is (default: 127.0.0.1:10249; none: nowhere)"),
        number(
            "drain", "SECONDS", "reset connections to an endpoint so long after it has gone (default: never)", default=0
        ),
        flag("force-node-ports", "take NodePorts also where a program of this node has the port"),
    ),
)
PROXY_STATUS = Verb("proxy status", "print what a running `pyrun proxy` says of itself", (), (PROXY_STATE, FOR_TOOLS))
PROXY_TOP = Verb(
    "proxy top",
    "show connections and bytes by Service, or by endpoint, live",
    (),
    (
        PROXY_STATE,
        flag("endpoints", "by endpoint, in place of by address and port"),
        flag("once", "print the counters once and end"),
        FOR_TOOLS,
    ),
)
PROXY_CLEANUP = Verb("proxy cleanup", "take away what a killed `pyrun proxy` has left", (), (PROXY_STATE,))
PROXY = (
    PROXY_RUN,
    PROXY_STATUS,
    PROXY_CLEANUP,
    PROXY_TOP,
    PROXY_TRACE,
    PROXY_EXPLAIN,
    PROXY_LIST,
)
