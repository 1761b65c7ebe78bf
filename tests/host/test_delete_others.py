"""delete, kill and state where a name, a number or a cgroup that was the container's is another's by now."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import PyrunError
from pyrun.facts import read_text
from pyrun.plan.cgroup.resources import merge_resources
from pyrun.runtime import delete as module
from pyrun.runtime import update as module_update
from pyrun.runtime.cgroup import kill_threaded, pids_below, wait_for_event
from pyrun.runtime.record import CREATING, OLD_HEADER, OLD_MAGIC, OLD_SUM_AT, OLD_SUMMED_FROM, SUM, checksum, unpack
from pyrun.runtime.store import Container, Store, start_time
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import Runner, python_argv, wait_for

Halfway = tuple["subprocess.Popen[bytes]", Callable[[], None]]  # its strace, and what lets it go on
SLEEP = ["sleep", "1000"]
CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(params=["launcher", "python"])
def either(request: pytest.FixtureRequest, pyrun: Runner) -> Runner:
    """The runtime by its launcher, and without it: the same must come of both."""
    return pyrun if request.param == "launcher" else Runner(pyrun.root, python_argv())


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[str]:
    """A cgroupsPath for several containers."""
    name = f"shared-{os.getpid()}"
    yield f"/{name}"
    if (CGROUPS / name).is_dir():
        subprocess.run(["find", CGROUPS / name, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"], check=True)


def in_cgroup(made: Bundle, path: str) -> Bundle:
    return made.update(linux={"cgroupsPath": path})


def stop(run: Runner, id: str) -> None:
    run("kill", id, "KILL").ok()
    run.wait_status(id, "stopped")


def own_cgroup(run: Runner, id: str) -> Path:
    return Path(unpack((run.root / id / "record").read_bytes()).text("cgroup"))


@pytest.mark.parametrize("below", ["", "/deep/er"], ids=["the same", "below"])
def test_who_lives_in_a_stopped_containers_cgroup(either: Runner, bundle: BundleMaker, shared: str, below: str) -> None:
    """Another container's processes: a plain delete names them and leaves them alone."""
    a = either.create_started(in_cgroup(bundle(SLEEP), shared))
    stop(either, a)
    b = either.create_started(in_cgroup(bundle(SLEEP), shared + below))
    either.delete(a).fails(1, "processes of others", shared, f"{either.pid(b)} (sleep)", f"delete --force {a}")
    assert either.state(a)["status"] == "stopped" and either.state(b)["status"] == "running"
    stop(either, b)
    either.delete(b).ok()
    either.delete(a).ok()
    assert not (CGROUPS / shared[1:]).exists()


def test_by_force_all_in_the_cgroup_are_killed(either: Runner, bundle: BundleMaker, shared: str) -> None:
    a = either.create_started(in_cgroup(bundle(SLEEP), shared))
    stop(either, a)
    b = either.create_started(in_cgroup(bundle(SLEEP), shared + "/below"))
    either.delete(a, "--force").ok()
    either.wait_status(b, "stopped")


def test_a_cgroup_that_was_made_anew_is_anothers(either: Runner, bundle: BundleMaker, shared: str) -> None:
    """Even by force."""
    a = either.create_started(in_cgroup(bundle(SLEEP), shared))
    stop(either, a)
    (CGROUPS / shared[1:]).rmdir()
    b = either.create_started(in_cgroup(bundle(SLEEP), shared))
    either.delete(a, "--force").ok()
    assert either.state(b)["status"] == "running"
    either.exec(b, "true").ok()


def leaving(bundle: BundleMaker) -> Bundle:
    """A container in the host's PID namespace, whose init ends and leaves a process."""
    made = bundle(["sh", "-c", "sleep 1000 & exec sleep 0.1"])
    made.drop_namespace("pid")
    return made


def test_what_outlives_its_init(either: Runner, bundle: BundleMaker) -> None:
    """kill --all, which engines call before they delete, and delete by force end it; a plain delete says what is
    there, as it can't know whose it is."""
    for end in (["kill", "--all"], ["delete", "--force"]):
        id = either.create_started(leaving(bundle))
        either.wait_status(id, "stopped")
        cgroup = own_cgroup(either, id)
        (left,) = (cgroup / "cgroup.procs").read_text().split()
        either("kill", "--all", id, "TERM").ok()
        either("kill", id, "KILL").fails(1, "container not running")
        either.delete(id).fails(1, "may be another's", f"{left} (sleep)")
        either(*end, id, *["KILL"] * (end[0] == "kill")).ok()
        either("delete", "--force", id).ok()
        assert not cgroup.exists() and start_time(int(left)) == 0


def test_a_run_ends_what_outlives_its_init(pyrun: Runner, bundle: BundleMaker) -> None:
    pyrun.run(leaving(bundle)).ok()
    assert not pyrun.ids()


def test_an_init_whose_first_thread_has_ended_runs(either: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """/proc calls it a zombie."""
    source = tmp_path / "threads.c"
    source.write_text(
        "#include <pthread.h>\n#include <unistd.h>\n"
        "static void *stay(void *p) { pause(); return p; }\n"
        "int main(void) { pthread_t t; pthread_create(&t, NULL, stay, NULL); pthread_exit(NULL); }\n"
    )
    made = bundle(["/threads"])
    subprocess.run(["cc", "-static", "-pthread", source, "-o", made.rootfs / "threads"], check=True)
    id = either.create_started(made)
    init = Path(f"/proc/{either.pid(id)}")
    wait_for(lambda: (init / "stat").read_text().rpartition(") ")[2][0] == "Z", 10, "the first thread to end")
    assert either.state(id)["status"] == "running"
    either.delete(id).fails(1, "not stopped: running")
    stop(either, id)
    either.delete(id).ok()


# --- overtaken by another delete and create ---------------------------------------------------------------------------


def replace(run: Runner, id: str, made: Bundle) -> None:
    run.delete(id, "--force").ok()
    assert run.create_started(made, id=id) == id


def is_whole(run: Runner, id: str) -> bool:
    """It runs, all of its files are there, and it is in its cgroup."""
    files = sorted(path.name for path in (run.root / id).iterdir())
    pids = (own_cgroup(run, id) / "cgroup.procs").read_text().split()
    return run.state(id)["status"] == "running" and files == ["config.json", "record"] and str(run.pid(id)) in pids


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
@pytest.mark.parametrize("at", ["store.open", "status", "plan_delete", "run_plan"])
def test_a_delete_that_was_overtaken(
    pyrun: Runner, bundle: BundleMaker, monkeypatch: pytest.MonkeyPatch, at: str, force: bool
) -> None:
    """Just before it goes on there."""
    id = pyrun.create_started(bundle(SLEEP))
    stop(pyrun, id)
    other = bundle(SLEEP)
    owner, name = {"store.open": (Store, "open"), "status": (Container, "status")}.get(at, (module, at))
    plain = getattr(owner, name)

    def late(*args: object, **kwargs: object) -> object:
        monkeypatch.setattr(owner, name, plain)
        replace(pyrun, id, other)
        return plain(*args, **kwargs)

    monkeypatch.setattr(owner, name, late)
    try:
        module.delete(Store(str(pyrun.root)), id, print, force=force)
    except PyrunError as error:
        assert at == "store.open" and "does not exist" in error.text
    assert is_whole(pyrun, id)


def test_an_update_that_was_overtaken(pyrun: Runner, bundle: BundleMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stores nothing with the container that has the name now."""
    id = pyrun.create_started(bundle(SLEEP))
    other = bundle(SLEEP)

    def late(*args: Any) -> Any:
        replace(pyrun, id, other)
        return merge_resources(*args)

    monkeypatch.setattr(module_update, "merge_resources", late)
    with pytest.raises(PyrunError, match="config.json.new: no such file"):
        module_update.update(Store(str(pyrun.root)), id, b'{"unified": {"cgroup.max.depth": "7"}}', print)
    assert is_whole(pyrun, id)
    assert (pyrun.root / id / "config.json").read_bytes() == (other.path / "config.json").read_bytes()


@pytest.mark.parametrize("verb", ["delete", "status"])
def test_a_create_that_ended_between_the_record_and_its_lock(
    pyrun: Runner, bundle: BundleMaker, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Who read that it is at work, and then that it is not, has not read that it was cut short."""
    id, plain = pyrun.create(bundle(SLEEP)), Store.open

    def early(*args: Any) -> Container:
        c = plain(*args)
        c.record.status = CREATING
        return c

    monkeypatch.setattr(Store, "open", early)
    store = Store(str(pyrun.root))
    if verb == "status":
        assert store.open(id).status() == "created"
    else:
        with pytest.raises(PyrunError, match="not stopped: created"):
            module.delete(store, id, print)
    assert pyrun.state(id)["status"] == "created"


def stands_still(command: list[str], call: str, number: int, log: Path) -> subprocess.Popen[bytes] | None:
    """Starts it and stops it behind the call; None where it ended without as many of them."""
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGSTOP:when={number}"]
    slow = subprocess.Popen(["strace", "-o", str(log), *inject, *command], stderr=subprocess.DEVNULL)
    wait_for(lambda: slow.poll() is not None or log.exists() and "stopped by SIGSTOP" in log.read_text(), 20, "it")
    return slow if slow.poll() is None else None


@pytest.mark.parametrize("call", ["openat", "statx", "unlinkat"])
def test_a_launchers_delete_that_was_overtaken(pyrun: Runner, bundle: BundleMaker, tmp_path: Path, call: str) -> None:
    """Behind each of its calls that look at or change a file."""
    id = pyrun.create_started(bundle(SLEEP))
    other = bundle(SLEEP)
    for number in range(1, 60):
        stop(pyrun, id)
        slow = stands_still(pyrun.command("delete", id), call, number, tmp_path / f"{call}.{number}")
        if slow is None:
            break
        replace(pyrun, id, other)
        child = Path(f"/proc/{slow.pid}/task/{slow.pid}/children").read_text()
        os.kill(int(child), signal.SIGCONT)
        slow.wait(60)
        assert is_whole(pyrun, id), (tmp_path / f"{call}.{number}").read_text()
    assert 2 < number < 59 and not pyrun.ids()


@pytest.fixture
def halfway(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> Iterator[Halfway]:
    """A create of the container "new" that stands still between its directory and its record."""
    command = python_argv() + ["--root", str(pyrun.root), "create", "-b", str(bundle(SLEEP).path), "new"]
    slow = stands_still(command, "mkdirat", 1, tmp_path / "log")
    assert slow is not None and os.listdir(pyrun.root / "new") == []
    (child,) = Path(f"/proc/{slow.pid}/task/{slow.pid}/children").read_text().split()
    yield slow, lambda: os.kill(int(child), signal.SIGCONT)
    assert slow.poll() is not None


def test_a_create_that_has_just_begun_is_waited_for(either: Runner, halfway: Halfway) -> None:
    slow, go_on = halfway
    asked = either.popen("state", "new", stdout=subprocess.PIPE)
    time.sleep(0.2)
    go_on()
    assert slow.wait(60) == 0
    assert b'"id": "new"' in asked.communicate(timeout=60)[0] and asked.returncode == 0


def test_a_delete_by_force_of_a_create_that_has_just_begun(either: Runner, halfway: Halfway) -> None:
    slow, go_on = halfway
    deletes = either.popen("delete", "--force", "new")
    time.sleep(0.2)
    go_on()
    assert deletes.wait(60) == 0
    assert slow.wait(60) in (0, 1)
    assert not either.ids()


@pytest.mark.parametrize("succeeded", [False, True])
def test_a_create_that_begins_for_too_long(
    either: Runner, bundle: BundleMaker, halfway: Halfway, succeeded: bool
) -> None:
    """It is taken for one that was cut short; when it goes on after all, it leaves its successor alone."""
    slow, go_on = halfway
    either("state", "new").fails(1, "cut short", "delete --force new")
    either.delete("new", "--force").ok()
    if succeeded:
        either.create_started(bundle(SLEEP), id="new")
    go_on()
    assert slow.wait(60) == 1
    assert is_whole(either, "new") if succeeded else not either.ids()


# --- other namespaces -------------------------------------------------------------------------------------------------


ELSEWHERE = {
    "PID": ["unshare", "--pid", "--fork", "--mount-proc"],
    "time": ["unshare", "--time", "--boottime", "100000", "--fork"],
    "PID without its /proc": ["unshare", "--pid", "--fork"],
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_from_another_namespace_nothing_is_taken_for_dead(either: Runner, bundle: BundleMaker, kind: str) -> None:
    """Where the pid or the start time of the init is another, it can't be told whether it runs."""
    id = either.create_started(bundle(SLEEP))
    pid = either.pid(id)
    there = Runner(either.root, [*ELSEWHERE[kind], *either.argv])
    said = "not that of our PID namespace" if "without" in kind else f"created in another {kind} namespace"
    for argv in (["state"], ["delete"], ["delete", "--force"], ["kill"], ["start"], ["pause"], ["ps"]):
        there(*argv, id).fails(1, said, "hint:")
    assert said in there("list").ok().err
    assert either.pid(id) == pid and is_whole(either, id)


def test_the_number_of_a_live_process_is_not_the_init_there(either: Runner, bundle: BundleMaker) -> None:
    """A container made in another PID namespace, whose init's number and start time would be another process's
    here."""
    id = either.create_started(bundle(SLEEP))
    record = either.root / id / "record"
    whole = record.read_bytes()
    other = unpack(whole)
    other.place = (other.place[0] + 1, other.place[1])
    record.write_bytes(other.pack())
    either("kill", id, "KILL").fails(1, "created in another PID namespace")
    either.delete(id, "--force").fails(1, "created in another PID namespace")
    record.write_bytes(whole)
    assert is_whole(either, id)


# --- records of another version ---------------------------------------------------------------------------------------


def age(record: Path) -> None:
    """Makes it one of a pyrun whose records had no cgroup and no namespaces, and whose steps had other numbers."""
    whole = bytearray(record.read_bytes())
    made = unpack(bytes(whole))
    for name in ("start", "delete"):
        plan = bytearray(made.blob(name))
        plan[4] ^= 1  # the version
        setattr(made, f"b_{name}", bytes(plan))
    new = made.pack()
    table_at = len(new) - len(new[new.index(made.boot_id.encode()) :]) + 36 + 12
    shift = table_at - OLD_HEADER.size
    table, body = b"", new[table_at + 96 :]
    for at in range(table_at, table_at + 96, 8):
        table += (int.from_bytes(new[at : at + 4], "little") - shift).to_bytes(4, "little") + new[at + 4 : at + 8]
    head = OLD_HEADER.pack(OLD_MAGIC, made.pid, made.start, made.status, made.boot_id.encode(), 0, made.flags, 12)
    old = bytearray(head + table + body)
    SUM.pack_into(old, OLD_SUM_AT, checksum(old, OLD_SUM_AT, OLD_SUMMED_FROM))
    record.write_bytes(old)


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
def test_a_container_of_an_older_pyrun(either: Runner, bundle: BundleMaker, force: bool) -> None:
    id = either.create(bundle(SLEEP))
    age(either.root / id / "record")
    assert either.state(id)["status"] == "created"
    either("start", id).ok()
    assert either.state(id)["status"] == "running" and id in either("list").ok().out
    either.exec(id, "true").ok()
    for name in ("exec.seen", "exec.0", "exec.3"):
        (either.root / id / name).write_text("a kept plan")
    if not force:
        stop(either, id)
    either.delete(id, *["--force"] * force).ok()
    assert not either.ids()


def test_plans_of_another_version_are_made_anew(either: Runner, bundle: BundleMaker) -> None:
    """The record is ours, but what its plans mean has changed."""
    id = either.create(bundle(SLEEP))
    record = either.root / id / "record"
    made = unpack(record.read_bytes())
    made.b_start = made.b_start[:4] + bytes(4) + made.b_start[8:]  # type: ignore[attr-defined]
    made.b_delete = made.b_delete[:4] + bytes(4) + made.b_delete[8:]  # type: ignore[attr-defined]
    record.write_bytes(made.pack())
    either("start", id).ok()
    either("kill", id, "KILL").ok()
    either.wait_status(id, "stopped")
    either.delete(id).ok()


# --- cgroups that the container has nested ----------------------------------------------------------------------------


def nesting(bundle: BundleMaker, script: str) -> Bundle:
    """A container that may make cgroups, and has done so."""
    made = bundle(["sh", "-c", f"cd /sys/fs/cgroup && {script}; touch /done; exec sleep 1000"])
    for mount in made.config["mounts"]:
        if mount["destination"] == "/sys/fs/cgroup":
            mount["options"].remove("ro")
    return made.save()


DEEP = "i=0; while [ $i -lt 1500 ]; do mkdir longer-name && cd longer-name || break; i=$((i+1)); done; {end}"
WIDE = "i=0; while [ $i -lt 1500 ]; do mkdir $i || break; i=$((i+1)); done; {end}"


@pytest.mark.parametrize(("shape", "end"), [(DEEP, "echo $$ >cgroup.procs"), (WIDE, "true")], ids=["deep", "wide"])
def test_a_thousand_cgroups(either: Runner, bundle: BundleMaker, shape: str, end: str) -> None:
    """Deeper than a path is long, than Python's stack goes and than there are descriptors; and beside each other."""
    made = nesting(bundle, shape.format(end=end))
    id = either.create_started(made)
    wait_for((made.rootfs / "done").exists, 60, "its cgroups")
    begin = time.monotonic()
    assert either("ps", "--format", "json", id, timeout=60).ok().out == f"[{either.pid(id)}]\n"
    either("pause", id, timeout=60).ok()
    either("resume", id, timeout=60).ok()
    either("events", "--stats", id, timeout=60).ok()
    either.exec(id, "true", timeout=60).ok()
    cgroup = own_cgroup(either, id)
    stop(either, id)
    either("delete", id, timeout=60).ok()
    assert not cgroup.exists()
    assert time.monotonic() - begin < 15


def test_cgroups_that_take_long_to_remove(either: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """Longer than a delete waits for what lives there: it is stopped in the midst of them for that time."""
    made = nesting(bundle, WIDE.format(end="true"))
    id = either.create_started(made)
    wait_for((made.rootfs / "done").exists, 60, "its cgroups")
    cgroup = own_cgroup(either, id)
    stop(either, id)
    slow = stands_still(either.command("delete", id), "unlinkat", 700, tmp_path / "log")
    assert slow is not None
    time.sleep(1.5)
    (child,) = Path(f"/proc/{slow.pid}/task/{slow.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGCONT)
    assert slow.wait(60) == 0
    assert not cgroup.exists() and not either.ids()


# --- threaded cgroups (cgroups(7)) ------------------------------------------------------------------------------------


def start_in(run: Runner, made: Bundle, path: str, *, own_pids: bool) -> str:
    if not own_pids:
        made.drop_namespace("pid")
    id = run.create_started(in_cgroup(made, path))
    wait_for_sleeps(own_cgroup(run, id), 2)
    return id


def wait_for_sleeps(cgroup: Path, count: int, init: str = "sleep") -> None:
    """Until nothing is in it but so many processes, which all sleep; but for the init."""

    def names() -> list[str]:
        pids = (cgroup / "cgroup.procs").read_text().split()
        return sorted(read_text(f"/proc/{pid}/comm").strip() for pid in pids)

    wait_for(lambda: names() == sorted(["sleep"] * (count - 1) + [init]), 60, "its processes")


def make_threaded(cgroup: Path) -> list[int]:
    """As a container can that sees the cgroup above its own, where domains must be empty for that. Who is in it."""
    pids = (cgroup / "cgroup.procs").read_text().split()
    for pid in pids:
        (cgroup.parent / "cgroup.procs").write_text(pid)
    (cgroup / "cgroup.type").write_text("threaded")
    for pid in pids:
        (cgroup / "cgroup.procs").write_text(pid)
    return sorted(map(int, pids))


def try_verbs(run: Runner, id: str, pids: list[int]) -> None:
    """All that may be done to one that runs; the view has no controllers to update."""
    assert run("ps", "--format", "json", id).ok().out == json.dumps(pids, separators=(",", ":")) + "\n"
    run("pause", id).ok()
    assert run.state(id)["status"] == "paused"
    run("resume", id).ok()
    assert '"type":"stats"' in run("events", "--stats", id).ok().out
    run("update", "--pids-limit", "100", id).fails(1, "the pids controller is not available")
    assert run.exec(id, "echo", "hi").ok().out == "hi\n"


TWO = "{ sleep 1000 & }"


@pytest.mark.parametrize("own_pids", [True, False], ids=["own-pids", "hosts-pids"])
def test_a_container_with_a_threaded_child(either: Runner, bundle: BundleMaker, shared: str, own_pids: bool) -> None:
    """Its cgroup is the root of a threaded domain then, and its init is in the child."""
    script = "mkdir t && echo threaded >t/cgroup.type; sleep 1000 & echo $! >t/cgroup.threads"
    made = nesting(bundle, f"{script}; echo $$ >t/cgroup.threads")
    id = start_in(either, made, shared, own_pids=own_pids)
    cgroup = own_cgroup(either, id)
    pids = sorted(map(int, (cgroup / "cgroup.procs").read_text().split()))
    assert Path(f"/proc/{either.pid(id)}/cgroup").read_text().strip().endswith(f"{shared}/t")
    try_verbs(either, id, pids)
    assert either.exec(id, "true", options=["--cgroup", "t"]).ok()
    stop(either, id)
    either.delete(id).ok()
    assert not cgroup.exists() and not any(map(start_time, pids))


@pytest.mark.parametrize("own_pids", [True, False], ids=["own-pids", "hosts-pids"])
def test_a_container_whose_cgroup_is_threaded(either: Runner, bundle: BundleMaker, shared: str, own_pids: bool) -> None:
    """cgroup.procs can't be read there, nor cgroup.kill be written."""
    for end in ("kill", "delete"):
        id = start_in(either, nesting(bundle, TWO), f"{shared}/own", own_pids=own_pids)
        cgroup = own_cgroup(either, id)
        pids = make_threaded(cgroup)
        if end == "kill":
            try_verbs(either, id, pids)
            stop(either, id)
            either.delete(id).ok()
        else:
            either.delete(id, "--force").ok()
        assert not cgroup.exists() and not any(map(start_time, pids))


@pytest.mark.parametrize("end", [["kill", "--all"], ["delete", "--force"]], ids=["kill", "delete"])
def test_what_outlives_its_init_in_a_threaded_cgroup(
    either: Runner, bundle: BundleMaker, shared: str, end: list[str]
) -> None:
    id = start_in(either, nesting(bundle, TWO), f"{shared}/own", own_pids=False)
    cgroup, init = own_cgroup(either, id), either.pid(id)
    (left,) = set(make_threaded(cgroup)) - {init}
    os.kill(init, signal.SIGKILL)
    either.wait_status(id, "stopped")
    either.delete(id).fails(1, "may be another's", f"{left} (sleep)")
    either(*end, id, *["KILL"] * (end[0] == "kill")).ok()
    either.delete(id, "--force").ok()
    assert not cgroup.exists() and start_time(left) == 0


def test_a_run_ends_what_outlives_its_init_in_a_threaded_cgroup(
    pyrun: Runner, bundle: BundleMaker, shared: str
) -> None:
    made = bundle(["sh", "-c", "sleep 1000 & : >/done; read line </go"])
    made.drop_namespace("pid")
    os.mkfifo(made.rootfs / "go")
    runs = pyrun.popen("run", "-b", in_cgroup(made, f"{shared}/own").path, "one")
    wait_for((made.rootfs / "done").exists, 60, "its processes")
    cgroup = own_cgroup(pyrun, "one")
    wait_for_sleeps(cgroup, 2, "sh")
    pids = make_threaded(cgroup)
    (made.rootfs / "go").write_text("\n")
    assert runs.wait(60) == 0
    assert not pyrun.ids() and not cgroup.exists() and not any(map(start_time, pids))


def test_a_threaded_cgroup_does_not_stay_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds may be too much to be read to its end."""
    monkeypatch.setattr("pyrun.runtime.cgroup.WALK_S", 0)
    for name, text in (("type", "threaded\n"), ("events", "populated 1\n"), ("freeze", "0")):
        (tmp_path / f"cgroup.{name}").write_text(text)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(PyrunError, match="to their end"):
            kill_threaded(fd)
    finally:
        os.close(fd)
    assert (tmp_path / "cgroup.freeze").read_text() == "0"


def test_a_cgroup_that_is_removed_while_it_is_held_is_empty() -> None:
    """systemd removes the cgroup of a unit as soon as nothing runs in it."""
    path = CGROUP_ROOT / "pyrun-removed"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    path.rmdir()
    try:
        assert wait_for_event(fd, "populated 0", 1)
        assert not wait_for_event(fd, "frozen 1", 1)
        assert pids_below(fd) == []
    finally:
        os.close(fd)


@pytest.fixture
def elsewhere(pyrun: Runner, bundle: BundleMaker, shared: str) -> Iterator[tuple[str, Path, subprocess.Popen[bytes]]]:
    """A container whose init has moved to another cgroup, and a process of somebody else's in one of the old name."""
    id = pyrun.create_started(in_cgroup(bundle(SLEEP), f"{shared}/old"))
    old, new = CGROUPS / shared.strip("/") / "old", CGROUPS / shared.strip("/") / "new"
    new.mkdir()
    (new / "cgroup.procs").write_text(str(pyrun.pid(id)))
    old.rmdir()
    old.mkdir()
    other = subprocess.Popen(["sleep", "1000"])
    (old / "cgroup.procs").write_text(str(other.pid))
    try:
        yield id, new, other
    finally:
        other.kill()
        other.wait()
        pyrun("delete", "--force", id)
        old.rmdir()


def test_pause_and_ps_go_where_the_init_is(pyrun: Runner, elsewhere: tuple[str, Path, subprocess.Popen[bytes]]) -> None:
    id, new, other = elsewhere
    pyrun("pause", id).ok()
    assert "frozen 1" in (new / "cgroup.events").read_text()
    assert Path(f"/proc/{other.pid}/cgroup").read_text().strip().endswith("/old")
    assert "frozen 0" in (new.parent / "old/cgroup.events").read_text()
    pyrun("resume", id).ok()
    assert str(other.pid) not in pyrun("ps", "--format", "json", id).ok().out
