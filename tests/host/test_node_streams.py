"""`pyrun node exec`, `attach` and `port-forward` of pods of files."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.node.agent.streams import SOCKET
from tests.support.container.runner import runtime_argv
from tests.support.container.terminal import TerminalSession
from tests.support.node.agent import WAIT, AgentNode, an_agent, pod, sh

pytestmark = pytest.mark.root
PATIENCE_S = 60.0
PAGE = "mkdir -p /tmp/www; echo page >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"
ECHO = "while read line; do echo got $line; [ $line = end ] && exit 0; done"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Iterator[AgentNode]:
    with an_agent(tmp_path_factory.mktemp("streams"), busybox_rootfs) as made:
        made.write("web", pod("web", sh("app", PAGE), sh("side", WAIT)))
        made.write("talk", pod("talk", sh("c", ECHO, stdin=True, stdinOnce=True), restartPolicy="Never"))
        tty = sh("c", f"stty -echo; {ECHO}", stdin=True, stdinOnce=True, tty=True)
        made.write("screen", pod("screen", tty, restartPolicy="Never"))
        for name in ("web", "talk", "screen"):
            made.wait_ready(name)
        yield made


def command(agent: AgentNode, verb: str, *argv: str) -> list[str]:
    return [*runtime_argv(), "node", verb, "--state", str(agent.node.state), *argv]


def run(agent: AgentNode, verb: str, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(agent, verb, *argv), input=stdin, capture_output=True, timeout=PATIENCE_S, check=False
    )


def test_a_command_and_its_exit_code(agent: AgentNode) -> None:
    done = run(agent, "exec", "web", "-c", "app", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    done = run(agent, "exec", "web", "--", "sh", "-c", "kill -9 $$")
    assert done.returncode == 137 and b"container app is taken, out of app, side" in done.stderr


def test_standard_input_to_its_end_and_none_without_i(agent: AgentNode) -> None:
    data = bytes(range(256)) * 4096
    done = run(agent, "exec", "-i", "web", "-c", "side", "--", "cat", stdin=data)
    assert done.returncode == 0 and done.stdout == data
    done = run(agent, "exec", "web", "-c", "side", "--", "wc", "-c", stdin=data)
    assert done.stdout.strip() == b"0"
    done = run(agent, "exec", "-it", "web", "-c", "side", "--", "tty", stdin=data)
    assert done.stdout.strip() == b"not a tty" and b"input is not a terminal" in done.stderr


def test_who_reads_late_has_all(agent: AgentNode) -> None:
    """No more than two pipes take, so that the program ends before anybody reads; its child then writes for ever."""
    script = "head -c 100000 /dev/zero; (sleep 4; exec yes) & echo over >&2; exit 5"
    argv = command(agent, "exec", "web", "-c", "side", "--", "sh", "-c", script)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stderr.readline() == b"over\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
        data = process.stdout.read()
        assert len(data) >= 100000 and process.wait(PATIENCE_S) == 5


def test_a_terminal_with_the_callers_size(agent: AgentNode) -> None:
    script = """while [ "$(stty size)" != "31 101" ]; do :; done
        trap "stty size" WINCH; echo ready; read line; read line; exit 3"""
    argv = command(agent, "exec", "-it", "web", "-c", "side", "--", "sh", "-c", script)
    with TerminalSession(argv, rows=31, columns=101) as terminal:
        terminal.read_until(b"ready", PATIENCE_S)
        terminal.resize(17, 63)
        terminal.read_until(b"17 63", PATIENCE_S)
        terminal.press(b"\r\r")
        assert terminal.wait(PATIENCE_S) == 3


def test_what_can_not_be_run_is_said(agent: AgentNode) -> None:
    for argv, said in (
        (("gone", "--", "true"), "there is no pod default/gone"),
        (("web", "-c", "other", "--", "true"), "pod web has no container other"),
        (("web", "-c", "app"), "COMMAND is missing"),
        (("web", "-c", "app", "--", "/none"), "/none"),
    ):
        done = run(agent, "exec", *argv)
        assert done.returncode != 0 and said in done.stderr.decode(), argv


def test_attach_writes_and_reads(agent: AgentNode) -> None:
    done = run(agent, "attach", "-i", "talk", stdin=b"one\nend\n")
    assert (done.returncode, done.stdout) == (0, b"got one\ngot end\n"), done.stderr
    agent.wait_phase("talk", "Succeeded")
    done = run(agent, "attach", "talk")
    assert done.returncode == 1 and b"does not run" in done.stderr
    done = run(agent, "attach", "-i", "web", "-c", "side")
    assert done.returncode == 1 and b"has no standard input" in done.stderr


def test_attach_to_a_terminal(agent: AgentNode) -> None:
    with TerminalSession(command(agent, "attach", "-it", "screen")) as terminal:
        terminal.read_until(b"try pressing enter", PATIENCE_S)
        terminal.press(b"one\r")
        terminal.read_until(b"got one", PATIENCE_S)
        terminal.press(b"end\r")
        assert terminal.wait(PATIENCE_S) == 0


@contextlib.contextmanager
def forwarded(agent: AgentNode, *ports: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process, and a line for each listener."""
    process = subprocess.Popen(
        command(agent, "port-forward", "web", *ports), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        lines = [process.stdout.readline() for _ in range(2 * len(ports))]
        assert all(lines), process.stderr.read()
        yield process, lines
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def ask(host: str, port: int) -> bytes:
    """Of a server that sees the end of the request and may answer still."""
    with socket.create_connection((host, port), timeout=PATIENCE_S) as made:
        made.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        made.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: made.recv(65536), b""))


def test_ports_of_a_pod_on_both_loopbacks(agent: AgentNode) -> None:
    with forwarded(agent, ":8080", ":9") as (process, lines):
        first, second, third, _ = lines
        port = int(first.removeprefix("Forwarding from 127.0.0.1:").split()[0])
        assert second == f"Forwarding from [::1]:{port} -> 8080\n"
        for host in ("127.0.0.1", "::1", "127.0.0.1"):
            assert ask(host, port).endswith(b"page\n")
        closed = int(third.removeprefix("Forwarding from 127.0.0.1:").split()[0])
        with socket.create_connection(("127.0.0.1", closed), timeout=PATIENCE_S) as made, contextlib.suppress(OSError):
            assert made.recv(1) == b""
        assert (
            process.stderr is not None
            and "port 9: connect to 127.0.0.1: connection refused" in process.stderr.readline()
        )
        done = run(agent, "port-forward", "web", f"{port}:8080")
        assert done.returncode == 1 and b"take another local port" in done.stderr


def cpu_s(pid: int) -> float:
    """User's and system's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_callers_who_come_while_there_are_no_descriptors(agent: AgentNode) -> None:
    """The agent does not turn round and round, and serves them when there are some."""
    pid = agent.node.pid
    held = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = next(fd for fd in range(len(held) + 1) if fd not in held)
    most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, most[1]))
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(f"{agent.node.state}/{SOCKET}")  # it waits to be taken
            before = cpu_s(pid)
            time.sleep(2)
            spent = cpu_s(pid) - before
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, most)
        caller.settimeout(PATIENCE_S)
        caller.sendall(b'{"ask": "nothing"}\n')
        assert b"'nothing' is no question" in caller.recv(4096)
    assert spent < 0.5
    assert run(agent, "exec", "web", "-c", "side", "--", "echo", "served").stdout == b"served\n"
