"""CNI: what plug-ins are given and asked, with plug-ins of ours that write it down; what of theirs goes wrong."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, PyrunError, Unavailable
from pyrun.pod.network.cni import cni as cni_module
from pyrun.pod.network.cni.capabilities import bits, cni_args, runtime_config
from pyrun.pod.network.cni.cni import Cni, parse_result
from pyrun.pod.network.cni.conflist import load
from pyrun.pod.network.cni.plugin import run_plugin
from pyrun.pod.network.model import EGRESS, INGRESS, PodNet, PortMapping

RESULT = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "/ns"}],
    "ips": [{"address": "10.9.0.2/24", "interface": 1}, {"address": "fd09::2/64", "interface": 1}],
}
# Writes down what it is asked, then does as files beside it say.
PLUGIN = """#!/bin/sh
me=$(basename "$0") here=$(dirname "$0")
printf '%s %s %s %s %s ' "$CNI_COMMAND" "$me" "$CNI_CONTAINERID" "$CNI_IFNAME" "${CNI_NETNS:--}" >>"$here/log"
cat >>"$here/log"; echo >>"$here/log"
[ -f "$here/$me.$CNI_COMMAND.sh" ] && . "$here/$me.$CNI_COMMAND.sh"
[ "$CNI_COMMAND" = ADD ] && cat "$here/result"
exit 0
"""


class World:
    """A directory of configurations and one of plug-ins."""

    def __init__(self, path: Path) -> None:
        self.conf, self.bin, self.path = path / "net.d", path / "bin", path
        self.conf.mkdir()
        self.bin.mkdir()
        for name in ("first", "second"):
            (self.bin / name).write_text(PLUGIN)
            (self.bin / name).chmod(0o755)
        (self.bin / "result").write_text(json.dumps(RESULT))
        self.warnings: list[str] = []
        self.configure()

    def configure(self, version: str = "1.1.0", name: str = "10-n.conflist", **words: Any) -> None:
        plugins = [{"type": "first", "mtu": 9}, {"type": "second", "capabilities": {"portMappings": True, "dns": True}}]
        (self.conf / name).write_text(json.dumps({"cniVersion": version, "name": "n", "plugins": plugins, **words}))

    def on(self, plugin: str, command: str, script: str) -> None:
        (self.bin / f"{plugin}.{command}.sh").write_text(script)

    def cni(self) -> Cni:
        return Cni(str(self.path / "records"), str(self.conf), (str(self.bin),), self.warnings.append)

    def log(self) -> list[tuple[str, str, str, str, str, dict[str, Any]]]:
        """(command, plug-in, container, interface, netns, what it read), and the log is empty then."""
        file = self.bin / "log"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        found = []
        for line in lines:
            *words, given = line.split(" ", 5)
            found.append((*words, json.loads(given)))
        return found

    def records(self) -> list[str]:
        return os.listdir(self.path / "records")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def pod(**words: Any) -> PodNet:
    ports = (PortMapping("tcp", 8080, 80),)
    return PodNet(
        "id1", **{"name": "web", "namespace": "ns", "uid": "u", "netns": "/ns", "port_mappings": ports, **words}
    )


def test_add_hands_each_result_on(world: World) -> None:
    found = world.cni().add(pod(dns=(("1.1.1.1",), (), ())))
    assert found.ips == ("10.9.0.2", "fd09::2")
    (c1, p1, id1, if1, ns1, given1), (c2, p2, _, _, _, given2) = world.log()
    assert (c1, p1, id1, if1, ns1) == ("ADD", "first", "id1", "eth0", "/ns")
    assert given1 == {"type": "first", "mtu": 9, "cniVersion": "1.1.0", "name": "n"}
    assert (c2, p2) == ("ADD", "second")
    assert given2["prevResult"] == RESULT and "capabilities" not in given2
    assert given2["runtimeConfig"] == {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
        "dns": {"servers": ["1.1.1.1"], "searches": [], "options": []},
    }


def test_del_is_the_other_way_round_with_the_result_and_once(world: World) -> None:
    cni = world.cni()
    cni.add(pod())
    world.log()
    world.configure(name="05-other.conflist", plugins=[{"type": "second"}])  # not what it was added with
    world.cni().remove(pod(netns=""))
    found = world.log()
    assert [(command, plugin, netns) for command, plugin, _, _, netns, _ in found] == [
        ("DEL", "second", "-"),
        ("DEL", "first", "-"),
    ], "the namespace is gone"
    assert all(given["prevResult"] == RESULT for *_, given in found)
    assert found[0][5]["runtimeConfig"]["portMappings"]
    cni.remove(pod())
    assert world.log() == [] and world.records() == []


def test_a_failed_add_asks_all_to_del(world: World) -> None:
    world.on("second", "ADD", """echo '{"code": 7, "msg": "no luck", "details": "at all"}'; exit 1\n""")
    with pytest.raises(PyrunError, match=r"CNI plug-in second \(ADD\): no luck; at all \(code 7\)"):
        world.cni().add(pod())
    assert [entry[:2] for entry in world.log()] == [
        ("ADD", "first"), ("ADD", "second"), ("DEL", "second"), ("DEL", "first"),
    ]  # fmt: skip
    assert world.records() == []


def test_who_is_killed_in_the_middle_of_add_can_del(world: World) -> None:
    world.on("second", "ADD", "kill -9 $(ps -o ppid= -p $$)\n")
    pid = os.fork()
    if pid == 0:
        try:
            world.cni().add(pod())
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 9
    world.log()
    assert world.records() == ["id1"]
    world.cni().gc(set())
    assert [entry[:2] for entry in world.log() if entry[0] == "DEL"] == [("DEL", "second"), ("DEL", "first")]
    assert world.records() == []


def test_a_plug_in_whose_del_succeeded_is_not_asked_again(world: World) -> None:
    cni = world.cni()
    cni.add(pod())
    world.on("first", "DEL", "echo broken >&2; exit 3\n")
    world.log()
    with pytest.raises(PyrunError, match=r"first \(DEL\): exit status 3: broken"):
        cni.remove(pod())
    assert [entry[1] for entry in world.log()] == ["second", "first"], "all are tried"
    (world.bin / "first.DEL.sh").unlink()
    world.cni().remove(pod())
    assert [entry[1] for entry in world.log()] == ["first"]
    assert world.records() == []


def test_a_plug_in_that_does_not_end_is_killed_with_all_that_it_started(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(cni_module, "ADD_S", 0.4)
    world.on("first", "ADD", f"sleep 60 & echo $! >{world.path}/pid; wait\n")
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"first \(ADD\): took longer"):
        world.cni().add(pod())
    assert time.monotonic() - began < 5
    sleeper = int((world.path / "pid").read_text())
    for _ in range(200):
        if not _runs(sleeper):
            break
        time.sleep(0.01)
    assert not _runs(sleeper)


def _runs(pid: int) -> bool:
    """A zombie runs no more; here nobody may reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_what_a_plug_in_leaves_running_keeps_nobody_waiting(world: World) -> None:
    world.on("first", "ADD", f"sleep 30 & echo $! >{world.path}/pid\n")
    world.cni().add(pod())
    sleeper = int((world.path / "pid").read_text())
    assert _runs(sleeper)
    os.kill(sleeper, signal.SIGKILL)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 5\n", "exit status 5: it said nothing"),
        ("kill -9 $$\n", "signal 9"),
        ("echo nonsense; exit 1\n", "exit status 1: nonsense"),
        ("echo nonsense; exit 0\n", "its answer is no JSON object: nonsense"),
        ("echo '[1]'; exit 0\n", "its answer is no JSON object"),
        ("head -c 5000000 /dev/zero; exit 0\n", "answers more than 4 MiB"),
        ('echo \'{"code": "x", "msg": "odd"}\'; exit 1\n', r"odd \(code 0\)"),
    ],
)
def test_answers_that_are_none(world: World, script: str, words: str) -> None:
    world.on("first", "ADD", script)
    with pytest.raises(PyrunError, match=words):
        world.cni().add(pod())


def test_no_address_is_an_error(world: World) -> None:
    (world.bin / "result").write_text('{"cniVersion": "1.0.0"}')
    with pytest.raises(PyrunError, match="gave the pod no address"):
        world.cni().add(pod())
    assert [entry[:2] for entry in world.log()][-2:] == [("DEL", "second"), ("DEL", "first")]


def test_results_of_all_versions() -> None:
    assert parse_result({"ip4": {"ip": "10.0.0.2/24"}, "ip6": {"ip": "fd::2/64"}}).ips == ("10.0.0.2", "fd::2")
    assert parse_result({"ips": [{"version": "4", "address": "10.0.0.2/24"}]}).ips == ("10.0.0.2",)
    two = {**RESULT, "ips": [{"address": "10.1.1.1/24", "interface": 0}, *RESULT["ips"]]}
    assert parse_result(two).ips == ("10.9.0.2", "fd09::2"), "not the bridge's"
    assert parse_result({**RESULT, "dns": {"nameservers": ["1.1.1.1"]}}).dns == (("1.1.1.1",), (), ())


def test_check(world: World) -> None:
    cni = world.cni()
    with pytest.raises(FailedPrecondition, match="was not added"):
        cni.check(pod())
    cni.add(pod())
    world.log()
    cni.check(pod())
    assert [(entry[0], entry[5]["prevResult"]) for entry in world.log()] == [("CHECK", RESULT)] * 2
    world.on("second", "CHECK", """echo '{"code": 100, "msg": "the link is gone"}'; exit 1\n""")
    with pytest.raises(FailedPrecondition, match="the link is gone"):
        cni.check(pod())


@pytest.mark.parametrize(("version", "disabled"), [("0.3.1", False), ("1.0.0", True)])
def test_no_check_where_there_is_none(world: World, version: str, disabled: bool) -> None:
    world.configure(version, disableCheck=disabled)
    cni = world.cni()
    cni.add(pod())
    world.log()
    cni.check(pod())
    assert world.log() == []


def test_before_0_4_del_has_no_result(world: World) -> None:
    world.configure("0.3.1")
    cni = world.cni()
    cni.add(pod())
    world.log()
    cni.remove(pod())
    assert all("prevResult" not in entry[5] for entry in world.log())


def test_gc_tells_who_lives(world: World) -> None:
    cni = world.cni()
    cni.add(pod())
    world.log()
    cni.gc({"id1", "of-the-nodes-network"})
    found = world.log()
    assert [entry[:2] for entry in found] == [("GC", "first"), ("GC", "second")]
    assert found[0][5]["cni.dev/valid-attachments"] == [{"containerID": "id1", "ifname": "eth0"}]
    world.configure("1.0.0")
    world.cni().gc({"id1"})
    assert world.log() == [], "1.0 has no GC"


def test_ready_and_not(world: World) -> None:
    cni = world.cni()
    assert cni.ready() == (True, "", "")
    assert [entry[0] for entry in world.log()] == ["STATUS", "STATUS"]
    cni.ready()
    assert world.log() == [], "not with each question"
    world.on("second", "STATUS", """echo '{"code": 50, "msg": "no daemon"}'; exit 1\n""")
    ready, reason, message = world.cni().ready()
    assert (ready, reason) == (False, "NetworkPluginNotReady")
    assert "second (STATUS): no daemon (code 50)" in message
    (world.bin / "second").unlink()
    assert "the CNI plug-in second is in none of" in cni.ready()[2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "05-broken.conflist"),
        ("[]", "no JSON object"),
        ("{}", "name is missing"),
        ('{"name": "n", "cniVersion": "9.9.9", "plugins": [{"type": "first"}]}', "cniVersion '9.9.9' is none"),
        ('{"name": "n", "plugins": []}', "plugins is no list"),
        ('{"name": "n", "plugins": [{"type": "../../bin/sh"}]}', "the type of a plug-in is a name"),
        ('{"name": "n", "plugins": [{}]}', "type is missing"),
        ("[" * 100_000, "05-broken"),
    ],
)
def test_a_broken_configuration_is_told_and_no_other_takes_its_place(world: World, text: str, words: str) -> None:
    (world.conf / "05-broken.conflist").write_text(text)
    cni = world.cni()
    assert cni.is_configured()
    ready, _, message = cni.ready()
    assert not ready and words in message
    with pytest.raises(Unavailable, match="05-broken"):
        cni.add(pod())


def test_which_file_counts(world: World) -> None:
    (world.conf / "20-x.conf").write_text('{"cniVersion": "0.4.0", "name": "single", "type": "first"}')
    (world.conf / "00-readme.txt").write_text("no configuration")
    (world.conf / ".00-hidden.conflist").write_text("{")
    assert load(str(world.conf)).name == "n"
    (world.conf / "10-n.conflist").unlink()
    single = load(str(world.conf))
    assert (single.name, single.version, [p["type"] for p in single.plugins]) == ("single", (0, 4, 0), ["first"])


def test_plug_ins_in_files_of_their_own(world: World) -> None:
    (world.conf / "n").mkdir()
    (world.conf / "n" / "50-more.conf").write_text('{"type": "second"}')
    world.configure(plugins=[{"type": "first"}])
    assert [p["type"] for p in load(str(world.conf)).plugins] == ["first", "second"]
    world.configure(plugins=[{"type": "first"}], loadOnlyInlinedPlugins=True)
    assert [p["type"] for p in load(str(world.conf)).plugins] == ["first"]


def test_the_newest_version_that_both_speak(world: World) -> None:
    world.configure("0.4.0", cniVersions=["0.4.0", "1.1.0", "9.0.0"])
    assert load(str(world.conf)).version == (1, 1, 0)


def test_what_no_plug_in_takes_is_said(world: World) -> None:
    world.configure(plugins=[{"type": "first"}])
    world.cni().add(pod(annotations={INGRESS: "1M"}))
    assert any("takes portMappings" in text for text in world.warnings)
    assert any("takes bandwidth" in text for text in world.warnings)


def test_bandwidth_and_ips() -> None:
    found = runtime_config(pod(annotations={INGRESS: "10M", EGRESS: "1Gi", "pyrun.dev/ips": "10.0.0.9, fd::9"}))
    assert found["bandwidth"]["ingressRate"] == 10_000_000 and found["bandwidth"]["egressRate"] == 1 << 30
    assert found["ips"] == ["10.0.0.9", "fd::9"]
    assert bits("k", "1.5M") == 1_500_000


@pytest.mark.parametrize("text", ["", "M", "10X", "10", "-5M", "1e9", "5000P", "١٠M"])
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="annotation k"):
        bits("k", text)


def test_the_words_of_cni_args() -> None:
    assert cni_args(pod()).split(";")[1:] == [
        "K8S_POD_NAMESPACE=ns", "K8S_POD_NAME=web", "K8S_POD_INFRA_CONTAINER_ID=id1", "K8S_POD_UID=u",
    ]  # fmt: skip
    with pytest.raises(InvalidArgument, match="K8S_POD_NAME"):
        cni_args(pod(name="a;K8S_POD_UID=other"))


def test_a_plug_in_has_no_descriptor_of_ours(world: World) -> None:
    world.on("first", "ADD", f"ls -l /proc/$$/fd >{world.path}/fds\n")
    secret = os.open(world.path / "secret", os.O_CREAT | os.O_RDWR)
    try:
        run_plugin("first", "ADD", {}, {}, (str(world.bin),), 5)
    finally:
        os.close(secret)
    assert "secret" not in (world.path / "fds").read_text()
