"""The example bundles do what their README says, and so does the demo."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle
from tests.support.container.console import FdSocket
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import REPO, Runner, runtime_argv, wait_for

BUNDLES = REPO / "bundles"
NAMES = sorted(path.parent.name for path in BUNDLES.glob("*/config.json"))
SOMEBODY = 61234
Prepare = Callable[[str], Bundle]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Prepares an example below the test's directory."""

    def make(name: str) -> Bundle:
        for parent in (tmp_path, *tmp_path.parents[:2]):
            parent.chmod(0o755)  # root of a user namespace has to get there
        subprocess.run([BUNDLES / "prepare", name, tmp_path / name], check=True)
        return Bundle(tmp_path / name, json.loads((tmp_path / name / "config.json").read_text()))

    return make


@pytest.mark.parametrize("name", NAMES)
def test_readme_teaches_and_names_its_commands(name: str) -> None:
    readme = (BUNDLES / name / "README.md").read_text()
    assert readme.startswith("# ")
    assert f"bundles/prepare {name} /tmp/{name}" in readme
    assert f"--bundle /tmp/{name}" in readme


def test_prepare_lists_the_examples() -> None:
    done = subprocess.run([BUNDLES / "prepare"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert all(f"  {name} " in done.stderr for name in NAMES)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody reaches; pytest closes its own when another run begins."""
    with tempfile.TemporaryDirectory(prefix="pyrun-bundles-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


def test_who_is_not_root_prepares_after_root(public: Path) -> None:
    """In a clone where root has made its root file system already, parts of which only root may read."""
    clone, theirs = public / "clone", public / "theirs"
    shutil.copytree(BUNDLES, clone / "bundles")
    theirs.mkdir()
    os.chown(theirs, SOMEBODY, SOMEBODY)
    prepare = clone / "bundles" / "prepare"
    subprocess.run([prepare, "hello", public / "roots"], check=True)
    assert (public / "roots" / "rootfs" / "bin" / "busybox").stat().st_uid == 0
    somebody: dict[str, Any] = {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": []}
    subprocess.run([prepare, "hello", theirs / "hello"], check=True, **somebody)
    assert {path.lstat().st_uid for path in theirs.rglob("*")} == {SOMEBODY}
    assert (theirs / "hello" / "rootfs" / "bin" / "sh").exists()
    refused = subprocess.run([prepare, "debian", theirs / "no"], stderr=subprocess.PIPE, text=True, **somebody)
    assert (refused.returncode, refused.stderr) == (1, "make-rootfs: a Debian root file system takes root: use sudo\n")


def test_hello(pyrun: Runner, prepare: Prepare) -> None:
    assert pyrun.run(prepare("hello")).ok().out == "Hello. I am process 1 on hello, as user root.\n"


def test_service(pyrun: Runner, prepare: Prepare, tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as log:
        id = pyrun.create_started(prepare("service"), stdout=log, stderr=log)
    assert "sh -c" in pyrun.exec(id, "ps").ok().out
    while "started" not in (tmp_path / "log").read_text():
        assert pyrun.state(id)["status"] == "running"
    pyrun("kill", id, "TERM").ok()
    pyrun.wait_status(id, "stopped")
    assert (tmp_path / "log").read_text() == "started\nasked to stop\n"


def test_shell(pyrun: Runner, prepare: Prepare) -> None:
    with FdSocket() as console:
        id = pyrun.create_started(prepare("shell"), "--console-socket", console.path)
        os.write(console.receive(), b"tty; echo $((6 * 7))\n")
        assert "/dev/pts/0" in console.read_until("42")
        os.write(console.fd, b"exit\n")
        pyrun.wait_status(id, "stopped")


def test_userns(pyrun: Runner, prepare: Prepare) -> None:
    bundle = prepare("userns")
    out = pyrun.run(bundle).ok().out.split("\n")
    assert out[0].startswith("uid=0(root)")
    assert out[1].split() == ["0", "100000", "65536"]
    assert (bundle.rootfs / "root" / "file").stat().st_uid == 100000


def test_rootless_bundle_run_by_root(pyrun: Runner, prepare: Prepare) -> None:
    out = pyrun.run(prepare("rootless")).ok().out.splitlines()
    assert out[1].split() == ["0", os.environ.get("SUDO_UID", "0"), "1"]


def test_seccomp(pyrun: Runner, prepare: Prepare) -> None:
    result = pyrun.run(prepare("seccomp")).ok()
    assert result.out.splitlines() == ["mkdir said: no", "chmod is allowed", "Linux"]
    assert "Permission denied" in result.err


def test_hooks(pyrun: Runner, prepare: Prepare) -> None:
    bundle = prepare("hooks")
    inside = pyrun.run(bundle).ok().out
    outside = (bundle.path / "hooks.log").read_text().splitlines()
    lines = [*outside[:3], inside.strip(), *outside[3:]]
    kinds, states = zip(*(line.split(": ", 1) for line in lines), strict=True)
    assert kinds == ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    assert [json.loads(state)["status"] for state in states][-2:] == ["running", "stopped"]


def test_idmap(pyrun: Runner, prepare: Prepare) -> None:
    bundle = prepare("idmap")
    out = pyrun.run(bundle).ok().out.splitlines()
    assert out[1].split()[2:4] == ["0", "0"]
    made = (bundle.path / "data" / "from-container").stat()
    assert (made.st_uid, made.st_gid) == (1000, 1000)


def test_time(pyrun: Runner, prepare: Prepare) -> None:
    days = int(pyrun.run(prepare("time")).ok().out.split()[2]) / 86400
    host = float(Path("/proc/uptime").read_text().split()[0]) / 86400
    assert days == pytest.approx(host + 10, abs=0.01)


def test_netdevices(pyrun: Runner, prepare: Prepare) -> None:
    name = f"px{os.getpid() % 100000}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", "192.0.2.2/24", "dev", name], check=True)
        bundle = prepare("netdevices").update(linux={"netDevices": {"pyrun-demo0": None, name: {"name": "eth0"}}})
        out = pyrun.run(bundle).ok().out
    finally:
        subprocess.run(["ip", "link", "del", f"{name}p"], check=False, stderr=subprocess.DEVNULL)
    assert "eth0" in out and "192.0.2.2/24" in out


def test_web(pyrun: Runner, prepare: Prepare, tmp_path: Path, free_port: int) -> None:
    """A page of the host's, got from the server; which may only read it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "index.html").write_text("hello from the host\n")
    bundle = prepare("web")
    bundle.config["mounts"][2]["source"] = str(tmp_path / "data")
    bundle.config["process"]["args"][4] = f"127.0.0.1:{free_port}"
    bundle.save()
    with open(tmp_path / "log", "wb") as log:
        id = pyrun.create_started(bundle, stdout=log, stderr=log)
    wait_for(lambda: page_at(free_port) == "hello from the host\n", 10, "the page")
    assert "Read-only file system" in pyrun.exec(id, "touch", "/data/new").fails(1).err
    assert pyrun.exec(id, "id", "-u").ok().out == "1000\n"


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def page_at(port: int) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except OSError:
        return None
    finally:
        connection.close()


def test_debian(pyrun: Runner, prepare: Prepare) -> None:
    out = pyrun.run(prepare("debian")).ok().out
    assert out.startswith("Debian GNU/Linux ")
    assert "ps ax" in out


def test_limits(pyrun: Runner, prepare: Prepare) -> None:
    controllers = set((CGROUP_ROOT / "cgroup.controllers").read_text().split())
    result = pyrun.run(prepare("limits"))
    missing = {"memory", "pids", "cpu"} - controllers
    if missing:
        result.fails(1)
        assert any(controller in result.err for controller in missing), result.describe()
    else:
        assert result.out.startswith("/sys/fs/cgroup/pids.max:16\n/sys/fs/cgroup/memory.max:67108864\n")
        assert "can't fork" in result.err


@pytest.fixture(scope="module")
def demo() -> str:
    """What the demo prints."""
    env = os.environ | {"PYRUN": runtime_argv()[0]}
    done = subprocess.run(
        [BUNDLES / "demo"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_demo(demo: str) -> None:
    """Each web pod answers, and one that was killed fails no request but one that it had in hand; both begin again."""
    assert "Hello. I am process 1" in demo
    assert "Nothing is left" in demo
    pods = re.findall(r"^(web-\w{10}-\w{5}) +1/1 +Running +(\d) ", demo, re.MULTILINE)
    names = {name for name, _ in pods}
    assert pods[:2] == [(name, "0") for name in sorted(names)]
    assert {name for name, restarts in pods[2:] if restarts != "0"} == names
    for part, bound in (("6. ", 0), ("7. ", 1)):
        said = demo[demo.index(f"\n{part}") :]
        said = said.partition(" failed\n")[0]
        answers = {name: int(count) for count, name in re.findall(r"^ +(\d+) (web\S+)$", said, re.MULTILINE)}
        requests, failed = map(int, re.findall(r"^(\d+) requests, (\d+)$", said, re.MULTILINE)[0])
        assert set(answers) == names and sum(answers.values()) == requests - failed and failed <= bound
    events = demo[demo.index("\nEvents:\n") :]
    assert re.search(r"Unhealthy .* Liveness probe failed: .* 404\n.* Killing ", events)


def test_the_readme_shows_what_the_demo_prints(demo: str) -> None:
    """But for the pods' names, numbers and times, and for lines that it leaves out."""
    blocks = re.findall(r"^```\n(.*?)^```$", (REPO / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    told = [nameless(line) for line in next(block for block in blocks if "node get" in block).splitlines()]
    assert len(told) > 10 and [line for line in told if line not in {*map(nameless, demo.splitlines())}] == []


def nameless(line: str) -> str:
    return " ".join(re.sub(r"\d+", "N", re.sub(r"web-\w{10}-\w{5}", "web-POD", line)).split())


@pytest.mark.parametrize("reached", ["pyrun start web1", "sh /ask 4"])
def test_an_interrupted_demo_leaves_nothing(reached: str, tmp_path: Path) -> None:
    """Stopped with a container, and with a node of which pods ask each other."""
    env = os.environ | {"PYRUN": runtime_argv()[0]}
    log = tmp_path / "log"
    with log.open("wb") as out:
        demo = subprocess.Popen([BUNDLES / "demo"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
    cgroup = CGROUP_ROOT / f"pyrun-view.{demo.pid}"
    try:
        wait_for(lambda: reached in log.read_text() or demo.poll() is not None, 60, reached)
        assert cgroup.is_dir(), log.read_text()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130, log.read_text()
    finally:
        end(demo)
    assert not cgroup.exists() and "Nothing is left" not in log.read_text()
    place = re.findall(r"/tmp/pyrun-demo\.\w+", log.read_text())[0]
    assert not os.path.exists(place) and place not in Path("/proc/self/mounts").read_text()
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and place in command_of(pid)]


def test_a_demo_that_has_no_cgroups_of_its_own_refuses() -> None:
    """It would kill whatever is in them. In a view, should it not refuse."""
    inside = ["unshare", "--net", "env", "-u", "PYRUN_VIEW", "PYRUN_DEMO=inside", str(BUNDLES / "demo")]
    env = os.environ | {"PYRUN": runtime_argv()[0]}
    done = subprocess.run([str(REPO / "tests/view"), *inside], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "these cgroups are not its own" in done.stderr


def end(process: subprocess.Popen[bytes]) -> None:
    """Of a failed test: tests/view takes away what is below it, if it is asked to."""
    process.terminate()
    try:
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def command_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") + os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def test_what_the_demo_prints_can_be_typed(demo: str, pyrun: Runner, tmp_path: Path) -> None:
    """In one shell, in its order. A user waits until the container has ended, and kills it again when it has not."""
    parts = re.split(r"^\$ ", demo, flags=re.MULTILINE)[1:]
    expected = []
    ours, root = runtime_argv()[0], f'--root "{pyrun.root}"'
    script = f'pyrun() {{ case $1 in node|image|logs) {ours} "$@" ;; *) {ours} {root} "$@" ;; esac; }}\n'
    for part in parts:
        command = part.partition("\n")[0]
        told = re.search(r"^\(exit status (\d+)\)$", part, re.MULTILINE)
        expected.append(told[1] if told else "1" if "(this machine keeps" in part else "0")
        if command.startswith("pyrun kill "):
            state = f"pyrun state {command.split()[2]}"
            command = f"""until {state} | grep -q '"stopped"'; do {command} && sleep 0.1; done"""
        script += f"{command}\necho $? >>{tmp_path}/statuses\n"
    assert len(parts) > 20
    shell = [str(REPO / "tests" / "view"), "unshare", "--net", "sh", "-c", script]
    # Not below tmp_path: a socket's path has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="typed-", dir="/tmp") as place, open(tmp_path / "out", "wb") as out:
        os.chmod(place, 0o755)
        env = os.environ | {"TMPDIR": place}
        typing = subprocess.Popen(shell, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
        try:
            typing.wait(180)
        finally:
            end(typing)
    assert (tmp_path / "statuses").read_text().split() == expected, (tmp_path / "out").read_text()
