"""What a kubelet's flags and configuration come to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyrun.cli.options import CHOICE, FLAG, NUMBER
from pyrun.cli.parse import parse
from pyrun.cli.table_node import NODE_RUN
from pyrun.errors import ConfigError, InvalidArgument
from pyrun.kubelet.drop_in import FIELDS, ZERO_IS_DEFAULT, Becomes, Idle, _whole_seconds, merge, plan_drop_in, seconds

# As kubelet 1.37 writes the defaults of its own down, in its /configz.
DEFAULTS: dict[str, Any] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "enableServer": True,
    "podLogsDir": "/var/log/pods",
    "syncFrequency": "1m0s",
    "fileCheckFrequency": "20s",
    "httpCheckFrequency": "20s",
    "address": "0.0.0.0",
    "port": 10250,
    "authentication": {"x509": {}, "webhook": {"enabled": True, "cacheTTL": "2m0s"}, "anonymous": {"enabled": False}},
    "authorization": {"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"}},
    "registryPullQPS": 5,
    "healthzPort": 10248,
    "healthzBindAddress": "127.0.0.1",
    "oomScoreAdj": -999,
    "streamingConnectionIdleTimeout": "4h0m0s",
    "nodeStatusUpdateFrequency": "10s",
    "nodeStatusReportFrequency": "5m0s",
    "nodeLeaseDurationSeconds": 40,
    "imageMinimumGCAge": "2m0s",
    "imageMaximumGCAge": "0s",
    "imageGCHighThresholdPercent": 85,
    "volumeStatsAggPeriod": "1m0s",
    "cgroupsPerQOS": True,
    "cgroupDriver": "cgroupfs",
    "cpuManagerPolicy": "none",
    "memoryManagerPolicy": "None",
    "topologyManagerPolicy": "none",
    "topologyManagerScope": "container",
    "maxPods": 110,
    "podPidsLimit": -1,
    "resolvConf": "/etc/resolv.conf",
    "cpuCFSQuotaPeriod": "100ms",
    "memorySwap": {},
    "containerLogMaxSize": "10Mi",
    "containerLogMaxFiles": 5,
    "enforceNodeAllocatable": ["pods"],
    "logging": {"format": "text", "flushFrequency": "5s", "verbosity": 0},
    "shutdownGracePeriod": "0s",
    "crashLoopBackOff": {"maxContainerRestartPeriod": "5m0s"},
    "containerRuntimeEndpoint": "unix:///run/pyrun-cri/cri.sock",
}


def options(configuration: dict[str, Any], **flags: Any) -> list[str]:
    return plan_drop_in(configuration, flags).options


def test_a_kubelets_own_defaults_are_taken() -> None:
    made = plan_drop_in(DEFAULTS, {})
    assert made.warnings == ["logging: has no effect: what pyrun says goes to its standard error, as it is"]
    read = parse(["node", "run", *made.options]).options
    assert (read.port, read.healthz_port, read.max_pods, read.max_restart_period) == (10250, 10248, 110, 300)
    assert (read.container_log_max_size, read.container_log_max_files) == (10 << 20, 5)
    assert (read.anonymous_auth, read.authorization_mode) == (False, "Webhook")
    assert (read.listen, read.logs) == ("unix:///run/pyrun-cri/cri.sock", "/var/log/pods")


@pytest.mark.parametrize("name", [name for name, rule in FIELDS.items() if isinstance(rule, Becomes)])
def test_each_option_is_there(name: str) -> None:
    rule = FIELDS[name]
    assert isinstance(rule, Becomes)
    if rule.option == "image-service-endpoint":
        return  # compared with the other
    (option,) = [one for one in NODE_RUN.options if one.name == rule.option]
    assert option.kind != FLAG or rule.word(True) == "true"
    assert option.kind != NUMBER or rule.word("5m" if rule.word is _whole_seconds else 7) in ("7", "300")
    words = {"authorization-mode": "AlwaysAllow", "verify-image-credentials": "AlwaysVerify"}
    assert option.kind != CHOICE or rule.word(words[rule.option]) in option.choices


def test_a_url_has_headers() -> None:
    given = {"staticPodURL": "https://h/", "staticPodURLHeader": {"A": ["b", "c"]}, "httpCheckFrequency": "1m"}
    words = ["--manifest-url=https://h/", "--manifest-url-header=A: b", "--manifest-url-header=A: c"]
    assert options(given) == [*words, "--http-check-frequency=60"]
    with pytest.raises(ConfigError, match="a mapping of headers to lists of values") as told:
        options({"staticPodURLHeader": {"Authorization": "Bearer secret"}})
    assert "secret" not in str(told.value)


def test_zeros_of_kubeadm_are_no_values() -> None:
    """As it writes /var/lib/kubelet/config.yaml, for a kubelet that puts its defaults in their place."""
    ttl = {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"}
    given = {
        "authentication": {"webhook": {"cacheTTL": "0s", "enabled": True}},
        "authorization": {"mode": "Webhook", "webhook": ttl},
        "staticPodURL": "https://h/",
    }
    names = (
        "cpuManagerReconcilePeriod", "evictionPressureTransitionPeriod", "fileCheckFrequency", "httpCheckFrequency",
        "imageMinimumGCAge", "nodeStatusReportFrequency", "nodeStatusUpdateFrequency", "runtimeRequestTimeout",
        "streamingConnectionIdleTimeout", "syncFrequency", "volumeStatsAggPeriod",
    )  # fmt: skip
    made = plan_drop_in({**given, **dict.fromkeys(names, "0s"), "imageMaximumGCAge": "0s"}, {})
    assert made.warnings == []
    assert made.options == ["--authorization-mode=Webhook", "--manifest-url=https://h/", "--maximum-image-ttl=0"]
    assert set(names) <= ZERO_IS_DEFAULT <= FIELDS.keys()
    with pytest.raises(ConfigError, match="healthzBindAddress"):  # of another type, 0 is what it says
        options({"healthzBindAddress": 0})


def test_faults_are_told_together_and_by_name() -> None:
    wrong = {
        "cpuManagerPolicy": "static",
        "maxPod": 3,
        "port": "10250",
        "authentication": {"x509": {"clientCaFile": "/ca"}},
        "memorySwap": {"swapBehavior": "LimitedSwap"},
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1.5s"},
        "seccompDefault": True,
        "imagePullCredentialsVerificationPolicy": "NeverVerifyAllowlistedImages",
    }
    with pytest.raises(ConfigError) as told:
        options(wrong)
    faults = dict(told.value.faults)
    assert list(faults) == [
        "/cpuManagerPolicy", "/maxPod", "/port", "/authentication/x509/clientCaFile", "/memorySwap",
        "/crashLoopBackOff/maxContainerRestartPeriod", "/seccompDefault", "/imagePullCredentialsVerificationPolicy",
    ]  # fmt: skip
    assert "'static' is not '' or 'none'" in faults["/cpuManagerPolicy"]
    assert "pyrun.toml" in faults["/seccompDefault"] and "whole seconds" in faults[list(faults)[5]]


@pytest.mark.parametrize("name", [name for name, rule in FIELDS.items() if isinstance(rule, Idle)])
def test_what_has_no_effect_says_so(name: str) -> None:
    rule = FIELDS[name]
    assert isinstance(rule, Idle)
    assert plan_drop_in({name: rule.default}, {}).warnings == []
    other = {"other": True} if isinstance(rule.default, dict) else "7h" if rule.default != "7h" else "1m"
    assert plan_drop_in({name: other}, {}).warnings == [f"{name}: has no effect: {rule.why}"]


def test_tokens_need_no_review_where_everybody_may() -> None:
    webhook = {"webhook": {"enabled": False}, "anonymous": {"enabled": True}}
    with pytest.raises(ConfigError, match="authentication/webhook/enabled"):
        options({"authentication": webhook})
    made = options({"authentication": webhook, "authorization": {"mode": "AlwaysAllow"}})
    assert made == ["--anonymous-auth=true", "--authorization-mode=AlwaysAllow"]


def test_flags_overrule_and_lists_are_repeated() -> None:
    dns = {"clusterDNS": ["10.0.0.10", "10.0.0.11"], "containerRuntimeEndpoint": "unix:///a"}
    assert options(dns, listen="unix:///b", **{"node-ip": ("192.0.2.1",)}) == [
        "--cluster-dns=10.0.0.10", "--cluster-dns=10.0.0.11", "--listen=unix:///b", "--node-ip=192.0.2.1",
    ]  # fmt: skip
    with pytest.raises(InvalidArgument, match="one socket serves both"):
        options(dns | {"imageServiceEndpoint": "unix:///c"})
    assert options(dns | {"imageServiceEndpoint": "unix:///a"}) == options(dns)


def test_drop_ins_are_merged_by_key() -> None:
    first = {"authentication": {"anonymous": {"enabled": True}}, "clusterDNS": ["10.0.0.1"], "port": 1}
    second = {"authentication": {"webhook": {"enabled": False}}, "clusterDNS": ["10.0.0.2"]}
    assert merge([first, second]) == {
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "clusterDNS": ["10.0.0.2"],
        "port": 1,
    }


@pytest.mark.parametrize(("text", "wanted"), [("1h2m3.5s", 3723.5), ("100ms", 0.1), ("0s", 0), ("0", 0), (".5m", 30)])
def test_durations(text: str, wanted: float) -> None:
    assert seconds(text) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "5", "5 s", "s", "1m-2s", None, True, 7])
def test_durations_that_are_none(text: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


def explain(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyrun", "kubelet", "--explain", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_files_are_named_by_line(tmp_path: Path) -> None:
    config, more = tmp_path / "kubelet.yaml", tmp_path / "d"
    more.mkdir()
    config.write_text("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 9\n")
    (more / "10.conf").write_text("maxPods: 12\nkubeAPIQPS: 7\nevictionHard: {memory.available: 1Gi}\n")
    (more / "not.yaml").write_text("maxPods: 99\n")
    good = explain("--config", str(config), "--config-dir", str(more), "--v=4", "--node-ip", "192.0.2.1")
    options = "--max-pods=12 '--eviction-hard=memory.available<1Gi' --node-ip=192.0.2.1"  # as a shell takes it
    assert good.stdout == f"pyrun node run {options}\n" and good.returncode == 0
    assert "kubeAPIQPS: has no effect" in good.stderr and "--v: has no effect" in good.stderr
    (more / "20.conf").write_text("podCIDR: ''\n\nmaxpods: 4\n")
    bad = explain("--config", str(config), "--config-dir", str(more))
    assert bad.returncode == 1 and f"{more}/20.conf:3: /maxpods: 4 is not a field" in bad.stderr
    for words in (("--config", "/nowhere"), ("--config-dir", "/nowhere")):
        missing = explain(*words)
        assert missing.returncode == 1 and f"{words[0]} /nowhere: no such file" in missing.stderr
    assert "--cpu-manager-policy" in explain("--cpu-manager-policy=static").stderr


def test_thresholds_of_eviction() -> None:
    given = {
        "evictionHard": {"memory.available": "250Mi", "nodefs.available": "10%"},
        "evictionSoft": {"memory.available": "1Gi"},
        "evictionSoftGracePeriod": {"memory.available": "1m30s"},
        "evictionMaxPodGracePeriod": 20,
        "evictionPressureTransitionPeriod": "1m",
    }
    assert options(given) == [
        "--eviction-hard=memory.available<250Mi,nodefs.available<10%",
        "--eviction-soft=memory.available<1Gi",
        "--eviction-soft-grace-period=memory.available=90",
        "--eviction-max-pod-grace-period=20",
        "--eviction-pressure-transition-period=60",
    ]
