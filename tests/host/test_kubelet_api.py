"""The kubelet's API over the node agent, by raw clients with real certificates: who is let in, and what they get."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pyrun.kubelet.answers import MOST_FOLLOWERS
from tests.support.kube.authority import Authority, KubeletClient, children
from tests.support.node.agent import WAIT, AgentNode, an_agent, pod, sh
from tests.support.promtool import check_metrics
from tests.support.streams import client as streams

HOST, PORT, HEALTHZ = "127.0.0.1", 10250, 10248
COUNT = "i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo line $i; done; echo wrong >&2; "


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path, authority: Authority) -> Iterator[AgentNode]:
    """With three pods: web says lines, serves a page and is probed, echo reads, and gone has ended once."""
    words = ("--client-ca-file", authority.ca, "--address", HOST)
    with an_agent(tmp_path_factory.mktemp("agent"), busybox_rootfs, *words) as made:
        page = f"{COUNT} mkdir /www; echo page >/www/index.html; httpd -p 8080 -h /www; {WAIT}"
        probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        made.write("web", pod("web", sh("c", page, readinessProbe=probe)))
        made.write("echo", pod("echo", {"name": "c", "command": ["cat"], "stdin": True}))
        first = f"echo attempt; [ -e /dev/shm/second ] || {{ touch /dev/shm/second; exit 3; }}; {WAIT}"
        made.write("gone", pod("gone", sh("c", first)))
        for name in ("web", "echo", "gone"):
            made.wait_ready(name)
        yield made


@pytest.fixture(scope="module")
def serving(agent: AgentNode) -> Path:
    return agent.node.root / "kubelet" / "serving.pem"


@pytest.fixture(scope="module")
def master(agent: AgentNode, authority: Authority, serving: Path) -> KubeletClient:
    return KubeletClient(HOST, PORT, serving, authority.client("master", "/O=other/O=system:masters/CN=admin"))


# --- who is let in ----------------------------------------------------------------------------------------------------


def test_nobody_is_anonymous(agent: AgentNode, serving: Path) -> None:
    for path in ("/pods", "/metrics", "/healthz", "/exec/default/web/c?command=id&output=1", "/nothing", "/"):
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp5"}):
            status, body = KubeletClient(HOST, PORT, serving).ask(path, **headers)
            assert (status, body.split(":")[0]) == (401, "Unauthorized"), path


def test_pages_of_browsers_are_not_let_in(master: KubeletClient) -> None:
    """Whoever's certificate the browser has. An API server hands on its client's Origin, and says for whom it asks."""
    for origin in ("https://evil.test", "null", master.url):
        for path, method in (
            ("/pods", "GET"),
            ("/exec/default/web/c?command=id&output=1", "POST"),
            ("/pods", "OPTIONS"),
        ):
            assert master.ask(path, method, Origin=origin) == (
                403,
                "Forbidden: pages of browsers are not let in: ask the API server\n",
            )
    assert master.ask("/pods", **{"Origin": "https://api.test", "X-Forwarded-For": "10.0.0.1"})[0] == 200


def test_a_certificate_is_not_enough(authority: Authority, master: KubeletClient, serving: Path) -> None:
    user = KubeletClient(HOST, PORT, serving, authority.client("user", "/O=system:nodes/CN=system:node:n1"))
    assert user.ask("/pods") == (403, "Forbidden: user system:node:n1 lacks get nodes/pods or get nodes/proxy\n")
    assert user.ask("/exec/default/web/c?command=id&output=1")[1].endswith("lacks create nodes/proxy\n")
    unnamed = KubeletClient(HOST, PORT, serving, authority.client("unnamed", "/O=system:masters"))
    assert unnamed.ask("/pods")[0] == 401
    assert master.ask("/pods")[0] == 200


@pytest.mark.parametrize("kind", ["foreign", "server", "old"])
def test_certificates_that_are_none(kind: str, authority: Authority, serving: Path, tmp_path: Path) -> None:
    """Of another authority, for another use, and one whose time is over: each claims to be of system:masters."""
    subject = "/O=system:masters/CN=admin"
    match kind:
        case "foreign":
            made = Authority(tmp_path / "foreign").client("admin", subject)
        case "server":
            made = authority.client("server", subject, use="serverAuth")
        case _:
            made = _expired(authority, tmp_path)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        KubeletClient(HOST, PORT, serving, made).ask("/pods")


def _expired(authority: Authority, tmp_path: Path) -> str:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    ca = x509.load_pem_x509_certificate(Path(authority.ca).read_bytes())
    key: Any = serialization.load_pem_private_key((authority.path / "ca.key").read_bytes(), None)
    good = x509.load_pem_x509_certificate(Path(authority.client("old", "/O=system:masters/CN=admin")).read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(
        ca.subject,
        good.subject,
        good.public_key(),
        1,
        now - datetime.timedelta(days=2),
        now - datetime.timedelta(days=1),
    ).sign(key, hashes.SHA256())
    path = tmp_path / "old.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + (authority.path / "old.key").read_bytes())
    return str(path)


def test_what_has_the_port_has_no_privileges(agent: AgentNode, master: KubeletClient) -> None:
    [pid] = children(agent.node.pid)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert "0" not in status["Uid"] + status["Gid"] and status["Groups"] == [] and status["NoNewPrivs"] == ["1"]
    assert not any(int(status[kind][0], 16) for kind in ("CapPrm", "CapEff", "CapAmb", "CapInh"))


# --- what they get ----------------------------------------------------------------------------------------------------


def test_pods_and_configuration(master: KubeletClient) -> None:
    found = {one["metadata"]["name"]: one for one in master.json("/pods")["items"]}
    assert sorted(found) == ["echo", "gone", "web"] and found["web"]["status"]["phase"] == "Running"
    running = {one["metadata"]["name"]: one for one in master.json("/runningpods/")["items"]}
    assert sorted(running) == ["echo", "gone", "web"]
    assert [c["name"] for c in running["web"]["spec"]["containers"]] == ["c"]
    config = master.json("/configz")["kubeletconfig"]
    assert config["authentication"]["anonymous"] == {"enabled": False} and config["port"] == PORT
    assert master.get("/healthz") == "ok"


def test_healthz_for_this_node_alone(agent: AgentNode) -> None:
    connection = http.client.HTTPConnection(HOST, HEALTHZ, timeout=60)
    for path, wanted in (("/healthz", (200, b"ok")), ("/pods", (404, b"there is /healthz\n"))):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == wanted
    connection.close()


def test_metrics(master: KubeletClient) -> None:
    summary = master.json("/stats/summary")
    assert summary["node"]["nodeName"] == "n1"
    assert "web" in [one["podRef"]["name"] for one in summary["pods"]]
    web = 'container="c",namespace="default",pod="web"'
    assert f"container_cpu_usage_seconds_total{{{web}}}" in master.get("/metrics/resource")
    assert 'pod="web"' in master.get("/metrics/cadvisor")
    assert "kubelet_desired_pods 3\n" in master.get("/metrics")
    line = re.compile(rf'prober_probe_total{{{web},pod_uid="[^"]+",probe_type="Readiness",result="successful"}} [1-9]')
    probes = master.get("/metrics/probes")
    assert line.search(probes)
    of = rf'{{{web},probe_type="Readiness"'
    (count,) = re.findall(rf"^prober_probe_duration_seconds_count{of}}} ([0-9]+)$", probes, re.MULTILINE)
    (most,) = re.findall(rf'^prober_probe_duration_seconds_bucket{of},le="\+Inf"}} ([0-9]+)$', probes, re.MULTILINE)
    assert int(count) == int(most) > 0 and f'prober_probe_duration_seconds_bucket{of},le="0.005"' in probes
    for page in ("/metrics", "/metrics/cadvisor", "/metrics/resource", "/metrics/probes"):
        check_metrics(page, master.get(page))


def test_what_is_refused(master: KubeletClient) -> None:
    for path, method, status in (
        ("/checkpoint/default/web/c", "POST", 501),
        ("/run/default/web/c?cmd=id", "POST", 501),
        ("/logs/", "GET", 501),
        ("/pods", "POST", 405),
        ("/nothing", "GET", 404),
        ("/exec/default/web", "POST", 404),
        ("/exec/default/web/c?output=1", "POST", 400),
        ("/exec/default/web/c?command=id", "POST", 400),
        ("/exec/default/web/other?command=id&output=1", "POST", 404),
        ("/exec/default/none/c?command=id&output=1", "POST", 404),
        ("/exec/default/web/wrong-uid/c?command=id&output=1", "POST", 404),
        ("/exec/default/web/c?command=id&output=1", "POST", 400),  # without an upgrade
        ("/portForward/default/none", "POST", 404),
    ):
        assert master.ask(path, method)[0] == status, path


# --- logs -------------------------------------------------------------------------------------------------------------

LOG = "/containerLogs/default/web/c"


def test_logs(master: KubeletClient) -> None:
    whole = master.get(LOG).splitlines()
    assert sorted(whole) == ["line 1", "line 2", "line 3", "line 4", "line 5", "wrong"]
    out = master.get(f"{LOG}?stream=Stdout")
    assert out.splitlines() == [f"line {n}" for n in range(1, 6)]
    assert master.get(f"{LOG}?tailLines=2&stream=Stdout") == "line 4\nline 5\n"
    assert master.get(f"{LOG}?tailLines=0") == ""
    assert master.get(f"{LOG}?limitBytes=9&stream=Stdout") == "line 1\nli"
    times = [line.split(" ", 1) for line in master.get(f"{LOG}?timestamps=true&stream=Stdout").splitlines()]
    assert [text for _, text in times] == out.splitlines()
    assert master.get(f"{LOG}?stream=Stdout&sinceTime={times[2][0]}").splitlines() == [
        text for at, text in times if at >= times[2][0]
    ]
    assert master.get(f"{LOG}?sinceTime=2999-01-01T00:00:00Z") == ""
    for wrong in ("tailLines=-1", "tailLines=x", "sinceSeconds=0", "sinceTime=now", "limitBytes=0", "follow=perhaps"):
        assert master.ask(f"{LOG}?{wrong}")[0] == 400, wrong
    assert master.ask("/containerLogs/default/web/other")[0] == 404
    assert master.ask("/containerLogs/default/none/c")[0] == 404


def test_logs_of_the_attempt_before(master: KubeletClient) -> None:
    assert master.get("/containerLogs/default/gone/c?previous=true") == "attempt\n"
    assert master.get("/containerLogs/default/gone/c") == "attempt\n"
    status, told = master.ask(f"{LOG}?previous=true")
    assert status == 400 and "previous terminated container" in told


def test_logs_are_followed_to_the_end(agent: AgentNode, master: KubeletClient) -> None:
    said = "echo begun; while [ ! -e /dev/shm/go ]; do sleep 0.05; done; echo more; exit 0"
    path = agent.write("once", pod("once", sh("c", said), restartPolicy="Never"))
    found = agent.wait(lambda pods: "once" in pods and pods["once"]["status"]["phase"] == "Running" and pods["once"])
    connection = http.client.HTTPSConnection(HOST, PORT, timeout=60, context=master.tls)
    connection.request("GET", "/containerLogs/default/once/c?follow=true")
    answer = connection.getresponse()
    assert answer.readline() == b"begun\n"
    agent.exec(found, "touch", "/dev/shm/go")
    assert answer.read() == b"more\n"  # and then its end
    connection.close()
    path.unlink()
    agent.wait(lambda pods: "once" not in pods)


def test_who_leaves_a_log_leaves_nothing_behind(agent: AgentNode, master: KubeletClient) -> None:
    [web] = children(agent.node.pid)

    def held() -> tuple[int, ...]:
        return tuple(len(os.listdir(f"/proc/{pid}/fd")) for pid in (agent.node.pid, web))

    master.get("/healthz")
    settled = _settled(held)
    connections = []
    for _ in range(8):
        connection = http.client.HTTPSConnection(HOST, PORT, timeout=60, context=master.tls)
        connection.request("GET", f"{LOG}?follow=true")
        answer = connection.getresponse()
        assert answer.readline()
        connections.append((connection, answer))
    assert all(now >= before + 8 for now, before in zip(held(), settled, strict=True)), (settled, held())
    for connection, answer in connections:
        answer.close()
        connection.close()
    last = time.monotonic() + 60
    while any(now > before + 2 for now, before in zip(held(), settled, strict=True)):
        assert time.monotonic() < last, (settled, held())
        time.sleep(0.1)


def test_followers_leave_room_for_others(master: KubeletClient) -> None:
    connections = []

    def follow() -> int:
        connection = http.client.HTTPSConnection(HOST, PORT, timeout=60, context=master.tls)
        connections.append(connection)
        connection.request("GET", f"{LOG}?follow=true&tailLines=1")
        return connection.getresponse().status

    try:
        last, let_in = time.monotonic() + 60, 0
        while let_in < MOST_FOLLOWERS:
            status = follow()
            assert status in (200, 429) and time.monotonic() < last, (status, let_in)
            let_in += status == 200
            if status == 429:  # of those of a test before it the node may hear a moment later that they have gone
                connections.pop().close()
                time.sleep(0.1)
        assert follow() == 429
        assert len(master.get(LOG).splitlines()) == 6 and master.json("/stats/summary")
        connections.pop().close()
        for connection in connections[:8]:
            connection.close()
        last = time.monotonic() + 60
        while follow() != 200:
            assert time.monotonic() < last
            time.sleep(0.1)
    finally:
        for connection in connections:
            connection.close()


def _settled(count: Any) -> Any:
    """When it has been the same for a while."""
    last = time.monotonic() + 60
    found, since = count(), time.monotonic()
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < last
        if (now := count()) != found:
            found, since = now, time.monotonic()
        time.sleep(0.05)
    return found


# --- commands and ports -----------------------------------------------------------------------------------------------


def run(work: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await work()

    asyncio.run(bounded())


def test_exec_over_spdy(master: KubeletClient) -> None:
    async def talk() -> None:
        words = f"command=sh&command=-c&command={quote('read a; echo got $a; echo bad >&2; exit 3')}"
        url = f"{master.url}/exec/default/web/c?{words}&input=1&output=1&error=1"
        async with streams.command(url, tls=master.tls, stdin=True, stdout=True, stderr=True) as (_, found):
            await found["stdin"].write(b"word\n", fin=True)
            assert await found["stdout"].read_all() == b"got word\n"
            assert await found["stderr"].read_all() == b"bad\n"
            assert await streams.exit_code(found) == 3

    run(talk)


def test_exec_over_websocket(agent: AgentNode, master: KubeletClient) -> None:
    """By GET, with the pod's uid, as an API server asks a node that says ExtendWebSocketsToKubelet."""
    uid = agent.pods()["web"]["metadata"]["uid"]

    async def talk() -> None:
        url = f"{master.url}/exec/default/web/{uid}/c?command=cat&input=1&output=1"
        async with streams.websocket(url, "v5.channel.k8s.io", tls=master.tls) as ws:
            await ws.send(0, b"what is sent")
            await ws.send(255, b"\0")  # the end of standard input
            found = await ws.read_all()
            assert found[1] == b"what is sent" and json.loads(found[3])["status"] == "Success"

    run(talk)


def test_a_terminal_has_the_size_that_it_is_given(master: KubeletClient) -> None:
    async def talk() -> None:
        script = quote('until stty size 2>/dev/null | grep "13 77"; do :; done')
        words = f"command=sh&command=-c&command={script}&input=1&output=1&error=1&tty=1"
        url = f"{master.url}/exec/default/web/c?{words}"
        async with streams.command(url, tls=master.tls, stdin=True, stdout=True, resize=True) as (_, found):
            await found["resize"].write(b'{"Width":77,"Height":13}')
            assert await found["stdout"].read_all() == b"13 77\r\n"
            assert await streams.exit_code(found) == 0

    run(talk)


def test_attach(master: KubeletClient) -> None:
    async def talk() -> None:
        url = f"{master.url}/attach/default/echo/c?input=1&output=1"
        async with streams.command(url, tls=master.tls, stdin=True, stdout=True) as (_, found):
            await found["stdin"].write(b"said to it\n")
            assert await found["stdout"].read_some(11) == b"said to it\n"

    run(talk)


def test_a_command_that_is_not_there(master: KubeletClient) -> None:
    async def talk() -> None:
        url = f"{master.url}/exec/default/web/c?command=%2Fno%2Fsuch&output=1"
        async with streams.command(url, tls=master.tls, stdout=True) as (_, found):
            told = json.loads(await found["error"].read_all())
            assert told["status"] == "Failure" and "/no/such" in told["message"]

    run(talk)


def test_ports(master: KubeletClient) -> None:
    async def talk() -> None:
        url = f"{master.url}/portForward/default/web"
        async with streams.spdy(url, "portforward.k8s.io", tls=master.tls) as forward:
            for number, (port, wanted) in enumerate((("8080", b"page\n"), ("9", b""))):
                words = {"port": port, "requestid": str(number)}
                error = await forward.open(streamtype="error", **words)
                data = await forward.open(streamtype="data", **words)
                await data.write(b"GET /index.html HTTP/1.0\r\n\r\n")
                assert (await data.read_all()).endswith(wanted)
                told = await error.read_all()
                assert told == b"" if wanted else b"connection refused" in told

    run(talk)
