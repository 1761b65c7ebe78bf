"""The six kinds of hooks: when, where and with what they run, and what follows a failure (runtime.md, Lifecycle)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.runner import Result, Runner

CREATE = ("prestart", "createRuntime", "createContainer")
START = ("startContainer", "poststart")
KINDS = (*CREATE, *START, "poststop")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


class Hooked:
    """A bundle, a place where its hooks write, and what they wrote."""

    def __init__(self, bundle: Bundle, notes: Path) -> None:
        self.bundle = bundle
        self.notes = notes
        notes.mkdir()
        notes.chmod(0o777)
        (bundle.rootfs / "notes").mkdir()
        bundle.add_mount("/notes", str(notes), "rbind", "rw")

    def place(self, kind: str) -> str:
        """The notes as a hook of this kind sees them."""
        return "/notes" if kind == "startContainer" else str(self.notes)

    def set(self, **hooks: list[dict[str, Any]]) -> Hooked:
        self.bundle.config["hooks"] = hooks
        self.bundle.save()
        return self

    def note(self, kind: str, text: str) -> dict[str, Any]:
        """A hook that adds a line to the notes."""
        return shell(f"echo {text} >> {self.place(kind)}/lines")

    def lines(self) -> list[str]:
        path = self.notes / "lines"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def hooked(bundle: BundleMaker, tmp_path: Path) -> Hooked:
    """A container that sleeps."""
    return Hooked(bundle(["sleep", "1000"]), tmp_path / "notes")


def create(pyrun: Runner, hooked: Hooked, id: str) -> Result:
    """Like Runner.create, but it may fail."""
    with open(hooked.notes / "stderr", "w+") as log:
        words = ("create", "--bundle", hooked.bundle.path, id)
        rc = pyrun.popen(*words, stdin=subprocess.DEVNULL, stdout=log, stderr=log).wait(60)
        log.seek(0)
        return Result(("create", id), rc, "", log.read())


def test_hooks_run_in_the_order_of_the_lifecycle(pyrun: Runner, hooked: Hooked) -> None:
    hooked.set(**{kind: [hooked.note(kind, f"{kind}-{i}") for i in (1, 2)] for kind in reversed(KINDS)})
    id = pyrun.create(hooked.bundle)
    assert hooked.lines() == [f"{kind}-{i}" for kind in CREATE for i in (1, 2)]
    pyrun("start", id).ok()
    assert hooked.lines()[6:] == [f"{kind}-{i}" for kind in START for i in (1, 2)]
    pyrun("kill", id, "KILL").ok()
    pyrun.wait_status(id, "stopped")
    pyrun("delete", id).ok()
    assert hooked.lines()[10:] == ["poststop-1", "poststop-2"]


def test_run_runs_every_kind(pyrun: Runner, hooked: Hooked) -> None:
    hooked.set(**{kind: [hooked.note(kind, kind)] for kind in KINDS})
    hooked.bundle.update(process={"args": ["sh", "-c", "sleep 0.2; echo program >> /notes/lines"]})
    pyrun.run(hooked.bundle).ok()
    assert hooked.lines() == [*KINDS[:5], "program", "poststop"]


def test_hooks_run_in_their_namespaces(pyrun: Runner, hooked: Hooked) -> None:
    def look(kind: str) -> dict[str, Any]:
        links = " ".join(f"$(readlink /proc/self/ns/{ns})" for ns in NAMESPACES)
        return shell(f"echo {links} > {hooked.place(kind)}/{kind}", env=["PATH=/usr/bin:/bin"])

    hooked.set(**{kind: [look(kind)] for kind in KINDS})
    id = pyrun.create_started(hooked.bundle)
    pid = pyrun.pid(id)
    host = [os.readlink(f"/proc/self/ns/{ns}") for ns in NAMESPACES]
    container = [os.readlink(f"/proc/{pid}/ns/{ns}") for ns in NAMESPACES]
    pyrun("delete", "--force", id).ok()
    for kind in KINDS:
        seen = (hooked.notes / kind).read_text().split()
        assert seen == (container if kind in ("createContainer", "startContainer") else host), kind


def test_paths_are_of_the_host_but_for_start_container(pyrun: Runner, hooked: Hooked, tmp_path: Path) -> None:
    """createContainer runs in the container's mount namespace before the pivot: the host's files, and the mounts."""
    for script, place in ((tmp_path / "hook", "host"), (hooked.bundle.rootfs / "hook", "container")):
        script.write_text(f"#!/bin/sh\necho {place} $1 >> $2/lines\n")
        script.chmod(0o755)

    def hook(kind: str) -> dict[str, Any]:
        path = "/hook" if kind == "startContainer" else str(tmp_path / "hook")
        return {"path": path, "args": ["hook", kind, hooked.place(kind)]}

    hooked.set(**{kind: [hook(kind)] for kind in KINDS})
    pyrun("delete", "--force", pyrun.create_started(hooked.bundle)).ok()
    assert hooked.lines() == [f"{'container' if kind == 'startContainer' else 'host'} {kind}" for kind in KINDS]


def test_create_container_sees_the_mounts_below_the_root(pyrun: Runner, hooked: Hooked) -> None:
    root = hooked.bundle.rootfs
    look = f"grep -c ' {root}/notes ' /proc/self/mounts > {hooked.notes}/"
    hooked.set(createContainer=[shell(look + "container")], createRuntime=[shell(look + "runtime; true")])
    pyrun.create(hooked.bundle)
    assert (hooked.notes / "container").read_text() == "1\n"
    assert (hooked.notes / "runtime").read_text() == "0\n"


def test_state_on_standard_input(pyrun: Runner, hooked: Hooked) -> None:
    hooked.set(**{kind: [shell(f"cat > {hooked.place(kind)}/{kind}")] for kind in KINDS})
    hooked.bundle.update(annotations={"org.example.key": 'a "quoted" \\ välue\n'})
    id = pyrun.create_started(hooked.bundle)
    pid = pyrun.pid(id)
    pyrun("delete", "--force", id).ok()
    status = dict(zip(KINDS, ("creating", "creating", "creating", "created", "running", "stopped"), strict=True))
    seen = {"poststop": 0, "createContainer": 1, "startContainer": 1}  # in the container its own number
    for kind in KINDS:
        state = json.loads((hooked.notes / kind).read_text())
        assert state == {
            "ociVersion": hooked.bundle.config["ociVersion"],
            "id": id,
            "status": status[kind],
            "pid": seen.get(kind, pid),
            "bundle": str(hooked.bundle.path),
            "annotations": {"org.example.key": 'a "quoted" \\ välue\n'},
        }, kind


def test_a_hook_need_not_read_its_state(pyrun: Runner, hooked: Hooked) -> None:
    """A state larger than a pipe holds: the writer must neither block nor die."""
    hooked.bundle.update(annotations={"large": "x" * 300_000})
    hooked.set(createRuntime=[shell("exec <&-; true")], createContainer=[shell("exec true")])
    pyrun.create(hooked.bundle)
    hooked.set(createRuntime=[shell(f"wc -c > {hooked.notes}/size")])
    pyrun.create(hooked.bundle)
    assert int((hooked.notes / "size").read_text()) > 300_000


def test_arguments_environment_and_directory(pyrun: Runner, hooked: Hooked) -> None:
    def look(kind: str) -> dict[str, Any]:
        script = f'{{ echo "$0" "$1"; tr "\\0" "\\n" < /proc/self/environ; pwd; }} > {hooked.place(kind)}/{kind}'
        return {"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "o n e"], "env": ["A=b c", "PATH=/bin"]}

    hooked.set(**{kind: [look(kind)] for kind in KINDS})
    pyrun("delete", "--force", pyrun.create_started(hooked.bundle)).ok()
    for kind in KINDS:
        first, *middle, last = (hooked.notes / kind).read_text().splitlines()
        assert first == "zero o n e"
        assert {"A=b c", "PATH=/bin"} <= set(middle) <= {"A=b c", "PATH=/bin", f"PWD={last}", "SHLVL=1", "_=/bin/tr"}
        directory = {"createContainer": str(hooked.bundle.rootfs), "startContainer": "/"}
        assert last == directory.get(kind, str(hooked.bundle.path)), kind


def test_without_env_a_hook_has_what_it_has_with_runc_and_crun(
    pyrun: Runner, hooked: Hooked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's, or for startContainer the program's. Not so for createContainer, a file of the host's that runs in
    the container: in the image's environment is LD_PRELOAD (CVE-2025-23266)."""
    monkeypatch.setenv("CALLER", "its own")
    look = 'cat /proc/self/environ | tr "\\0" "\\n" > {}/{}'
    bare = {kind: {"path": "/bin/sh", "args": ["sh", "-c", look.format(hooked.place(kind), kind)]} for kind in KINDS}
    hooked.set(**{kind: [bare[kind]] for kind in KINDS})
    hooked.bundle.update(process={"env": ["PATH=/bin", "LD_PRELOAD=/evil.so"]})
    id = pyrun.create_started(hooked.bundle)
    assert b"its own" not in (pyrun.root / id / "record").read_bytes()
    pyrun("delete", "--force", id).ok()
    had = {kind: set((hooked.notes / kind).read_text().splitlines()) for kind in KINDS}
    for kind in ("prestart", "createRuntime", "poststart", "poststop"):
        assert "CALLER=its own" in had[kind] and "LD_PRELOAD=/evil.so" not in had[kind], kind
    assert had["startContainer"] >= {"PATH=/bin", "LD_PRELOAD=/evil.so", "HOME=/root"}
    assert not {"CALLER=its own", "LD_PRELOAD=/evil.so", "HOME=/root"} & had["createContainer"]
    for kind in KINDS:
        bare[kind]["env"] = []
    hooked.set(**{kind: [bare[kind]] for kind in KINDS})
    pyrun("delete", "--force", pyrun.create_started(hooked.bundle)).ok()
    for kind in KINDS:
        words = set((hooked.notes / kind).read_text().splitlines())
        assert not {"CALLER=its own", "LD_PRELOAD=/evil.so", "HOME=/root"} & words, kind


def test_hooks_have_no_descriptor_but_the_standard_ones(pyrun: Runner, hooked: Hooked) -> None:
    look = "ls /proc/self/fd > {}/{}"
    hooked.set(**{kind: [shell(look.format(hooked.place(kind), kind))] for kind in KINDS})
    pyrun("delete", "--force", pyrun.create_started(hooked.bundle)).ok()
    for kind in KINDS:
        assert (hooked.notes / kind).read_text().split() == ["0", "1", "2", "3"], kind  # 3 is of ls itself


@pytest.mark.parametrize("kind", CREATE)
def test_failing_in_create_destroys_the_container(pyrun: Runner, hooked: Hooked, kind: str) -> None:
    hooks = {name: [hooked.note(name, name)] for name in KINDS}
    hooks[kind] = [shell("echo out; echo err >&2; exit 3"), hooked.note(kind, "second")]
    hooked.set(**hooks)
    said = create(pyrun, hooked, "failing").fails(1, f"/hooks/{kind}/0", "out", "err", "exit status 3")
    assert said.err.startswith("pyrun: create failing: ")
    assert hooked.lines() == [*CREATE[: CREATE.index(kind)], "poststop"]
    pyrun("state", "failing").fails(1, "container does not exist")
    assert pyrun.ids() == []


@pytest.mark.parametrize("kind", START)
def test_failing_in_start_destroys_the_container(pyrun: Runner, hooked: Hooked, kind: str) -> None:
    hooks = {name: [hooked.note(name, name)] for name in KINDS}
    hooks[kind] = [shell("echo said; exit 4"), hooked.note(kind, "second")]
    hooked.set(**hooks)
    hooked.bundle.update(process={"args": ["sh", "-c", "sleep 1000"]})
    id = pyrun.create(hooked.bundle)
    pid = pyrun.pid(id)
    pyrun("start", id).fails(1, f"/hooks/{kind}/0", "said", "exit status 4")
    assert hooked.lines() == [*CREATE, *START[: START.index(kind)], "poststop"]
    pyrun("state", id).fails(1, "container does not exist")
    assert not Path(f"/proc/{pid}/root").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()
    assert pyrun.ids() == []


@pytest.mark.parametrize("kind", (*CREATE, *START))
def test_failing_in_run_destroys_the_container(pyrun: Runner, hooked: Hooked, kind: str) -> None:
    hooks = {name: [hooked.note(name, name)] for name in KINDS}
    hooks[kind] = [shell("exit 5")]
    hooked.set(**hooks)
    pyrun.run(hooked.bundle).fails(1, f"/hooks/{kind}/0", "exit status 5")
    assert hooked.lines() == [*KINDS[: KINDS.index(kind)], "poststop"]
    assert pyrun.ids() == []


def test_failing_poststop_is_a_warning(pyrun: Runner, hooked: Hooked) -> None:
    hooked.set(poststop=[shell("echo said; exit 6"), shell("kill -9 $$"), hooked.note("poststop", "third")])
    id = pyrun.create(hooked.bundle)
    done = pyrun("delete", "--force", id).ok()
    assert "warning" in done.err and "/hooks/poststop/0" in done.err and "exit status 6" in done.err
    assert "/hooks/poststop/1" in done.err and "signal 9" in done.err
    assert hooked.lines() == ["third"]
    assert pyrun.ids() == []


def test_poststop_runs_when_the_container_is_gone(pyrun: Runner, hooked: Hooked, tmp_path: Path) -> None:
    id = pyrun.new_id()
    hooked.set(poststop=[shell(f"ls {pyrun.root} /sys/fs/cgroup > {tmp_path}/left")])
    pyrun.create(hooked.bundle, id=id)
    pyrun("delete", "--force", id).ok()
    assert id not in (tmp_path / "left").read_text()


def test_poststop_runs_for_a_bundle_that_has_gone(pyrun: Runner, hooked: Hooked) -> None:
    hooked.set(poststop=[hooked.note("poststop", "done")])
    id = pyrun.create(hooked.bundle)
    hooked.bundle.path.rename(hooked.bundle.path.with_name("elsewhere"))
    pyrun("delete", "--force", id).ok()
    assert hooked.lines() == ["done"]


def test_no_poststop_where_create_did_not_come_to_its_hooks(pyrun: Runner, hooked: Hooked) -> None:
    hooked.set(prestart=[hooked.note("prestart", "prestart")], poststop=[hooked.note("poststop", "poststop")])
    hooked.bundle.add_mount("/notes/x", "/nowhere/at/all", "bind")
    create(pyrun, hooked, "early").fails(1, "/mounts/")
    assert hooked.lines() == []


def test_poststop_runs_where_create_fails_behind_its_hooks(pyrun: Runner, hooked: Hooked) -> None:
    """What a createRuntime hook made, a poststop hook must be able to take away."""
    hooked.set(prestart=[hooked.note("prestart", "prestart")], poststop=[hooked.note("poststop", "poststop")])
    hooked.bundle.update(process={"args": ["no-such-program"]})
    create(pyrun, hooked, "late").fails(1, "executable file not found in $PATH")
    assert hooked.lines() == ["prestart", "poststop"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_takes_too_long_is_killed(pyrun: Runner, hooked: Hooked, kind: str) -> None:
    slow = shell(f"echo $$ > {hooked.place(kind)}/pid; exec sleep 1000", timeout=1)
    hooked.set(**{kind: [slow]})
    start = time.monotonic()
    done = create(pyrun, hooked, "slow")
    if done.rc == 0:
        done = pyrun("start", "slow")
    if done.rc == 0:
        done = pyrun("delete", "--force", "slow")
    assert done.rc == (0 if kind == "poststop" else 1), done.describe()
    assert f"/hooks/{kind}/0" in done.err and "timed out after 1 s" in done.err
    assert 0.9 < time.monotonic() - start < 10
    assert pyrun.ids() == []


def test_the_timeout_is_each_hooks_own(pyrun: Runner, hooked: Hooked) -> None:
    hooked.set(createRuntime=[shell("sleep 0.7", timeout=1), shell("sleep 0.7", timeout=1)])
    pyrun.create(hooked.bundle)


@pytest.mark.parametrize("kind", (*CREATE, *START))
def test_a_hook_that_can_not_be_run(pyrun: Runner, hooked: Hooked, tmp_path: Path, kind: str) -> None:
    for file in (tmp_path / "plain", hooked.bundle.rootfs / "plain"):
        file.write_text("not a program")
        file.chmod(0o644)
    path = "/plain" if kind == "startContainer" else str(tmp_path / "plain")
    for given, name in ((path, "EACCES"), (path + "-missing", "ENOENT")):
        hooked.set(**{kind: [{"path": given}]})
        done = create(pyrun, hooked, "broken")
        if done.rc == 0:
            done = pyrun("start", "broken")
        done.fails(1, f"/hooks/{kind}/0", name, given)
        assert pyrun.ids() == []


def test_a_hooks_words_are_cut_at_4_kib(pyrun: Runner, hooked: Hooked) -> None:
    hooked.set(createRuntime=[shell("yes word | head -c 1000000; exit 1")])
    said = create(pyrun, hooked, "loud").fails(1, "exit status 1").err
    assert said.count("word") > 100 and len(said) < 10_000


def test_start_container_behind_a_profile_that_knows_no_clone3(pyrun: Runner, hooked: Hooked) -> None:
    """Engines' profiles answer clone3 with ENOSYS, as a filter can't look into its flags."""
    rule = {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    hooked.bundle.update(linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}})
    hooked.bundle.update(process={"noNewPrivileges": False})
    hooked.set(startContainer=[hooked.note("startContainer", "ran")])
    pyrun.create_started(hooked.bundle)
    assert hooked.lines() == ["ran"]
