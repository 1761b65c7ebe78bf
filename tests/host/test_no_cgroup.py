"""--cgroup-manager disabled, as podman gives it for --cgroups=disabled: the container stays in its caller's cgroup."""

from __future__ import annotations

from tests.support.container.bundle import BundleMaker
from tests.support.container.leaks import collect_traces
from tests.support.container.runner import Runner, runtime_argv


def test_a_container_in_the_cgroup_of_its_caller(bundle: BundleMaker, pyrun: Runner) -> None:
    without = Runner(pyrun.root, [*runtime_argv(), "--cgroup-manager", "disabled"])
    before = collect_traces().cgroups
    b = bundle(["sleep", "100"])
    id = without.create_started(b)
    assert collect_traces().cgroups == before
    assert pyrun.state(id)["status"] == "running"
    assert len(pyrun("ps", id).ok().out.splitlines()) == 2
    assert pyrun.exec(id, "id", "-u").ok().out == "0\n"
    pyrun("kill", id, "KILL").ok()
    pyrun.wait_status(id, "stopped")
    pyrun.delete(id).ok()


def test_limits_need_a_cgroup(bundle: BundleMaker, pyrun: Runner) -> None:
    b = bundle(["true"], linux={"resources": {"unified": {"cgroup.max.depth": "3"}}})
    without = Runner(pyrun.root, [*runtime_argv(), "--cgroup-manager", "disabled"])
    without.run(b).fails(1, "/linux/resources/unified", "a limit needs a cgroup")


def test_what_can_not_be_killed_is_not_forgotten(bundle: BundleMaker, pyrun: Runner) -> None:
    """Another user's init, without a cgroup to kill it by."""
    without = Runner(pyrun.root, [*runtime_argv(), "--cgroup-manager", "disabled"])
    id = without.create_started(bundle(["sleep", "100"], process={"user": {"uid": 1000, "gid": 1000}}))
    weak = Runner(pyrun.root, ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill", *runtime_argv()])
    weak.delete(id, "--force").fails(1, "permission denied")
    assert pyrun.state(id)["status"] == "running"
    pyrun.delete(id, "--force").ok()
