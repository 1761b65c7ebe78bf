"""From objects as sources tell them to changes of the rules, and what is counted of the rules."""

from __future__ import annotations

from typing import Any

from pyrun.kube.addresses import parse_address, parse_prefix
from pyrun.kube.feed.store import Held, Key, Told, key_of
from pyrun.proxy.follow import Follower
from pyrun.proxy.messages import Counters, FrontendCounters, State
from pyrun.proxy.metrics import Metrics, no_local_endpoints
from pyrun.proxy.model import Node, Options
from pyrun.proxy.rules import Rules
from tests.support.promtool import check_metrics

OWN = "192.168.0.2"
NODE = Node("n1", (parse_address(OWN),), pod_cidrs=(parse_prefix("10.0.0.0/8"),))


def told(*values: dict[str, Any]) -> dict[Key, Held | None]:
    return {key_of(value): Told(value, "here") for value in values}


def service(name: str, address: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, **spec.pop("port", {})}]
    return {"kind": "Service", "metadata": {"name": name}, "spec": {"clusterIP": address, "ports": ports, **spec}}


def slice_of(name: str, address: str, node: str) -> dict[str, Any]:
    target = {"kind": "Pod", "namespace": "default", "name": f"{name}-0"}
    return {
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address], "nodeName": node, "targetRef": target}],
    }


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": "n1", **spec}}


def endpoints(rules: Rules) -> list[bytes]:
    return [endpoint.address for one in rules.sets for endpoint in one.endpoints]


def test_who_knows_the_pods_takes_no_slice_s_word_for_it() -> None:
    """CVE-2021-25740: a slice that says of the node's address that a pod has it."""
    objects = told(service("web", "172.16.0.1"), slice_of("web", OWN, "n1"))
    trusting = Follower(NODE, Options())
    trusting.update(objects)
    assert endpoints(trusting.planner.rules()) == [NODE.addresses[0]]
    knowing = Follower(NODE, Options(), knows_pods=True)
    knowing.update(objects)
    assert not endpoints(knowing.planner.rules()) and knowing.planner.rules().refused
    for right, value in (
        (False, pod("web-0")),
        (False, pod("other", hostNetwork=True)),
        (False, pod("web-0", hostNetwork=True, nodeName="n2")),
        (True, pod("web-0", hostNetwork=True)),
    ):
        changes = knowing.update(told(value))
        assert bool(changes) == bool(endpoints(knowing.planner.rules())) == right
    assert knowing.update({("Pod", "default", "web-0"): None})
    assert not endpoints(knowing.planner.rules())


def test_services_of_policy_local_without_an_endpoint_here_are_counted() -> None:
    follower = Follower(NODE, Options())
    local = {"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "type": "NodePort"}
    follower.update(
        told(
            *(service("both", "172.16.0.1", port={"nodePort": 30001}, **local), slice_of("both", "10.0.0.1", "n2")),
            *(service("near", "172.16.0.2", port={"nodePort": 30002}, **local), slice_of("near", "10.0.0.2", "n1")),
            *(service("in", "172.16.0.3", internalTrafficPolicy="Local"), slice_of("in", "10.0.0.3", "n2")),
            service("none", "172.16.0.4", **local),
        )
    )
    rules = follower.planner.rules()
    assert no_local_endpoints(rules) == {"internal": 2, "external": 1}
    text = Metrics().render(rules, None, None)
    assert 'kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal"} 2\n' in text
    counted = [FrontendCounters(f.address, f.port, f.protocol, *range(8)) for f in rules.frontends]
    metrics = Metrics()
    metrics.count_answer("healthz", 200)
    whole = metrics.render(rules, Counters(tuple(counted), ()), State(*range(11)))
    assert 'pyrun_proxy_sent_bytes_total{service="default/both:http ' in whole
    check_metrics("proxy", whole)
