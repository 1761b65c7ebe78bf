"""What `--help` says of the verbs of `pyrun node`."""

from __future__ import annotations

from pyrun.cli.text import Text

NODE = {
    "node run": Text(
        """Runs the pods of a directory of manifests and keeps them as their files say, with the container runtime in
the same process: what `pyrun cri` serves, this serves, too. The directory is followed: a file that comes is a pod that
starts, one that goes is a pod that ends within its grace, one that is broken leaves the pod as it was and is told of,
by line and field.

A signal ends it, and pods run on; the next one takes them over as they are.""",
        (
            ("pyrun node run", "the pods of /etc/pyrun/manifests"),
            ("pyrun node run --manifests /srv/pods --cluster-dns 10.96.0.10", "with the cluster's DNS"),
        ),
        {"0": "a signal ended it", "1": "it could not start"},
        ("https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/",),
    ),
    "node join": Text(
        """Makes this machine a node of a cluster, as kubeadm does it for a kubelet: by a bootstrap token it asks for a
certificate, waits until somebody (or a controller) has approved it, and keeps it with the cluster's authority where
`pyrun node run` takes it by itself.

--ca-hash finds the authority in the cluster's own ConfigMap cluster-info, which the token must have signed. Killed at
any point, or refused, the same command begins again.""",
        (
            ("pyrun node join --server https://10.0.0.1:6443 --token-file token --ca-file ca.crt", "by its authority"),
            (
                "pyrun node join --server https://10.0.0.1:6443 --token abcdef.0123456789abcdef --ca-hash sha256:HEX",
                "by a hash, as `kubeadm token create --print-join-command` prints it",
            ),
        ),
        {
            "0": "it has joined, now or before",
            "1": "an option or a file is wrong, or it is another cluster's already",
            "3": "the cluster's authority is not the one that was named",
            "4": "the token is not known, or has expired",
            "5": "the request was denied, or can't be signed",
            "6": "the API server can't be reached, or can't show that it is the authority's",
            "7": "nobody has approved the request in time",
        },
        ("https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/",),
    ),
    "kubelet": Text(
        """`pyrun node run` for whoever speaks a kubelet's words: it takes the flags that are listed here and a
KubeletConfiguration, and refuses by name, with file and line, what it can't do. What sets the pace of a kubelet and
nothing else is taken with a warning. The CRI is served by this process, at the endpoint where a kubelet would look for
it.""",
        (
            ("pyrun kubelet --config /etc/kubernetes/kubelet.yaml --kubeconfig /etc/kubernetes/kubelet.conf", "a node"),
            ("pyrun kubelet --config kubelet.yaml --explain", "the `pyrun node run` that it is"),
        ),
        {"0": "a signal ended it, or it was explained", "1": "it could not start"},
        ("https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/",),
    ),
    "node get": Text(
        """Prints pods with their state as Kubernetes has it: pods by default, or configmaps and secrets (whose values
are not shown). A name after the kind chooses one; -o yaml and json print the whole object with its status.""",
        (
            ("pyrun node get", "the pods of namespace default"),
            ("pyrun node get -A -o wide", "all of them, with their addresses"),
            ("pyrun node get pods web -o yaml", "one, with its status"),
        ),
        {"0": "it was printed", "1": "there is no such object, or nobody answers"},
    ),
    "node describe": Text(
        """Prints a pod for a person: its containers with their state and last end, its conditions, and the events of
it that the agent has seen since it started.""",
        (("pyrun node describe web", "of namespace default"),),
        {"0": "it was printed", "1": "there is no such pod, or nobody answers"},
    ),
    "node logs": Text(
        """Prints what a container of a pod wrote; `pyrun logs` searches in many.""",
        (
            ("pyrun node logs -f web", "follow the only container"),
            ("pyrun node logs web -c side --previous --tail 20", "the last words of the one before"),
        ),
        {"0": "it was printed", "1": "there is no such pod or container"},
    ),
    "node exec": Text(
        """Runs a command in a container of a pod that runs, as `kubectl exec` does. Its options begin after a `--`.""",
        (
            ("pyrun node exec web -- cat /etc/hosts", "one command"),
            ("pyrun node exec -it web -c side -- sh", "a shell with a terminal"),
        ),
        {
            "N": "as the command exits; 128+N after signal N",
            "1": "there is no such pod or container, or it does not run",
        },
    ),
    "node attach": Text(
        """Shows what a container's program writes from now on. With -i standard input goes to it, where the manifest
has `stdin: true`. It ends with the container.""",
        (("pyrun node attach -it web", "its terminal"),),
        {"0": "the container has ended", "1": "there is no such pod or container, or it does not run"},
    ),
    "node port-forward": Text(
        """Listens on 127.0.0.1 and ::1 until a signal ends it; a connection becomes one to the pod's own loopback.""",
        (("pyrun node port-forward web 8080:80 :9090", "two ports, one of them from any free one here"),),
        {"0": "a signal has ended it", "1": "the pod does not run, or a port is taken"},
    ),
    "node apply": Text(
        """Checks objects, and puts each into a file of its own in the directory of manifests of the running node; all
of them or none. What stands in a file of somebody else's making is refused: edit that.""",
        (("pyrun node apply -f web.yaml", "a pod that comes, or is another from now on"),),
        {"0": "it was done", "1": "it has faults, or nobody answers"},
    ),
    "node delete": Text(
        """Removes the file that has an object and nothing else, and waits until a pod has ended.""",
        (
            ("pyrun node delete pod web", "one pod"),
            ("pyrun node delete -f web.yaml", "what a file has"),
            ("pyrun node delete pod web --grace-period 0", "at once"),
        ),
        {"0": "it is gone", "1": "there is no such object, or nobody answers"},
    ),
    "node gc": Text(
        """Removes images as a kubelet does: the longest unused first, until the disk is at the low threshold. None goes
that a container has, that a pod of this node names, that is pinned or that has just come.""",
        (("pyrun node gc --dry-run", "what would go, and why the others stay"), ("pyrun node gc", "now")),
        {"0": "it is done, or nothing was to be done", "1": "nobody answers"},
    ),
    "node retry": Text(
        """Ends the back-offs of a pod: what failed (an image, a container) is tried again now.""",
        (("pyrun node retry web", "when the reason has been mended"),),
        {"0": "it is tried", "1": "there is no such pod, or nobody answers"},
    ),
    "node drain": Text(
        """In a cluster: cordons the node, and evicts its pods by the Eviction API, by the node's own credentials; a
budget (PodDisruptionBudget) that keeps one is waited for. Pods of DaemonSets and of files stay. Pods that would be
lost, as no controller makes them anew or as they have emptyDir volumes, are named, and nothing is evicted without the
option that allows it.

Without one: the pods of the manifests end, critical ones last, and none starts until `pyrun node uncordon`, over
restarts of the agent too.""",
        (("pyrun node drain --timeout 300", "before an upgrade of this machine"),),
        {"0": "all that can go have gone", "1": "some are still there, or would be lost; stderr names them"},
        ("https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/",),
    ),
    "node uncordon": Text(
        """Ends what `pyrun node drain` began: this node may be chosen for pods again, and pods of manifests start.""",
        (("pyrun node uncordon", "after the upgrade"),),
        {"0": "it takes pods", "1": "nobody answers, or the API server refuses"},
    ),
    "node status": Text(
        """Prints the node's name, how many pods it has, and what is wrong with its manifests.""",
        (("pyrun node status", "for a person"), ("pyrun node status --format json", "for tools")),
        {"0": "all is well", "1": "manifests have faults, or nobody answers"},
    ),
    "node validate": Text(
        """Reads files of Kubernetes objects, YAML or JSON, and prints all that is wrong with them at once, each with
file, line, column and field: syntax, fields that do not exist, values that Kubernetes refuses, and what this node does
not have. A field is never ignored.""",
        (
            ("pyrun node validate pod.yaml", "one file"),
            ("pyrun node validate --format json /etc/pyrun/manifests/*.yaml", "for tools"),
        ),
        {"0": "no faults", "1": "faults, on stdout"},
        ("https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/",),
    ),
    "node explain": Text(
        """Prints for each pod of a file what this node would do: whether it fits, which images it takes, its cgroups
with their limits, volumes and where they are mounted, in which order containers start and end, and what is probed. Each
line has the place in the file that asks for it.""",
        (
            ("pyrun node explain pod.yaml", "on this machine"),
            ("pyrun node explain --cpu 4000 --memory 16G pod.yaml", "on a node of that size"),
        ),
    ),
}
