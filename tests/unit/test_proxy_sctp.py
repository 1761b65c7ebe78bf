"""SCTP in the plan: who carries it, whom an endpoint sees, and what is said where nobody can."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrun.kube.addresses import parse_address
from pyrun.proxy.hostports import bound_ports
from pyrun.proxy.rules import FORWARD, REJECT, SCTP, Choice, Frontend
from pyrun.proxy.sctp import Kernel, fits_sockets, why_not
from tests.unit.test_proxy_plan import rules_of, service, slice_of

PORTS = "ports: [{port: 38412, protocol: SCTP, nodePort: 30412}, {name: tcp, port: 80, nodePort: 30080}]"
AMF = f"type: NodePort, clusterIP: 172.30.0.1, {PORTS}"
SLICES = slice_of("{addresses: [10.0.0.1]}", ports="{port: 38412, protocol: SCTP}, {name: tcp, port: 80}")
KEPT, REPLACED, REFUSED = Choice((), FORWARD, "s"), Choice((), FORWARD, "s", True), Choice((), REJECT)
WHOLE, NONE = Kernel(sockets=True, tracks=True), Kernel(sockets=False, tracks=False)


def frontend(*choices: Choice, address: str = "172.30.0.1", kernel: bool = False) -> Frontend:
    return Frontend("amf", SCTP, parse_address(address), 38412, choices, kernel=kernel)


def carried_by_sockets(mode: str) -> dict[str, tuple[bool, set[bool]]]:
    """By protocol and class: whether sockets fit, and what becomes of clients' addresses."""
    metadata = f"name: web, annotations: {{pyrun.io/proxy-mode: {mode}}}" if mode else "name: web"
    rules = rules_of(service(AMF, metadata=metadata) + SLICES)
    return {
        f"{one.protocol} {one.name.rpartition(' ')[2]}": (
            fits_sockets(one),
            {choice.replace_source for choice in one.choices},
        )
        for one in rules.frontends
    }


def test_sockets_carry_what_is_masqueraded_anyway_and_all_that_an_annotation_asks_for() -> None:
    plain, asked, kernel = (carried_by_sockets(mode) for mode in ("", "userspace", "nftables"))
    assert plain["132 cluster"] == kernel["132 cluster"] == (False, {True, False})
    assert plain["132 node-port"] == (True, {True}) and kernel["132 node-port"] == (False, {True})
    assert asked["132 cluster"] == asked["132 node-port"] == (True, {True})
    assert plain["6 cluster"][1] == asked["6 cluster"][1]  # TCP has its clients' addresses as before


def test_who_has_no_endpoint_and_who_calls_from_loopback_need_no_address_kept() -> None:
    assert fits_sockets(frontend(REFUSED)) and fits_sockets(frontend(REFUSED, REPLACED))
    assert not fits_sockets(frontend(REPLACED, KEPT))
    assert fits_sockets(frontend(KEPT, address="127.0.0.1")) and not fits_sockets(frontend(REPLACED, kernel=True))


@pytest.mark.parametrize(
    ("one", "kernel", "userspace", "told"),
    [
        (frontend(REPLACED), WHOLE, True, ""),
        (frontend(REPLACED), Kernel(False, True), True, ""),  # the kernel carries it then
        (frontend(KEPT), Kernel(False, True), True, ""),
        (frontend(REPLACED), Kernel(True, False), True, ""),
        (frontend(REPLACED), NONE, True, "no sockets of SCTP"),
        (frontend(KEPT), Kernel(True, False), True, "annotation pyrun.io/proxy-mode: userspace"),
        (frontend(KEPT), NONE, True, "no sockets of SCTP"),
        (frontend(KEPT, kernel=True), Kernel(True, False), True, "does not track"),
        (frontend(REPLACED), Kernel(True, False), False, "does not track"),
        (frontend(KEPT, address="127.0.0.1"), WHOLE, True, ""),
        (frontend(KEPT, address="127.0.0.1"), Kernel(False, True), True, "no sockets of SCTP"),
        (frontend(KEPT, address="127.0.0.1"), WHOLE, False, "--proxy-mode userspace does"),
    ],
)
def test_what_nobody_carries_is_told_with_the_cause(one: Frontend, kernel: Kernel, userspace: bool, told: str) -> None:
    why = why_not(one, kernel, userspace=userspace)
    assert told in why and bool(told) == bool(why)


def test_ports_that_programs_listen_on(tmp_path: Path) -> None:
    """As kernel 6.1 writes them: a socket that listens on two addresses, and one that does not listen."""
    (tmp_path / "sctp").mkdir()
    (tmp_path / "sctp" / "eps").write_text(
        " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n"
        "3cf795b1 9a933c65 2   10  27   38412     0 13033 fd96:0000:0000:0000:0000:0000:0000:0005 10.96.0.5 \n"
        "c7250b27 d7662a61 2   7   27   7         0 13032 10.96.0.6 \n"
    )
    right = {(SCTP, parse_address(address), 38412) for address in ("fd96::5", "10.96.0.5")}
    assert bound_ports(str(tmp_path)) == right
