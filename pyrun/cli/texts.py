"""What `--help` says beyond the table: what a verb does, examples that can be typed, exit statuses, and where the
spec has it."""

from __future__ import annotations

from pyrun.cli.text import Text
from pyrun.cli.texts_node import NODE

SPEC = "https://github.com/opencontainers/runtime-spec/blob/v1.3.0/"
IMAGES = "https://github.com/opencontainers/"
LIFECYCLE = SPEC + "runtime.md#lifecycle"


PROGRAM = Text(
    """An OCI container runtime: it makes a container from a bundle, which is a directory with a config.json and a
root file system. `pyrun run` does it all; create, start and delete do it step by step, as container engines call
them.

pyrun plans every change to the kernel before it makes the first one, so it can tell you the plan: `pyrun explain`.""",
    (
        ("pyrun spec", "write a config.json here to start from"),
        ("pyrun run web1", "run the bundle in this directory as container web1"),
        ("pyrun explain /srv/bundle", "what creating it would do, step by step"),
        ("pyrun COMMAND --help", "what a command does, with examples"),
    ),
    {},
    (SPEC + "spec.md",),
)

GROUPS = (
    ("The life of a container", ("run", "create", "start", "kill", "delete")),
    ("In and around it", ("exec", "pause", "resume", "update")),
    ("What there is", ("list", "state", "ps", "events", "features")),
    ("Before it runs", ("spec", "validate", "explain")),
    (
        "Images",
        (
            "image pull",
            "image ls",
            "image rm",
            "image inspect",
            "image import",
            "image export",
            "image prune",
            "image verify",
        ),
    ),
    ("A Kubernetes node", ("cri", "cri status", "cri explain")),
    ("Pods from files", ("node run", "node status", "node apply", "node delete", "node validate", "node explain")),
    ("As a kubelet", ("kubelet",)),
    ("A node as a whole", ("node join", "node drain", "node uncordon")),
    ("These pods", ("node get", "node describe", "node logs", "node exec", "node attach", "node port-forward")),
    ("And this node", ("node retry", "node gc")),
    (
        "Its Services",
        ("proxy run", "proxy status", "proxy cleanup", "proxy list", "proxy top", "proxy trace", "proxy explain"),
    ),
    ("Its DNS", ("dns run", "dns query", "dns explain")),
    ("What pods write and use", ("logs", "collect", "metrics", "dashboard", "addons")),
    ("The shell, and speed", ("completion", "planner")),
)

VERBS = {
    "create": Text(
        """Makes everything that config.json asks for, the namespaces, mounts, limits and privileges, and stops
right before the program: `pyrun start` lets it go. The hooks prestart, createRuntime and createContainer have run
by then. When anything fails, all that was made is undone.

With "terminal": true the terminal goes to --console-socket; otherwise the program gets our stdin, stdout and
stderr.""",
        (
            ("pyrun create --bundle /srv/web web1", "make container web1"),
            ("pyrun create --pid-file web1.pid web1", "from the bundle here; tell the pid"),
            ("pyrun create --config try.json web1", "with another config than the bundle's"),
        ),
        see=(SPEC + "runtime.md#create", SPEC + "bundle.md"),
    ),
    "start": Text(
        """Lets the program of a created container run. It can be done once. If the program can't be executed after
all, start says so and the container is stopped.""",
        (("pyrun start web1", "run what config.json has in process.args"),),
        see=(SPEC + "runtime.md#start",),
    ),
    "run": Text(
        """Creates a container, starts it, waits for its program, and deletes it. Signals are handed on to the
program. With "terminal": true you get a terminal that resizes as yours does, and yours is restored in the end.

With --detach it returns as soon as the program runs; `pyrun delete` is then up to you.

In a PID namespace of its own the program is process 1, and the kernel drops each signal that process 1 does not
handle, but KILL and STOP: a program that ^C or TERM does not end needs a handler, or a small init before it.""",
        (
            ("pyrun run web1", "the bundle in this directory, in the foreground"),
            ("pyrun run --bundle /srv/web --detach web1", "in the background"),
            ("pyrun run --trace web1", "print each step and the time that it took"),
        ),
        {
            "n": "as the program exits",
            "128+n": "signal n ended the program",
            "1": "it could not be run; stderr says why",
        },
        (LIFECYCLE,),
    ),
    "exec": Text(
        """Runs another program in a running container: in its namespaces, its cgroup and with the limits and
privileges that config.json gives to its process. Options come before ID; all that follows ID is the program with
its arguments.""",
        (
            ("pyrun exec -t web1 sh", "a shell with a terminal"),
            ("pyrun exec --user 1000:1000 --cwd /tmp web1 id", "as another user, elsewhere"),
            ("pyrun exec --env DEBUG=1 web1 app --verbose", "--verbose goes to app"),
            ("pyrun exec --process process.json web1", "with a whole process object, as engines do"),
        ),
        {
            "n": "as the program exits",
            "128+n": "signal n ended the program",
            "255": "the program can't be run: not found, not executable",
            "1": "anything else; stderr says why",
        },
        (SPEC + "config.md#process",),
    ),
    "state": Text(
        """Prints what a container is now: creating, created, running, paused or stopped, its first process (0 when
it is stopped), its bundle, root file system, annotations and owner.""",
        (("pyrun state web1", "all of it"), ("pyrun state web1 | jq -r .status", "one word")),
        see=(SPEC + "runtime.md#state",),
    ),
    "kill": Text(
        """Sends a signal to a container's first process; TERM when none is named. Signals go by name, with or
without SIG, or by number. In a PID namespace the death of the first process ends all others.""",
        (
            ("pyrun kill web1", "ask it to end"),
            ("pyrun kill web1 KILL", "end it"),
            ("pyrun kill web1 SIGUSR1", "what the program makes of it"),
        ),
        see=(SPEC + "runtime.md#kill", "https://man7.org/linux/man-pages/man7/signal.7.html"),
    ),
    "delete": Text(
        """Removes the cgroup and the state of a stopped container and runs its poststop hooks. A created container
that was never started is ended first. A running one is an error, unless --force kills it.""",
        (
            ("pyrun delete web1", "remove a stopped container"),
            ("pyrun delete --force web1", "whatever state it is in, and also if it is not there"),
        ),
        see=(SPEC + "runtime.md#delete",),
    ),
    "list": Text(
        """Lists the containers below --root. One whose state can't be read is named on stderr and does not hide the
others.""",
        (
            ("pyrun list", "a table"),
            ("pyrun list -q", "only ids, for scripts"),
            ("pyrun --root /run/user/1000/pyrun list", "another user's"),
        ),
    ),
    "planner": Text(
        """Plans for the create, run and exec of other pyrun commands, which then need not start Python. It makes no
container and changes nothing. It answers callers on the socket .planner~ in --root (every root asks the one in
/run/pyrun too), only root's, and ends when nobody has called for a minute. Nothing depends on it: without it they
do the same, and take longer.""",
        (("pyrun planner", "until nobody asks for a minute"),),
    ),
    "ps": Text(
        """Lists the processes in a container's cgroup, as ps(1) on the host sees them. What follows ID are options
of ps; they must leave its PID column in.""",
        (
            ("pyrun ps web1", "as ps -ef shows them"),
            ("pyrun ps web1 -o pid,rss,comm", "other columns"),
            ("pyrun ps --format json web1", "only the pids"),
        ),
    ),
    "pause": Text(
        """Freezes all processes of a container; they keep their memory and get no CPU until `pyrun resume`.""",
        (("pyrun pause web1", "and `pyrun state web1` says paused"),),
        see=("https://docs.kernel.org/admin-guide/cgroup-v2.html#core-interface-files",),
    ),
    "resume": Text(
        """Lets the processes of a paused container go on.""", (("pyrun resume web1", "as if nothing had been"),)
    ),
    "update": Text(
        """Changes the limits of a container while it runs. Only what is named changes. Sizes take a unit: 512M,
1.5G.""",
        (
            ("pyrun update --memory 512M --pids-limit 100 web1", "two limits"),
            ("pyrun update --cpu-quota 50000 --cpu-period 100000 web1", "half a CPU"),
            ('echo \'{"pids": {"limit": 50}}\' | pyrun update -r - web1', "as config.json has them"),
        ),
        see=(SPEC + "config-linux.md#control-groups",),
    ),
    "events": Text(
        """Prints a container's statistics every --interval, and an event when the kernel kills a process of it for
want of memory. Each is one JSON object on one line, of the types that runc prints. It ends when the container does.""",
        (
            ("pyrun events --stats web1", "once"),
            ("pyrun events --interval 1s web1 | jq .data.memory.usage", "memory, each second"),
        ),
    ),
    "spec": Text(
        """Writes a config.json with a shell as its program, few privileges, and `rootfs` beside it as the root file
system. It does not overwrite one. --rootless gives a user namespace in which you are root, and your ranges of
/etc/subuid.""",
        (
            ("mkdir -p web/rootfs && pyrun spec --bundle web", "then fill web/rootfs"),
            ("pyrun spec --rootless", "for a container that needs no root"),
        ),
        see=(SPEC + "config.md",),
    ),
    "features": Text(
        """Prints what this runtime knows: hooks, mount options, namespaces, capabilities, seccomp. Engines ask for
it before they write a config.json. It does not say what the host has.""",
        (("pyrun features | jq .linux.namespaces", "one part"),),
        see=(SPEC + "features.md",),
    ),
    "explain": Text(
        """Prints the plan: every step that create would take, in order, for each process that takes it, with the
place in config.json that asks for it and the reason. It makes nothing and needs no root. BUNDLE is this directory
when it is not named; it may also be a config.json itself.""",
        (
            ("pyrun explain /srv/web", "read it"),
            ("pyrun explain --format json . | jq '.lanes[].steps | length'", "count its steps"),
            ("pyrun explain --config try.json .", "what another config would do"),
        ),
        {"0": "printed", "1": "config.json has faults, or the host lacks what it asks for"},
    ),
    "validate": Text(
        """Holds a config.json against the spec and says every fault at once, each with its place as a JSON pointer.""",
        (("pyrun validate /srv/web", "read them"), ("pyrun validate --format json .", "for tools: a list of objects")),
        {"0": "no faults", "1": "faults, on stdout"},
        (SPEC + "config.md",),
    ),
    "cri": Text(
        """Serves the Kubernetes container runtime interface (CRI), v1, to a kubelet or crictl: images, pods,
containers, exec, attach, port-forward, logs and statistics. Each pod has a process of its own that keeps its containers
when this one ends: containers run on, and the next `pyrun cri` with the same directories goes on with them.

Under systemd it is Type=notify. TERM and INT end it when what it has begun is done.""",
        (
            ("pyrun cri", "serve on /run/pyrun-cri/cri.sock"),
            ("pyrun cri --config /etc/pyrun/cri.toml", "with a configuration; a key that it does not know is an error"),
            ("pyrun cri --root /srv/pyrun --state /run/two --listen unix:///run/two/cri.sock", "a second one"),
        ),
        {"0": "ended by a signal", "1": "it could not start; stderr says why"},
        ("https://kubernetes.io/docs/concepts/containers/cri/",),
    ),
    "image pull": Text(
        """Brings an image from its registry, or a mirror of it, into the store of `pyrun cri`. The name is docker's:
without a registry it is docker.io, without a tag latest. The registry is asked each time what the name means now;
layers that are here are not fetched again. What is cut is resumed, and what is not the promised bytes is refused.

Mirrors, private authorities and plain HTTP are told in certs.d/HOST/hosts.toml, as containerd has it; proxies in the
environment. Credentials come from docker's config.json and its helpers.""",
        (
            ("pyrun image pull busybox", "docker.io/library/busybox:latest"),
            ("pyrun image pull ghcr.io/org/app:1.2", "from another registry"),
            ("pyrun image pull --user me q.example.com/app", "with the password on standard input"),
        ),
        see=(IMAGES + "distribution-spec/blob/main/spec.md",),
    ),
    "image ls": Text(
        """Lists the images of the store, the newest first. SIZE is what the layers take on the disk; one that two
images have counts for both of them here, and is there once.""",
        (("pyrun image ls", "read it"), ("pyrun image ls --format json", "for tools")),
    ),
    "image rm": Text(
        """Takes names away, and an image with its last one; by its id the image goes with all its names. Layers go
when no image has them any more. One that a container has stays.""",
        (("pyrun image rm busybox:1.36", "that name"), ("pyrun image rm 1a2b3c4d5e6f", "that image")),
    ),
    "image inspect": Text(
        """Prints names, layers, where they are, and the config that the image's author has written.""",
        (("pyrun image inspect busybox", "docker.io/library/busybox:latest"),),
        see=(IMAGES + "image-spec/blob/main/config.md",),
    ),
    "image import": Text(
        """Brings in what is in a file or a directory: an OCI layout, as a directory or a tar, or what docker save
writes, also by gzip. `-` is standard input. All is verified as if it came from a registry.""",
        (
            ("pyrun image import app.tar", "an archive"),
            ("docker save app | pyrun image import -", "from docker"),
            ("pyrun image import --name q.example.com/app:1 ./layout", "a layout that has no name in it"),
        ),
        see=(IMAGES + "image-spec/blob/main/image-layout.md",),
    ),
    "image export": Text(
        """Writes an archive that is an OCI layout and a docker archive at once. Layers are kept unpacked, so their tars
are made anew: the image in the archive has an id of its own, always the same one.""",
        (
            ("pyrun image export --output app.tar app", "to a file"),
            ("pyrun image export app | docker load", "to docker"),
        ),
        see=(IMAGES + "image-spec/blob/main/image-layout.md",),
    ),
    "image verify": Text(
        """Reads the images, or all there are, as they lie on the disk: configs and manifests against their digests,
layers against what was recorded when they were unpacked and their digests were right. What is damaged is named; no new
container gets it, and `pyrun image pull` brings it again. A layer of an older version has no such record.""",
        (
            ("pyrun image verify", "all of them"),
            ("pyrun image verify --format json busybox", "one, for tools"),
        ),
    ),
    "image prune": Text(
        """Removes images that have no tag, such as those whose tag has moved to a newer one; with --all every image.
One that a container has stays.""",
        (
            ("pyrun image prune", "what a newer image has replaced"),
            ("pyrun image prune --all", "all that is not in use"),
        ),
    ),
    "cri status": Text(
        """Asks a running `pyrun cri` what it is, and whether it and the network of pods are ready; if not, why.""",
        (
            ("pyrun cri status", "read it"),
            ("pyrun cri status --format json --listen unix:///run/two/cri.sock", "for tools, of another one"),
        ),
        {"0": "all is ready", "1": "something is not, or nobody answers"},
    ),
    "cri explain": Text(
        """Reads a request of the Kubernetes container runtime interface as JSON: a RunPodSandboxRequest, a
CreateContainerRequest, or the config in one alone, as crictl takes it. It prints every step that `pyrun cri` would take
for it, in order, each with the place in the file that asked for it, and what this node leaves out of it.

The pod of a container and the layers of its image are imagined: --pod and --image say what they are.""",
        (
            ("pyrun cri explain pod-config.json", "what a pod's sandbox takes"),
            ("pyrun cri explain --pod pod-config.json container-config.json", "what a container in it takes"),
            ("pyrun cri explain --config container-config.json", "the config.json that it becomes"),
        ),
    ),
    "proxy run": Text(
        """Serves the Services of a cluster on this node until a signal ends it, which takes away all that it made.
Services come out of files, which are followed, or from an API server; where nobody makes EndpointSlices, those of
selectors are made of the Pods in the files or of this node's container runtime.

A kill leaves everything in force: the next start takes over, without a connection lost.""",
        (
            ("pyrun proxy run --kubeconfig /etc/pyrun/proxy.conf --cluster-cidr 10.0.0.0/8", "in a cluster"),
            (
                "pyrun proxy run --objects /etc/pyrun/objects --cri /run/pyrun-cri/cri.sock"
                " --service-cidr 10.96.0.0/16",
                "on a node by itself",
            ),
        ),
        {"0": "a signal ended it", "1": "it could not start"},
        ("https://kubernetes.io/docs/concepts/services-networking/service/",),
    ),
    "proxy status": Text(
        """Asks a running `pyrun proxy` what it serves, what is wrong with the objects that it has, and what it
refuses.""",
        (("pyrun proxy status", "read it"), ("pyrun proxy status --format json", "for tools")),
        {"0": "it is well", "1": "it is not, or nobody answers"},
    ),
    "proxy cleanup": Text(
        """Takes away what a killed `pyrun proxy` has left in force, of both modes: the data plane and its connections,
routes, rules of nftables; and puts net.ipv4.tcp_tw_reuse back to what it was. A daemon that is started takes all of
that over, so this is for a node that shall have none any more.""",
        (("pyrun proxy cleanup", "after a kill"),),
        {"0": "nothing is left", "1": "something could not be taken away, or a daemon runs"},
    ),
    "proxy top": Text(
        """Shows for each address and port how many connections are open and how many came, failed or were tried
again with another endpoint, and the bytes of each second, those with the most first; until interrupted.""",
        (("pyrun proxy top", "look on"), ("pyrun proxy top --once --format json", "the counters, for tools")),
    ),
    "proxy trace": Text(
        """Reads the objects in a directory and says what the service proxy of a node does with the first packet from
one address to another: forward it, reject it, drop it, or let it pass as none of its business; to which endpoints,
whether these see the node's address in place of the client's, and which field of which object decides. Nothing is
sent. What is wrong with an object is warned of, and the rest is served.""",
        (
            (
                "pyrun proxy trace --objects /etc/pyrun/objects --node n1 --node-ip 192.168.0.2"
                " --cluster-cidr 10.0.0.0/8 --from 10.0.0.7 --to 10.96.0.10:80/tcp",
                "from a pod to a Service",
            ),
        ),
    ),
    "proxy list": Text(
        """Reads the objects in a directory and lists every address and port that the service proxy would have, with how
many endpoints get its traffic: none is said with what becomes of packets then. --format json has the choices by source
as well.""",
        (("pyrun proxy list --objects /etc/pyrun/objects --node n1 --node-ip 192.168.0.2", "of a directory"),),
    ),
    "proxy explain": Text(
        """Reads the objects in a directory and says of one Service, NAME or NAMESPACE/NAME, at which addresses it is
to be had, who gets traffic from where, and why: with the file, line and JSON pointer of each word, what became of each
endpoint, and what is refused.""",
        (("pyrun proxy explain --objects /etc/pyrun/objects --node n1 --node-ip 192.168.0.2 web", "of one Service"),),
    ),
    "dns run": Text(
        """Answers for the cluster's domain out of Services, EndpointSlices, Pods and Namespaces, and asks other servers
for all else. A program in C answers (pyrun-dns, with a user of its own and no privileges) out of a table that is
compiled here whenever an object changes; it goes on when this process has gone. At a start it answers at once, by the
table of last time.

SIGTERM ends both; SIGUSR2 ends only this process: the next `pyrun dns run` takes the program up, or puts a newer one in
its place without a lost query.""",
        (
            ("pyrun dns run --objects /etc/pyrun/objects --listen 10.96.0.10", "objects of a directory, followed"),
            (
                "pyrun dns run --kubeconfig dns.conf --upstream 192.0.2.53 --upstream corp.example=10.0.0.2",
                "an API server's; names of corp.example are asked of another server",
            ),
        ),
        see=("https://github.com/kubernetes/dns/blob/master/docs/specification.md",),
    ),
    "dns query": Text(
        """Answers one question as the cluster's DNS would, with the file, line and value that each record comes from.
The type is A where none is given. No other server is asked: for a name that is not the cluster's it is said who would
be.

With --objects the answer is that of the objects in a directory, and needs no root. Without, `pyrun dns run` is asked,
as root, what it would answer now: from its table, by which object; from its cache, and for how long that is kept; which
other servers would be asked, in order; or why a client gets no reply. Nothing of it is counted or kept.""",
        (
            ("pyrun dns query --objects /etc/pyrun/objects web.default.svc.cluster.local", "a Service's address"),
            ("pyrun dns query --objects . _http._tcp.web.default.svc.cluster.local SRV", "its port"),
            (
                "pyrun dns query --objects . --client 10.1.0.7 web.prod.default.svc.cluster.local",
                "what a pod's resolver begins with",
            ),
            ("pyrun dns query --client 10.1.0.7 www.example.org", "what a DNS that runs would tell this pod"),
        ),
        {"0": "there is an answer, be it that there is no such name", "1": "there is none; it is said why"},
        see=("https://github.com/kubernetes/dns/blob/master/docs/specification.md",),
    ),
    "dns explain": Text(
        """Reads the objects in a directory and prints all records that the cluster's DNS makes of them, or those at and
below a name. What is in an object and not served is warned of, with its place.""",
        (("pyrun dns explain --objects /etc/pyrun/objects default.svc.cluster.local", "those of a namespace"),),
    ),
    "logs": Text(
        """Prints what containers of pods wrote, of all pods in the order of time, from the files that the kubelet and
the runtime keep, whichever runtime it is: also from those that were rotated or compressed, and of containers that have
ended. A line that the runtime cut in pieces is whole again.

Words are looked for as they stand: all of them must be in a line, in any case unless one has a capital; with --word
they are whole words, and of what `pyrun collect` has sealed only that is read where they may be. Patterns are the
shell's.""",
        (
            ("pyrun logs", "everything"),
            ("pyrun logs -f -l app=web --since 1h timeout", "follow the timeouts of an application"),
            ("pyrun logs -n shop -p 'cart-*' --previous --tail 20", "the last words of what crashed"),
            ("pyrun logs --regex --stream stderr 'HTTP/1.1\" 5..'", "by a regular expression"),
            ("pyrun logs --format json --since-time 2026-11-27T12:00:00Z", "for tools"),
        ),
        {"0": "it was printed", "1": "no line has the words, or the logs can't be read"},
    ),
    "collect": Text(
        """Seals the files of logs that were rotated: each becomes a compressed block with an index, and then goes.
Those of pods that are removed are kept as well. `pyrun logs` reads both alike. It reads files and asks nobody, so it
works beside any runtime; without it, or while it does not run, pods notice nothing.

What is older than --keep goes, and the oldest where all is more than --keep-bytes; --status tells how many lines of
which pods that were.""",
        (
            ("pyrun collect", "until a signal ends it"),
            ("pyrun collect --store /srv/logs --keep 720h --keep-bytes 20G", "for a month"),
            ("pyrun collect --ship syslog+tcp://log-host:514", "send each line there at least once"),
            ("pyrun collect --status", "what was sealed, sent and dropped"),
        ),
        {"0": "it was told to end", "1": "its directory can't be used, or another one uses it"},
    ),
    **NODE,
    "metrics": Text(
        """Serves what pods and their containers use: /metrics/cadvisor and /metrics/resource for Prometheus,
/stats/summary for metrics-server, by the names and labels of cAdvisor and the kubelet, and /metrics about itself. It
asks the runtime when it is asked, any that serves the CRI with its metrics. With --store it asks each 10 s and
keeps what pods used, in one SQLite file: /history and the dashboard have it.

There is no authentication: it is for loopback, or for a network in which everybody may read.""",
        (
            ("pyrun metrics", "of `pyrun cri`, on 127.0.0.1:9338"),
            ("pyrun metrics --store /var/lib/pyrun-metrics --keep 720h", "keep a month of it"),
            ("pyrun metrics --address [::1]:0 --listen unix:///run/containerd/containerd.sock", "of containerd"),
        ),
        {"0": "a signal has ended it", "1": "the address can't be had"},
    ),
    "dashboard": Text(
        """Serves a web page: what is broken and why, pods, their containers, logs and figures, images. It changes
nothing. A browser logs in with the token, which is made at the first start.

The process that talks to browsers has no privileges, and can ask another one a few questions, which reads the logs and
asks the runtime. Without a certificate it is served on loopback alone.""",
        (
            ("pyrun dashboard", "on 127.0.0.1:9339, of `pyrun cri`"),
            ("pyrun dashboard --listen unix:///run/containerd/containerd.sock", "of containerd"),
            ("pyrun dashboard --address 10.0.0.4:9339 --host node-1 --tls-cert c.pem --tls-key k.pem", "for others"),
        ),
        {"0": "a signal has ended it", "1": "it can't be served so"},
    ),
    "addons": Text(
        """Runs `pyrun metrics`, `pyrun collect` and `pyrun dashboard`, or those that are named, each with its own
options. Each is a process of its own, as when it is started by itself, and is started again whenever it has ended; all
are forked from one that has loaded what they need, so together they take less memory.""",
        (
            ("pyrun addons", "all three, with metrics that are kept in /var/lib/pyrun-metrics"),
            ("pyrun addons 'metrics --store /srv/metrics' dashboard", "two of them"),
        ),
        {"0": "a signal has ended them", "1": "a command is none of the three, or has options that it does not know"},
    ),
    "completion": Text(
        """Prints a script for bash, zsh or fish that completes commands, options and container ids.""",
        (
            ('eval "$(pyrun completion bash)"', "in ~/.bashrc; zsh likewise"),
            ("pyrun completion fish > ~/.config/fish/completions/pyrun.fish", "fish"),
        ),
    ),
    "help": Text("""Explains a command, as its --help does.""", (("pyrun help run", "the same as pyrun run --help"),)),
}
