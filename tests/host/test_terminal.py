"""Terminals: in the foreground, over a console socket, and what becomes of the caller's own."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.console import FdSocket
from tests.support.container.runner import Runner, wait_for
from tests.support.container.terminal import TerminalSession

RAW_CAT = "stty raw -echo; echo ready; "


@pytest.fixture
def shell(bundle: BundleMaker) -> Bundle:
    """A bundle with a terminal; a test says what its shell runs."""
    return bundle(["sh", "-c", "true"], process={"terminal": True})


def session(pyrun: Runner, made: Bundle, script: str, **kwargs: object) -> TerminalSession:
    made.update(process={"args": ["sh", "-c", script]})
    return TerminalSession(pyrun.command("run", "-b", made.path, pyrun.new_id()), **kwargs)  # type: ignore[arg-type]


@pytest.fixture
def idle(pyrun: Runner, bundle: BundleMaker) -> str:
    return pyrun.create_started(bundle(["sleep", "1000"]))


def stands_still(pid: int) -> bool:
    """Whether this process has written something in its life, and nothing in a quarter of a second."""
    io = Path(f"/proc/{pid}/io")
    before = io.read_text()
    time.sleep(0.25)
    return "wchar: 0\n" not in before and io.read_text() == before


# --- size, keys, end -------------------------------------------------------------------------------------------------


def test_size_is_the_callers_from_the_first_moment_and_follows(pyrun: Runner, shell: Bundle) -> None:
    script = 'trap "stty size" WINCH; stty size; while :; do read line && exit 0; done'
    with session(pyrun, shell, script, rows=31, columns=101) as terminal:
        terminal.read_until(b"31 101")
        terminal.resize(17, 63)
        terminal.read_until(b"17 63")
        terminal.press(b"\r")
        assert terminal.wait() == 0


def test_control_c_reaches_the_program_and_not_us(pyrun: Runner, shell: Bundle) -> None:
    script = 'trap "echo interrupted; exit 5" INT; echo ready; while :; do sleep 0.05; done'
    with session(pyrun, shell, script) as terminal:
        terminal.read_until(b"ready")
        terminal.press(b"\x03")
        terminal.read_until(b"interrupted")
        assert terminal.wait() == 5
        assert terminal.is_restored()


def test_program_has_a_controlling_terminal_and_job_control(pyrun: Runner, shell: Bundle) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && tty && echo direct >/dev/tty && ls -l /dev/console"
    with session(pyrun, shell, script) as terminal:
        seen = terminal.read_until(b"/dev/console")
        assert b"direct" in seen
        assert terminal.wait() == 0


def test_exit_status_and_last_words_of_a_program_with_a_terminal(pyrun: Runner, shell: Bundle) -> None:
    with session(pyrun, shell, "seq 1 20000; exit 42") as terminal:
        assert terminal.wait() == 42
        assert terminal.seen.split()[-1] == b"20000"
        assert len(terminal.seen.split()) == 20000


def test_raw_mode_while_it_runs_and_sane_after(pyrun: Runner, shell: Bundle) -> None:
    with session(pyrun, shell, "echo ready; read line; echo got $line") as terminal:
        terminal.read_until(b"ready")
        wait_for(terminal.is_raw, 30, "raw mode")
        terminal.press(b"a line\r")
        terminal.read_until(b"got a line")
        assert terminal.wait() == 0
        assert terminal.is_restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1])
def test_terminal_is_restored_after_a_signal(pyrun: Runner, shell: Bundle, number: signal.Signals) -> None:
    """The signal is the program's; when that ends of it the terminal is as it was."""
    name = number.name.removeprefix("SIG")
    with session(pyrun, shell, f'trap "exit 9" {name}; echo ready; while :; do sleep 0.05; done') as terminal:
        terminal.read_until(b"ready")
        wait_for(terminal.is_raw, 30, "raw mode")
        terminal.process.send_signal(number)
        assert terminal.wait() == 9
        assert terminal.is_restored()


def test_terminal_is_restored_when_the_container_is_killed_from_outside(pyrun: Runner, shell: Bundle) -> None:
    with session(pyrun, shell, "echo ready; sleep 1000") as terminal:
        terminal.read_until(b"ready")
        wait_for(terminal.is_raw, 30, "raw mode")
        pyrun("delete", "--force", pyrun.ids()[0]).ok()
        assert terminal.wait() == 128 + signal.SIGKILL
        assert terminal.is_restored()


def test_terminal_is_untouched_when_the_container_can_not_be_made(pyrun: Runner, shell: Bundle) -> None:
    shell.update(process={"args": ["/nonesuch"]})
    with TerminalSession(pyrun.command("run", "-b", shell.path, pyrun.new_id())) as terminal:
        assert terminal.wait() == 1
        assert b"no such file or directory" in terminal.seen
        assert terminal.is_restored()


def test_stopped_job_gives_the_terminal_back_meanwhile(pyrun: Runner, shell: Bundle) -> None:
    with session(pyrun, shell, "echo ready; read line; echo got $line") as terminal:
        terminal.read_until(b"ready")
        wait_for(terminal.is_raw, 30, "raw mode")
        terminal.process.send_signal(signal.SIGTSTP)
        wait_for(lambda: state_of(terminal.process.pid) == "T", 30, "pyrun to stop")
        assert terminal.is_restored()
        terminal.process.send_signal(signal.SIGCONT)
        wait_for(terminal.is_raw, 30, "raw mode again")
        terminal.press(b"on\r")
        terminal.read_until(b"got on")
        assert terminal.wait() == 0
        assert terminal.is_restored()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# --- much, slow, closed ----------------------------------------------------------------------------------------------


def test_big_paste_arrives_whole(pyrun: Runner, shell: Bundle) -> None:
    size = 1 << 20
    with session(pyrun, shell, RAW_CAT + f"head -c {size} | md5sum") as terminal:
        terminal.read_until(b"ready")
        wait_for(terminal.is_raw, 30, "raw mode")
        data = bytes(i * 7 % 251 for i in range(65536)) * 16
        paste = partial(subprocess.run, ["cat"], input=data, stdout=terminal.master, check=True)
        typist = threading.Thread(target=paste)
        typist.start()
        terminal.read_until(hashlib.md5(data).hexdigest().encode())
        typist.join()
        assert terminal.wait() == 0


def test_signals_pass_while_nobody_reads_the_output(pyrun: Runner, shell: Bundle) -> None:
    """A full terminal blocks the program, and must not block us."""
    with session(pyrun, shell, 'trap "exit 7" TERM; yes | cat & echo ready; wait') as terminal:
        terminal.read_until(b"ready")
        wait_for(lambda: stands_still(terminal.process.pid), 20, "every buffer between us to fill, for nobody reads")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 7
        assert terminal.is_restored()


def test_reader_that_goes_away_hangs_the_terminal_up(pyrun: Runner, shell: Bundle) -> None:
    shell.update(process={"args": ["yes"]})
    command = " ".join(pyrun.command("run", "-b", shell.path, pyrun.new_id()))
    done = subprocess.run(
        ["sh", "-c", f"{command} | head -n 1"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=True
    )
    assert done.stdout == b"y\n"
    wait_for(lambda: not pyrun.ids(), 30, "the container to be deleted")


def test_input_from_a_pipe_ends_as_if_typed(pyrun: Runner, shell: Bundle) -> None:
    shell.update(process={"args": ["cat"]})
    for text in ("one\ntwo\n", "no newline at the end", ""):
        done = pyrun.run(shell, input=text).ok()
        assert done.out.endswith(text), done.describe()


def test_lines_of_output_to_a_pipe_end_as_written(pyrun: Runner, shell: Bundle) -> None:
    shell.update(process={"args": ["printf", "a\\nb\\n"]})
    done = subprocess.run(
        pyrun.command("run", "-b", shell.path, pyrun.new_id()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"a\nb\n"


def test_closed_standard_streams_are_no_hindrance(pyrun: Runner, shell: Bundle) -> None:
    shell.update(process={"args": ["sh", "-c", "exit 4"]})
    command = " ".join(pyrun.command("run", "-b", shell.path, pyrun.new_id()))
    assert subprocess.run(["sh", "-c", f"exec {command} <&- >&- 2>&-"], timeout=60, check=False).returncode == 4


def test_child_that_keeps_the_terminal_does_not_keep_us(pyrun: Runner, idle: str) -> None:
    command = pyrun.command("exec", "-t", idle, "sh", "-c", "trap '' HUP; setsid sleep 1000 & echo done; exit 3")
    with TerminalSession(command) as terminal:
        assert terminal.wait(60) == 3
        assert b"done" in terminal.seen
        assert terminal.is_restored()


def test_terminal_that_goes_away_hangs_up_the_program(pyrun: Runner, idle: str) -> None:
    script = 'trap "echo gone >/tmp/hup; exit" HUP; echo ready; while :; do sleep 0.05; done'
    command = pyrun.command("exec", "-t", idle, "sh", "-c", script)
    terminal = TerminalSession(command)
    terminal.read_until(b"ready")
    os.close(terminal.slave)
    os.close(terminal.master)
    assert terminal.process.wait(60) == 0
    assert pyrun.exec(idle, "cat", "/tmp/hup").ok().out == "gone\n"


# --- exec ------------------------------------------------------------------------------------------------------------


def test_exec_has_a_terminal_of_the_containers(pyrun: Runner, idle: str) -> None:
    script = 'tty; stty size; trap "stty size; exit 6" WINCH; echo ready; while :; do sleep 0.05; done'
    with TerminalSession(pyrun.command("exec", "-t", idle, "sh", "-c", script), rows=12, columns=77) as terminal:
        seen = terminal.read_until(b"ready")
        assert b"/dev/pts/" in seen and b"12 77" in seen
        terminal.resize(40, 120)
        terminal.read_until(b"40 120")
        assert terminal.wait() == 6
        assert terminal.is_restored()


def test_exec_without_tty_has_none(pyrun: Runner, idle: str) -> None:
    assert pyrun.exec(idle, "sh", "-c", "test -t 0 || test -t 1 || exec 3<>/dev/tty").rc != 0


def test_interactive_shell(pyrun: Runner, idle: str) -> None:
    """A shell that edits its line itself: keys go one by one, ^D ends it."""
    with TerminalSession(pyrun.command("exec", "-t", "-e", "PS1=prompt> ", idle, "sh")) as terminal:
        terminal.read_until(b"prompt> ")
        terminal.press(b"echo $((6 * 7))\r")
        terminal.read_until(b"42")
        terminal.read_until(b"prompt> ")
        terminal.press(b"\x04")
        assert terminal.wait() == 0
        assert terminal.is_restored()


# --- console sockets -------------------------------------------------------------------------------------------------


def test_create_sends_the_master(pyrun: Runner, shell: Bundle) -> None:
    script = "stty size; tty; read l; echo got $l"
    shell.update(process={"args": ["sh", "-c", script], "consoleSize": {"height": 45, "width": 91}})
    with FdSocket() as console:
        id = pyrun.create(shell, "--console-socket", console.path)
        console.receive()
        pyrun("start", id).ok()
        assert "45 91" in console.read_until("/dev/pts/0")
        os.write(console.fd, b"word\n")
        console.read_until("got word")
        pyrun.wait_status(id, "stopped")


def test_exec_sends_the_master(pyrun: Runner, idle: str, tmp_path: Path) -> None:
    with FdSocket() as console:
        pid_file = tmp_path / "pid"
        options = ["--tty", "--detach", "--console-socket", console.path, "--pid-file", str(pid_file)]
        pyrun.exec(idle, "sh", "-c", "tty; read l; echo got $l", options=options).ok()
        assert Path(f"/proc/{pid_file.read_text()}").exists()
        console.receive()
        console.read_until("/dev/pts/")
        os.write(console.fd, b"word\n")
        console.read_until("got word")


@pytest.mark.parametrize(
    "options, text",
    [
        (["--tty", "--detach"], "cannot allocate tty if pyrun will detach without setting console socket"),
        (["--tty", "--console-socket", "/nonesuch"], "cannot use console socket if pyrun will not detach"),
        (["--detach", "--console-socket", "/nonesuch"], "cannot use console socket if pyrun will not detach"),
        (["--tty", "--detach", "--console-socket", "/nonesuch"], "no such file or directory"),
    ],
)
def test_exec_refuses_what_can_not_be(pyrun: Runner, idle: str, options: list[str], text: str) -> None:
    pyrun.exec(idle, "true", options=options).fails(1, text)


def test_create_and_run_need_a_socket_for_a_terminal_that_stays(pyrun: Runner, shell: Bundle) -> None:
    pyrun("create", "-b", shell.path, "a").fails(1, "a terminal needs --console-socket")
    pyrun("run", "--detach", "-b", shell.path, "a").fails(1, "a terminal needs --console-socket")
    pyrun("run", "--console-socket", "/nonesuch", "-b", shell.path, "a").fails(1, "cannot use console socket")
    assert pyrun.ids() == []
