"""The verbs of `pyrun cri`, and of what watches its pods: rows of verbs.py."""

from __future__ import annotations

from pyrun.cli.options import (
    A_DIRECTORY,
    A_FILE,
    DURATION,
    FOR_TOOLS,
    LISTEN,
    Argument,
    Option,
    Verb,
    choice,
    flag,
    number,
    size,
    text,
)

CRI = Verb(
    "cri",
    "serve the Kubernetes container runtime interface",
    (),
    (
        text(
            "root",
            "DIR",
            "where images, pods and their containers are kept (default: /var/lib/pyrun)",
            completes=A_DIRECTORY,
        ),
        text(
            "state",
            "DIR",
            "where sockets and all that a reboot ends are kept (default: /run/pyrun-cri)",
            completes=A_DIRECTORY,
        ),
        LISTEN,
        text("config", "FILE", "its configuration, in TOML", completes=A_FILE),
    ),
)
CRI_STATUS = Verb(
    "cri status",
    "print what a running `pyrun cri` says of itself",
    (),
    (LISTEN, FOR_TOOLS),
)
CRI_EXPLAIN = Verb(
    "cri explain",
    "print every step that a request of the CRI would take; needs no root",
    (Argument("request", completes=A_FILE),),
    (
        FOR_TOOLS,
        text("pod", "FILE", "the PodSandboxConfig of a container (crictl's pod-config.json)", completes=A_FILE),
        text("image", "FILE", "the config of a container's image, as the registry has it", completes=A_FILE),
        flag("config", "print the config.json that a container gets, and no steps"),
    ),
)
METRICS = Verb(
    "metrics",
    "serve the metrics of this node's pods to Prometheus and metrics-server",
    (),
    (
        text("address", "HOST:PORT", "where (default: 127.0.0.1:9338)"),
        text("node-name", "NAME", "the node's name in the summary (default: the host's)"),
        text("store", "DIR", "keep what is read there (default: nothing is kept)", completes=A_DIRECTORY),
        Option("every", DURATION, "how often it is read for that (default: 10s)", metavar="TIME"),
        Option("keep", DURATION, "how long it is kept (default: 168h)", metavar="TIME"),
        Option("keep-rolled", DURATION, "how long a point an hour of it is kept (default: 9600h)", metavar="TIME"),
        size("keep-bytes", "how big all of it may become (default: 512M)"),
        text("remote-write", "URL", "send what is kept there, such as http://HOST:9090/api/v1/write"),
        LISTEN,
    ),
)
DASHBOARD = Verb(
    "dashboard",
    "serve a web page that shows what runs on this node and what is wrong",
    (),
    (
        text("address", "HOST:PORT", "where (default: 127.0.0.1:9339)"),
        text("host", "NAME", "a name by which browsers call it, beside the address", many=True),
        text("tls-cert", "FILE", "its certificate, in PEM; needed where --address is not loopback", completes=A_FILE),
        text("tls-key", "FILE", "the certificate's key, in PEM", completes=A_FILE),
        text("user", "NAME", "whom the process becomes that talks to browsers (default: nobody)"),
        text("state", "DIR", "where tokens and audit.log are (default: /run/pyrun-dashboard)", completes=A_DIRECTORY),
        text("proxy-state", "DIR", "the state of pyrun proxy (default: /run/pyrun-proxy)", completes=A_DIRECTORY),
        text("node-name", "NAME", "the node's name (default: the host's)"),
        text("dir", "DIR", "where the logs of pods are (default: /var/log/pods)", completes=A_DIRECTORY),
        text(
            "log-store",
            "DIR",
            "where pyrun collect --store seals them (default: /var/lib/pyrun-logs)",
            completes=A_DIRECTORY,
        ),
        text(
            "store",
            "DIR",
            "what pyrun metrics --store keeps (default: /var/lib/pyrun-metrics)",
            completes=A_DIRECTORY,
        ),
        LISTEN,
    ),
)
LOGS = Verb(
    "logs",
    "search and follow what pods wrote",
    (Argument("words", required=False, many=True),),
    (
        flag("follow", "go on with what is written from now on", "f"),
        text("namespace", "PATTERN", "only pods of this namespace", "n"),
        text("pod", "PATTERN", "only pods of this name, such as web-*", "p"),
        text("container", "PATTERN", "only containers of this name", "c"),
        text("selector", "LABELS", "only pods with these labels, such as app=web; asks pyrun cri", "l"),
        Option("since", DURATION, "only of the last 5s, 10m or 1h", metavar="TIME"),
        text("since-time", "TIME", "only from this time on (RFC 3339)"),
        text("until-time", "TIME", "only before this time (RFC 3339)"),
        number("tail", "N", "the last N entries of each container (with --follow 10)"),
        number("after-context", "N", "also N entries after each that is found", "A"),
        number("before-context", "N", "also N entries before each that is found", "B"),
        number("context", "N", "also N entries before and after each that is found", "C"),
        flag("no-join", "each line is an entry, also of a stack trace"),
        text("begins", "REGEX", "an entry begins with each line in which this is found"),
        flag("previous", "of the container that ran before the newest one"),
        choice("stream", ("both", "stdout", "stderr"), "only what was written to this stream"),
        flag("regex", "words are regular expressions (Python's)", "e"),
        flag("word", "words are whole ones, which is much faster in what pyrun collect has sealed", "w"),
        flag("timestamps", "begin each line with its time", "t"),
        FOR_TOOLS,
        text("dir", "DIR", "where the logs are (default: /var/log/pods)", completes=A_DIRECTORY),
        text("store", "DIR", "where pyrun collect seals them (default: /var/lib/pyrun-logs)", completes=A_DIRECTORY),
        LISTEN,
    ),
)
COLLECT = Verb(
    "collect",
    "keep the logs of pods in compressed blocks, and send them to other stores",
    (),
    (
        text("dir", "DIR", "where the logs are (default: /var/log/pods)", completes=A_DIRECTORY),
        text("store", "DIR", "where they are kept (default: /var/lib/pyrun-logs)", completes=A_DIRECTORY),
        Option("keep", DURATION, "how long they are kept (default: 168h)", metavar="TIME"),
        size("keep-bytes", "how big all of them may become (default: 2G)"),
        text("ship", "URL", "send lines there, such as loki+http://HOST:3100/loki/api/v1/push", many=True),
        flag("no-join", "send each line by itself, also those of a stack trace"),
        flag("once", "seal what can be sealed, and end"),
        flag("status", "print what has been sealed, shipped and dropped, and end"),
        FOR_TOOLS,
    ),
)
ADDONS = Verb(
    "addons",
    "run metrics, collect and dashboard as processes that share memory",
    (Argument("command", required=False, many=True),),
    (),
)
CRI_VERBS = (
    CRI,
    CRI_STATUS,
    CRI_EXPLAIN,
    LOGS,
    COLLECT,
    METRICS,
    DASHBOARD,
    ADDONS,
)
