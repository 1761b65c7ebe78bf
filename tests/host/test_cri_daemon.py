"""`pyrun cri` as a daemon: who may connect, that there is one, how it begins and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyrun import cri_api as v1
from pyrun.errors import NotFound, PyrunError, Unavailable, Unimplemented
from pyrun.rpc.client import call_all
from tests.support.container.runner import REPO
from tests.support.pods.nets import own_network

pytestmark = pytest.mark.root
PYRUN = [sys.executable, "-m", "pyrun"]
RPCS = v1.SERVICES["RuntimeService"]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "config.toml").write_text('cni_conf_dir = ""\n')
    with own_network():
        yield tmp_path
    subprocess.run(["umount", tmp_path / "state/pods"], check=False, capture_output=True)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir("/sys/fs/cgroup/pyrun")  # the parent of pods that name none: it stays for those to come


def argv(places: Path, *more: str) -> list[str]:
    where = ["--root", f"{places}/root", "--state", f"{places}/state", "--config", f"{places}/config.toml"]
    return [*PYRUN, "cri", *where, *more]


@contextmanager
def daemon(places: Path, *more: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """One that serves; it is asked to end at the end."""
    sock = places / "state/cri.sock"
    with open(places / "log", "a") as log:
        made = subprocess.Popen(argv(places, *more), stderr=log, text=True, cwd=REPO, env=os.environ | (env or {}))
    try:
        deadline = time.monotonic() + 60
        while not _served(sock if not more else Path(more[-1].removeprefix("unix://"))):
            assert made.poll() is None and time.monotonic() < deadline, (places / "log").read_text()
            time.sleep(0.02)
        yield made
    finally:
        made.terminate()
        assert made.wait(60) == 0, (places / "log").read_text()


def _served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def refused(places: Path, *more: str) -> str:
    """What it says when it does not start."""
    done = subprocess.run(argv(places, *more), capture_output=True, text=True, timeout=60, cwd=REPO, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr


def test_cve_2021_41103_and_2024_25621_only_root_sees_a_thing(places: Path) -> None:
    (places / "state").mkdir(mode=0o755)
    with daemon(places):
        for name in ("root", "state", "state/cri.sock", "root/image", "state/containers"):
            assert not os.stat(places / name).st_mode & 0o077, name
        assert stat.S_ISSOCK(os.lstat(places / "state/cri.sock").st_mode)
    assert not (places / "state/cri.sock").exists()


def test_there_is_one(places: Path) -> None:
    """By either directory."""
    with daemon(places) as first:
        assert f"process {first.pid}," in refused(places)
        other = [*PYRUN, "cri", "--root", f"{places}/root", "--state", f"{places}/other"]
        done = subprocess.run(other, capture_output=True, text=True, timeout=60, cwd=REPO, check=False)
        assert done.returncode == 1 and "/root" in done.stderr and "another pyrun cri" in done.stderr
        assert _served(places / "state/cri.sock")


def test_one_network_namespace_has_one_built_in_network(places: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The second one runs, and says why it can make no pod; when the first has ended it can."""
    other = tmp_path_factory.mktemp("other")
    (other / "config.toml").write_text('cni_conf_dir = ""\n')

    def ready(at: Path) -> tuple[bool, str]:
        (answer,) = call_all(f"{at}/state/cri.sock", [(RPCS["Status"], v1.StatusRequest())], 20)
        (found,) = [one for one in answer.status.conditions if one.type == "NetworkReady"]
        return found.status, found.message

    with daemon(other):
        with daemon(places):
            assert ready(places) == (True, "")
            state, message = ready(other)
            assert not state and "another pyrun cri has the built-in network" in message and "unshare -n" in message
            config = v1.PodSandboxConfig(metadata=v1.PodSandboxMetadata(name="a", uid="b", namespace="c"))
            with pytest.raises(PyrunError, match="another pyrun cri"):
                request = v1.RunPodSandboxRequest(config=config)
                call_all(f"{other}/state/cri.sock", [(RPCS["RunPodSandbox"], request)], 20)
        assert ready(other) == (True, "")
    subprocess.run(["umount", other / "state/pods"], check=False, capture_output=True)


def test_its_cgroup_goes_when_no_pod_needs_it(places: Path) -> None:
    with daemon(places):
        path = f"{places}/state/cri.sock"
        config = v1.PodSandboxConfig(metadata=v1.PodSandboxMetadata(name="a", uid="b", namespace="c"))
        (made,) = call_all(path, [(RPCS["RunPodSandbox"], v1.RunPodSandboxRequest(config=config))], 20)
        request = v1.RemovePodSandboxRequest(pod_sandbox_id=made.pod_sandbox_id)
        call_all(path, [(RPCS["RemovePodSandbox"], request)], 20)
    assert not os.path.exists("/sys/fs/cgroup/pyrun")


def test_it_is_undone_as_the_kubelets_page_says(places: Path) -> None:
    """Its commands, with these directories in place of those, leave nothing of a daemon that had pods."""
    words = (
        (REPO / "docs/kubelet.md").read_text().partition("## Undoing it")[2].partition("```\n")[2].partition("```")[0]
    )
    lines = [line for line in words.splitlines() if re.match("umount|nft|rm -r", line)]
    with daemon(places):
        path = f"{places}/state/cri.sock"
        config = v1.PodSandboxConfig(metadata=v1.PodSandboxMetadata(name="a", uid="b", namespace="c"))
        (made,) = call_all(path, [(RPCS["RunPodSandbox"], v1.RunPodSandboxRequest(config=config))], 60)
        request = v1.RemovePodSandboxRequest(pod_sandbox_id=made.pod_sandbox_id)
        call_all(path, [(RPCS["RemovePodSandbox"], request)], 60)
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    script = "\n".join(lines).replace("/run/pyrun-cri", f"{places}/state").replace("/var/lib/pyrun", f"{places}/root")
    subprocess.run(["sh", "-ec", script], check=True)
    assert tables and not subprocess.run(["nft", "list", "tables"], capture_output=True, check=True).stdout
    assert not (places / "root").exists() and not (places / "state").exists()
    assert str(places) not in Path("/proc/self/mountinfo").read_text()


def test_the_cgroup_driver(places: Path) -> None:
    """It is cgroupfs where systemd does not make the cgroups that we see; what can't be had is refused by its key."""
    with daemon(places):
        (answer,) = call_all(f"{places}/state/cri.sock", [(RPCS["RuntimeConfig"], v1.RuntimeConfigRequest())], 20)
        assert answer.linux.cgroup_driver == v1.CGROUPFS
    for value, says in (("systemd", "systemd does not run this node"), ("docker", "'systemd' or 'cgroupfs'")):
        (places / "config.toml").write_text(f'cgroup_driver = "{value}"\n')
        said = refused(places)
        assert "cgroup_driver" in said and says in said


def test_what_a_killed_one_has_left_is_no_hindrance(places: Path) -> None:
    with daemon(places) as first:
        os.kill(first.pid, 9)
        first.wait(60)
        first.returncode = 0
        assert (places / "state/cri.sock").exists()
    with daemon(places):
        assert _served(places / "state/cri.sock")


def test_anothers_socket_and_what_is_no_socket_are_left_alone(places: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(places / "other.sock"))
        other.listen()
        assert "another program serves it" in refused(places, "--listen", f"unix://{places}/other.sock")
    (places / "file").write_text("mine")
    assert "no socket" in refused(places, "--listen", f"{places}/file")
    assert (places / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "listen, words", [("tcp://0.0.0.0:1", "only unix sockets"), ("unix:///" + "x" * 200, "longer than")]
)
def test_addresses_that_are_none(listen: str, words: str, places: Path) -> None:
    assert words in refused(places, "--listen", listen)


@pytest.mark.parametrize(
    "text, words",
    [
        ("strict = true", "there is no strict"),
        ("strict_limits = 1", "strict_limits must be true or false"),
        ("[section]\nkey = 1", "there is no section"),
        ("= 3", "config.toml"),
        ('pod_cidrs = ["banana"]', "banana"),
        ('stream_address = "192.0.2.77"', "stream_address 192.0.2.77"),
    ],
)
def test_a_configuration_that_is_wrong_is_named(text: str, words: str, places: Path) -> None:
    (places / "config.toml").write_text(text + "\n")
    assert words in refused(places)


def test_a_directory_of_somebody_elses_is_refused(places: Path) -> None:
    (places / "state").mkdir()
    os.chown(places / "state", 1000, 1000)
    assert "belongs to uid 1000" in refused(places)


@pytest.mark.parametrize("verb", [["cri"], ["node", "run", "--manifests", "/nowhere"]])
def test_a_state_directory_whose_sockets_could_not_be_bound(verb: list[str], tmp_path: Path) -> None:
    """sockaddr_un has 108 bytes (unix(7)). Nothing is made."""
    state = str(tmp_path / ("d" * 100))
    command = [*PYRUN, *verb, "--root", str(tmp_path / "root"), "--state", state]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPO, check=False)
    assert done.returncode == 1 and f"--state {state}: longer than" in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_systemd_hears_of_it(places: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(places / "notify"))
        manager.settimeout(60)
        with daemon(places, env={"NOTIFY_SOCKET": str(places / "notify")}):
            assert manager.recv(1000).startswith(b"READY=1\n")
        assert manager.recv(1000).startswith(b"STOPPING=1\n")


def test_status_says_what_it_is(places: Path) -> None:
    where = ["--listen", f"unix://{places}/state/cri.sock"]
    status = [*PYRUN, "cri", "status", *where]
    before = subprocess.run(status, capture_output=True, text=True, cwd=REPO, check=False)
    assert before.returncode == 1 and "does `pyrun cri` run" in before.stderr
    with daemon(places):
        said = subprocess.run(status, capture_output=True, text=True, cwd=REPO, check=True).stdout
        assert said.startswith("pyrun ") and "RuntimeReady: yes" in said and "NetworkReady: yes" in said
        assert "calls: 1, failed: none" in said.splitlines()  # Version; its Status has not ended
        with pytest.raises(NotFound):
            call_all(f"{places}/state/cri.sock", [(RPCS["PodSandboxStatus"], v1.PodSandboxStatusRequest())], 5)
        said = subprocess.run(status, capture_output=True, text=True, cwd=REPO, check=True).stdout
        assert "failed: PodSandboxStatus NotFound 1" in said and "[" not in said and "{" not in said
        done = subprocess.run([*status, "--format", "json"], capture_output=True, text=True, cwd=REPO, check=True)
        found = json.loads(done.stdout)
        assert found["api"] == "v1" and found["conditions"]["RuntimeReady"]["status"]
        assert "user_namespaces" in found["handlers"]["pyrun"]


def test_what_is_not_there_is_told_by_its_code(places: Path) -> None:
    """To a kubelet NotFound means gone, and Unimplemented that it need not try again."""
    path = f"{places}/state/cri.sock"
    with daemon(places):
        with pytest.raises(NotFound):
            call_all(path, [(RPCS["PodSandboxStatus"], v1.PodSandboxStatusRequest(pod_sandbox_id="0" * 64))], 5)
        with pytest.raises(NotFound):
            call_all(path, [(RPCS["ContainerStatus"], v1.ContainerStatusRequest(container_id="0" * 64))], 5)
        call_all(path, [(RPCS["RemovePodSandbox"], v1.RemovePodSandboxRequest(pod_sandbox_id="0" * 64))], 5)
        call_all(path, [(RPCS["RemoveContainer"], v1.RemoveContainerRequest(container_id="0" * 64))], 5)
        with pytest.raises(Unimplemented):
            call_all(path, [(RPCS["CheckpointPod"], v1.CheckpointPodRequest())], 5)
        config = v1.PodSandboxConfig(metadata=v1.PodSandboxMetadata(name="a", uid="b", namespace="c"))
        request = v1.RunPodSandboxRequest(config=config, runtime_handler="zebra")
        with pytest.raises(PyrunError, match="zebra"):
            call_all(path, [(RPCS["RunPodSandbox"], request)], 5)
    with pytest.raises(Unavailable):
        call_all(path, [(RPCS["Version"], v1.VersionRequest())], 5)


def test_a_signal_lets_what_was_begun_end(places: Path) -> None:
    """A pod that is being made when the signal comes is whole, or not there, for the next daemon."""
    path = f"{places}/state/cri.sock"
    config = v1.PodSandboxConfig(metadata=v1.PodSandboxMetadata(name="a", uid="b", namespace="c"))
    list_request = (RPCS["ListPodSandbox"], v1.ListPodSandboxRequest())
    with daemon(places) as first:
        script = (
            "import sys; from pyrun import cri_api as v1; from pyrun.rpc.client import call_all\n"
            "request = v1.RunPodSandboxRequest.FromString(bytes.fromhex(sys.argv[2]))\n"
            "call_all(sys.argv[1], [(v1.SERVICES['RuntimeService']['RunPodSandbox'], request)], 20)\n"
        )
        data = v1.RunPodSandboxRequest(config=config).SerializeToString().hex()
        client = subprocess.Popen([sys.executable, "-c", script, path, data], cwd=REPO, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not list((places / "root/pods").glob("*")) and time.monotonic() < deadline:
            time.sleep(0.0005)
        first.terminate()
        client.wait(60)
    with daemon(places):
        (found,) = call_all(path, [list_request], 5)
        assert [pod.state for pod in found.items] in ([], [v1.SANDBOX_READY])
        left = [entry.name for entry in (places / "root/pods").iterdir()]
        assert left == [pod.id for pod in found.items]
        for pod in found.items:
            call_all(path, [(RPCS["RemovePodSandbox"], v1.RemovePodSandboxRequest(pod_sandbox_id=pod.id))], 20)
        assert not list((places / "root/pods").iterdir())


def test_the_lock_goes_with_its_process(places: Path) -> None:
    with daemon(places):
        with open(places / "root/lock") as held, pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(places / "root/lock") as free:
        fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)
