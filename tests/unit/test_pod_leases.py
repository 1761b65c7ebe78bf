"""Leases: no address twice, none lost by a kill or a restart, none kept for ever."""

from __future__ import annotations

import ipaddress
import json
import os
import threading
from pathlib import Path

import pytest

from pyrun.errors import AlreadyExists, InvalidArgument, PyrunError, ResourceExhausted
from pyrun.pod.network.firewall import check_ports, plan_elements, plan_table
from pyrun.pod.network.leases import Lease, Leases, parse_ranges

RANGES = parse_ranges(("10.1.0.0/16", "fd01::/64"))
SMALL = parse_ranges(("10.1.0.0/29",))


def leases(path: Path, ranges: object = RANGES) -> Leases:
    return Leases(str(path / "leases"), ranges)  # type: ignore[arg-type]


def test_two_hundred_pods_at_once(tmp_path: Path) -> None:
    book = leases(tmp_path)
    names = [f"p{i}" for i in range(200)]
    threads = [threading.Thread(target=lambda part=names[i::8]: [book.take(p, []) for p in part]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = book.all()
    assert len({ip for lease in found for ip in lease.ips}) == 400
    assert {lease.number for lease in found} == set(range(2, 202))
    for lease in found:
        assert all(ipaddress.ip_address(ip) in network for ip, network in zip(lease.ips, RANGES, strict=True))


def test_they_outlive_a_restart(tmp_path: Path) -> None:
    before = [leases(tmp_path).take("a", [["tcp", "", 80, 8080]])]
    before.append(leases(tmp_path).take("b", []))
    after = {lease.pod: lease for lease in leases(tmp_path).all()}
    assert {pod: (lease.number, lease.ips, lease.ports) for pod, lease in after.items()} == {
        lease.pod: (lease.number, lease.ips, lease.ports) for lease in before
    }


def test_the_same_pod_has_the_same_lease(tmp_path: Path) -> None:
    book = leases(tmp_path)
    assert book.take("a", []) is book.take("a", [])
    with pytest.raises(PyrunError, match="other ports"):
        book.take("a", [["tcp", "", 80, 80]])
    book.leave("a")
    with pytest.raises(PyrunError, match="has left"):
        book.take("a", [])


def test_when_all_are_in_use_that_is_said_and_one_that_is_given_back_will_do(tmp_path: Path) -> None:
    book = leases(tmp_path, SMALL)
    taken = [book.take(f"p{i}", []) for i in range(5)]
    assert [lease.ips[0] for lease in taken] == [f"10.1.0.{i}" for i in range(2, 7)]
    with pytest.raises(ResourceExhausted, match=r"all 5 addresses of 10\.1\.0\.0/29 are in use") as caught:
        book.take("late", [])
    assert caught.value.hint and "pod CIDR" in caught.value.hint
    assert not (tmp_path / "leases" / "late").exists()
    book.leave("p3")
    with pytest.raises(ResourceExhausted):
        book.take("late", [])  # its link may not be gone yet
    book.free("p3")
    assert book.take("late", []).ips == ("10.1.0.5",)


def test_an_address_comes_back_last(tmp_path: Path) -> None:
    book = leases(tmp_path, SMALL)
    book.take("a", [])
    book.free("a")
    assert [book.take(f"p{i}", []).number for i in range(5)] == [3, 4, 5, 6, 2]


@pytest.mark.parametrize("clock", [0.0, 4e9], ids=["1970", "2096"])
def test_a_clock_that_steps_changes_nothing_but_where_it_goes_on(tmp_path: Path, clock: float) -> None:
    book = leases(tmp_path)
    for i in range(3):
        book.take(f"p{i}", [])
    os.utime(tmp_path / "leases" / "p1", (clock, clock))
    again = leases(tmp_path)
    assert len(again.all()) == 3
    assert again.take("new", []).number not in {2, 3, 4}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pod": "a"}', json.dumps({"pod": "b"}), "x" * 100_000])
def test_a_file_that_is_none_is_swept(tmp_path: Path, text: str) -> None:
    leases(tmp_path).take("good", [])
    (tmp_path / "leases" / "a").write_text(text)
    (tmp_path / "leases" / ".half").write_text("{")
    book = leases(tmp_path)
    assert [lease.pod for lease in book.all()] == ["good"]
    assert os.listdir(tmp_path / "leases") == ["good"]


def test_a_lease_that_can_not_be_written_is_none(tmp_path: Path) -> None:
    book = leases(tmp_path)
    os.rename(tmp_path / "leases", tmp_path / "away")
    with pytest.raises(PyrunError, match="can't be written"):
        book.take("a", [])
    assert book.all() == []
    os.rename(tmp_path / "away", tmp_path / "leases")
    assert book.take("a", []).number == 2


def test_one_that_leaves_is_still_known_after_a_restart(tmp_path: Path) -> None:
    book = leases(tmp_path)
    book.take("a", [])
    book.leave("a")
    assert [lease.leaving for lease in leases(tmp_path).all()] == [True]
    assert leases(tmp_path).take("b", []).number == 3


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ((), "no pod CIDR"),
        (("10.0.0.0/30",), "too few"),
        (("10.0.0.0/8", "10.1.0.0/16"), "IPv4 already"),
        (("10.0.0.300/8",), "10.0.0.300/8"),
        (("fd00::/127",), "too few"),
    ],
)
def test_ranges_that_are_none(texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_ranges(texts)


def test_ipv4_comes_first_and_a_host_part_does_not_matter() -> None:
    assert [str(r) for r in parse_ranges(("fd01::/64", "10.1.2.3/24"))] == ["10.1.2.0/24", "fd01::/64"]


# --- the firewall's text ---------------------------------------------------------------------------------------------

PORTS = [["tcp", "", 8080, 80], ["udp", "192.0.2.1", 53, 5353], ["tcp", "2001:db8::1", 1, 2]]
LEASE = Lease("p", 2, ("10.1.0.2", "fd01::2"), PORTS)


def test_the_elements_of_a_pod() -> None:
    assert plan_elements("t", "add", LEASE).splitlines() == [
        "add element inet t ports4 { tcp . 8080 : 10.1.0.2 . 80 }",
        "add element inet t at4 { 192.0.2.1 . udp . 53 : 10.1.0.2 . 5353 }",
        "add element inet t self4 { 10.1.0.2 . 10.1.0.2 }",
        "add element inet t ports6 { tcp . 8080 : fd01::2 . 80 }",
        "add element inet t at6 { 2001:db8::1 . tcp . 1 : fd01::2 . 2 }",
        "add element inet t self6 { fd01::2 . fd01::2 }",
    ]
    assert "delete element inet t ports4 { tcp . 8080 }" in plan_elements("t", "delete", LEASE)
    assert plan_elements("t", "add", Lease("q", 3, ("10.1.0.3",), [])) == ""


def test_the_table_has_those_that_stay() -> None:
    leaving = Lease("q", 3, ("10.1.0.3",), [["tcp", "", 9, 9]], leaving=True)
    text = plan_table("t", RANGES, [LEASE, leaving])
    assert "10.1.0.0/16" in text and "fd01::/64" in text
    assert "10.1.0.2 . 80" in text and "10.1.0.3" not in text


@pytest.mark.parametrize(
    ("port", "clash"),
    [
        (["tcp", "", 8080, 1], True),
        (["tcp", "192.0.2.7", 8080, 1], True),
        (["udp", "", 8080, 1], False),
        (["udp", "192.0.2.2", 53, 1], False),
        (["udp", "192.0.2.1", 53, 1], True),
        (["udp", "", 53, 1], True),
    ],
)
def test_a_port_of_the_host_has_one_pod(port: list[object], clash: bool) -> None:
    if clash:
        with pytest.raises(AlreadyExists, match=r"is taken by pod p$"):
            check_ports("q", [port], [LEASE])
    else:
        check_ports("q", [port], [LEASE])
    check_ports("p", [port], [LEASE])
