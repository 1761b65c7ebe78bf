"""The main job: two pods of `pyrun cri` behind a Service, a client pod that reaches it by its DNS name, its backends in
turn, and one killed without a request that fails."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cri.node import Node, a_node
from tests.support.daemon import until
from tests.support.proxy.topology import REPO

ADDRESS = "10.77.0.1"  # the node's, where the DNS listens
OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.7
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
"""
PAGE = "mkdir -p /tmp/www; hostname > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"
NAME = "web.default.svc.cluster.local"
# By nslookup, as the static busybox can't resolve names elsewhere: glibc's static resolver wants shared libraries.
ASK = f"""a=$(nslookup {NAME} | sed -n 's/^Address.*: *\\(10[.]96[.][0-9.]*\\).*/\\1/p')
printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 10 $a 80"""


@contextlib.contextmanager
def pyrun(log: Path, *words: str) -> Iterator[None]:
    with log.open("ab") as said:
        argv = [sys.executable, "-m", "pyrun", *words]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=REPO)
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()


@pytest.fixture
def node(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Node]:
    with a_node(tmp_path, busybox_rootfs) as made:
        subprocess.run(["ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
        made.start()
        yield made


def run_in(node: Node, container: str, *argv: str) -> tuple[int, str]:
    answer = node.call("ExecSync", container_id=container, cmd=list(argv), timeout=20)
    return answer.exit_code, answer.stdout.decode() + answer.stderr.decode()


def test_a_service_by_its_name_with_a_backend_killed(node: Node, tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / "web.yaml").write_text(OBJECTS)
    backends = {}
    for name in ("one", "two"):
        pod = node.run_pod(name, labels={"app": "web"})
        backends[name] = node.run(pod, "c", PAGE, name)
    dns = {"servers": [ADDRESS], "searches": ["default.svc.cluster.local"]}
    client = node.run(node.run_pod("client", dns_config=dns), "c", pod_name="client")
    logs = [tmp_path / "proxy.log", tmp_path / "dns.log"]
    pods = node.call("PodSandboxStatus", pod_sandbox_id=node.call("ListPodSandbox").items[0].id).status.network.ip
    proxy = ["--objects", str(objects), "--cri", f"unix://{node.socket}", "--node", "n1", "--node-ip", ADDRESS]
    proxy += ["--service-cidr", "10.96.0.0/16", "--cluster-cidr", f"{pods}/16", "--state", str(tmp_path / "proxy")]
    names = ["--objects", str(objects), "--listen", ADDRESS, "--state", str(tmp_path / "dns")]
    with pyrun(logs[0], "proxy", "run", *proxy), pyrun(logs[1], "dns", "run", *names):

        def said() -> str:
            return "\n".join(log.read_text() for log in logs)

        def resolves() -> str:
            """What the client's own resolver makes of the name."""
            code, text = run_in(node, client, "nslookup", NAME)
            return text if code == 0 and "10.96.0.7" in text else ""

        def get() -> str:
            """What the Service says to the client, which asks it by name."""
            code, text = run_in(node, client, "sh", "-c", ASK)
            return text.strip().splitlines()[-1] if code == 0 and " 200 OK" in text else f"exit {code}: {text}"

        until(resolves, said() + run_in(node, client, "nslookup", NAME)[1])
        until(lambda: get() in backends, said() + get())
        until(lambda: {get(), get()} == {"one", "two"}, said())
        found = [get() for _ in range(6)]
        assert found in (["one", "two"] * 3, ["two", "one"] * 3), found
        begun = time.monotonic()
        node.call("StopContainer", container_id=backends["one"], timeout=0)
        after = [get() for _ in range(10)]
        assert set(after) <= {"one", "two"} and after[-1] == "two", (after, time.monotonic() - begun, said())
        assert after.count("one") <= 1, after
