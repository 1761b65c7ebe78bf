"""What goes in and out of a pod's containers: logs byte for byte, execs, terminals, standard inputs, lookers-on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.pod.messages import exit_code
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import wait_for
from tests.support.pod.pods import Pod, entries, text_of

LINE = 16384


@pytest.fixture
def pod(bundle: BundleMaker, tmp_path: Path, leak_check: None) -> Iterator[Pod]:
    made = Pod(tmp_path, bundle)
    yield made
    made.close()


# --- logs


@pytest.mark.parametrize("size", [0, 1, LINE - 1, LINE, LINE + 1, 2 * LINE, 2 * LINE + 1, 100_000, 10_000_000])
def test_a_line_of_any_length(pod: Pod, size: int) -> None:
    """Parts of LINE bytes, the last with F, wherever the reads end."""
    pod.sh("c1", f"head -c {size} /dev/zero | tr '\\0' x; echo; echo after")
    pod.ended("c1")
    parts = [(tag, len(text)) for _, tag, text in entries(pod.log("c1"))]
    whole = max(0, (size - 1) // LINE)
    assert parts == [("P", LINE)] * whole + [("F", size - whole * LINE), ("F", 5)]


def test_what_ends_without_a_newline(pod: Pod) -> None:
    pod.sh("c1", "echo whole; printf part; printf -- -err >&2")
    pod.ended("c1")
    assert sorted(entries(pod.log("c1"))) == [
        ("stderr", "P", b"-err"),
        ("stdout", "F", b"whole"),
        ("stdout", "P", b"part"),
    ]


TOLD = b"pyrun: lines of this log that are left out, more than 16 KiB a second: "


def test_what_is_more_than_the_rate_is_left_out_and_counted(pod: Pod) -> None:
    """50 MB, a line of 10 MB, and bytes that are no text: the container is not held up, and all is accounted for."""
    line = "x" * 98
    script = f"yes {line} | head -n 500000; head -c 10000000 /dev/zero; echo; printf '\\377\\376\\n' >&2; echo; exit 7"
    pod.sh("c1", script, log_rate=16)
    event = pod.ended("c1", 120)
    assert event.exit_code == 7
    found = entries(pod.log("c1"))
    notes = [int(text.removeprefix(TOLD)) for _, _, text in found if text.startswith(TOLD)]
    kept = [(tag, text) for _, tag, text in found if not text.startswith(TOLD)]
    assert kept[0] == ("F", line.encode()) and len(kept) < 500_000
    whole = [text for tag, text in kept if tag == "F" and text in (line.encode(), b"\xff\xfe", b"")]
    # The end of the long line is among them, where a part of it was kept.
    assert sum(notes) - (500_003 - len(whole)) in (0, 1) and len(notes) > 0
    assert event.lost_bytes == 500_000 * 98 + 10_000_000 + 2 - sum(len(text) for _, text in kept)
    assert kept[-1][0] == "F"  # what is cut has its end


def test_what_is_within_the_rate_is_all_there(pod: Pod) -> None:
    pod.sh("c1", "printf a; i=0; while [ $i -lt 900 ]; do echo number $i; i=$((i+1)); done", log_rate=1024)
    assert pod.ended("c1").lost_bytes == 0
    assert text_of(pod.log("c1")) == b"a" + b"".join(b"number %d\n" % i for i in range(900))


def test_pieces_of_a_line_become_one_entry(pod: Pod) -> None:
    pod.sh("c1", "printf a; sleep 0.05; printf b; sleep 0.05; echo c")
    pod.ended("c1")
    assert entries(pod.log("c1")) == [("stdout", "F", b"abc")]


def test_every_byte(pod: Pod, tmp_path: Path) -> None:
    """Random bytes with short and long lines, on both streams at once."""
    seed = os.urandom(1_500_000) + (os.urandom(300) + b"\n") * 20 + b"\n" * 3000
    b = pod.bundles(["sh", "-c", "cat /data >&2 & cat /data; wait"])
    (b.rootfs / "data").write_bytes(seed)
    pod.run("c1", [], bundle=b)
    pod.ended("c1")
    assert text_of(pod.log("c1"), "stdout") == seed == text_of(pod.log("c1"), "stderr")
    known = pod.known("c1")
    assert known is not None and known.log_bytes == pod.log("c1").stat().st_size and known.lost_bytes == 0


def test_times_do_not_go_back(pod: Pod) -> None:
    before = time.time()
    pod.sh("c1", "for i in 1 2 3; do echo $i; sleep 0.01; done")
    pod.ended("c1")
    stamps = [line.split()[0] for line in pod.log("c1").read_text().splitlines()]
    assert stamps == sorted(stamps) and len(set(stamps)) == 3
    first = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before))
    assert stamps[0][:16] in (first, time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before + 60)))


def test_reopen_at_the_end_of_a_line(pod: Pod, tmp_path: Path) -> None:
    """The kubelet renames the log and asks for another: what was written is in one or the other, in whole entries."""
    pod.sh(
        "c1",
        "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; head -c 70000 /dev/zero | tr '\\0' y; echo",
    )
    logs = [pod.log("c1")]
    for number in range(5):
        time.sleep(0.01)
        old = tmp_path / f"old{number}"
        pod.log("c1").rename(old)
        logs.insert(number, old)
        fd = os.open(pod.log("c1"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o640)
        try:
            pod.supervisor.log("c1", fd)
        except PyrunError as e:
            assert "does not run" in str(e)
            break
        finally:
            os.close(fd)
    pod.ended("c1")
    text = b"".join(text_of(log) for log in logs if log.exists())
    assert text == b"".join(b"line %d\n" % i for i in range(3000)) + b"y" * 70000 + b"\n"


def test_reopen_waits_for_the_end_of_a_line(pod: Pod, tmp_path: Path) -> None:
    """But not for ever: in 200 ms it is switched in the middle of one."""
    b = pod.bundles(["sh", "-c", "head -c 20000 /dev/zero | tr '\\0' z; read x < /go; echo"])
    os.mkfifo(b.rootfs / "go")
    pod.run("c1", [], bundle=b)
    wait_for(lambda: bool(entries(pod.log("c1"))), 10, "the first part")
    fd = os.open(tmp_path / "new.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o640)
    began = time.monotonic()
    pod.supervisor.log("c1", fd)
    os.close(fd)
    assert 0.1 < time.monotonic() - began < 5
    (b.rootfs / "go").write_text("go\n")
    pod.ended("c1")
    assert text_of(tmp_path / "new.log")
    assert text_of(pod.log("c1")) + text_of(tmp_path / "new.log") == b"z" * 20000 + b"\n"


def test_a_stream_that_someone_outside_holds(pod: Pod) -> None:
    """The end is told within a second or so, though the pipe has a writer still."""
    made = pod.sh("c1", "echo before; sleep 1000")
    wait_for(lambda: bool(entries(pod.log("c1"))), 10, "the line")
    held = os.open(f"/proc/{made.pid}/fd/1", os.O_WRONLY)
    signal.pidfd_send_signal(made.pidfd(), signal.SIGKILL)
    began = time.monotonic()
    assert pod.ended("c1").status == signal.SIGKILL
    assert 0.5 < time.monotonic() - began < 5
    os.close(held)


def test_a_full_disk_holds_the_container_up_and_loses_nothing(pod: Pod, small_disk: Path) -> None:
    log = small_disk / "log"
    fill = small_disk / "fill"
    fill.write_bytes(bytes(1_500_000))
    fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o640)
    pod.sh("c1", "i=0; while [ $i -lt 20000 ]; do echo number $i; i=$((i+1)); done", log=fd)
    os.close(fd)
    size = 0

    def stuck() -> bool:
        nonlocal size
        last, size = size, log.stat().st_size
        time.sleep(0.2)
        return last == size > 0

    wait_for(stuck, 20, "a full disk")
    known = pod.known("c1")
    assert known is not None and known.state == 2, "the container waits"
    fill.unlink()
    event = pod.ended("c1")
    assert event.lost_bytes == 0
    known = pod.known("c1")
    assert known is not None and known.lost_bytes == 0
    assert text_of(log) == b"".join(b"number %d\n" % i for i in range(20000))


def test_what_a_full_disk_loses_is_counted(pod: Pod, small_disk: Path) -> None:
    log, fill = small_disk / "log", small_disk / "fill"
    fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o640)
    fill.write_bytes(bytes(1_900_000))
    script = "i=0; while [ $i -lt 9000 ]; do echo number $i; i=$((i+1)); done; read x < /go; echo the last; exit 5"
    b = pod.bundles(["sh", "-c", script])
    os.mkfifo(b.rootfs / "go")
    pod.run("c1", [], bundle=b, log=fd, log_patience=0.3)
    os.close(fd)
    wait_for(lambda: (k := pod.known("c1")) is not None and k.lost_bytes > 0, 20, "a loss")
    fill.unlink()
    (b.rootfs / "go").write_text("go\n")
    event = pod.ended("c1")
    assert event.exit_code == 5 and event.lost_bytes > 0
    lines = log.read_bytes().splitlines()
    (note,) = [line for line in lines if b" bytes of this log are lost, errno 28" in line]
    assert b" stderr F pyrun: %d bytes" % event.lost_bytes in note
    assert lines[-1].endswith(b" stdout F the last") and lines.index(note) == len(lines) - 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


# --- execs


def pipes() -> tuple[int, int]:
    return os.pipe()


def test_an_exec(pod: Pod) -> None:
    pod.run("c1", ["sleep", "1000"])
    in_, out, err = pipes(), pipes(), pipes()
    ran = pod.exec("c1", ["sh", "-c", "cat; echo oops >&2; exit 9"], (in_[0], out[1], err[1]))
    for fd in (in_[0], out[1], err[1]):
        os.close(fd)
    os.write(in_[1], b"hello")
    os.close(in_[1])
    assert os.read(out[0], 100) == b"hello" and os.read(err[0], 100) == b"oops\n"
    assert exit_code(ran.wait(60)) == 9
    for fd in (out[0], err[0]):
        assert os.read(fd, 1) == b"", "nobody keeps its streams open"
        os.close(fd)
    ran.close()
    assert entries(pod.log("c1")) == []


def test_execs_that_end_at_once(pod: Pod) -> None:
    """Before their maker does: none is lost."""
    pod.run("c1", ["sleep", "1000"])
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(30):
        ran = pod.exec("c1", ["sh", "-c", f"exit {number}"], (null, null, null))
        assert exit_code(ran.wait(60)) == number
        ran.close()
    os.close(null)


def test_an_exec_that_can_not_be_run(pod: Pod) -> None:
    pod.run("c1", ["sleep", "1000"])
    null = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(PyrunError, match="no such file|not found"):
        pod.exec("c1", ["no-such-program"], (null, null, null))
    os.close(null)


def test_an_exec_with_a_terminal(pod: Pod) -> None:
    pod.run("c1", ["sleep", "1000"])
    ours, theirs = socket.socketpair()
    ran = pod.exec("c1", ["sh", "-c", "test -t 0 && echo yes; exit 4"], None, console=theirs.fileno())
    theirs.close()
    _, fds, _, _ = socket.recv_fds(ours, 1024, 1)
    master = fds[0]
    out = b""
    try:
        while part := os.read(master, 1000):
            out += part
    except OSError:
        pass
    assert exit_code(ran.wait(60)) == 4 and out == b"yes\r\n"
    os.close(master)
    ours.close()
    ran.close()


# --- terminals, standard inputs, lookers-on


def test_a_terminal(pod: Pod) -> None:
    pod.sh("c1", "read x; echo got $x; stty size; exit 3", tty=True)
    pod.supervisor.resize("c1", 100, 40)
    with pod.supervisor.attach("c1") as looker:
        fd = pod.supervisor.stdin("c1")
        os.write(fd, b"hello\n")
        os.close(fd)
        assert pod.ended("c1").exit_code == 3
        seen = read_all(looker)
    assert b"got hello\r\n40 100\r\n" in seen[1] and seen[2] == b""
    assert b"got hello\r\n40 100\r\n" in text_of(pod.log("c1"))


def test_resize_without_a_terminal(pod: Pod) -> None:
    pod.run("c1", ["sleep", "1000"])
    with pytest.raises(PyrunError, match="no terminal"):
        pod.supervisor.resize("c1", 80, 25)
    with pytest.raises(PyrunError, match="no standard input"):
        pod.supervisor.stdin("c1")


def read_all(s: socket.socket) -> dict[int, bytes]:
    found = {1: b"", 2: b""}
    s.settimeout(60)
    while data := s.recv(100_000):
        found[data[0]] += data[1:]
    return found


def test_standard_input_stays_open(pod: Pod) -> None:
    pod.sh("c1", "read a; echo $a; read b; echo $b; cat", stdin=True)
    for word in (b"one\n", b"two\n"):
        fd = pod.supervisor.stdin("c1")
        os.write(fd, word)
        os.close(fd)
    wait_for(lambda: text_of(pod.log("c1")) == b"one\ntwo\n", 10, "both words")
    assert (k := pod.known("c1")) is not None and k.state == 2


def test_standard_input_ends_with_its_first_writer(pod: Pod) -> None:
    pod.sh("c1", "cat; echo done", stdin=True, stdin_once=True)
    fd = pod.supervisor.stdin("c1")
    os.write(fd, b"once\n")
    with pytest.raises(PyrunError, match="no standard input"):
        pod.supervisor.stdin("c1")
    os.close(fd)
    assert pod.ended("c1").exit_code == 0
    assert text_of(pod.log("c1")) == b"once\ndone\n"


def test_lookers_on(pod: Pod) -> None:
    """Each sees both streams; the seventeenth is refused; one that does not read is cut, and nothing else suffers."""
    b = pod.bundles(["sh", "-c", "read x < /go; echo err >&2; head -c 3000000 /dev/zero | tr '\\0' x; echo"])
    os.mkfifo(b.rootfs / "go")
    pod.run("c1", [], bundle=b)
    lookers = [pod.supervisor.attach("c1") for _ in range(16)]
    with pytest.raises(PyrunError, match="too many"):
        pod.supervisor.attach("c1")
    seen: dict[int, bytes] = {}
    reader = threading.Thread(target=lambda: seen.update(read_all(lookers[0])))
    reader.start()
    (b.rootfs / "go").write_text("go\n")
    assert pod.ended("c1").exit_code == 0
    reader.join(60)
    assert seen[2] == b"err\n"
    assert text_of(pod.log("c1")) == b"x" * 3_000_000 + b"\n"
    cut = read_all(lookers[1])
    assert len(cut[1]) < 2_900_000
    for looker in lookers:
        looker.close()


def test_lookers_on_who_leave_make_room(pod: Pod) -> None:
    pod.run("c1", ["sleep", "1000"])
    for _ in range(40):
        pod.supervisor.attach("c1").close()
