"""What plan_proxy makes beside flows: refusals with their places, health checks, affinity, modes; and the trace and
explain commands with their errors."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.cli.main import main
from pyrun.kube.addresses import address_text, intersection, parse_address, parse_prefix, port_text, prefix_text
from pyrun.kube.manifest import load
from pyrun.proxy.forbid import forbidden_endpoint
from pyrun.proxy.model import EndpointSlice, Fault, Node, Objects, Options, SliceEndpoint
from pyrun.proxy.objects import read_objects, take
from pyrun.proxy.plan import Planner, plan_proxy
from pyrun.proxy.rules import FORWARD, HealthCheck, Rules
from tests.support.flows import BASE, FLOWS

NODE = Node(
    "n1",
    tuple([parse_address(text) for text in BASE["--node-ip"]]),
    pod_cidrs=tuple([parse_prefix(text) for text in BASE["--cluster-cidr"]]),
    service_cidrs=tuple([parse_prefix(text) for text in BASE["--service-cidr"]]),
)
WORDS = [word for name, values in BASE.items() for value in values for word in (name, value)]


def objects_of(text: str) -> Objects:
    return read_objects(load(text.encode(), "x.yaml"))


def rules_of(text: str, options: Options | None = None, node: Node = NODE) -> Rules:
    found = objects_of(text)
    assert not found.faults, [str(fault) for fault in found.faults]
    return plan_proxy(found.services.values(), found.slices.values(), node, options)


def service(spec: str, *, metadata: str = "name: web", status: str = "{}") -> str:
    return f"---\napiVersion: v1\nkind: Service\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\nstatus: {status}\n"


def slice_of(endpoints: str, *, name: str = "web", ports: str = "{port: 80}") -> str:
    return (
        f"---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, labels: "
        f"{{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{ports}]\nendpoints: [{endpoints}]\n"
    )


WEB = "clusterIP: 172.30.0.1, ports: [{port: 80}]"


# --- what is refused -------------------------------------------------------------------------------------------------

FORBIDDEN = {
    "127.0.0.1": "loopback",
    "::1": "loopback",
    "169.254.169.254": "link-local",
    "fe80::1": "link-local",
    "0.0.0.0": "no address of a host",
    "::": "no address of a host",
    "224.0.0.1": "multicast",
    "ff02::1": "multicast",
    "255.255.255.255": "broadcast",
    "172.30.0.9": "in the range of services, which would be a loop",
    "fd00:172:30::9": "in the range of services, which would be a loop",
    "192.168.0.2": "an address of this node, and of no pod that shares its network",
    "2001:db8::1": "an address of this node, and of no pod that shares its network",
}
# Neighbours of what is forbidden, and what may look like it.
ALLOWED = ["10.0.0.1", "126.255.255.255", "128.0.0.1", "169.253.0.1", "169.255.0.1", "223.255.255.255", "240.0.0.1"]
ALLOWED += ["1.0.0.0", "255.255.255.254", "172.31.0.1", "192.168.0.3", "::2", "fec0::1", "fe00::1", "fd00:10::1"]


def why_not(text: str, options: Options | None = None, **more: Any) -> str:
    endpoint = SliceEndpoint(parse_address(text), **more)
    owner = EndpointSlice("ns", "web-1", "x.yaml:1", "web", 6 if ":" in text else 4, endpoints=(endpoint,))
    return forbidden_endpoint(endpoint, owner, NODE, options or Options())


@pytest.mark.parametrize("address", FORBIDDEN)
def test_cve_2021_25740_and_25737_endpoints_that_lead_to_what_nobody_may_reach(address: str) -> None:
    assert why_not(address) == FORBIDDEN[address]


@pytest.mark.parametrize("address", ALLOWED)
def test_other_endpoints_are_taken(address: str) -> None:
    assert why_not(address) == ""


def test_the_nodes_own_address_is_for_pods_that_share_its_network() -> None:
    pod = ("ns", "web-0")
    assert not why_not("192.168.0.2", node="n1", pod=pod)
    assert why_not("192.168.0.2", node="n2", pod=pod)
    assert why_not("192.168.0.2", node="n1")
    assert not why_not("192.168.0.2", Options(host_pods=frozenset({pod})), node="n1", pod=pod)
    assert why_not("192.168.0.2", Options(host_pods=frozenset()), node="n1", pod=pod)


def test_refusals_name_the_object_and_the_pointer() -> None:
    text = service(
        "type: LoadBalancer, clusterIP: 172.30.0.1, externalIPs: [8.8.8.8, 192.168.0.2], ports: [{port: 80}]",
        status="{loadBalancer: {ingress: [{ip: 169.254.169.254}, {ip: 172.30.0.10}]}}",
    )
    rules = rules_of(text + slice_of("{addresses: [127.0.0.1]}, {addresses: [10.0.0.1]}"))
    assert {(refusal.subject, refusal.why, refusal.origin) for refusal in rules.refused} == {
        ("127.0.0.1", "loopback", "x.yaml:8 /endpoints/0/addresses/0"),
        ("169.254.169.254:80", "link-local", "x.yaml:2 /status/loadBalancer/ingress/0/ip"),
        ("172.30.0.10:80", "in the range of services", "x.yaml:2 /status/loadBalancer/ingress/1/ip"),
        ("8.8.8.8:80", "external IPs are not allowed", "x.yaml:2 /spec/externalIPs/0"),
        ("192.168.0.2:80", "external IPs are not allowed", "x.yaml:2 /spec/externalIPs/1"),
    }
    assert {address_text(one.address) for one in rules.frontends} == {"172.30.0.1"}


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("8.8.8.8", "not in what is allowed for external IPs (192.168.0.0/16, 172.30.0.0/16, 10.0.0.0/8)"),
        ("192.168.0.2", "an address of this node"),
        ("192.168.1.2", "an address of this node"),
        ("192.168.7.53", "the address of the cluster's DNS"),
        ("172.30.0.10", "in the range of services"),
        ("10.0.0.5", "in the range of pods"),
        ("192.168.7.7", ""),
    ],
)
def test_cve_2020_8554_external_ips_take_nothing_over(address: str, why: str) -> None:
    ranges = tuple([parse_prefix(text) for text in ("192.168.0.0/16", "172.30.0.0/16", "10.0.0.0/8")])
    options = Options(external_ips=ranges, dns=(parse_address("192.168.7.53"),))
    text = service(f"clusterIP: 172.30.0.1, externalIPs: [{address}], ports: [{{port: 80}}]")
    rules = rules_of(text + slice_of("{addresses: [10.0.0.1]}"), options)
    assert [refusal.why for refusal in rules.refused] == [why] * bool(why)
    assert (address in {address_text(one.address) for one in rules.frontends}) == (not why)


def test_what_two_services_want_goes_to_one_and_the_other_is_told() -> None:
    text = service(WEB, metadata="name: b") + service(WEB, metadata="name: a")
    rules = rules_of(text)
    assert [one.name for one in rules.frontends] == ["default/a:80 cluster"]
    (refusal,) = rules.refused
    assert refusal.subject == "172.30.0.1:80/tcp"
    assert refusal.why == "taken by default/a:80 cluster, x.yaml:8 /spec/ports/0"
    assert refusal.origin == "x.yaml:2 /spec/ports/0"


def test_the_loser_has_it_when_the_winner_is_gone() -> None:
    found = objects_of(service(WEB, metadata="name: b") + service(WEB, metadata="name: a"))
    planner = Planner(NODE, Options())
    planner.update(services=dict(found.services))
    change = planner.update(services={("default", "a"): None})
    assert [one.name for one in change.frontends_put] == ["default/b:80 cluster"]
    assert not change.frontends_gone and not change.allocated_gone
    change = planner.update(services={("default", "b"): None})
    assert len(change.frontends_gone) == len(change.allocated_gone) == 1
    assert planner.rules() == Rules(ranges=NODE.service_cidrs)


def test_a_service_without_an_address_is_told() -> None:
    (refusal,) = rules_of(service("ports: [{port: 80}]")).refused
    assert refusal.origin == "x.yaml:2 /spec/clusterIP"


# --- health, affinity, modes -----------------------------------------------------------------------------------------


def test_health_check_counts_ready_endpoints_on_this_node() -> None:
    spec = "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 4001, clusterIP: 172.30.0.1"
    some = (
        "{addresses: [10.0.0.1], nodeName: n1}, {addresses: [10.0.0.2], nodeName: n2}, "
        "{addresses: [10.0.0.3], nodeName: n1, conditions: {ready: false, serving: true, terminating: true}}, "
        "{addresses: [127.0.0.1], nodeName: n1}"
    )
    ports = "{name: a, port: 80}, {name: b, port: 81}"
    rules = rules_of(service(f"{spec}, ports: [{ports}]") + slice_of(some, ports=ports))
    assert rules.health == (HealthCheck(4001, "default", "web", 1),)
    for other in ("externalTrafficPolicy: Cluster", "externalTrafficPolicy: Local, type: NodePort"):
        text = service(f"{other}, healthCheckNodePort: 4001, clusterIP: 172.30.0.1, ports: [{{port: 80}}]")
        assert rules_of(text).health == ()


def test_two_services_with_one_health_check_port() -> None:
    spec = "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 4001, ports: [{port: 80}]"
    text = service(f"{spec}, clusterIP: 172.30.0.1", metadata="name: a")
    rules = rules_of(text + service(f"{spec}, clusterIP: 172.30.0.2", metadata="name: b"))
    assert rules.health == (HealthCheck(4001, "default", "a", 0),)
    (refusal,) = rules.refused
    assert (refusal.subject, refusal.why) == ("port 4001", "taken by default/a")


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ("", 0),
        ("sessionAffinity: None", 0),
        ("sessionAffinity: ClientIP", 10800),
        ("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 10}}", 10),
        ("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {}}", 10800),
    ],
)
def test_affinity(spec: str, seconds: int) -> None:
    (frontend,) = rules_of(service(", ".join([part for part in (WEB, spec) if part]))).frontends
    assert frontend.affinity == seconds


def test_the_kernel_by_annotation() -> None:
    for mode, kernel in (("nftables", True), ("userspace", False)):
        metadata = f"name: web, annotations: {{pyrun.io/proxy-mode: {mode}}}"
        (frontend,) = rules_of(service(WEB, metadata=metadata)).frontends
        assert frontend.kernel is kernel


def test_sets_keep_their_keys_and_their_order() -> None:
    before = rules_of(service(WEB) + slice_of("{addresses: [10.0.0.3]}, {addresses: [10.0.0.1]}"))
    after = rules_of(service(WEB) + slice_of("{addresses: [10.0.0.3]}, {addresses: [10.0.0.2]}"))
    assert [one.key for one in before.sets] == [one.key for one in after.sets] == ["default/web:/tcp/4/cluster"]
    assert [address_text(one.address) for one in before.sets[0].endpoints] == ["10.0.0.3", "10.0.0.1"]


def test_every_forwarding_choice_has_its_set_and_the_last_one_takes_all() -> None:
    for path in FLOWS.glob("*.yaml"):
        found = read_objects(load(str(path)))
        rules = plan_proxy(found.services.values(), found.slices.values(), NODE)
        sets = {one.key: one for one in rules.sets}
        used = {choice.endpoints for one in rules.frontends for choice in one.choices if choice.action == FORWARD}
        assert used == sets.keys()
        assert all(one.endpoints for one in sets.values())
        for frontend in rules.frontends:
            assert not frontend.choices[-1].sources and all(choice.sources for choice in frontend.choices[:-1])
        assert len({one.key for one in rules.frontends}) == len(rules.frontends)


def test_two_ports_of_one_number_in_one_service() -> None:
    """The first one has it, and the other is named; of another protocol it is another port."""
    ports = "{name: a, port: 53}, {name: b, port: 53}, {name: c, port: 53, protocol: UDP}"
    found = objects_of(service(f"clusterIP: 172.30.0.1, ports: [{ports}]"))
    assert [(one.name, one.port) for value in found.services.values() for one in value.ports] == [("a", 53), ("c", 53)]
    (fault,) = found.faults
    assert (fault.pointer, fault.text) == ("/spec/ports/1/port", "53 of TCP is another port of this Service already")


# --- faults ----------------------------------------------------------------------------------------------------------


def test_faults_are_named_with_their_pointers() -> None:
    found = read_objects(load(str(FLOWS / "faults.yaml"), "faults.yaml"))
    told = {(fault.pointer, fault.text) for fault in found.faults}
    assert told >= {
        ("/spec/ports/1/port", "must be a whole number"),
        ("/spec/ports/2/port", "70000 is no port"),
        ("/spec/ports/4/protocol", "'ICMP' is none of TCP, UDP, SCTP"),
        ("/spec/ports/5/name", "a second port 'p80' of TCP"),
        ("/ports/2", "must be an object"),
        ("/ports/3/port", "-1 is no port"),
        ("/endpoints/0/addresses", "has no address"),
        ("/endpoints/2/addresses/0", "'fd00::1' is not of this slice's addressType"),
        ("/endpoints/3/addresses/0", "'10.0.1.300' is no IP address"),
        ("/endpoints/4/addresses", "must be a list"),
        ("/endpoints/6", "must be an object"),
        ("/endpoints/7/conditions/ready", "must be true or false"),
        ("/metadata/name", "has no name"),
        ("/metadata", "must be an object"),
        ("/apiVersion", "apiVersion must be v1"),
        ("/kind", "Endpoints are not read: write an EndpointSlice (discovery.k8s.io/v1)"),
        ("/addressType", "'IPv5' is none of IPv4, IPv6, FQDN"),
        ("/spec/loadBalancerSourceRanges/0", "'everybody' is no IP address"),
        ("/spec/type", "'ClusterIPs' is none of ClusterIP, NodePort, LoadBalancer, ExternalName"),
        ("/spec/sessionAffinity", "'Server' is none of None, ClientIP"),
        ("/spec/externalTrafficPolicy", "must be a string"),
    }


def test_a_hundred_thousand_broken_objects_are_named_and_the_rest_is_served() -> None:
    found = Objects()
    broken: list[Any] = [
        {"apiVersion": "v1", "kind": "Service"},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": [1]},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": 7}},
        {"kind": {}},
        {},
    ]
    for number in range(100_000):
        take(found, broken[number % len(broken)], f"o{number}")
    good = objects_of(service(WEB, metadata="name: good") + slice_of("{addresses: [10.0.0.1]}", name="good"))
    found.services |= good.services
    found.slices |= good.slices
    assert len(found.faults) >= 100_000
    assert len({fault.origin for fault in found.faults}) == 100_000
    rules = plan_proxy(found.services.values(), found.slices.values(), NODE)
    assert [one.name for one in rules.frontends] == ["default/good:80 cluster"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-70000, 70000)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(
        ["10.0.0.1", "None", "fd00::1", "10.0.0.0/8", "TCP", "Local", "Service", "::ffff:1.2.3.4", "1.2.3.4/99"]
    ),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "ip", "port"]), inner, max_size=2)
    ),
    max_leaves=4,
)
SAMPLES = [
    one.value for path in sorted(FLOWS.glob("*.yaml")) for one in load(str(path)) if one.value["kind"] != "Flows"
]


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *[found for key, item in inner for found in paths_of(item, (*path, key))]]


@given(st.data())
def test_any_value_anywhere_is_a_fault_or_taken(data: st.DataObject) -> None:
    """One value of one object is whatever JSON can hold. Nothing is raised, and another Service is served as before."""
    value = copy.deepcopy(data.draw(st.sampled_from(SAMPLES)))
    *path, last = data.draw(st.sampled_from([path for path in paths_of(value) if path]))
    here = value
    for key in path:
        here = here[key]
    here[last] = data.draw(JSON)
    found = objects_of(service(WEB, metadata="name: good, namespace: aaa") + slice_of("{addresses: [10.0.0.1]}"))
    take(found, value, "odd")
    rules = plan_proxy(found.services.values(), found.slices.values(), NODE)
    assert "aaa/good:80 cluster" in [one.name for one in rules.frontends]
    assert all(0 < one.port <= 65535 and len(one.address) in (4, 16) for one in rules.frontends)
    assert all(fault.origin == "odd" for fault in found.faults)


def test_a_fault_reads_as_a_line() -> None:
    assert str(Fault("x.yaml:3", "", "has no name")) == "x.yaml:3 /: has no name"


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("010.000.00.01", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:0a00:1", "10.0.0.1"),
        ("FD00::0001", "fd00::1"),
        ("0.0.0.0", "0.0.0.0"),
    ],
)
def test_addresses(text: str, plain: str) -> None:
    assert address_text(parse_address(text)) == plain


@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.256", "0x0a.0.0.1", "10.0.0.1 ", "fd00::g", "::1%lo", "1", "a\0"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is no IP address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        (" 10.1.2.3/32 ", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("fd00::1/64", "fd00::/64"),
        ("::/0", "::/0"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ],
)
def test_prefixes(text: str, plain: str) -> None:
    assert prefix_text(parse_prefix(text)) == plain


@pytest.mark.parametrize(
    "text", ["10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "fd00::/129", "/8", "10.0.0.0/8/8", "::ffff:1.2.3.4/8"]
)
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_prefix(text)


def test_intersections() -> None:
    some = (parse_prefix("10.0.0.0/8"), parse_prefix("fd00::/16"))
    others = (parse_prefix("10.1.0.0/16"), parse_prefix("0.0.0.0/0"), parse_prefix("192.168.0.0/16"))
    assert [prefix_text(one) for one in intersection(some, others)] == ["10.1.0.0/16", "10.0.0.0/8"]
    assert port_text(parse_address("fd00::1"), 80) == "[fd00::1]:80"


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    text = service("type: NodePort, clusterIP: 172.30.0.1, ports: [{name: http, port: 80, nodePort: 3000}]")
    endpoints = "{addresses: [10.0.0.1], nodeName: n1}, {addresses: [10.0.0.2], conditions: {ready: false}}"
    (tmp_path / "web.yaml").write_text(text + slice_of(endpoints, ports="{name: http, port: 8080}"))
    (tmp_path / ".hidden.yaml").write_text("{")
    return tmp_path


def said(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["proxy", *words])
    out, err = capfd.readouterr()
    return code, out, err


def test_trace_says_by_which_rule(objects: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--objects", str(objects), *WORDS, "--from", "10.0.0.9", "--to", "172.30.0.1:80/tcp"]
    code, out, err = said(capfd, "trace", *words, "--format", "json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "action": "forward",
        "endpoints": ["10.0.0.1:8080"],
        "masquerade": False,
        "hairpin": [],
        "rule": "default/web:http cluster: from a pod: any endpoint",
        "frontend": "default/web:http cluster",
        "object": "Service default/web",
        "file": f"{objects}/web.yaml",
        "line": 5,
        "column": 55,
        "pointer": "/spec/ports/0",
    }
    code, out, _ = said(capfd, "trace", *words)
    assert code == 0
    assert out.splitlines()[0] == "forward to 10.0.0.1:8080; the endpoint sees the client's address"
    assert f"{objects}/web.yaml:5 /spec/ports/0" in out


@pytest.mark.parametrize(
    ("to", "action", "text"),
    [
        ("172.30.0.1:81", "reject", "reject: a TCP reset, or ICMP port unreachable"),
        ("172.30.0.9:80/udp", "drop", "drop: without an answer"),
        ("9.9.9.9:80/sctp", "pass", "pass: none of the proxy's business"),
    ],
)
def test_trace_of_what_no_service_has(
    objects: Path, capfd: pytest.CaptureFixture[str], to: str, action: str, text: str
) -> None:
    words = ["trace", "--objects", str(objects), *WORDS, "--from", "10.0.0.9", "--to", to]
    code, out, _ = said(capfd, *words, "--format", "json")
    verdict = json.loads(out)
    assert (code, verdict["action"], verdict["endpoints"], verdict["masquerade"]) == (0, action, [], False)
    assert said(capfd, *words)[1].splitlines()[0] == text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "1.2.3.4:80"], "--from is missing"),
        (["--from", "10.0.0.1"], "--to is missing"),
        (["--from", "10.0.0.300", "--to", "1.2.3.4:80"], "--from: '10.0.0.300' is no IP address"),
        (["--from", "10.0.0.1", "--to", "1.2.3.4"], "--to 1.2.3.4: it is ADDRESS:PORT/PROTOCOL"),
        (["--from", "10.0.0.1", "--to", "1.2.3.4:0"], "it is ADDRESS:PORT/PROTOCOL"),
        (["--from", "10.0.0.1", "--to", "1.2.3.4:65536"], "it is ADDRESS:PORT/PROTOCOL"),
        (["--from", "10.0.0.1", "--to", "1.2.3.4:80/icmp"], "'icmp' is none of tcp, udp, sctp"),
        (["--from", "fd00::1", "--to", "fd00::2:80"], "an IPv6 address stands in brackets"),
        (["--from", "fd00::1", "--to", "1.2.3.4:80"], "are of two families"),
        (
            ["--from", "10.0.0.1", "--to", "1.2.3.4:80", "--cluster-cidr", "10/8"],
            "--cluster-cidr: '10' is no IP address",
        ),
        (["--from", "10.0.0.1", "--to", "1.2.3.4:80", "--node-ip", "n1"], "--node-ip: 'n1' is no IP address"),
        (["--from", "10.0.0.1", "--to", "1.2.3.4:80", "--fron", "x"], "did you mean --from?"),
    ],
)
def test_trace_refuses(objects: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    code, out, err = said(capfd, "trace", "--objects", str(objects), *words)
    assert code != 0 and not out
    assert message in err


def test_files_that_can_not_be_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--from", "10.0.0.1", "--to", "1.2.3.4:80"]
    code, _, err = said(capfd, "trace", "--objects", str(tmp_path / "no"), *words)
    assert code == 1 and f"read {tmp_path}/no: no such file or directory" in err
    (tmp_path / "bad.yaml").write_text("kind: [\n")
    code, _, err = said(capfd, "trace", "--objects", str(tmp_path), *words)
    assert code == 1 and f"{tmp_path}/bad.yaml:2:1: " in err
    (tmp_path / "good.yaml").write_text(service(WEB))
    code, out, err = said(capfd, "trace", "--objects", str(tmp_path), *words, "--format", "json")
    assert code == 0 and json.loads(out)["action"] == "pass"
    assert f"warning: {tmp_path}/bad.yaml:2:1: " in err


def test_explain_says_who_gets_what_and_why(objects: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capfd, "explain", "web", "--objects", str(objects), *WORDS, "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["service"] == "default/web"
    ports = [(one["address"], one["port"], len(one["choices"])) for one in found["frontends"]]
    assert ports == [
        ("172.30.0.1", 80, 2),
        ("192.168.0.2", 3000, 1),
    ]
    assert [(one["endpoint"], one["policies"], one["why"]) for one in found["endpoints"]] == [
        ("10.0.0.1:8080", ["cluster"], ""),
        ("10.0.0.2:8080", [], "not ready"),
    ]
    assert found["endpoints"][1]["pointer"] == "/endpoints/1"
    code, out, _ = said(capfd, "explain", "default/web", "--objects", str(objects), *WORDS)
    assert "from 10.0.0.0/8: forward to 10.0.0.1:8080, which see the client's address" in out
    assert f"{objects}/web.yaml" in out and "not ready" in out


def test_explain_of_each_scenario(capfd: pytest.CaptureFixture[str]) -> None:
    """Of every Service: what explain shows is what plan_proxy has of it."""
    for path in sorted(FLOWS.glob("*.yaml")):
        found = read_objects(load(str(path)))
        rules = plan_proxy(found.services.values(), found.slices.values(), NODE)
        for name in ["/".join(one) for one in found.services][:3]:
            code, out, _ = said(capfd, "explain", name, "--objects", str(path), *WORDS, "--format", "json")
            shown = {(one["address"], one["port"], one["protocol"]) for one in json.loads(out)["frontends"]}
            mine = [one for one in rules.frontends if one.name.startswith(f"{name}:")]
            assert code == 0 and len(shown) == len(mine)


def test_list_has_a_line_for_each_address(objects: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (objects / "none.yaml").write_text(
        service("clusterIP: 172.30.0.2, ports: [{port: 53, protocol: UDP}]", metadata="name: none")
    )
    code, out, _ = said(capfd, "list", "--objects", str(objects), *WORDS)
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["default/none:53", "cluster", "172.30.0.2:53/udp", "none,"],
        ["default/web:http", "cluster", "172.30.0.1:80/tcp", "1"],
        ["default/web:http", "node-port", "192.168.0.2:3000/tcp", "1"],
    ]
    code, out, _ = said(capfd, "list", "--objects", str(objects), *WORDS, "--format", "json")
    first, second, _ = json.loads(out)
    assert (first["endpoints"], first["choices"][0]["action"]) == ([], "reject")
    assert (second["endpoints"], second["choices"][1]["masquerade"]) == (["10.0.0.1:8080"], True)
    assert (second["file"], second["pointer"]) == (f"{objects}/web.yaml", "/spec/ports/0")


def test_explain_of_a_service_that_is_not_there(objects: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capfd, "explain", "wep", "--objects", str(objects), *WORDS)
    assert code == 1 and "no Service wep" in err and "did you mean default/web?" in err
    code, _, err = said(capfd, "explain", "other/web", "--objects", str(objects), *WORDS)
    assert code == 1 and "there is default/web" in err


def test_a_service_with_a_selector_has_slices_of_the_pods_that_are_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "web.yaml").write_text(
        service(f"selector: {{app: web}}, {WEB}")
        + "---\n{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: web}}, spec: {nodeName: n1}, status: "
        "{podIP: 10.0.0.7, conditions: [{type: Ready, status: 'True'}]}}\n"
    )
    words = ["--from", "10.0.0.1", "--to", "172.30.0.1:80", "--format", "json"]
    code, out, _ = said(capfd, "trace", "--objects", str(tmp_path), *WORDS, *words)
    assert code == 0 and json.loads(out)["endpoints"] == ["10.0.0.7:80"]


@pytest.mark.parametrize("verb", [["list"], ["explain", "web"]], ids=["list", "explain"])
def test_what_is_of_files_is_not_asked_of_a_proxy_that_runs(capfd: pytest.CaptureFixture[str], verb: list[str]) -> None:
    for option in ("--node=n1", "--masquerade-all", "--cluster-cidr=10.0.0.0/8"):
        code, out, err = said(capfd, *verb, option)
        assert (code, out) == (1, "")
        assert f"{option.split('=')[0]} is for objects of files, and --objects is missing" in err
