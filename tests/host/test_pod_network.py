"""Pods' networks, the built-in one and CNI's with Debian's plug-ins, by the same tests; then what is each one's own.

All of it happens in a network namespace of the test's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import AlreadyExists, FailedPrecondition, InvalidArgument, PyrunError, ResourceExhausted
from pyrun.executor import run_plan
from pyrun.facts import collect_facts
from pyrun.plan.model.steps import PARENT
from pyrun.plan.pod_network import plan_attach
from pyrun.pod.network import Network, PodNet, PortMapping
from pyrun.pod.network.builtin import link_name
from pyrun.pod.sandbox import end_sandbox, make_sandbox, prepare_state
from tests.support.executor.faults import EXDEV, children, descriptors, faults_build
from tests.support.pods.nets import Pod, ask_from_node, links, own_network, pod_config, pod_id, wait_until

CGROUP = Path("/sys/fs/cgroup")
BUILTIN, CNI = "built-in", "cni"


class Node:
    """What a test has: a place for pods, and networks on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "pods"
        self.warnings: list[str] = []
        self.pods: list[Pod] = []
        self.facts = collect_facts()
        prepare_state(str(self.root))

    def network(self, kind: str, **words: Any) -> Network:
        conf = ""
        if kind == CNI:
            (self.path / "net.d").mkdir(exist_ok=True)
            conf = str(self.path / "net.d")
            Path(conf, "10-test.conflist").write_text(json.dumps(self.conflist()))
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        return Network(str(self.path / "network"), conf_dir=conf, warn=self.warnings.append, **words)

    def conflist(self) -> dict[str, Any]:
        ranges = [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd99::/64"}]]
        routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
        data = str(self.path / "ipam")
        ipam = {"type": "host-local", "dataDir": data, "ranges": ranges, "routes": routes}
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": ipam,
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
        return {"cniVersion": "1.0.0", "name": "test", "plugins": [bridge, portmap]}

    def pod(self, network: Network, **words: Any) -> Pod:
        pod = Pod(network, self.root, pod_config(**words), self.facts)
        self.pods.append(pod)
        return pod

    def end(self) -> None:
        for pod in self.pods:
            pod.end()
            assert pod.network.settle()
        subprocess.run(["umount", self.root], check=True)
        if (CGROUP / "pyrun").exists():
            (CGROUP / "pyrun").rmdir()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with own_network():
        found = Node(tmp_path)
        yield found
        found.end()


@pytest.fixture(params=[BUILTIN, CNI])
def network(request: pytest.FixtureRequest, node: Node) -> Network:
    return node.network(request.param)


def port(host_port: int, container_port: int, **words: Any) -> v1.Message:
    return v1.PortMapping(protocol=v1.TCP, host_port=host_port, container_port=container_port, **words)


def gateway(pod: Pod) -> str:
    return pod.run("sh", "-c", "ip -4 route show default").stdout.split()[2]


# --- both ------------------------------------------------------------------------------------------------------------


def test_pods_reach_each_other_the_node_and_themselves(node: Node, network: Network) -> None:
    assert network.ready() == (True, "", "")
    one, two = node.pod(network), node.pod(network)
    for pod in (one, two):
        pod.serve(80)
    assert len({*one.result.ips, *two.result.ips}) == 4
    for mine, theirs in zip(one.result.ips, two.result.ips, strict=True):
        assert one.ask(theirs, 80) == mine, "with its own address"
        assert one.ask(mine, 80) == mine
        assert wait_until(lambda ip=theirs: ask_from_node(ip, 80), 10), "the bridge's own address may be tentative yet"
    assert one.ask("127.0.0.1", 80) == "127.0.0.1" and one.ask("::1", 80) == "::1"
    assert one.pings(gateway(one))


def test_ports_of_the_host(node: Node, network: Network) -> None:
    server, client = node.pod(network, port_mappings=[port(8080, 80)]), node.pod(network)
    server.serve(80)
    at = gateway(client)
    assert ask_from_node("127.0.0.1", 8080), "from the node, on its loopback"
    assert ask_from_node(at, 8080), "from the node, on an address"
    assert client.ask(at, 8080), "from a pod"
    assert server.ask(at, 8080), "from the pod itself"
    server.end()
    assert not ask_from_node("127.0.0.1", 8080) and not client.ask(at, 8080)


def test_sysctls_of_its_interface(node: Node, network: Network) -> None:
    """The interface is not there before the network, and what goes to all goes to those that there are."""
    asked = {
        "net.ipv4.conf.eth0.accept_local": "1",
        "net.ipv6.conf.all.disable_ipv6": "1",
        "net.ipv4.neigh.eth0.app_solicit": "7",
        "net.core.somaxconn": "99",
    }
    pod = node.pod(network, linux=v1.LinuxPodSandboxConfig(sysctls=asked))
    found = {key: pod.run("cat", f"/proc/sys/{key.replace('.', '/')}").stdout.strip() for key in asked}
    assert found == asked
    assert pod.run("cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6").stdout == "1\n"
    pod.end()


def test_a_sysctl_that_its_interface_has_not(node: Node, network: Network) -> None:
    with pytest.raises(PyrunError, match=r"sys/net/ipv4/conf/eth7/rp_filter.*\(from linux.sysctls"):
        node.pod(network, linux=v1.LinuxPodSandboxConfig(sysctls={"net.ipv4.conf.eth7.rp_filter": "1"}))


def test_it_is_gone_and_gone_again(node: Node, network: Network) -> None:
    pod = node.pod(network, port_mappings=[port(8081, 80)])
    network.check(pod.net) if network.cni is None else None  # portmap 1.1 fails its own CHECK of IPv6 (see below)
    pod.end()
    network.remove(pod.net)
    assert network.settle()
    assert links() <= {"lo", "cni0"}
    with pytest.raises(FailedPrecondition):
        network.check(pod.net)


def test_the_namespace_is_gone_first(node: Node, network: Network) -> None:
    pod = node.pod(network)
    end_sandbox(pod.sandbox.directory)
    network.remove(pod.net)
    assert network.settle()
    again = node.network(CNI if network.cni else BUILTIN)
    assert again.cni is None or not again.cni.has(pod.id)
    assert again.builtin.leases.all() == []
    if network.cni is not None:
        leases = [p.name for p in (node.path / "ipam" / "test").glob("*.*.*.*")]
        assert leases == []


def test_a_restarted_daemon_knows_its_pods_and_sweeps_others(node: Node, network: Network) -> None:
    stays, goes = node.pod(network), node.pod(network)
    again = node.network(CNI if network.cni else BUILTIN)
    again.gc([stays.id])
    assert again.settle()
    stays.serve(80)
    assert ask_from_node(stays.result.ips[0], 80)
    assert goes.run("ip", "link", "show", "eth0").returncode
    fresh = node.pod(again)
    assert not {*fresh.result.ips} & {*stays.result.ips}


# --- the built-in one ------------------------------------------------------------------------------------------------


@pytest.fixture
def builtin(node: Node) -> Network:
    return node.network(BUILTIN)


def test_what_is_changed_on_the_node_is_said(node: Node, builtin: Network) -> None:
    builtin.ready()
    assert [text.split(" (")[0] for text in node.warnings] == [
        "turned on forwarding of IPv4",
        "turned on forwarding of IPv6",
    ]
    assert builtin.kind() == "built-in 10.86.0.0/16 fd86:7079:7275:6e::/64"


def test_a_node_that_is_not_to_forward(node: Node) -> None:
    ready, _, message = node.network(BUILTIN, forwarding=False).ready()
    assert not ready and "does not forward IPv4" in message and "sysctl -w net.ipv4.ip_forward=1" in message
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n"


def test_to_the_outside_it_is_masqueraded(node: Node, builtin: Network) -> None:
    """The outside: another namespace, which has no route to pods."""
    pod = node.pod(builtin)
    subprocess.run(["ip", "link", "add", "up0", "type", "veth", "peer", "out0"], check=True)
    outside = subprocess.Popen(["unshare", "-n", "sleep", "60"])
    try:
        # Until unshare has unshared, its namespace is ours, and the link would stay here without an error.
        wait = f"while [ /proc/{outside.pid}/ns/net -ef /proc/self/ns/net ]; do sleep 0.05; done"
        setup = f"""{wait}; ip link set out0 netns {outside.pid}; ip addr add 192.0.2.1/24 dev up0; ip link set up0 up
            n="nsenter -t {outside.pid} -n"; $n ip addr add 192.0.2.2/24 dev out0; $n ip link set out0 up"""
        subprocess.run(["sh", "-ec", setup], check=True)
        server = subprocess.Popen(
            ["nsenter", "-t", str(outside.pid), "-n", sys.executable, "-c", SERVER_V4],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout and server.stdout.readline()
        assert pod.ask("192.0.2.2", 81) == "192.0.2.1"
        server.kill()
        server.communicate()
    finally:
        outside.kill()
        outside.wait()


SERVER_V4 = """
import socket
s = socket.create_server(("0.0.0.0", 81))
print("listening", flush=True)
while True:
    c, a = s.accept()
    c.sendall(a[0].encode())
    c.close()
"""


def test_cve_2020_8558_a_pod_does_not_get_at_the_nodes_loopback(node: Node, builtin: Network) -> None:
    """Not by a route that it makes itself, and not though a port of the host needs route_localnet."""
    pod = node.pod(builtin, port_mappings=[port(8082, 80)])
    server = subprocess.Popen([sys.executable, "-c", SERVER_V4], stdout=subprocess.PIPE, text=True)
    assert server.stdout and server.stdout.readline()
    try:
        assert ask_from_node("127.0.0.1", 81) == "127.0.0.1"
        script = """ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.0/8 via 169.254.1.1 dev eth0 onlink
            sysctl -qw net.ipv4.conf.eth0.route_localnet=1"""
        pod.run("sh", "-c", script)
        before = Path(f"/proc/sys/net/ipv4/conf/{link_name(pod.id)}/route_localnet").read_text()
        assert before == "1\n", "else this proves nothing"
        assert pod.ask("127.0.0.1", 81) == ""
        subprocess.run(["nft", "flush", "chain", "inet", "pyrun", "guard"], check=True)
        assert pod.ask("127.0.0.1", 81), "without the guard it would"
    finally:
        server.kill()
        server.communicate()


def test_cve_2020_10749_a_pod_is_no_router_of_the_node(node: Node, builtin: Network) -> None:
    pod = node.pod(builtin)
    conf = Path(f"/proc/sys/net/ipv6/conf/{link_name(pod.id)}")
    assert (conf / "accept_ra").read_text() == "0\n" and (conf / "accept_redirects").read_text() == "0\n"


def echoes(pod: Pod) -> tuple[int, int]:
    """How many echo requests a pod has got: IPv4, IPv6."""
    names, values = (line.split() for line in pod.run("grep", "^Icmp:", "/proc/net/snmp").stdout.splitlines())
    six = pod.run("grep", "Icmp6InEchos ", "/proc/net/snmp6").stdout.split()[1]
    return int(values[names.index("InEchos")]), int(six)


def test_a_pod_sends_from_its_own_address_alone(node: Node, builtin: Network) -> None:
    one, two = node.pod(builtin), node.pod(builtin)
    for which, forged in ((0, "10.86.77.77"), (1, "fd86:7079:7275:6e::7777")):
        ip = two.result.ips[which]
        assert one.pings(ip)
        one.run("ip", "addr", "add", forged, "dev", "eth0", *(["nodad"] if which else []))
        before = echoes(two)[which]
        assert before == 1
        assert one.run("ping", "-c1", "-W1", "-I", forged, ip).returncode
        assert echoes(two)[which] == before
    Path(f"/proc/sys/net/ipv4/conf/{link_name(one.id)}/rp_filter").write_text("0")
    subprocess.run(["nft", "flush", "chain", "inet", "pyrun", "guard"], check=True)
    for which, forged in ((0, "10.86.77.77"), (1, "fd86:7079:7275:6e::7777")):
        one.run("ping", "-c1", "-W1", "-I", forged, two.result.ips[which])
    assert echoes(two) == (2, 2), "without the guards it would get there"


@pytest.mark.parametrize("key", ["kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth", "pyrun.dev/ips"])
def test_what_it_has_not_got_is_refused_by_name(node: Node, builtin: Network, key: str) -> None:
    with pytest.raises(InvalidArgument, match=key):
        node.pod(builtin, annotations={key: "10M"})
    assert builtin.builtin.leases.all() == []


def test_a_port_of_the_host_is_one_pods(node: Node, builtin: Network) -> None:
    node.pod(builtin, port_mappings=[port(8083, 80)])
    with pytest.raises(AlreadyExists, match="8083/tcp of the host is taken by pod"):
        node.pod(builtin, port_mappings=[port(8083, 81)])
    assert len(builtin.builtin.leases.all()) == 1


def test_a_port_of_one_address(node: Node, builtin: Network) -> None:
    subprocess.run(["sh", "-ec", "ip addr add 192.0.2.1/32 dev lo; ip addr add 192.0.2.9/32 dev lo"], check=True)
    pod = node.pod(builtin, port_mappings=[port(8084, 80, host_ip="192.0.2.1")])
    pod.serve(80)
    assert ask_from_node("192.0.2.1", 8084) and not ask_from_node("192.0.2.9", 8084)
    assert not ask_from_node("127.0.0.1", 8084)


def test_addresses_run_out_and_come_back(node: Node) -> None:
    network = node.network(BUILTIN, ranges=("10.50.0.0/29",))
    pods = [node.pod(network) for _ in range(5)]
    with pytest.raises(ResourceExhausted, match="all 5 addresses"):
        node.pod(network)
    pods[2].end()
    assert network.settle()
    assert node.pod(network).result.ips == pods[2].result.ips


def test_other_ranges_are_for_pods_to_come(node: Node, builtin: Network) -> None:
    old = node.pod(builtin)
    builtin.set_pod_cidr(["10.77.0.0/24,fd77::/64"])
    new = node.pod(builtin)
    assert [ip.startswith(("10.77.0.", "fd77::")) for ip in new.result.ips] == [True, True]
    for ip in old.result.ips:
        assert new.pings(ip)
    assert node.network(BUILTIN).kind() == "built-in 10.77.0.0/24 fd77::/64"
    with pytest.raises(InvalidArgument):
        builtin.set_pod_cidr(["10.0.0.0/33"])


def test_a_table_that_others_flush_is_made_again(node: Node, builtin: Network) -> None:
    server = node.pod(builtin, port_mappings=[port(8085, 80)])
    server.serve(80)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    assert not ask_from_node("127.0.0.1", 8085)
    other = node.pod(builtin, port_mappings=[port(8086, 80)])
    other.serve(80)
    assert ask_from_node("127.0.0.1", 8085) and ask_from_node("127.0.0.1", 8086)


def test_without_nft_it_is_not_ready_and_nothing_is_left(
    node: Node, builtin: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    ready, _, message = builtin.ready()
    assert not ready and "nft is not installed" in message
    with pytest.raises(PyrunError, match="nft is not installed"):
        builtin.add(PodNet(pod_id(), netns="/proc/self/ns/net"))
    monkeypatch.undo()
    assert builtin.builtin.leases.all() == [] and builtin.ready()[0]


def test_when_the_rules_of_a_port_fail_the_link_goes(
    node: Node, builtin: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = node.pod(builtin)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PyrunError, match="nft is not installed"):
        ports = (PortMapping("tcp", 8087, 80),)
        other = pod_id()
        sandbox = make_sandbox(str(node.root / other), other, pod_config(), node.facts)
        try:
            builtin.add(PodNet(other, netns=sandbox.net or "", port_mappings=ports))
        finally:
            monkeypatch.undo()
            end_sandbox(sandbox.directory)
    assert builtin.settle()
    assert [lease.pod for lease in builtin.builtin.leases.all()] == [pod.id]
    assert links() == {"lo", link_name(pod.id)}


def attach_plan(node: Node, network: Network, pod: str, netns: str) -> Any:
    lease = network.builtin.leases.take(pod, [])
    return plan_attach(network.builtin._attachment(PodNet(pod, netns=netns), lease))


def each_step(node: Node, network: Network, act: Callable[[Any, int, str], None]) -> None:
    """Each step of a link's plan, with a sandbox that is whole; then all is to be as before."""
    faults_build()
    pod = pod_id()
    sandbox = make_sandbox(str(node.root / pod), pod, pod_config(), node.facts)
    before = links()
    try:
        plan = attach_plan(node, network, pod, sandbox.net or "")
        for index, step in enumerate(plan.lanes[PARENT]):
            where = f"{index} {type(step).__name__}"
            act(plan, index, where)
            network.builtin.remove(pod)
            assert network.settle()
            assert links() == before, where
            assert network.builtin.leases.all() == [], where
            inside = subprocess.run(
                ["nsenter", f"--net={sandbox.net}", "ip", "-o", "link"], capture_output=True, text=True, check=True
            )
            assert len(inside.stdout.splitlines()) == 1, where
            plan = attach_plan(node, network, pod, sandbox.net or "")
        network.builtin.remove(pod)
        assert network.settle()
    finally:
        end_sandbox(sandbox.directory)


def test_each_step_of_a_link_fails(node: Node, builtin: Network) -> None:
    fds = descriptors()

    def fail(plan: Any, index: int, where: str) -> None:
        before = links()
        with pytest.raises(Exception, match="step"):
            run_plan(plan, fault={"fail_step": index, "fail_errno": EXDEV})
        assert links() == before, f"{where}: its own undo takes the link away"
        assert not {n for n, t in descriptors().items() if n not in fds and "pyrun-init" not in t}, where

    each_step(node, builtin, fail)


def test_killed_at_each_step_of_a_link(node: Node, builtin: Network) -> None:
    def kill(plan: Any, index: int, where: str) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                run_plan(plan, fault={"kill_step": index})
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, where

    each_step(node, builtin, kill)
    assert children() == []


def test_a_pod_is_added_again_after_a_kill(node: Node, builtin: Network) -> None:
    """The lease is there and so is the link: a new daemon that gets the same request starts over."""
    pod = pod_id()
    sandbox = make_sandbox(str(node.root / pod), pod, pod_config(), node.facts)
    pid = os.fork()
    if pid == 0:
        try:
            builtin.add(PodNet(pod, netns=sandbox.net or ""))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    again = node.network(BUILTIN)
    result = again.add(PodNet(pod, netns=sandbox.net or ""))
    assert subprocess.run(["ping", "-c1", "-W2", result.ips[0]], capture_output=True, check=False).returncode == 0
    again.remove(PodNet(pod))
    assert again.settle()
    end_sandbox(sandbox.directory)
    assert links() == {"lo"}


def test_a_namespace_that_is_none(node: Node, builtin: Network) -> None:
    with pytest.raises(PyrunError, match="ENOTTY"):
        builtin.add(PodNet(pod_id(), netns="/proc/version"))
    with pytest.raises(PyrunError, match="ENOENT"):
        builtin.add(PodNet(pod_id(), netns="/nowhere"))
    assert builtin.settle() and builtin.builtin.leases.all() == []


# --- CNI -------------------------------------------------------------------------------------------------------------


def test_cni_check_by_the_plug_ins_themselves(node: Node) -> None:
    network = node.network(CNI)
    pod = node.pod(network)
    network.check(pod.net)
    pod.run("ip", "link", "del", "eth0")
    with pytest.raises(FailedPrecondition, match=r"CNI plug-in bridge \(CHECK\)"):
        network.check(pod.net)


def test_cni_is_taken_as_soon_as_it_is_there(node: Node) -> None:
    network = node.network(CNI)
    conf = node.path / "net.d" / "10-test.conflist"
    text = conf.read_text()
    conf.unlink()
    first = node.pod(network)
    assert first.result.ips[0].startswith("10.86.")
    conf.write_text("{")
    assert not network.ready()[0]
    conf.write_text(text)
    assert network.kind() == "cni test"
    second = node.pod(network)
    assert second.result.ips[0].startswith("10.99.")
    conf.unlink()
    first.end()
    second.end()  # each by the network that it was added to
    assert network.settle()
    assert links() == {"lo", "cni0"}


def test_cni_bandwidth_by_its_plug_in(node: Node) -> None:
    network = node.network(CNI)
    conf = node.conflist()
    conf["plugins"].append({"type": "bandwidth", "capabilities": {"bandwidth": True}})
    (node.path / "net.d" / "10-test.conflist").write_text(json.dumps(conf))
    try:
        pod = node.pod(network, annotations={"kubernetes.io/ingress-bandwidth": "10M"})
    except PyrunError as e:
        assert "ifb" in str(e) or "operation not supported" in str(e), e  # the kernel has no tbf or ifb
        return
    assert "tbf" in subprocess.run(["tc", "qdisc"], capture_output=True, text=True, check=True).stdout
    pod.end()


def with_dns(node: Node, **dns: object) -> Network:
    network = node.network(CNI)
    conf = node.conflist()
    conf["plugins"][0]["dns"] = dns
    (node.path / "net.d" / "10-test.conflist").write_text(json.dumps(conf))
    return network


def test_cni_says_who_answers_for_names(node: Node) -> None:
    network = with_dns(node, nameservers=["10.1.0.9", "fd01::9"], search=["a.test", "b.test"], options=["ndots:2"])
    pod = node.pod(network)
    text = "search a.test b.test\nnameserver 10.1.0.9\nnameserver fd01::9\noptions ndots:2\n"
    assert Path(pod.sandbox.resolv_conf).read_text() == text
    pod.end()


def test_the_request_says_it_first(node: Node) -> None:
    network = with_dns(node, nameservers=["10.1.0.9"])
    pod = node.pod(network, dns_config=v1.DNSConfig(servers=["10.2.0.2"]))
    assert Path(pod.sandbox.resolv_conf).read_text() == "nameserver 10.2.0.2\n"
    pod.end()


def test_cni_can_not_add_a_line_to_resolv_conf(node: Node) -> None:
    network = with_dns(node, nameservers=["10.1.0.9"], search=["a\nnameserver 6.6.6.6"])
    with pytest.raises(InvalidArgument, match=r"the CNI network's dns.searches"):
        node.pod(network)


def test_cni_an_error_says_what_the_plug_in_said(node: Node) -> None:
    network = node.network(CNI)
    conf = node.conflist()
    conf["plugins"][0]["ipam"]["ranges"] = [
        [{"subnet": "10.99.0.0/30", "rangeStart": "10.99.0.2", "rangeEnd": "10.99.0.2"}]
    ]
    (node.path / "net.d" / "10-test.conflist").write_text(json.dumps(conf))
    node.pod(network)
    with pytest.raises(PyrunError, match=r"CNI plug-in bridge \(ADD\): .*no IP addresses available"):
        node.pod(network)
