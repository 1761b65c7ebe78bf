"""What comes out of a command line that fails: stderr for people, --log for engines, and exit statuses."""

from __future__ import annotations

import datetime
import gc
import json
import os
import posix
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pyrun.cli import main as cli
from pyrun.cli import root as cli_root
from pyrun.cli.main import Globals, main
from pyrun.cli.table import RUNTIME
from pyrun.cli.verbs import VERBS
from pyrun.errors import ConfigError, PyrunError

REPO = Path(__file__).resolve().parents[2]
PYTHON = [sys.executable, "-I", "-S", str(REPO / "pyrun" / "__main__.py")]


@pytest.fixture
def state_does(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `pyrun state` do something else: state_does(lambda g, o: …)."""

    def set_to(action: Any) -> None:
        module = ModuleType("pyrun.cli.commands.state")
        module.run = action  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pyrun.cli.commands.state", module)

    return set_to


def raising(error: BaseException) -> Any:
    def action(g: Globals, o: object) -> int:
        raise error

    return action


def test_the_grammar_on_stderr(state_does: Any, capfd: pytest.CaptureFixture[str]) -> None:
    state_does(raising(PyrunError("step 14/37 move_mount: ENOENT", pointer="/mounts/3", hint="make it", code=7)))
    assert main(["state", "web1"]) == 7
    assert capfd.readouterr() == (
        "",
        "pyrun: state web1: step 14/37 move_mount: ENOENT\n  from config.json /mounts/3\n  hint: make it\n",
    )


def test_faults_of_a_config(state_does: Any, capfd: pytest.CaptureFixture[str]) -> None:
    state_does(raising(ConfigError([("/a", "is wrong"), ("/b", "too")])))
    assert main(["state", "web1"]) == 1
    assert capfd.readouterr().err == "pyrun: state web1: config.json: 2 faults\n  /a: is wrong\n  /b: too\n"


@pytest.mark.parametrize("many", [False, True])
def test_json_log_has_one_entry_with_the_whole_message(
    state_does: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], many: bool
) -> None:
    error = (
        ConfigError([("/a", 'is "wrong"'), ("/b", "ä\n")]) if many else PyrunError("container does not exist", hint="h")
    )
    state_does(raising(error))
    log = tmp_path / "log"
    log.write_text("before\n")
    assert main(["--log", str(log), "--log-format", "json", "state", "web1"]) == 1
    before, line = log.read_text().splitlines()
    entry = json.loads(line)
    assert before == "before"
    assert list(entry) == ["level", "msg", "time"]
    assert entry["level"] == "error"
    assert entry["msg"] == "pyrun: state web1: " + str(error)
    assert datetime.datetime.fromisoformat(entry["time"]).tzinfo == datetime.UTC
    assert capfd.readouterr().err == f"pyrun: state web1: {error}\n"


def test_text_log_is_logrus(state_does: Any, tmp_path: Path) -> None:
    state_does(raising(PyrunError('no "such" \\ thing', hint="h")))
    log = tmp_path / "log"
    assert main(["--log", str(log), "state", "web1"]) == 1
    line = log.read_text()
    wanted = (
        r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ" level=error '
        r'msg="pyrun: state web1: no \\"such\\" \\\\ thing\\n  hint: h"' + "\n"
    )
    assert re.fullmatch(wanted, line), line


def test_json_without_a_log_goes_to_stderr(state_does: Any, capfd: pytest.CaptureFixture[str]) -> None:
    state_does(raising(PyrunError("container does not exist")))
    assert main(["--log-format", "json", "state", "web1"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["msg"] == "pyrun: state web1: container does not exist"


def test_log_to_stderr_says_it_once(state_does: Any) -> None:
    command = [*PYTHON, "--log", "/dev/stderr", "--log-format", "json", "create", "--bundle", "/nonexistent", "c1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["level"] == "error"


def test_a_log_that_cannot_be_opened(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--log", "/nonexistent/log", "state", "c1"]) == 1
    first, hint = capfd.readouterr().err.splitlines()
    assert first == "pyrun: state c1: open /nonexistent/log: no such file or directory"
    assert "--log" in hint


def test_usage_errors_reach_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    assert main(["--log", str(log), "--log-format", "json", "create", "--bogus", "c1"]) == 1
    assert "--bogus" in json.loads(log.read_text())["msg"]
    assert "--bogus" in capfd.readouterr().err


def test_warnings_go_to_the_log_or_to_stderr(
    state_does: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def action(g: Globals, o: object) -> int:
        g.warn("careful")
        g.trace("detail")
        return 0

    state_does(action)
    assert main(["state", "c1"]) == 0
    assert capfd.readouterr().err == "pyrun: state c1: warning: careful\n"
    assert main(["--debug", "state", "c1"]) == 0
    said = "pyrun: state c1: warning: careful\npyrun: state c1: debug: detail\n"
    assert capfd.readouterr().err.endswith(said)
    log = tmp_path / "log"
    assert main(["--log", str(log), "--log-format", "json", "state", "c1"]) == 0
    assert json.loads(log.read_text())["level"] == "warning"
    assert capfd.readouterr().err == ""


def test_a_bug_is_one_line_and_says_where_to_turn(state_does: Any, capfd: pytest.CaptureFixture[str]) -> None:
    state_does(raising(KeyError("x\ny")))
    assert main(["state", "c1"]) == 1
    first, hint = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"pyrun: state c1: internal error: KeyError: .* at test_cli_main.py:\d+", first)
    assert "report it" in hint
    assert main(["--debug", "state", "c1"]) == 1
    assert "Traceback" in capfd.readouterr().err


def test_an_oserror_is_the_hosts_and_not_a_bug(state_does: Any, capfd: pytest.CaptureFixture[str]) -> None:
    state_does(raising(FileNotFoundError(2, "No such file or directory", "/x")))
    assert main(["state", "c1"]) == 1
    assert capfd.readouterr().err == "pyrun: state c1: /x: ENOENT no such file or directory\n"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(32, "Broken pipe"), 141)])
def test_quiet_ends(state_does: Any, capfd: pytest.CaptureFixture[str], error: BaseException, code: int) -> None:
    state_does(raising(error))
    assert main(["state", "c1"]) == code
    assert capfd.readouterr() == ("", "")


def test_a_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*PYTHON, "features"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_globals_that_a_verb_gets(state_does: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def action(g: Globals, o: Any) -> int:
        seen.append(
            SimpleNamespace(root=g.root, given=g.root_given, systemd=g.systemd_cgroup, rootless=g.rootless, id=o.id)
        )
        return 3

    state_does(action)
    monkeypatch.chdir(tmp_path)
    assert main(["--root", "a/../b/.", "--systemd-cgroup", "--rootless", "true", "state", "c1"]) == 3
    assert seen.pop() == SimpleNamespace(root=f"{tmp_path}/b", given=True, systemd=True, rootless=True, id="c1")
    monkeypatch.setattr(cli, "default_root", lambda: "/run/pyrun")
    assert main(["--rootless=false", "state", "c1"]) == 3
    assert seen.pop() == SimpleNamespace(root="/run/pyrun", given=False, systemd=False, rootless=False, id="c1")
    assert main(["state", "c1"]) == 3
    assert seen.pop().rootless is None


@pytest.mark.parametrize("root", ["/", "", "/..", "/a/.."])
def test_the_root_directory_is_not_slash(root: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", root, "list"]) == 1
    assert "must not be /" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("euid", "mapped", "directory", "root"),
    [
        (0, False, b"/run/user/0", "/run/pyrun"),
        (0, True, b"/run/user/0", "/run/user/0/pyrun"),
        (1000, True, b"/run/user/1000", "/run/user/1000/pyrun"),
        (1000, True, None, "/run/pyrun"),
    ],
)
def test_the_default_root(
    monkeypatch: pytest.MonkeyPatch, euid: int, mapped: bool, directory: bytes | None, root: str
) -> None:
    monkeypatch.setattr(posix, "geteuid", lambda: euid)
    monkeypatch.setattr(cli_root, "_is_mapped_root", lambda: mapped)
    environ = {} if directory is None else {b"XDG_RUNTIME_DIR": directory}
    monkeypatch.setattr(posix, "environ", environ)
    assert cli_root.default_root() == root


def run(*argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PYTHON, *argv], capture_output=True, text=True, timeout=60, **more)


def test_version() -> None:
    done = run("--version")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert [line.split(" ")[0] for line in lines[:3]] == ["pyrun", "commit:", "spec:"]
    assert re.fullmatch(r"pyrun version \d+\.\d+\.\d+\S*", lines[0])
    assert lines[2] == "spec: 1.3.0"
    assert all(re.fullmatch(r"libseccomp: \d+\.\d+\.\d+", line) for line in lines[3:])


def test_run_as_a_file_from_anywhere(tmp_path: Path) -> None:
    """Without site, without our directory on the path, and in a directory with modules that would be in the way."""
    (tmp_path / "posix.py").write_text("raise SystemExit('taken from the working directory')")
    (tmp_path / "pyrun.py").write_text("raise SystemExit('taken from the working directory')")
    done = run("delete", "--force", "no-such-container", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_arguments_show_the_overview() -> None:
    done = run()
    assert done.returncode == 0
    assert "Usage: pyrun" in done.stdout


def test_a_usage_error_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "state"
    done = run("--root", str(root), "create", "--preserve-fds", "x", "c1")
    assert done.returncode == 1
    assert not root.exists()


def test_debug_says_what_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The surroundings, and each plan that is run with how it ended."""
    from pyrun import executor
    from pyrun.plan.model.plan import Builder
    from pyrun.plan.model.steps import PARENT, Mkdirat

    try:
        assert main(["--root", str(tmp_path), "--debug", "list"]) == 0
        assert f"debug: --root {tmp_path}, " in capfd.readouterr().err
        for ended in ("all steps done", "step 1 (parent) failed with errno 17; undone"):
            b = Builder()
            b.add(PARENT, Mkdirat(path=str(tmp_path / "made"), mode=0o700))
            try:
                executor.run_plan(b.plan()).close()
            except executor.StepFailed:
                pass
            said = capfd.readouterr().err
            assert "debug: runs a plan, steps of parent 1" in said and f"debug: {ended}" in said
        assert main(["--root", str(tmp_path), "list"]) == 0
        assert "debug" not in capfd.readouterr().err
    finally:
        executor.debug = None


def test_garbage_is_collected_in_whatever_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """__main__.py turns it off, and what asyncio leaves at each call would stay for as long as a daemon runs."""
    seen = {}
    monkeypatch.setattr(cli, "parse", lambda argv, call: setattr(call, "verb", VERBS[argv[0]]))
    try:
        for name in VERBS:
            module = ModuleType("command")
            module.run = lambda g, o, name=name: seen.update({name: gc.isenabled()}) or 0  # type: ignore[attr-defined]
            words = name.replace(" ", "_").replace("-", "_")
            monkeypatch.setitem(sys.modules, f"pyrun.cli.commands.{words}", module)
            gc.disable()
            assert main([name]) == 0
    finally:
        gc.enable()
    assert {name for name, collected in seen.items() if not collected} == set(RUNTIME)
    assert {"metrics", "collect", "dashboard", "cri", "proxy run", "dns run", "node run"} <= set(seen) - set(RUNTIME)
