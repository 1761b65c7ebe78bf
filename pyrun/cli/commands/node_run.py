"""`pyrun node run`: the node agent beside the container runtime, in one process."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import NamedTuple

from pyrun.cli.commands import cri, node_validate
from pyrun.cli.commands.proxy_run import outward
from pyrun.cli.commands.proxy_trace import many
from pyrun.cli.node_config import as_file, settle, shown
from pyrun.cli.output import write
from pyrun.cli.table_node import NODE_RUN
from pyrun.errors import InvalidArgument, PyrunError
from pyrun.listen import private_directory, socket_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.image.garbage import Policy
    from pyrun.node.agent.agent import Settings
    from pyrun.node.agent.evictor import Eviction
    from pyrun.node.agent.serve import Beside
    from pyrun.node.agent.url_source import Url
    from pyrun.node.join.credentials import Credentials
    from pyrun.node.server.membership import Joining
    from pyrun.node.services.services import Serving
    from pyrun.node.shutdown import Shutdown


def run(g: Globals, o: Options) -> int:
    if g.root_given and "root" not in o.given:  # before the verb it is the same option
        o.__dict__.update(root=g.root, given=o.given | {"root"})
    chosen = settle(o, NODE_RUN.options)
    if o.explain:
        write(as_file(o.config, chosen))
        return 0
    try:
        from pyrun.cri.daemon import Places, serve
        from pyrun.node.agent.agent import LOGS, MANIFESTS, Settings
        from pyrun.node.agent.serve import running
        from pyrun.node.agent.streams import SOCKET
    except ModuleNotFoundError as error:
        found = cri.missing_package(error)
        raise node_validate.missing_package(error) if found is error else found
    if os.geteuid() != 0:
        raise PyrunError("pyrun node run needs root", hint="sudo pyrun node run, or a systemd unit")
    if not 1 <= o.max_restart_period <= 300:
        raise InvalidArgument(f"--max-restart-period {o.max_restart_period}: must be 1 to 300 seconds")
    if o.max_pods < 1:
        raise InvalidArgument(f"--max-pods {o.max_pods}: must be 1 or more")
    if o.container_log_max_files < 2:
        raise InvalidArgument(f"--container-log-max-files {o.container_log_max_files}: must be 2 or more")
    log_bytes = 10 << 20 if o.container_log_max_size is None else o.container_log_max_size
    if log_bytes < 4096:
        raise InvalidArgument("--container-log-max-size: must be 4096 bytes or more")
    if o.fail_swap_on and (swaps := _swaps()):
        raise PyrunError(f"there is swap on {', '.join(swaps)}", hint="swapoff, or leave --fail-swap-on out")
    serving = _serving(o, o.state or cri.STATE)
    root, state = o.root or cri.ROOT, o.state or cri.STATE
    socket_in(os.path.abspath(state), SOCKET)
    given = _credentials(o, root)
    settings = Settings(
        manifests=o.manifests or MANIFESTS,
        name=given.name,
        logs=o.logs or LOGS,
        addresses=_addresses(o.node_ip, "--node-ip") or tuple(outward()),
        cluster_dns=_addresses(o.cluster_dns, "--cluster-dns") or (serving.dns if serving else ()),
        cluster_domain=o.cluster_domain or "cluster.local",
        longest_back_off=float(o.max_restart_period),
        pods=o.max_pods,
        sysctls=o.allowed_unsafe_sysctls,
        log_bytes=log_bytes,
        log_files=o.container_log_max_files,
        images=_image_policy(o),
        verify_images=o.verify_image_credentials,
        eviction=_eviction(o),
        shutdown=_shutdown(o),
        url=_url(o),
        configured=shown(chosen),
    )
    joining = _joining(o, given)
    with given.held(), _kubelet(root, settings, o, given, g.warn) as beside:
        places = Places(root, state, o.listen)
        return serve(places, o.config, g.warn, lambda made: running(made, settings, g.warn, joining, serving, beside))


class Given(NamedTuple):
    """name: the node's; "" for the host's. credentials: those of `pyrun node join`, where they are used."""

    name: str
    kubeconfig: str | None = None
    client_ca: str | None = None
    credentials: Credentials | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No join changes them meanwhile."""
        if self.credentials is None:
            yield
            return
        from pyrun.listen import only_one

        with only_one(self.credentials.directory, "pyrun node", "--root"):
            yield


def _credentials(o: Options, root: str) -> Given:
    """What is given, else what `pyrun node join` has left."""
    name, authority = o.node_name or "", o.client_ca_file
    if o.kubeconfig is not None:
        return Given(name, o.kubeconfig, authority)
    from pyrun.node.join.credentials import Credentials, directory_of

    found = Credentials(directory_of(os.path.abspath(root)))
    if not found.there():
        return Given(name, None, authority)
    joined = found.node()
    if name not in ("", joined):
        raise InvalidArgument(
            f"--node-name {name}: this node has joined as {joined}",
            hint=f"rm -r {found.directory}, and pyrun node join --node-name {name}",
        )
    return Given(joined, found.kubeconfig, authority or found.authorities, found)


@contextlib.contextmanager
def _kubelet(
    root: str, settings: Settings, o: Options, given: Given, warn: Callable[[str], None]
) -> Iterator[Beside | None]:
    """What serves the kubelet's API beside the agent, where authorities are named: its process is forked here, before
    there is a thread."""
    if not _has_kubelet(o, given):
        yield None
        return
    from pyrun.kubelet.serve import answering
    from pyrun.kubelet.start import Wanted, open_door

    if bool(o.tls_cert_file) != bool(o.tls_private_key_file):
        raise InvalidArgument("--tls-cert-file and --tls-private-key-file: both or none")
    if o.rotate_server_certificates and (o.tls_cert_file or not given.kubeconfig):
        raise InvalidArgument("--rotate-server-certificates: needs --kubeconfig, and no --tls-cert-file")
    ports = (("--port", o.port, 1), ("--healthz-port", o.healthz_port, 0), ("--read-only-port", o.read_only_port, 0))
    for option, port, least in ports:
        if not least <= port <= 65535:
            raise InvalidArgument(f"{option} {port}: must be {least} to 65535")
    wanted = Wanted(
        f"{root}/kubelet",
        settings.name or socket.gethostname().lower(),
        settings.addresses,
        o.address or "0.0.0.0",
        o.port,
        o.healthz_port,
        given.client_ca,
        (o.tls_cert_file, o.tls_private_key_file) if o.tls_cert_file else None,
        o.web_user or "nobody",
        o.read_only_port,
        o.anonymous_auth,
        o.authorization_mode == "AlwaysAllow",
        bool(given.credentials or o.rotate_server_certificates),
    )
    if wanted.anonymous and wanted.always_allow:
        warn("whoever reaches the kubelet's port runs commands in every pod: --anonymous-auth, AlwaysAllow")
    private_directory(os.path.abspath(root))
    door = open_door(wanted)
    try:
        yield lambda agent: answering(agent, door, wanted, given.kubeconfig, warn)
    finally:
        door.close()


def _has_kubelet(o: Options, given: Given) -> bool:
    """Whether anybody could be let in there."""
    return bool(given.client_ca or o.anonymous_auth or o.read_only_port)


def _image_policy(o: Options) -> Policy:
    from pyrun.image.garbage import Policy

    high, low = o.image_gc_high_threshold, o.image_gc_low_threshold
    if not 0 <= low <= high <= 100:
        raise InvalidArgument(
            f"--image-gc-low-threshold {low}, --image-gc-high-threshold {high}: must be 0 to 100, the low one not above"
        )
    if o.maximum_image_ttl and o.maximum_image_ttl <= o.minimum_image_ttl:
        raise InvalidArgument(f"--maximum-image-ttl {o.maximum_image_ttl}: must be more than --minimum-image-ttl")
    return Policy(high, low, float(o.minimum_image_ttl), float(o.maximum_image_ttl))


def _url(o: Options) -> Url | None:
    from pyrun.node.agent.url_source import parse_url

    if o.manifest_url:
        return parse_url(o.manifest_url, o.manifest_url_header, o.http_check_frequency, o.manifest_url_ca_file)
    if o.manifest_url_header or o.manifest_url_ca_file:
        raise InvalidArgument("--manifest-url-header and --manifest-url-ca-file: need --manifest-url")
    return None


def _shutdown(o: Options) -> Shutdown:
    from pyrun.node.shutdown import Shutdown

    grace, critical = o.shutdown_grace_period, o.shutdown_grace_period_critical_pods
    if not 0 <= critical <= grace:
        raise InvalidArgument(
            f"--shutdown-grace-period-critical-pods {critical}: must be 0 to --shutdown-grace-period, {grace}"
        )
    if o.shutdown_on_term and not grace:
        raise InvalidArgument("--shutdown-on-term: needs --shutdown-grace-period")
    return Shutdown(float(grace), float(critical), o.shutdown_on_term)


def _eviction(o: Options) -> Eviction:
    from pyrun.node.agent.evictor import Eviction
    from pyrun.node.eviction.thresholds import HARD, parse_thresholds

    thresholds = parse_thresholds(
        o.eviction_hard or [HARD], o.eviction_soft, o.eviction_soft_grace_period, o.eviction_minimum_reclaim
    )
    return Eviction(thresholds, float(o.eviction_pressure_transition_period), float(o.eviction_max_pod_grace_period))


def _joining(o: Options, given: Given) -> Joining | None:
    if given.kubeconfig is None:
        if o.node_labels:
            raise InvalidArgument("--node-labels are of the API server's Node: they need --kubeconfig")
        return None
    from pyrun.kube.kubeconfig import load_kubeconfig
    from pyrun.node.server.membership import Joining

    labels: dict[str, str] = {}
    for word in (part for given in o.node_labels for part in given.split(",") if part):
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise InvalidArgument(f"--node-labels {word!r}: must be KEY=VALUE")
        labels[key] = value
    port = o.port if _has_kubelet(o, given) else 0
    path = os.path.abspath(given.kubeconfig)
    return Joining(load_kubeconfig(path), labels, port, given.credentials, path)


def _serving(o: Options, state: str) -> Serving | None:
    if not o.service_cidr:
        return None
    from pyrun.kube.addresses import any_holds, parse_address, parse_prefix
    from pyrun.node.services.services import Serving, dns_address

    cidrs = tuple(part for word in o.service_cidr for part in word.split(",") if part)
    ranges = many(cidrs, parse_prefix, "--service-cidr")
    wanted = _addresses(o.cluster_dns, "--cluster-dns") or (dns_address(cidrs[0]),)
    ours = tuple(text for text in wanted if any_holds(ranges, parse_address(text)))
    domain = o.cluster_domain or "cluster.local"
    return Serving(cidrs, os.path.abspath(state), o.proxy_mode, ours, domain, autopath=o.dns_autopath)


def _swaps() -> list[str]:
    """proc_swaps(5)"""
    with open("/proc/swaps") as file:
        return [line.split()[0] for line in file.readlines()[1:]]


def _addresses(words: tuple[str, ...], option: str) -> tuple[str, ...]:
    from pyrun.kube.addresses import parse_address

    many(words, parse_address, option)
    return tuple(part for word in words for part in word.split(",") if part)
