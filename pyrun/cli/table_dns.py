"""The verbs of `pyrun dns`: rows of verbs.py."""

from __future__ import annotations

from pyrun.cli.options import (
    A_DIRECTORY,
    A_FILE,
    FOR_TOOLS,
    Argument,
    Verb,
    flag,
    number,
    text,
)

OBJECTS = text("objects", "DIR", "Services, EndpointSlices, Pods and Namespaces as YAML or JSON", completes=A_DIRECTORY)
STATE = text(
    "state", "DIR", "the control socket and the table of last time (default: /run/pyrun-dns)", completes=A_DIRECTORY
)
ZONE = text("zone", "NAME", "the cluster's domain", default="cluster.local")
DNS_RUN = Verb(
    "dns run",
    "serve the cluster's DNS",
    (),
    (
        OBJECTS,
        text(
            "kubeconfig",
            "FILE",
            "take Services, EndpointSlices, Pods and Namespaces of this API server",
            completes=A_FILE,
        ),
        text("listen", "ADDRESS[:PORT]", "where to answer (default: 127.0.0.1:53; repeatable)", many=True),
        ZONE,
        number("ttl", "SECONDS", "for which an answer of ours may be kept", default=5),
        text(
            "service-cidr", "CIDR", "where Services have addresses: unknown ones have no name (repeatable)", many=True
        ),
        text("upstream", "[ZONE=]ADDRESS", "who is asked for other names, or for a zone's (repeatable)", many=True),
        text(
            "resolv-conf",
            "FILE",
            "whose servers are asked for other names (default: /etc/resolv.conf)",
            completes=A_FILE,
        ),
        flag("autopath", "walk a pod's search path here, so that it asks once for a name outside of the cluster"),
        text(
            "search",
            "DOMAIN",
            "with --autopath, what pods try behind the cluster's domains (default: as --resolv-conf; repeatable)",
            many=True,
        ),
        text("allow", "CIDR", "who is answered (default: private addresses; repeatable)", many=True),
        number("rate", "N", "UDP replies a second to one source; 0: any number", default=20000),
        number("stale", "SECONDS", "for which an old answer is better than none", default=86400),
        text("metrics-bind-address", "HOST:PORT", "where /metrics is, such as 127.0.0.1:9153 (default: nowhere)"),
        STATE,
    ),
)
DNS_QUERY = Verb(
    "dns query",
    "print what the cluster's DNS answers, and from which object",
    (Argument("name"), Argument("type", required=False)),
    (
        OBJECTS,
        ZONE,
        text(
            "state",
            "DIR",
            "without --objects: the directory of a DNS that runs (default: /run/pyrun-dns)",
            completes=A_DIRECTORY,
        ),
        text("client", "ADDRESS", "what the pod of this address is told, as by a DNS with --autopath"),
        FOR_TOOLS,
    ),
)
DNS_EXPLAIN = Verb(
    "dns explain",
    "print every record that the cluster's DNS has, and why; needs no root",
    (Argument("name", required=False),),
    (OBJECTS, ZONE, FOR_TOOLS),
)
DNS = (
    DNS_RUN,
    DNS_QUERY,
    DNS_EXPLAIN,
)
