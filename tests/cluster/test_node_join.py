"""A node's way into a real cluster by a bootstrap token: API server, controllers that approve and sign, and kubectl."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pyrun.kube.certificates import Subject, read_pair
from pyrun.kube.client import Client, path
from pyrun.kube.kubeconfig import load_kubeconfig
from pyrun.kube.signing import PLURAL, VERSION
from pyrun.node.join.join import REFUSED, TOO_LATE, UNKNOWN_TOKEN, UNREACHABLE, WRONG_AUTHORITY
from tests.support.container.runner import Result, runtime_argv
from tests.support.kube import bootstrap
from tests.support.kube.control_plane import PROGRAMS, ControlPlane, a_control_plane, program

PATIENCE_S = 60.0


class Joiner:
    """A machine that joins. root: its --root."""

    def __init__(self, plane: ControlPlane, root: Path) -> None:
        self.plane, self.root, self.directory = plane, root, root / "node" / "credentials"

    def argv(self, *words: str, name: str = "n1", token: str) -> list[str]:
        url = () if "--server" in words else ("--server", self.plane.url)
        known = () if {"--ca-hash", "--ca-file"} & {*words} else ("--ca-file", self.plane.ca)
        fixed = ("--root", str(self.root), "--node-name", name, "--token", token)
        return [*runtime_argv(), "node", "join", *fixed, *url, *known, *words]

    def join(self, *words: str, name: str = "n1", token: str) -> Result:
        argv = self.argv(*words, name=name, token=token)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
        return Result(tuple(argv), done.returncode, done.stdout, done.stderr)

    def refused(self, code: int, said: str, *words: str, token: str, name: str = "n1") -> None:
        """And nothing is there that a run would take."""
        done = self.join(*words, token=token, name=name)
        done.fails(code, said)
        assert "0123456789abcdef" not in done.err, "a secret"
        assert not (self.directory / "kubeconfig").exists() and not (self.directory / "client.pem").exists()

    def who(self) -> str:
        """Whom the API server takes us for, by what was kept."""
        client = Client(load_kubeconfig(str(self.directory / "kubeconfig")))
        try:
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            made = client.create(path("authentication.k8s.io/v1", "selfsubjectreviews"), review)
            return str(made["status"]["userInfo"]["username"])
        finally:
            client.close()

    def waiting(self, name: str) -> list[Any]:
        """Requests for this node that nobody has decided."""
        found = self.plane.admin.list(path(VERSION, PLURAL))[0]
        return [one for one in found if not one["status"] and one["spec"]["username"].endswith(name)]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    for name in PROGRAMS:
        program(name)
    with a_control_plane(tmp_path_factory.mktemp("plane"), controllers=True) as plane:
        bootstrap.prepare(plane)
        yield plane


@pytest.fixture
def joiner(plane: ControlPlane, tmp_path: Path) -> Joiner:
    return Joiner(plane, tmp_path / "root")


def wait(true: Callable[[], Any]) -> Any:
    last = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < last
        time.sleep(0.05)
    return found


def test_by_a_hash_of_the_authority(joiner: Joiner) -> None:
    """The cluster tells the rest, signed by the token; a second time nothing is asked for; other places are refused."""
    token = bootstrap.token(joiner.plane, "aaaaaa")
    signed = path("v1", "configmaps", "kube-public", "cluster-info")
    wait(lambda: "jws-kubeconfig-aaaaaa" in joiner.plane.admin.get(signed)["data"])
    hash = bootstrap.authority_hash(joiner.plane)
    wrong = f"sha256:{'0' * 64}"
    joiner.refused(WRONG_AUTHORITY, "not the one that --ca-hash names", "--ca-hash", wrong, token=token)
    joiner.refused(UNKNOWN_TOKEN, "not signed by it", "--ca-hash", hash, token="bbbbbb.0123456789abcdef")
    joiner.refused(UNKNOWN_TOKEN, "not signed by it", "--ca-hash", hash, token=token[:-1] + "0")
    done = joiner.join("--ca-hash", hash, token=token).ok()
    assert "this node is n1" in done.out
    assert joiner.who() == "system:node:n1"
    assert {one.name: one.stat().st_mode & 0o777 for one in joiner.directory.iterdir()} == dict.fromkeys(
        ("kubeconfig", "client.pem", "ca.pem", "lock"), 0o600
    )
    pair = read_pair(str(joiner.directory / "client.pem"))
    assert pair is not None and pair.subject == Subject("system:node:n1", ("system:nodes",))
    assert "already" in joiner.join(token=token).ok().out
    assert read_pair(str(joiner.directory / "client.pem")) == pair
    other = joiner.join(name="n2", token=token)
    other.fails(1, "this node is n1 of")
    kubeconfig = joiner.directory / "kubeconfig"
    kubeconfig.write_text(re.sub(r"https://[^\s\"]+", "https://127.0.0.1:1", kubeconfig.read_text()))
    joiner.join(token=token).fails(1, "this node is n1 of https://127.0.0.1:1, which does not answer")
    assert read_pair(str(joiner.directory / "client.pem")) == pair


def test_who_is_not_let_in(joiner: Joiner, tmp_path: Path) -> None:
    old = bootstrap.token(joiner.plane, "cccccc", lives=timedelta(hours=-1))
    joiner.refused(UNKNOWN_TOKEN, "token cccccc is not good", token=old)
    joiner.refused(UNREACHABLE, "refused", "--server", "https://127.0.0.1:1", token=old)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
        + ["-keyout", str(tmp_path / "x.key"), "-out", str(tmp_path / "x.crt")],
        check=True,
        capture_output=True,
    )
    joiner.refused(UNREACHABLE, "certificate verify failed", "--ca-file", str(tmp_path / "x.crt"), token=old)


def test_what_is_asked_for_is_approved_by_hand(joiner: Joiner) -> None:
    """Killed while it waits, the next one waits for the same request; one that is denied is told, and asked anew."""
    token = bootstrap.token(joiner.plane, "dddddd", trusted=False)
    joiner.refused(TOO_LATE, "kubectl certificate approve node-csr-", "--timeout", "1", token=token)
    (first,) = joiner.waiting("dddddd")
    name = first["metadata"]["name"]
    process = subprocess.Popen(joiner.argv(token=token), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and name in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    process.stdout.close()
    assert [one["metadata"]["name"] for one in joiner.waiting("dddddd")] == [name]
    joiner.plane.kubectl("certificate", "deny", name)
    joiner.refused(REFUSED, "was denied", token=token)
    process = subprocess.Popen(joiner.argv(token=token), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    (second,) = wait(lambda: joiner.waiting("dddddd"))
    assert second["metadata"]["name"] != name
    joiner.plane.kubectl("certificate", "approve", second["metadata"]["name"])
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out
    assert joiner.who() == "system:node:n1"
