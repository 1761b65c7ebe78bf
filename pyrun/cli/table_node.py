"""The verbs of `pyrun node`: rows of verbs.py."""

from __future__ import annotations

from pyrun.cli.options import (
    A_COMMAND,
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

NODE_NAME = text("node-name", "NAME", "this node's name (default: the host's)")
NODE_VALIDATE = Verb(
    "node validate",
    "print every fault of files of pods and other objects; needs no root",
    (Argument("file", many=True, completes=A_FILE),),
    (NODE_NAME, FOR_TOOLS),
)
NODE_EXPLAIN = Verb(
    "node explain",
    "print what this node would do for a pod, and which line asks for it; needs no root",
    (Argument("file", completes=A_FILE),),
    (
        NODE_NAME,
        number("cpu", "THOUSANDTHS", "the node's processors in thousandths (default: this machine's)"),
        size("memory", "the node's memory (default: this machine's)"),
        FOR_TOOLS,
    ),
)
NODE_STATE = text(
    "state",
    "DIR",
    "of `pyrun node run`: its sockets and what does not outlive a boot (default: /run/pyrun-cri)",
    completes=A_DIRECTORY,
)
NAMESPACE = text("namespace", "NAME", "of this namespace (default: default)", "n")
ALL_NAMESPACES = flag("all-namespaces", "of every namespace", "A")
KUBELET = (
    text("client-ca-file", "FILE", "serve the kubelet's API to certificates of these authorities", completes=A_FILE),
    text("address", "ADDRESS", "where the kubelet's API is served (default: 0.0.0.0)"),
    number("port", "N", "its port", default=10250),
    number("healthz-port", "N", "of /healthz on 127.0.0.1; 0 for none", default=10248),
    text("tls-cert-file", "FILE", "its certificate (default: one that is made)", completes=A_FILE),
    text("tls-private-key-file", "FILE", "its key", completes=A_FILE),
    flag("rotate-server-certificates", "have the API server sign a certificate; who has joined does so anyway"),
    flag("anonymous-auth", "let in who is not known, as system:anonymous; needs rights of its own"),
    choice("authorization-mode", ("Webhook", "AlwaysAllow"), "who may what: as the API server says, or everybody"),
    number("read-only-port", "N", "serve pods and metrics to everybody, without TLS; 0 for no such port", default=0),
    text("web-user", "USER", "who the process that serves it becomes (default: nobody)"),
)
MANIFEST_URL = (
    text("manifest-url", "URL", "of more manifests, by https, or on this machine"),
    text(
        "manifest-url-header",
        "NAME:VALUE",
        "sent along; other users of this machine can see it (repeatable)",
        many=True,
    ),
    text("manifest-url-ca-file", "FILE", "the authority of its certificate (default: the machine's)", completes=A_FILE),
    number("http-check-frequency", "SECONDS", "how often it is asked (default: 20)", default=20),
)
GARBAGE = (
    number("image-gc-high-threshold", "PERCENT", "of the disk in use, from which unused images go", default=85),
    number("image-gc-low-threshold", "PERCENT", "of the disk in use, to which they go", default=80),
    number("minimum-image-ttl", "SECONDS", "how long an image stays after its pull in any case", default=120),
    number("maximum-image-ttl", "SECONDS", "without use after which it goes in any case; 0: never", default=0),
    choice(
        "verify-image-credentials",
        ("NeverVerifyPreloadedImages", "NeverVerify", "AlwaysVerify"),
        "of which images that are here a pod must have credentials: those that were pulled by some, none, or all",
    ),
)
EVICTION = (
    text("eviction-hard", "SIGNAL<VALUE", "for which pods go at once, by commas (default: a kubelet's)", many=True),
    text("eviction-soft", "SIGNAL<VALUE", "for which pods go when it has lasted", many=True),
    text("eviction-soft-grace-period", "SIGNAL=SECONDS", "how long it has to last", many=True),
    text("eviction-minimum-reclaim", "SIGNAL=VALUE", "how much more must be free before it is over", many=True),
    number("eviction-max-pod-grace-period", "SECONDS", "that a pod has which goes for a soft one", default=0),
    number("eviction-pressure-transition-period", "SECONDS", "for which a pressure outlasts its cause", default=300),
)
SHUTDOWN = (
    number("shutdown-grace-period", "SECONDS", "that all pods have when the node shuts down; logind waits", default=0),
    number("shutdown-grace-period-critical-pods", "SECONDS", "of these, for the pods that it needs", default=0),
    flag("shutdown-on-term", "a SIGTERM is the node's end, and not what logind says: pods end, too"),
)
NODE_RUN = Verb(
    "node run",
    "run this node: the container runtime, and the pods of a directory of manifests",
    (),
    (
        text("manifests", "DIR", "where the manifests are (default: /etc/pyrun/manifests)", completes=A_DIRECTORY),
        *MANIFEST_URL,
        NODE_NAME,
        text("kubeconfig", "FILE", "the API server whose node this is, and who we are to it", completes=A_FILE),
        text("node-labels", "KEY=VALUE", "of the Node that is made there (repeatable)", many=True),
        text("node-ip", "ADDRESS", "an address of this node, the primary one first (repeatable)", many=True),
        text("root", "DIR", "images, pods and what is known of them (default: /var/lib/pyrun)", completes=A_DIRECTORY),
        NODE_STATE,
        LISTEN,
        text(
            "config", "FILE", "pyrun.toml, with all of this (default: /etc/pyrun/pyrun.toml, if any)", completes=A_FILE
        ),
        flag("explain", "print the configuration that this comes to, as such a file, and end; needs no root"),
        text("logs", "DIR", "where pods' logs are written (default: /var/log/pods)", completes=A_DIRECTORY),
        size("container-log-max-size", "when a container's log is set aside (default: 10M)"),
        number("container-log-max-files", "N", "how many it may have, 2 at least (default: 5)", default=5),
        text("service-cidr", "CIDR", "run the proxy and the DNS, with Services of this range (repeatable)", many=True),
        choice("proxy-mode", ("userspace", "nftables"), "what carries connections to Services"),
        text("cluster-dns", "ADDRESS", "the cluster DNS' address, for dnsPolicy ClusterFirst (repeatable)", many=True),
        flag("dns-autopath", "with --service-cidr, walk pods' search paths in the DNS: see `pyrun dns run --autopath`"),
        text("cluster-domain", "NAME", "the cluster DNS' domain (default: cluster.local)"),
        number("max-pods", "N", "how many pods it takes", default=110),
        number("max-restart-period", "SECONDS", "the longest wait before a restart (default: 300)", default=300),
        flag("fail-swap-on", "refuse to run where there is swap"),
        text("allowed-unsafe-sysctls", "NAME", "what pods may set; * at an end for any (repeatable)", many=True),
        *GARBAGE,
        *EVICTION,
        *SHUTDOWN,
        *KUBELET,
    ),
)
KUBELET_VERB = Verb(
    "kubelet",
    "run this node, asked in a kubelet's words: its flags and its KubeletConfiguration",
    (),
    (
        text("config", "FILE", "a KubeletConfiguration of kubelet.config.k8s.io/v1beta1", completes=A_FILE),
        text("config-dir", "DIR", "more of them, in files *.conf, which are merged into it", completes=A_DIRECTORY),
        text("kubeconfig", "FILE", "the API server whose node this is, and who we are to it", completes=A_FILE),
        text("hostname-override", "NAME", "this node's name (default: the host's)"),
        text("node-ip", "ADDRESS", "an address of this node, the primary one first", many=True),
        text("node-labels", "KEY=VALUE", "of the Node that is made there", many=True),
        text(
            "root-dir", "DIR", "images, pods and what is known of them (default: /var/lib/pyrun)", completes=A_DIRECTORY
        ),
        text("container-runtime-endpoint", "ADDRESS", "where the CRI is served, by this process itself"),
        text("image-service-endpoint", "ADDRESS", "the same"),
        text("runtime-cgroups", "CGROUP", "has no effect"),
        text("feature-gates", "NAME=BOOL", "have no effect", many=True),
        text("v", "LEVEL", "has no effect"),
        text("runtime-config", "FILE", "pyrun.toml: the runtime's configuration", completes=A_FILE),
        NODE_STATE,
        flag("explain", "print the `pyrun node run` that this comes to, and end"),
    ),
)
NODE_JOIN = Verb(
    "node join",
    "make this machine a node of a cluster, by a bootstrap token",
    (),
    (
        text("server", "URL", "the API server: https://HOST:PORT"),
        text("token", "ID.SECRET", "a bootstrap token; other users of this machine can see it meanwhile"),
        text("token-file", "FILE", "a file that has it", completes=A_FILE),
        text("ca-file", "FILE", "the cluster's authority, in PEM", completes=A_FILE),
        text("ca-hash", "sha256:HEX", "the hash of its public key; the cluster tells the rest (repeatable)", many=True),
        NODE_NAME,
        text("root", "DIR", "of `pyrun node run` (default: /var/lib/pyrun)", completes=A_DIRECTORY),
        number("timeout", "SECONDS", "how long to wait for who approves it", default=300),
    ),
)
NODE_GET = Verb(
    "node get",
    "print the pods of this node, or what they refer to",
    (Argument("what", required=False), Argument("name", required=False)),
    (
        NODE_STATE,
        NAMESPACE,
        ALL_NAMESPACES,
        choice("output", ("table", "wide", "json", "yaml", "name"), "how to print it", "o"),
    ),
)
NODE_DESCRIBE = Verb(
    "node describe",
    "print a pod's state and what happened to it",
    (Argument("name"),),
    (NODE_STATE, NAMESPACE),
)
NODE_LOGS = Verb(
    "node logs",
    "print what a pod's container wrote",
    (Argument("name"),),
    (
        NODE_STATE,
        NAMESPACE,
        text("container", "NAME", "which container (default: the only one)", "c"),
        flag("follow", "go on with what is written from now on", "f"),
        flag("previous", "of the container that ran before this one", "p"),
        flag("timestamps", "begin each line with its time"),
        number("tail", "N", "the last N lines"),
        Option("since", DURATION, "only of the last 5s, 10m or 1h", metavar="TIME"),
    ),
)
STDIN = flag("stdin", "hand on what is read here", "i")
TTY = flag("tty", "with a terminal, where there is one here, too; needs -i", "t")
CONTAINER = text("container", "NAME", "which container (default: the first)", "c")
NODE_EXEC = Verb(
    "node exec",
    "run a command in a pod's container, and exit as it does",
    (Argument("name"), Argument("command", required=False, many=True, completes=A_COMMAND)),
    (NODE_STATE, NAMESPACE, CONTAINER, STDIN, TTY),
)
NODE_ATTACH = Verb(
    "node attach",
    "see what a container's program writes, and write what it reads",
    (Argument("name"),),
    (NODE_STATE, NAMESPACE, CONTAINER, STDIN, TTY),
)
NODE_PORT_FORWARD = Verb(
    "node port-forward",
    "lead ports of this machine's loopback to a pod's",
    (Argument("name"), Argument("ports", many=True)),
    (NODE_STATE, NAMESPACE),
)
NODE_APPLY = Verb(
    "node apply",
    "put objects into the directory of manifests, or change them there",
    (),
    (
        NODE_STATE,
        text(
            "filename",
            "FILE",
            "of YAML or JSON; - for what is read here (repeatable)",
            "f",
            many=True,
            completes=A_FILE,
        ),
    ),
)
NODE_DELETE = Verb(
    "node delete",
    "take objects out of the directory of manifests, and end pods",
    (Argument("what", required=False, many=True),),
    (
        NODE_STATE,
        NAMESPACE,
        text("filename", "FILE", "what this has, in place of names (repeatable)", "f", many=True, completes=A_FILE),
        number("grace-period", "SECONDS", "how long its containers have (default: as the pod says)"),
        flag("now", "the same as --grace-period 1"),
        flag("no-wait", "do not wait for the pod's end"),
    ),
)
NODE_RETRY = Verb(
    "node retry",
    "try now what a pod would try again later",
    (Argument("name"),),
    (NODE_STATE, NAMESPACE),
)
NODE_GC = Verb(
    "node gc",
    "remove images that nobody needs, if the disk is full, and print which, and why the others stay",
    (),
    (NODE_STATE, flag("dry-run", "only print what would go"), FOR_TOOLS),
)
NODE_DRAIN = Verb(
    "node drain",
    "take no new pods, and let those that there are end or move away",
    (),
    (
        NODE_STATE,
        number("timeout", "SECONDS", "how long they may take altogether", default=600),
        flag("force", "also pods that no controller makes anew"),
        flag("delete-emptydir-data", "also pods whose emptyDir volumes are lost with them"),
    ),
)
NODE_UNCORDON = Verb("node uncordon", "take pods again, after a drain", (), (NODE_STATE,))
NODE_STATUS = Verb(
    "node status",
    "print what a running `pyrun node run` says of itself",
    (),
    (NODE_STATE, FOR_TOOLS),
)
NODE = (
    NODE_RUN,
    KUBELET_VERB,
    NODE_JOIN,
    NODE_GET,
    NODE_DESCRIBE,
    NODE_LOGS,
    NODE_EXEC,
    NODE_ATTACH,
    NODE_PORT_FORWARD,
    NODE_APPLY,
    NODE_DELETE,
    NODE_RETRY,
    NODE_DRAIN,
    NODE_UNCORDON,
    NODE_GC,
    NODE_STATUS,
    NODE_VALIDATE,
    NODE_EXPLAIN,
)
