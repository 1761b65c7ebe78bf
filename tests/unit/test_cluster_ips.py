"""Cluster IPs for Services of files."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import PyrunError
from pyrun.kube.feed.cluster_ips import ClusterIPs, choose


def service(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def filled(ips: ClusterIPs, value: dict[str, Any]) -> Any:
    ips.fill(value)
    return value["spec"].get("clusterIPs")


def test_each_has_one_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    ips = ClusterIPs(["10.96.0.0/24"], str(tmp_path / "db"))
    given = {n: filled(ips, service(f"s{n}"))[0] for n in range(200)}
    assert len(set(given.values())) == 200
    assert all(16 <= int(one.rpartition(".")[2]) < 255 for one in given.values()), "the first ones are for people"
    ips.close()
    again = ClusterIPs(["10.96.0.0/24"], str(tmp_path / "db"))
    assert {n: filled(again, service(f"s{n}"))[0] for n in reversed(range(200))} == given
    again.close()


def test_what_was_forgotten_is_found_again_by_its_name(tmp_path: Path) -> None:
    one, two = (ClusterIPs(["10.96.0.0/16"], str(tmp_path / name)) for name in ("one", "two"))
    assert filled(one, service("web")) == filled(two, service("web")) != filled(one, service("web", "other"))


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"clusterIP": "10.96.0.7"}, {"type": "ExternalName"}])
def test_who_has_said_what_it_wants_is_left_alone(tmp_path: Path, spec: dict[str, Any]) -> None:
    value = service("web", **spec)
    ClusterIPs(["10.96.0.0/16"], str(tmp_path / "db")).fill(value)
    assert value["spec"] == spec


def test_families(tmp_path: Path) -> None:
    both = ClusterIPs(["10.96.0.0/16", "fd96::/112"], str(tmp_path / "db"))

    def of(name: str, **spec: Any) -> list[int]:
        return [ipaddress.ip_address(text).version for text in filled(both, service(name, **spec))]

    assert of("a") == [4]
    assert of("b", ipFamilies=["IPv6"]) == [6]
    assert of("c", ipFamilyPolicy="PreferDualStack") == [4, 6]
    assert of("d", ipFamilies=["IPv6", "IPv4"]) == [6, 4]
    only = ClusterIPs(["10.96.0.0/16"], str(tmp_path / "only"))
    assert len(filled(only, service("a", ipFamilyPolicy="PreferDualStack"))) == 1
    with pytest.raises(PyrunError, match="RequireDualStack"):
        only.fill(service("b", ipFamilyPolicy="RequireDualStack"))
    with pytest.raises(PyrunError, match="no range of services has IPv6"):
        only.fill(service("c", ipFamilies=["IPv6"]))


def test_another_range_gives_another_address(tmp_path: Path) -> None:
    ClusterIPs(["10.96.0.0/24"], str(tmp_path / "db")).fill(service("web"))
    moved = ClusterIPs(["10.97.0.0/24"], str(tmp_path / "db"))
    assert filled(moved, service("web"))[0].startswith("10.97.0.")


def test_a_full_range_says_so() -> None:
    network = ipaddress.ip_network("10.0.0.0/27")
    taken: set[str] = set()
    for number in range(15):
        taken.add(choose(f"s{number}", network, taken))
    assert len(taken) == 15
    with pytest.raises(PyrunError, match="no address of"):
        choose("one more", network, taken)
    with pytest.raises(PyrunError, match="no address of"):
        choose("a", ipaddress.ip_network("10.0.0.0/30"), set())


@pytest.mark.parametrize("ranges", [["10.96.0.1/16"], ["10.0.0.0/8", "11.0.0.0/8"], ["x"]])
def test_ranges_that_are_none(tmp_path: Path, ranges: list[str]) -> None:
    with pytest.raises(PyrunError, match="--service-cidr"):
        ClusterIPs(ranges, str(tmp_path / "db"))


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"nothing of the kind" * 1000)
    with pytest.raises(PyrunError, match="remove it"):
        ClusterIPs(["10.96.0.0/16"], str(tmp_path / "db"))
