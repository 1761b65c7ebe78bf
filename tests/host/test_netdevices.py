"""linux.netDevices: devices of the host move into the container, with their addresses; and back where create fails.

The "host" here is a network namespace of the test's own, so the machine's devices are left alone.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.runner import Runner, runtime_argv, wait_for


class Host:
    """The namespace that stands for the host's."""

    def __init__(self, pid: int) -> None:
        self.enter = ["nsenter", "-t", str(pid), "-n"]

    def ip(self, *words: str) -> str:
        return subprocess.run([*self.enter, "ip", *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    def devices(self) -> dict[str, dict[str, Any]]:
        return {row["ifname"]: row for row in json.loads(self.ip("-j", "addr", "show"))}


@pytest.fixture
def host() -> Iterator[Host]:
    process = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
    try:
        wait_for(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes() == b"sleep\x001000\0", 30, "unshare")
        made = Host(process.pid)
        made.ip("link", "add", "host0", "type", "veth", "peer", "name", "peer0")
        made.ip("addr", "add", "10.9.8.7/24", "brd", "+", "dev", "host0")
        made.ip("addr", "add", "fd00:9::7/64", "dev", "host0", "nodad")
        made.ip("link", "set", "host0", "mtu", "1400", "up")
        made.ip("link", "set", "peer0", "up")
        yield made
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def runner(host: Host, tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path / "state", [*host.enter, *runtime_argv()])
    yield made
    made.delete_all()


def addresses(row: dict[str, Any]) -> set[str]:
    """Those of global scope, with their prefixes."""
    return {f"{a['local']}/{a['prefixlen']}" for a in row["addr_info"] if a["scope"] == "global"}


ADDRESSES = {"10.9.8.7/24", "fd00:9::7/64"}


def moving(bundle: BundleMaker, *args: str, **devices: dict[str, str]) -> Bundle:
    return bundle(args or ["sleep", "1000"], linux={"netDevices": devices})


def inside(pid: int) -> dict[str, dict[str, Any]]:
    return Host(pid).devices()


def test_a_device_moves_with_its_addresses_and_comes_up(runner: Runner, bundle: BundleMaker, host: Host) -> None:
    before = host.devices()["host0"]
    id = runner.create(moving(bundle, host0={}))
    after = inside(runner.pid(id))["host0"]
    assert "host0" not in host.devices()
    assert addresses(after) == addresses(before) == ADDRESSES
    assert "UP" in after["flags"] and "LOWER_UP" in after["flags"]
    assert (after["mtu"], after["address"], after["ifindex"]) == (1400, before["address"], before["ifindex"])


def test_a_device_is_renamed(runner: Runner, bundle: BundleMaker, host: Host) -> None:
    pid = runner.pid(runner.create(moving(bundle, host0={"name": "eth0"})))
    assert inside(pid).keys() >= {"lo", "eth0"}
    assert addresses(inside(pid)["eth0"]) == ADDRESSES


def test_the_kernel_fills_in_a_template(runner: Runner, bundle: BundleMaker, host: Host) -> None:
    pid = runner.pid(runner.create(moving(bundle, host0={"name": "net%d"}, peer0={"name": "net%d"})))
    assert inside(pid).keys() >= {"lo", "net0", "net1"}


def test_create_hooks_see_the_device(runner: Runner, bundle: BundleMaker, host: Host, tmp_path: Path) -> None:
    made = moving(bundle, host0={})
    look = {"path": "/bin/sh", "args": ["sh", "-c", f"ip -o addr show dev host0 > {tmp_path}/seen"]}
    made.config["hooks"] = {"createContainer": [look | {"env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]}
    runner.create(made.save())
    assert "10.9.8.7/24" in (tmp_path / "seen").read_text()


def test_into_a_joined_namespace(runner: Runner, bundle: BundleMaker, host: Host) -> None:
    process = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
    try:
        wait_for(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes() == b"sleep\x001000\0", 30, "unshare")
        made = moving(bundle, host0={})
        made.add_namespace("network", f"/proc/{process.pid}/ns/net")
        id = runner.create(made)
        runner("delete", "--force", id).ok()
        assert addresses(inside(process.pid)["host0"]) == ADDRESSES  # not ours to move out (config-linux.md)
    finally:
        process.kill()
        process.wait()


def test_into_a_container_with_a_user_namespace(runner: Runner, bundle: BundleMaker, host: Host) -> None:
    made = moving(bundle, host0={})
    for parent in list(made.path.parents)[:3]:
        parent.chmod(0o755)
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    made.update(linux={"uidMappings": maps, "gidMappings": maps}).add_namespace("user")
    subprocess.run(["chown", "-Rh", "100000:100000", made.rootfs], check=True)
    assert addresses(inside(runner.pid(runner.create(made)))["host0"]) == ADDRESSES


def test_a_failed_create_gives_it_back(runner: Runner, bundle: BundleMaker, host: Host) -> None:
    before = host.devices()
    runner.run(moving(bundle, "no-such-program", host0={"name": "eth0"})).fails(1, "executable file not found")
    after = host.devices()
    assert after.keys() == before.keys()
    assert addresses(after["host0"]) == ADDRESSES
    assert "UP" in after["host0"]["flags"]
    assert after["host0"]["ifindex"] == before["host0"]["ifindex"]


def test_a_device_that_was_down_comes_back_down(runner: Runner, bundle: BundleMaker, host: Host) -> None:
    host.ip("link", "set", "host0", "down")
    runner.run(moving(bundle, "no-such-program", host0={})).fails(1)
    assert "UP" not in host.devices()["host0"]["flags"]


def test_the_second_one_failing_gives_both_back(runner: Runner, bundle: BundleMaker, host: Host) -> None:
    runner.run(moving(bundle, host0={}, peer0={"name": "lo"})).fails(1, "/linux/netDevices/peer0", "EEXIST")
    assert host.devices().keys() == {"lo", "host0", "peer0"}
    assert addresses(host.devices()["host0"]) == ADDRESSES


@pytest.mark.parametrize(
    "devices, says",
    [
        ({"missing0": {}}, "there is no network device missing0"),
        ({"host0": {"name": "a/b"}}, "a/b"),
        ({"host0": {"name": "x" * 16}}, "x" * 16),
        ({"host0": {"name": "lo"}}, "EEXIST"),
    ],
)
def test_what_can_not_move(runner: Runner, bundle: BundleMaker, host: Host, devices: Any, says: str) -> None:
    runner.run(moving(bundle, **devices)).fails(1, "/linux/netDevices", says)
    assert host.devices().keys() == {"lo", "host0", "peer0"}
    assert addresses(host.devices()["host0"]) == ADDRESSES


def test_without_a_network_namespace_nothing_moves(runner: Runner, bundle: BundleMaker, host: Host) -> None:
    made = moving(bundle, host0={})
    made.drop_namespace("network")
    runner.run(made).fails(1, "/linux/netDevices", "network namespace")
    assert "host0" in host.devices()


def test_virtual_devices_end_with_the_namespace(runner: Runner, bundle: BundleMaker, host: Host) -> None:
    """Nothing brings them back: who needs that uses a poststop hook or a namespace of their own (config-linux.md)."""
    runner.run(moving(bundle, "true", host0={})).ok()
    wait_for(lambda: host.devices().keys() == {"lo"}, 30, "the veth to go")
