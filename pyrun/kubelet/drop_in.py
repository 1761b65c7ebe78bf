"""What a kubelet's flags and its KubeletConfiguration come to here: options of `pyrun node run`. Pure.

Each field of kubelet.config.k8s.io/v1beta1 (1.37) has a rule. Some are an option of ours; some have an effect here only
with the values that are listed, and any other is refused by name; and some set the pace of what a kubelet does and
pyrun does otherwise: any value of these is taken, with a warning where it isn't the kubelet's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError, InvalidArgument

VERSION, KIND = "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")


@dataclass(frozen=True, slots=True)
class Becomes:
    """This option. A list has it once for each member, and what is empty is left to the option's default."""

    option: str
    word: Callable[[Any], str | Sequence[str]] = str


@dataclass(frozen=True, slots=True)
class Only:
    """Nothing else than these has an effect here."""

    values: tuple[Any, ...]
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Idle:
    """Its default, and why it does nothing here."""

    default: Any
    why: str


@dataclass(slots=True)
class DropIn:
    """options: words for `pyrun node run`. warnings: what has no effect, a line each."""

    options: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def seconds(value: Any) -> float:
    """Of a metav1.Duration such as `1m30s`. ValueError where it is none."""
    if value in ("0", 0):
        return 0.0
    if not isinstance(value, str) or not _DURATION.sub("", value) == "" or not value:
        raise ValueError("a duration such as 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(value))


def _whole_seconds(value: Any) -> str:
    found = seconds(value)
    if found != int(found):
        raise ValueError("whole seconds")
    return str(int(found))


def _flag(value: Any) -> str:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return str(value).lower()


def _headers(value: Any) -> list[str]:
    if not isinstance(value, dict) or not all(isinstance(one, list) for one in value.values()):
        raise ValueError("a mapping of headers to lists of values")
    return [f"{name}: {one}" for name, values in value.items() for one in values]


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a number")
    return str(value)


def _verification(value: Any) -> str:
    if value not in ("NeverVerifyPreloadedImages", "NeverVerify", "AlwaysVerify"):
        raise ValueError("NeverVerifyPreloadedImages, NeverVerify or AlwaysVerify")
    return str(value)


def _size(value: Any) -> str:
    """`10Mi` is pyrun's `10M`; a bare number is bytes."""
    found = re.fullmatch(r"(\d+)(?:([KMGT])i)?", str(value))
    if found is None:
        raise ValueError("bytes such as 10Mi")
    return found[1] + (found[2] or "")


def _signals(sign: str, word: Callable[[Any], str] = str) -> Callable[[Any], str]:
    """A mapping as an option of ours has it: SIGNAL<VALUE,…"""

    def written(value: Any) -> str:
        if not isinstance(value, dict):
            raise ValueError("a mapping of signals")
        return ",".join(f"{name}{sign}{word(one)}" for name, one in value.items())

    return written


WATCHED = "files and the API server are watched, and nothing is looked at by turns"
NO_LIMIT = "there is no such limit here"
SUPERVISOR = "whoever starts pyrun sets that, such as a systemd unit"
NO_IPTABLES = "pyrun makes no iptables rules"

Rule = Becomes | Only | Idle
FIELDS: dict[str, Rule] = {
    "enableServer": Only((True,)),
    "staticPodPath": Becomes("manifests"),
    "podLogsDir": Becomes("logs"),
    "syncFrequency": Idle("1m", WATCHED),
    "fileCheckFrequency": Idle("20s", WATCHED),
    "httpCheckFrequency": Becomes("http-check-frequency", _whole_seconds),
    "staticPodURL": Becomes("manifest-url"),
    "staticPodURLHeader": Becomes("manifest-url-header", _headers),
    "address": Becomes("address"),
    "port": Becomes("port", _number),
    "readOnlyPort": Becomes("read-only-port", _number),
    "tlsCertFile": Becomes("tls-cert-file"),
    "tlsPrivateKeyFile": Becomes("tls-private-key-file"),
    "tlsCipherSuites": Only(([],)),
    "tlsCurvePreferences": Only(([],)),
    "tlsMinVersion": Only(("", "VersionTLS12")),
    "rotateCertificates": Idle(False, "what `pyrun node join` got is renewed, and no kubeconfig of somebody else's"),
    "serverTLSBootstrap": Becomes("rotate-server-certificates", _flag),
    "authentication.anonymous.enabled": Becomes("anonymous-auth", _flag),
    "authentication.webhook.enabled": Only((True,)),
    "authentication.webhook.cacheTTL": Only(("2m",)),
    "authentication.x509.clientCAFile": Becomes("client-ca-file"),
    "authorization.mode": Becomes("authorization-mode"),
    "authorization.webhook.cacheAuthorizedTTL": Only(("5m",)),
    "authorization.webhook.cacheUnauthorizedTTL": Only(("30s",)),
    "registryPullQPS": Idle(5, NO_LIMIT),
    "registryBurst": Idle(10, NO_LIMIT),
    "imagePullCredentialsVerificationPolicy": Becomes("verify-image-credentials", _verification),
    "preloadedImagesVerificationAllowlist": Only(([],)),
    "eventRecordQPS": Idle(50, NO_LIMIT),
    "eventBurst": Idle(100, NO_LIMIT),
    "enableDebuggingHandlers": Only((True,)),
    "enableContentionProfiling": Idle(False, "profiles are not served"),
    "healthzPort": Becomes("healthz-port", _number),
    "healthzBindAddress": Only(("127.0.0.1",)),
    "oomScoreAdj": Idle(-999, SUPERVISOR),
    "clusterDomain": Becomes("cluster-domain"),
    "clusterDNS": Becomes("cluster-dns"),
    "streamingConnectionIdleTimeout": Only(("4h",)),
    "nodeStatusUpdateFrequency": Idle("10s", "a node's status is sent when it changes"),
    "nodeStatusReportFrequency": Idle("5m", "a node's status is sent when it changes"),
    "nodeLeaseDurationSeconds": Only((40,)),
    "imageMinimumGCAge": Becomes("minimum-image-ttl", _whole_seconds),
    "imageMaximumGCAge": Becomes("maximum-image-ttl", _whole_seconds),
    "imageGCHighThresholdPercent": Becomes("image-gc-high-threshold", _number),
    "imageGCLowThresholdPercent": Becomes("image-gc-low-threshold", _number),
    "volumeStatsAggPeriod": Idle("1m", "volumes are measured when somebody asks"),
    "kubeletCgroups": Idle("", SUPERVISOR),
    "systemCgroups": Idle("", SUPERVISOR),
    "cgroupRoot": Only(("", "/")),
    "cgroupsPerQOS": Only((True,)),
    "cgroupDriver": Idle("cgroupfs", "the runtime's counts, as with a kubelet whose runtime says which it has"),
    "cpuManagerPolicy": Only(("", "none", "None")),
    "singleProcessOOMKill": Only((False,)),
    "cpuManagerPolicyOptions": Only(({},)),
    "cpuManagerReconcilePeriod": Idle("10s", "processors are not handed out"),
    "memoryManagerPolicy": Only(("", "none", "None")),
    "topologyManagerPolicy": Only(("", "none", "None")),
    "topologyManagerScope": Only(("", "container")),
    "topologyManagerPolicyOptions": Only(({},)),
    "qosReserved": Only(({},)),
    "runtimeRequestTimeout": Idle("2m", "the runtime is in this process"),
    "hairpinMode": Idle("promiscuous-bridge", "kubelets have not used it for years"),
    "maxPods": Becomes("max-pods", _number),
    "podCIDR": Idle("", "pod_cidrs of pyrun.toml, or a CNI plug-in, say which addresses pods get"),
    "podPidsLimit": Only((-1,)),
    "resolvConf": Only(("", "/etc/resolv.conf")),
    "runOnce": Only((False,)),
    "cpuCFSQuota": Only((True,)),
    "cpuCFSQuotaPeriod": Only(("100ms",)),
    "nodeStatusMaxImages": Only((50,)),
    "maxOpenFiles": Idle(1000000, SUPERVISOR),
    "contentType": Idle("application/vnd.kubernetes.protobuf", "the API server is spoken to in JSON"),
    "kubeAPIQPS": Idle(50, NO_LIMIT),
    "kubeAPIBurst": Idle(100, NO_LIMIT),
    "serializeImagePulls": Idle(True, "images are pulled beside each other"),
    "maxParallelImagePulls": Only(()),
    "evictionHard": Becomes("eviction-hard", _signals("<")),
    "evictionSoft": Becomes("eviction-soft", _signals("<")),
    "evictionSoftGracePeriod": Becomes("eviction-soft-grace-period", _signals("=", _whole_seconds)),
    "evictionPressureTransitionPeriod": Becomes("eviction-pressure-transition-period", _whole_seconds),
    "evictionMaxPodGracePeriod": Becomes("eviction-max-pod-grace-period", _number),
    "evictionMinimumReclaim": Becomes("eviction-minimum-reclaim", _signals("=")),
    "mergeDefaultEvictionSettings": Only((False,)),
    "podsPerCore": Only((0,)),
    "enableControllerAttachDetach": Only((True,)),
    "protectKernelDefaults": Only((False,)),
    "makeIPTablesUtilChains": Idle(True, NO_IPTABLES),
    "iptablesMasqueradeBit": Idle(14, NO_IPTABLES),
    "iptablesDropBit": Idle(15, NO_IPTABLES),
    "featureGates": Idle({}, "a kubelet's feature gates are not pyrun's"),
    "failSwapOn": Becomes("fail-swap-on", _flag),
    "memorySwap": Only(({}, {"swapBehavior": ""}, {"swapBehavior": "NoSwap"})),
    "containerLogMaxSize": Becomes("container-log-max-size", _size),
    "containerLogMaxFiles": Becomes("container-log-max-files", _number),
    "containerLogMaxWorkers": Idle(1, "logs are set aside as they grow"),
    "containerLogMonitorInterval": Idle("10s", "logs are set aside as they grow"),
    "configMapAndSecretChangeDetectionStrategy": Only(("", "Watch")),
    "systemReserved": Only(({},)),
    "kubeReserved": Only(({},)),
    "reservedSystemCPUs": Only(("",)),
    "showHiddenMetricsForVersion": Only(("",)),
    "systemReservedCgroup": Only(("",)),
    "kubeReservedCgroup": Only(("",)),
    "enforceNodeAllocatable": Only((["pods"], ["none"], [])),
    "allowedUnsafeSysctls": Becomes("allowed-unsafe-sysctls"),
    "defaultPodSysctls": Only(({},)),
    "volumePluginDir": Idle(
        "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/", "a pod with a flexVolume is refused"
    ),
    "providerID": Only(("",)),
    "kernelMemcgNotification": Idle(False, "the kernel tells of stalls for memory"),
    "logging": Idle({}, "what pyrun says goes to its standard error, as it is"),
    "enableSystemLogHandler": Idle(True, "the node's own log files are not served"),
    "enableSystemLogQuery": Only((False,)),
    "shutdownGracePeriod": Becomes("shutdown-grace-period", _whole_seconds),
    "shutdownGracePeriodCriticalPods": Becomes("shutdown-grace-period-critical-pods", _whole_seconds),
    "shutdownGracePeriodByPodPriority": Only(([],)),
    "crashLoopBackOff.maxContainerRestartPeriod": Becomes("max-restart-period", _whole_seconds),
    "reservedMemory": Only(([],)),
    "enableProfilingHandler": Idle(True, "profiles are not served"),
    "enableDebugFlagsHandler": Idle(True, "profiles are not served"),
    "seccompDefault": Only((False,), "default_seccomp = true in pyrun.toml does it"),
    "memoryThrottlingFactor": Only(()),
    "memoryReservationPolicy": Only(("", "None")),
    "registerWithTaints": Only(([],)),
    "registerNode": Only((True,)),
    "tracing": Only(()),
    "localStorageCapacityIsolation": Only((True,)),
    "containerRuntimeEndpoint": Becomes("listen"),
    "imageServiceEndpoint": Becomes("image-service-endpoint"),
    "failCgroupV1": Idle(True, "cgroup v1 is refused"),
    "userNamespaces": Only(({},)),
}
# Of which 0 is no value: a kubelet takes its default (SetDefaults_KubeletConfiguration), and kubeadm writes most so.
ZERO_IS_DEFAULT = frozenset((
    "syncFrequency", "fileCheckFrequency", "httpCheckFrequency", "port", "authentication.webhook.cacheTTL",
    "authorization.webhook.cacheAuthorizedTTL", "authorization.webhook.cacheUnauthorizedTTL", "registryBurst",
    "eventBurst", "streamingConnectionIdleTimeout", "nodeStatusUpdateFrequency", "nodeStatusReportFrequency",
    "nodeLeaseDurationSeconds", "imageMinimumGCAge", "volumeStatsAggPeriod", "cpuManagerReconcilePeriod",
    "runtimeRequestTimeout", "maxPods", "maxOpenFiles", "kubeAPIBurst", "evictionPressureTransitionPeriod",
))  # fmt: skip
# Of which a value may be a secret.
UNTOLD = ("staticPodURLHeader",)
# What has fields of its own, each with a rule.
_OUTER = {name.rpartition(".")[0] for name in FIELDS if "." in name} | {"authentication", "authorization"}


def merge(configurations: list[Mapping[str, Any]]) -> dict[str, Any]:
    """As a kubelet merges its file and the drop-ins of --config-dir: mappings by key, anything else as a whole."""
    found: dict[str, Any] = {}
    for one in configurations:
        for key, value in one.items():
            before = found.get(key)
            both = isinstance(before, dict) and isinstance(value, dict)
            found[key] = merge([before, value]) if both else value  # type: ignore[list-item]
    return found


def plan_drop_in(
    configuration: Mapping[str, Any], flags: Mapping[str, Any], place: Callable[[str], str] = str
) -> DropIn:
    """configuration: of the merged files; flags: option of `node run` → its value or values, which overrule; place: of
    a field's JSON pointer in the files. ConfigError names all fields that can't be had."""
    made, faults = DropIn(), []
    wanted: dict[str, list[str]] = {}
    everybody = _inner(configuration, "authorization.mode") == "AlwaysAllow"
    for name, value in _leaves(configuration, ""):
        try:
            rule = FIELDS.get(name)
            if name in ("apiVersion", "kind"):
                _check(value == (VERSION if name == "apiVersion" else KIND), f"must be {VERSION} and {KIND}")
            elif rule is None:
                raise ValueError(f"a field of {VERSION}")
            elif name == "authentication.webhook.enabled" and everybody:
                continue  # who has no token may do all that one who has may
            elif name in ZERO_IS_DEFAULT and _is_zero(value):
                continue
            elif isinstance(rule, Becomes):
                values = value if isinstance(value, list) else [value]
                words: list[str] = []
                for one in values:
                    if one not in ("", None):
                        word = rule.word(one)
                        words += [word] if isinstance(word, str) else word
                wanted[rule.option] = words
            elif isinstance(rule, Only):
                _check(value is None or any(_same(value, one) for one in rule.values), _words(rule))
            elif value is not None and not _same(value, rule.default) and value != {}:
                made.warnings.append(f"{name}: has no effect: {rule.why}")
        except ValueError as error:
            told = "what it has" if name in UNTOLD else repr(value)
            faults.append((place("/" + name.replace(".", "/")), f"{told} is not {error}"))
    if faults:
        raise ConfigError(faults, file=KIND)
    for option, given in flags.items():
        wanted[option] = [str(one) for one in given] if isinstance(given, (list, tuple)) else [str(given)]
    images = wanted.pop("image-service-endpoint", [])
    if images and images != wanted.get("listen"):
        raise InvalidArgument("imageServiceEndpoint: must be containerRuntimeEndpoint: one socket serves both")
    for option, found in wanted.items():
        made.options += [f"--{option}={one}" for one in found]
    return made


def _leaves(value: Mapping[str, Any], above: str) -> list[tuple[str, Any]]:
    found = []
    for key, inner in value.items():
        name = f"{above}{key}"
        found += _leaves(inner, f"{name}.") if name in _OUTER and isinstance(inner, dict) else [(name, inner)]
    return found


def _inner(value: Any, name: str) -> Any:
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _same(value: Any, one: Any) -> bool:
    """Durations are the same where they last as long."""
    if type(value) is type(one) and value == one:
        return True
    try:
        return isinstance(one, str) and one != "" and seconds(value) == seconds(one)
    except ValueError:
        return False


def _is_zero(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and seconds(value) == 0
    except ValueError:
        return False


def _words(rule: Only) -> str:
    told = " or ".join(repr(value) for value in rule.values) or "left out"
    return f"{told}: nothing else is supported" + (f"; {rule.instead}" if rule.instead else "")


def _check(right: bool, wanted: str) -> None:
    if not right:
        raise ValueError(wanted)
