"""The verbs and their options, declared once: parse.py runs them, click_app.py explains and completes them.

Every verb imports this, so it holds rows of plain data (options.py). Longer prose for `--help` is in
texts.py. Names, short forms and meanings are runc's, because engines call us by them.
"""

from __future__ import annotations

from pyrun.cli.options import (
    A_COMMAND,
    A_DIRECTORY,
    A_FILE,
    A_SIGNAL,
    A_VERB,
    AN_ID,
    CHOICE,
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
from pyrun.cli.table_node import NODE

GLOBALS = (
    text(
        "root",
        "DIR",
        "where containers keep their state (default: /run/pyrun; $XDG_RUNTIME_DIR/pyrun if rootless)",
        completes=A_DIRECTORY,
    ),
    text("log", "FILE", "append errors and warnings to FILE as well (default: only stderr)", completes=A_FILE),
    choice("log-format", ("text", "json"), "how entries of --log are written"),
    flag("debug", "say more, and show tracebacks of errors that are bugs"),
    flag("systemd-cgroup", "let systemd make the cgroup; cgroupsPath is then slice:prefix:name"),
    choice(
        "cgroup-manager", ("cgroupfs", "systemd", "disabled"), "who makes the cgroup; disabled: it stays the caller's"
    ),
    Option(
        "rootless",
        CHOICE,
        "go on without cgroup permissions",
        metavar="auto|true|false",
        default="auto",
        choices=("auto", "true", "false"),
    ),
    text("criu", "FILE", "accepted and ignored: there is no checkpoint", hidden=True),
)

ID = Argument("id", completes=AN_ID)
NEW_ID = Argument("id")
FORMAT = choice("format", ("table", "json"), "how to print it", "f")
CONFIG = text("config", "FILE", "the config to take in place of BUNDLE/config.json", completes=A_FILE)
BUNDLE = text(
    "bundle", "DIR", "the bundle: a directory with config.json (default: the current one)", "b", completes=A_DIRECTORY
)
CONSOLE = text("console-socket", "SOCKET", "a unix socket that receives the terminal's master end", completes=A_FILE)
PIDFD = text("pidfd-socket", "SOCKET", "a unix socket that receives a pidfd of the process", completes=A_FILE)
PID_FILE = text("pid-file", "FILE", "write the pid of the process to FILE", completes=A_FILE)
PRESERVE = number("preserve-fds", "N", "hand on N descriptors after stdio and those of $LISTEN_FDS", default=0)
DETACH = flag("detach", "do not wait for the process to end", "d")
NO_PIVOT = flag("no-pivot", "refused: without pivot_root a container can reach the host's root")
NO_KEYRING = flag("no-new-keyring", "keep the caller's session keyring instead of a new one")

CREATE = Verb(
    "create",
    "make a container from a bundle, up to its program",
    (NEW_ID,),
    (BUNDLE, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE, CONFIG),
)
START = Verb("start", "let a created container's program go", (ID,))
RUN = Verb(
    "run",
    "create, start, wait, and delete",
    (NEW_ID,),
    (
        BUNDLE,
        CONSOLE,
        PIDFD,
        PID_FILE,
        DETACH,
        flag("keep", "do not delete the container when it has ended"),
        flag("no-subreaper", "do not adopt and reap processes that the container leaves behind"),
        NO_PIVOT,
        NO_KEYRING,
        PRESERVE,
        CONFIG,
        flag("trace", "print each step with the time that it took"),
    ),
)
EXEC = Verb(
    "exec",
    "run another program in a running container",
    (ID, Argument("command", required=False, many=True, completes=A_COMMAND)),
    (
        text("process", "FILE", "the process object of config.json, in place of COMMAND", "p", completes=A_FILE),
        flag("tty", "give it a terminal", "t"),
        CONSOLE,
        PIDFD,
        DETACH,
        PID_FILE,
        text("cwd", "DIR", "its working directory in the container"),
        text("env", "NAME=VALUE", "set a variable in its environment (repeatable)", "e", many=True),
        text("user", "UID[:GID]", "run it as this user, by number", "u"),
        number("additional-gids", "GID", "one more group (repeatable)", "g", many=True),
        text("cap", "CAP", "one more capability (repeatable)", "c", many=True),
        flag("no-new-privs", "no privileges gained by exec; =false lifts what config.json has", default=None),
        text("apparmor", "PROFILE", "its AppArmor profile"),
        text("process-label", "LABEL", "its SELinux label"),
        PRESERVE,
        flag("ignore-paused", "also in a paused container, where it then waits"),
        text("cgroup", "PATH", "a cgroup below the container's, which must exist", many=True),
    ),
    stops=True,
)
STATE = Verb("state", "print a container's state as JSON", (ID,))
KILL = Verb(
    "kill",
    "send a signal to a container's first process",
    (ID, Argument("signal", required=False, completes=A_SIGNAL)),
    (flag("all", "accepted for old callers; a stopped container is then no error", "a", hidden=True),),
    stops=True,
)
DELETE = Verb(
    "delete",
    "remove what a stopped container has left",
    (ID,),
    (flag("force", "kill it first if it still runs; a container that is not there is no error", "f"),),
)
LIST = Verb("list", "list containers", (), (FORMAT, flag("quiet", "only the ids", "q")))
PS = Verb(
    "ps",
    "list the processes in a container",
    (ID, Argument("ps-option", required=False, many=True)),
    (FORMAT,),
    stops=True,
)
PAUSE = Verb("pause", "freeze all processes of a container", (ID,))
RESUME = Verb("resume", "thaw a paused container", (ID,))
UPDATE = Verb(
    "update",
    "change a container's resource limits",
    (ID,),
    (
        text(
            "resources",
            "FILE",
            "linux.resources as JSON, - for stdin; other options are then ignored",
            "r",
            completes=A_FILE,
        ),
        number("blkio-weight", "WEIGHT", "weight of its block I/O, 10 to 1000"),
        number("cpu-period", "USEC", "period of the CPU quota"),
        number("cpu-quota", "USEC", "CPU time in each period, -1 for no limit"),
        number("cpu-burst", "USEC", "unused quota that may be saved up"),
        number("cpu-share", "SHARES", "CPU weight, 2 to 262144"),
        number("cpu-rt-period", "USEC", "refused: cgroup v2 has no real-time quota", hidden=True),
        number("cpu-rt-runtime", "USEC", "refused: cgroup v2 has no real-time quota", hidden=True),
        number("cpu-idle", "0|1", "1: run only when nothing else wants the CPU"),
        text("cpuset-cpus", "LIST", "CPUs that it may use, such as 0-2,7"),
        text("cpuset-mems", "LIST", "memory nodes that it may use"),
        size("memory", "memory limit, such as 512M; -1 for none"),
        size("memory-reservation", "memory that is protected (memory.low)"),
        size("memory-swap", "memory and swap together; -1 for no limit"),
        size("kernel-memory", "accepted and ignored", hidden=True),
        size("kernel-memory-tcp", "accepted and ignored", hidden=True),
        number("pids-limit", "N", "most processes at a time, -1 for no limit"),
        text("l3-cache-schema", "SCHEMA", "Intel RDT L3 cache schema"),
        text("mem-bw-schema", "SCHEMA", "Intel RDT memory bandwidth schema"),
    ),
)
EVENTS = Verb(
    "events",
    "print statistics and out-of-memory events, one JSON object a line",
    (ID,),
    (
        flag("stats", "print the statistics once and end"),
        Option(
            "interval",
            DURATION,
            "time between statistics, such as 500ms or 1m30s (default: 5s)",
            metavar="TIME",
            default=5.0,
        ),
    ),
)
SPEC = Verb(
    "spec",
    "write a config.json to start from",
    (),
    (
        text("bundle", "DIR", "where to write it (default: the current directory)", "b", completes=A_DIRECTORY),
        flag("rootless", "for a container that needs no root"),
    ),
)
FEATURES = Verb("features", "print what this runtime can do as JSON")
EXPLAIN = Verb(
    "explain",
    "print every step that create would take; needs no root",
    (Argument("bundle", required=False, completes=A_DIRECTORY),),
    (FOR_TOOLS, CONFIG),
)
VALIDATE = Verb(
    "validate",
    "print every fault of a config.json",
    (Argument("bundle", required=False, completes=A_DIRECTORY),),
    (FOR_TOOLS, CONFIG),
)
PLANNER = Verb("planner", "plan for other pyrun commands, which start faster then; ends when idle for a minute")
COMPLETION = Verb("completion", "print the completion script for a shell", (Argument("shell"),))
HELP = Verb("help", "explain a verb", (Argument("verb", required=False, many=True, completes=A_VERB),), hidden=True)

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
        size("keep-bytes", "how big all of it may become (default: 512M)"),
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
        text("state", "DIR", "where the token is kept (default: /run/pyrun-dashboard)", completes=A_DIRECTORY),
        text("node-name", "NAME", "the node's name (default: the host's)"),
        text("dir", "DIR", "where the logs of pods are (default: /var/log/pods)", completes=A_DIRECTORY),
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
        number("tail", "N", "the last N lines of each container (with --follow 10)"),
        flag("previous", "of the container that ran before the newest one"),
        choice("stream", ("both", "stdout", "stderr"), "only what was written to this stream"),
        flag("regex", "words are regular expressions (Python's)", "e"),
        flag("timestamps", "begin each line with its time", "t"),
        FOR_TOOLS,
        text("dir", "DIR", "where the logs are (default: /var/log/pods)", completes=A_DIRECTORY),
        LISTEN,
    ),
)
# One store for people and for `pyrun cri`.
STORE = text("root", "DIR", "where images are kept (default: /var/lib/pyrun, as of pyrun cri)", completes=A_DIRECTORY)
CERTS = text(
    "certs-dir", "DIR", "where HOST/hosts.toml are (default: /etc/{pyrun,containerd,docker}/certs.d)", many=True
)
LAYERS = choice("layers", ("dir", "erofs", "auto"), "what its layers become: directories, EROFS images, or what can be")
IMAGE = Argument("image")
IMAGE_PULL = Verb(
    "image pull",
    "bring an image from its registry",
    (IMAGE,),
    (
        STORE,
        CERTS,
        text("user", "NAME", "ask as NAME, with the password on standard input (default: as docker login has it)", "u"),
        flag("quiet", "print only the image's id", "q"),
        LAYERS,
        FOR_TOOLS,
    ),
)
IMAGE_LS = Verb("image ls", "list images", (), (STORE, FORMAT, flag("quiet", "only the ids", "q")))
IMAGE_RM = Verb("image rm", "remove a name, and the image with its last one", (Argument("image", many=True),), (STORE,))
IMAGE_INSPECT = Verb("image inspect", "print all that is known of an image, as JSON", (IMAGE,), (STORE,))
IMAGE_IMPORT = Verb(
    "image import",
    "bring images from an OCI layout or a docker archive",
    (Argument("path", completes=A_FILE),),
    (STORE, text("name", "NAME", "what to call it, if it has no name"), LAYERS, FOR_TOOLS),
)
IMAGE_EXPORT = Verb(
    "image export",
    "write images to an archive, for docker load and others",
    (Argument("image", many=True),),
    (STORE, text("output", "FILE", "the archive (default: standard output)", "o", completes=A_FILE)),
)
IMAGE_PRUNE = Verb(
    "image prune",
    "remove images that no name and no container has",
    (),
    (STORE, flag("all", "also those with a name", "a"), FOR_TOOLS),
)
OBJECTS = text("objects", "DIR", "Services, EndpointSlices, Pods and Namespaces as YAML or JSON", completes=A_DIRECTORY)
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
        text("allow", "CIDR", "who is answered (default: private addresses; repeatable)", many=True),
        number("rate", "N", "UDP replies a second to one source; 0: any number", default=20000),
        number("stale", "SECONDS", "for which an old answer is better than none", default=86400),
        text(
            "state",
            "DIR",
            "the control socket and the table of last time (default: /run/pyrun-dns)",
            completes=A_DIRECTORY,
        ),
    ),
)
DNS_QUERY = Verb(
    "dns query",
    "print what the cluster's DNS answers, and from which object; needs no root",
    (Argument("name"), Argument("type", required=False)),
    (OBJECTS, ZONE, FOR_TOOLS),
)
DNS_EXPLAIN = Verb(
    "dns explain",
    "print every record that the cluster's DNS has, and why; needs no root",
    (Argument("name", required=False),),
    (OBJECTS, ZONE, FOR_TOOLS),
)
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
    "list the addresses and ports at which Services are to be had; needs no root",
    (),
    (PROXY_OBJECTS, *PROXY_NODE, FORMAT),
)
PROXY_EXPLAIN = Verb(
    "proxy explain",
    "print who gets a Service's traffic, from where and why; needs no root",
    (Argument("service"),),
    (PROXY_OBJECTS, *PROXY_NODE, FOR_TOOLS),
)
PROXY_STATE = text(
    "state",
    "DIR",
    "where its sockets and its lock are (default: /run/pyrun-proxy)",
    completes=A_DIRECTORY,
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
        choice("mode", ("userspace", "nftables"), "who carries packets: the data plane, or the kernel alone"),
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
    "show connections and bytes by Service, live",
    (),
    (PROXY_STATE, flag("once", "print the counters once and end"), FOR_TOOLS),
)

VERBS = {
    verb.name: verb
    for verb in (
        CREATE,
        START,
        RUN,
        EXEC,
        STATE,
        KILL,
        DELETE,
        LIST,
        PS,
        PAUSE,
        RESUME,
        UPDATE,
        EVENTS,
        SPEC,
        FEATURES,
        EXPLAIN,
        VALIDATE,
        PLANNER,
        CRI,
        CRI_STATUS,
        CRI_EXPLAIN,
        LOGS,
        METRICS,
        DASHBOARD,
        IMAGE_PULL,
        IMAGE_LS,
        IMAGE_RM,
        IMAGE_INSPECT,
        IMAGE_IMPORT,
        IMAGE_EXPORT,
        IMAGE_PRUNE,
        PROXY_RUN,
        PROXY_STATUS,
        PROXY_TOP,
        PROXY_TRACE,
        PROXY_EXPLAIN,
        PROXY_LIST,
        DNS_RUN,
        DNS_QUERY,
        DNS_EXPLAIN,
        *NODE,
        COMPLETION,
        HELP,
    )
}
