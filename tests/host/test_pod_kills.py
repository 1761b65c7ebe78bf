"""Who dies, and what then is left of a pod: the daemon, a maker, the supervisor; and who shouts at the supervisor."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.pod import messages as m
from pyrun.pod.calls import Gone
from pyrun.pod.carried import MakerDied
from pyrun.pod.ends import lost_status, read_exits
from pyrun.pod.supervisor import Supervisor
from pyrun.runtime.delete import delete
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import REPO, wait_for
from tests.support.executor.faults import descriptors
from tests.support.pod.pods import Pod, fail, supervisor_pid, text_of

COUNTING = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"
HANGS = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]}


@pytest.fixture
def pod(bundle: BundleMaker, tmp_path: Path, leak_check: None) -> Iterator[Pod]:
    made = Pod(tmp_path, bundle)
    yield made
    made.close()


def daemon(pod: Pod, bundle: Path, *names: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.support.pod.daemon", str(pod.directory), pod.store.root, str(bundle), *names]
    return subprocess.Popen(argv, cwd=REPO, stdout=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    while line := process.stdout.readline():
        if line.startswith(word):
            return line
    raise AssertionError(f"it never said {word}")


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def children_of(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def maker_of(pod: Pod) -> int:
    """The maker that is at work."""
    found: list[int] = []

    def look() -> bool:
        for pid in children_of(pod.pid):
            try:
                if Path(f"/proc/{pid}/comm").read_text() == "pyrun-make\n":
                    found.append(pid)
            except OSError:
                continue
        return bool(found)

    wait_for(look, 10, "a maker")
    return found[0]


# --- the daemon


def test_a_daemon_that_is_killed(pod: Pod) -> None:
    """Containers run on, logs flow, ends are kept for who comes next."""
    b = pod.bundles(["sh", "-c", COUNTING])
    process = daemon(pod, b.path, "c1", "c2")
    read_until(process, "started c2")
    kill(process)
    size = pod.log("c1").stat().st_size
    wait_for(lambda: pod.log("c1").stat().st_size > size + 500, 10, "more of the log")
    known = {k.ctr: k for k in pod.supervisor.hello()}
    assert set(known) == {"c1", "c2"} and all(k.state == m.LIVE for k in known.values())
    os.kill(known["c2"].pid, signal.SIGKILL)
    event = pod.ended("c2")
    assert (event.status, event.pid, event.start) == (signal.SIGKILL, known["c2"].pid, known["c2"].start)
    numbers = text_of(pod.log("c2")).split()
    assert numbers == [b"%d" % n for n in range(len(numbers))], "none is lost"


def test_a_daemon_that_is_killed_while_a_hook_hangs(pod: Pod) -> None:
    """The create is undone: nobody would ever ask for its outcome."""
    b = pod.bundles(["sleep", "1000"], hooks=HANGS)
    process = daemon(pod, b.path, "c1")
    read_until(process, "begin")
    wait_for(lambda: any("sleep" in cmdline(p) for p in descendants(pod.pid)), 10, "the hook")
    kill(process)
    wait_for(lambda: pod.supervisor.hello() == [], 10, "the undoing")
    wait_for(lambda: pod.store.ids() == [] and not descendants(pod.pid), 10, "the end of the maker")


def cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    found = []
    try:
        below = children_of(pid)
    except OSError:
        return []
    for child in below:
        found += [child, *descendants(child)]
    return found


@pytest.mark.parametrize("tenth_ms", range(0, 260, 20))
def test_a_daemon_that_is_killed_at_any_moment(pod: Pod, tenth_ms: int) -> None:
    """A container is either known to the supervisor and to the store, or nowhere, once the maker has ended."""
    b = pod.bundles(["sleep", "1000"])
    process = daemon(pod, b.path, "c1")
    read_until(process, "begin")
    time.sleep(tenth_ms / 10_000)
    kill(process)
    wait_for(lambda: all(k.state != m.MAKING for k in pod.supervisor.hello()), 10, "the maker")
    wait_for(lambda: not any("pyrun-make" in comm(p) for p in children_of(pod.pid)), 10, "the end of the maker")
    assert [k.ctr for k in pod.supervisor.hello()] == pod.store.ids()
    for ctr in pod.store.ids():
        pod.remove(ctr)


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


# --- a maker


def test_a_caller_that_gives_up(pod: Pod) -> None:
    """What a create waits for ends, and all is undone; as where its time is over."""
    b = pod.bundles(["sleep", "1000"], hooks=HANGS)
    reader, writer = os.pipe()
    threading.Timer(0.3, lambda: os.write(writer, b"x")).start()
    with pytest.raises(PyrunError, match="interrupted"):
        pod.create("c1", [], bundle=b, cancel=reader)
    with pytest.raises(PyrunError, match="interrupted"):
        pod.create("c1", [], bundle=b, timeout=0.3)
    assert pod.supervisor.hello() == [] and pod.store.ids() == []
    os.close(reader)
    os.close(writer)


def test_logs_flow_while_a_hook_hangs(pod: Pod) -> None:
    pod.sh("c0", COUNTING)
    b = pod.bundles(["sleep", "1000"], hooks=HANGS)
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: pytest.raises(PyrunError, pod.create, "c1", [], bundle=b, cancel=reader))
    thread.start()
    maker_of(pod)
    size = pod.log("c0").stat().st_size
    wait_for(lambda: pod.log("c0").stat().st_size > size + 500, 10, "more of the log")
    os.close(writer)
    thread.join(60)
    os.close(reader)


@pytest.mark.parametrize("ms", [None, 0, 2, 4, 6, 8, 10, 13, 16, 20])
def test_a_maker_that_is_killed(pod: Pod, ms: int | None) -> None:
    """In a hook, or anywhere: the client undoes what the record tells of, and the next create works."""
    b = pod.bundles(["sleep", "1000"], hooks=HANGS if ms is None else {})
    outcome: list[object] = []

    def create() -> None:
        try:
            outcome.append(pod.create("c1", [], bundle=b, warn=lambda text: None))
        except MakerDied as e:
            outcome.append(e)

    thread = threading.Thread(target=create)
    thread.start()
    if ms is None:
        wait_for(lambda: any("sleep" in cmdline(p) for p in descendants(pod.pid)), 10, "the hook")
        os.kill(maker_of(pod), signal.SIGKILL)
    else:
        last = time.monotonic() + ms / 1000
        while time.monotonic() < last or not outcome:
            for pid in children_of(pod.pid):
                if time.monotonic() >= last and comm(pid) == "pyrun-make\n":
                    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                        os.kill(pid, signal.SIGKILL)
    thread.join(60)
    (result,) = outcome
    if isinstance(result, MakerDied):
        assert "signal 9" in str(result) and pod.store.ids() == [] and pod.supervisor.hello() == []
    else:
        pod.remove("c1")
    hooks = [p for p in descendants(pod.pid) if "sleep" in cmdline(p)]
    for pid in hooks:  # the orphan of a maker that nothing could tell
        os.kill(pid, signal.SIGKILL)
    pod.sh("c2", "exit 4")
    assert pod.ended("c2").exit_code == 4


# --- the supervisor


def test_a_supervisor_that_is_killed(pod: Pod) -> None:
    """The kernel still tells how its containers end, and its records how others did; a new one takes its place."""
    made = pod.run("c1", ["sleep", "1000"])
    pod.sh("c2", "exit 6")
    pod.ended("c2")
    os.kill(pod.pid, signal.SIGKILL)
    with pytest.raises(Gone):
        for _ in range(100):
            pod.supervisor.hello()
            time.sleep(0.05)
    with pytest.raises(Gone):
        for _ in range(100):
            pod.supervisor.read_event()
            time.sleep(0.05)
    assert {ctr: k.exit_code for ctr, k in read_exits(str(pod.directory)).items()} == {"c2": 6}
    assert lost_status(made.pidfd()) is None, "it runs"
    signal.pidfd_send_signal(made.pidfd(), signal.SIGKILL)
    wait_for(lambda: lost_status(made.pidfd()) == signal.SIGKILL, 10, "the kernel's word")
    for ctr in ("c1", "c2"):
        delete(pod.store, ctr, fail, force=True)
    again = Supervisor.launch(str(pod.directory), "pod")
    assert again.hello() == []
    pod.supervisor = again
    pod.sh("c2", "exit 2")
    assert pod.ended("c2").exit_code == 2


def test_what_it_has(pod: Pod, tmp_path: Path) -> None:
    """A session of its own, no descriptor but its own, little memory, and containers that do not inherit its luck."""
    others = [tmp_path / str(n) for n in range(4)]
    for path in others:
        path.mkdir()
    beside = [Supervisor.launch(str(path), "pod") for path in others]
    pid = pod.pid
    made = pod.run("c1", ["sleep", "1000"])
    pod.sh("c2", "head -c 3000000 /dev/zero")
    pod.ended("c2")
    assert os.getsid(pid) != os.getsid(0)
    assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) != os.getpid()
    time.sleep(1.3)  # then its buffers are given back
    kinds = [os.readlink(f"/proc/{pid}/fd/{n}").partition(":")[0] for n in os.listdir(f"/proc/{pid}/fd")]
    assert set(kinds) <= {"/dev/null", str(pod.directory), "socket", "anon_inode", "pipe"} | {
        k for k in kinds if k.endswith(("c1.log", "exits/c1", "memory.events"))
    }
    adjust = Path("/proc/self/oom_score_adj").read_text()
    assert Path(f"/proc/{made.pid}/oom_score_adj").read_text() == adjust
    ours, (soft, hard) = resource.getrlimit(resource.RLIMIT_NOFILE), resource.prlimit(pid, resource.RLIMIT_NOFILE)
    assert soft == hard == ours[1]
    pss = next(line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    assert int(pss.split()[1]) <= 60, f"{pss}, where five share the program"
    for one in beside:
        one.end()


def test_in_a_cgroup_of_its_own(bundle: BundleMaker, tmp_path: Path, leak_check: None) -> None:
    cgroup = Path("/sys/fs/cgroup/pod-cgroup")
    cgroup.mkdir()
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    made = Supervisor.launch(str(tmp_path), "pod", cgroup=fd)
    os.close(fd)
    assert cgroup.joinpath("cgroup.procs").read_text().split() == [str(supervisor_pid(tmp_path))]
    made.end()
    made.end()
    wait_for(lambda: not cgroup.joinpath("cgroup.procs").read_text(), 10, "its end")
    cgroup.rmdir()


def test_it_waits_for_its_cgroup_to_be_made(tmp_path: Path, leak_check: None) -> None:
    """It is a child of ours until then, and has done nothing; it goes with us, or where the cgroup can't be made."""
    seen: list[int] = []
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()

    def around(pid: int) -> None:
        seen.append(pid)
        assert Path(f"/proc/{pid}").exists() and not [*first.iterdir(), *second.iterdir()]

    made = Supervisor.launch(str(first), "pod", around=around)
    assert made.hello() == [] and supervisor_pid(first) != seen[0]
    made.end()

    def refuse(pid: int) -> None:
        seen.append(pid)
        raise PyrunError("no such slice")

    with pytest.raises(PyrunError, match="no such slice"):
        Supervisor.launch(str(second), "pod", around=refuse)
    assert list(second.iterdir()) == [] and not Path(f"/proc/{seen[1]}").exists()

    def die(pid: int) -> None:
        os.write(writer, str(pid).encode())
        os._exit(0)

    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        Supervisor.launch(str(second), "pod", around=die)
    os.waitpid(child, 0)
    pid = int(os.read(reader, 20))
    os.close(reader)
    os.close(writer)
    # Whoever adopted it may not have reaped it yet.
    wait_for(lambda: not _runs(pid), 30, "the end of one that waits for nobody")
    assert list(second.iterdir()) == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_full_state_directory(bundle: BundleMaker, tmp_path: Path, leak_check: None) -> None:
    """The end of a container is recorded all the same; another can't be made, and that is said."""
    (tmp_path / "pod").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", str(tmp_path / "pod")], check=True)
    pod = Pod(tmp_path, bundle)
    made = pod.run("c1", ["sleep", "1000"], log=-1)
    fill = os.open(pod.directory / "fill", os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError, match="No space"):
        while os.write(fill, bytes(4096)):
            continue
    os.close(fill)
    with pytest.raises(PyrunError, match="no space left"):
        pod.create("c2", ["sleep", "1000"], log=-1)
    signal.pidfd_send_signal(made.pidfd(), signal.SIGTERM)
    signal.pidfd_send_signal(made.pidfd(), signal.SIGKILL)
    assert pod.ended("c1").status == signal.SIGKILL
    assert read_exits(str(pod.directory))["c1"].status == signal.SIGKILL
    pod.close()
    subprocess.run(["umount", "-l", str(tmp_path / "pod")], check=True)


# --- who shouts at it


def shout(pod: Pod, data: bytes, fds: list[int]) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(60)
        s.connect(str(pod.directory / "sock"))
        socket.send_fds(s, [data], fds)
        try:
            return s.recv(100)
        except ConnectionResetError:
            return b""


def test_bad_messages(pod: Pod) -> None:
    """Each is answered with an error, or the connection's end; none of its descriptors stays open there."""
    null = os.open("/dev/null", os.O_RDWR)
    pid = pod.pid

    def kinds() -> list[str]:
        return sorted(os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd"))

    wait_for(lambda: len(kinds()) == 7, 10, "its own alone")
    good = m.request(m.DROP, "c1")
    bad = [b"", b"x", good[:50], b"\0" * 88, good + b"x" * 5000, m.request(m.CREATE, "../../etc"), m.request(99)]
    bad += [m.request(m.CREATE, ""), m.request(m.HELLO, "c1"), m.request(m.CREATE, "c1", 1 << 9), m.request(m.GO)]
    for data in bad:
        for count in (0, 1, 4, 10):
            answer = shout(pod, data, [null] * count)
            assert answer == b"" or m.Reply(answer).err, (data[:90], count)
    for count in (0, 2, 4):
        assert m.Reply(shout(pod, m.request(m.CREATE, "c1"), [null] * count)).err
    os.close(null)
    assert pod.supervisor.hello() == []
    wait_for(lambda: len(kinds()) == 7, 5, f"its own alone: {kinds()}")


def test_a_plan_that_is_none(pod: Pod, tmp_path: Path) -> None:
    for data in (b"", b"x" * 1000):
        path = tmp_path / "plan"
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(60)
            s.connect(str(pod.directory / "sock"))
            socket.send_fds(s, [m.request(m.CREATE, "c1")], [fd])
            reply = m.Reply(s.recv(10_000))
            assert reply.kind == m.RESULT and m.Result(reply.body).status == 1
        os.close(fd)
    assert pod.supervisor.hello() == []


def test_a_flood_of_connections(pod: Pod) -> None:
    """More than it has places for: those that say nothing are cut, and then others are served."""
    silent = []
    for _ in range(170):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(str(pod.directory / "sock"))
        silent.append(s)
    assert pod.supervisor.hello() == []
    for s in silent:
        s.close()


def test_only_root_is_heard(pod: Pod) -> None:
    os.chmod(pod.directory, 0o755)
    for path in list(pod.directory.parents)[:3]:
        os.chmod(path, path.stat().st_mode | 0o011)
    os.chmod(pod.directory / "sock", 0o777)
    script = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        f"s.connect({str(pod.directory / 'sock')!r}); s.settimeout(60)\n"
        f"try: s.send({m.request(m.HELLO)!r}); sys.exit(len(s.recv(1000)))\n"
        "except (BrokenPipeError, ConnectionResetError): sys.exit(0)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_many_containers(pod: Pod) -> None:
    """A hundred in one pod, from four threads; every end is told once, with its own status."""
    bundles = [pod.bundles(["sh", "-c", f"echo {n}; exit {n}"]) for n in range(4)]
    fds = descriptors()

    def make(first: int) -> None:
        for n in range(first, 100, 4):
            pod.run(f"c{n}", [], bundle=bundles[n % 4])

    threads = [threading.Thread(target=make, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    ended: dict[str, int] = {}
    last = time.monotonic() + 60
    while len(ended) < 100 and time.monotonic() < last:
        event = pod.supervisor.read_event()
        if event is None:
            time.sleep(0.01)
            continue
        assert event.ctr not in ended
        ended[event.ctr] = event.exit_code
    for thread in threads:
        thread.join()
    assert ended == {f"c{n}": n % 4 for n in range(100)}
    assert len(pod.supervisor.hello()) == 100
    for n in range(100):
        assert text_of(pod.log(f"c{n}")) == b"%d\n" % (n % 4)
        pod.remove(f"c{n}")
    pod.supervisor.close()
    assert not {n for n in descriptors() if n not in fds}
