"""rtnetlink messages: taken apart by hand, with over-long names, and before the kernel with a veth pair that moves."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
import traceback
from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from pyrun.errors import ConfigError, PyrunError
from pyrun.oci.model import NetDevice
from pyrun.plan.namespace import netlink
from tests.support.properties import given


def take_apart(message: bytes, fixed: str) -> tuple[tuple[int, ...], tuple[int, ...], dict[int, bytes]]:
    """(the header, the fields behind it, the attributes) of a message that must be one, whole."""
    header = struct.unpack_from("=IHHII", message)
    assert header[0] == len(message)
    at = 16 + struct.calcsize(fixed)
    attributes = {}
    while at < len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        assert 4 <= length <= len(message) - at
        attributes[kind] = message[at + 4 : at + length]
        at += (length + 3) & ~3
    assert at == len(message)
    return header[1:], struct.unpack_from(fixed, message, 16), attributes


LINK, ADDRESS = "=BxHiII", "=BBBBI"


def test_link_up_and_down_by_index_or_name() -> None:
    assert take_apart(netlink.link_up(7)[0], LINK) == ((16, 5, 1, 0), (0, 0, 7, 1, 1), {})
    assert take_apart(netlink.link_up("lo")[0], LINK) == ((16, 5, 1, 0), (0, 0, 0, 1, 1), {3: b"lo\0"})
    assert take_apart(netlink.link_down(7)[0], LINK) == ((16, 5, 1, 0), (0, 0, 7, 0, 1), {})


@pytest.mark.parametrize("name", [None, "e", "eth0", "container_eth0"])
def test_the_patch_is_the_namespace(name: str | None) -> None:
    message, patch = netlink.link_set_netns(7, name)
    assert patch is not None
    patched = message[:patch] + struct.pack("=I", 0xDEADBEEF) + message[patch + 4 :]
    attributes = take_apart(patched, LINK)[2]
    assert attributes.pop(28) == struct.pack("=I", 0xDEADBEEF)
    assert attributes.pop(49) == struct.pack("=I", 7)
    assert attributes == ({} if name is None else {3: name.encode() + b"\0"})


def test_an_address_is_added_as_it_was() -> None:
    local, peer, broadcast = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), bytes([10, 0, 0, 255])
    given_ = {1: peer, 2: local, 4: broadcast, 3: b"eth0:label\0", 6: bytes(16), 9: struct.pack("=I", 512)}
    message, patch = netlink.address_add(netlink.Address(socket.AF_INET, 24, 0, 7, 0x280, given_))
    header, fields, attributes = take_apart(message, ADDRESS)
    assert patch is None
    assert header == (20, 0x605, 1, 0)
    assert fields == (socket.AF_INET, 24, 0, 0, 7)
    assert attributes == {1: peer, 2: local, 4: broadcast, 9: struct.pack("=I", 512), 8: struct.pack("=I", 0x200)}


@pytest.mark.parametrize("length", [65532, 65535, 65536, 65536 + 8, 1 << 20])
def test_cve_2021_43784(length: int) -> None:
    """A length beyond 16 bits is refused; it used to wrap, and what lay behind it passed for attributes."""
    with pytest.raises(PyrunError, match="longer than"):
        netlink.attribute(netlink.IFLA_IFNAME, bytes(length))
    with pytest.raises(PyrunError, match="longer than"):
        netlink.link_set_netns(7, "x" * length)
    with pytest.raises(PyrunError, match="longer than"):
        netlink.address_add(netlink.Address(socket.AF_INET, 24, 0, 7, 0, {netlink.IFA_LOCAL: bytes(length)}))


def test_the_longest_attribute() -> None:
    encoded = netlink.attribute(3, bytes(65531))
    assert struct.unpack_from("=HH", encoded) == (65535, 3)
    assert len(encoded) == 65536


def test_a_message_of_several_long_attributes_is_refused() -> None:
    with pytest.raises(PyrunError, match="message of"):
        netlink.message(16, 0, netlink.attribute(3, bytes(40000)) * 2)


@given(st.text(max_size=40), st.integers(1, 1 << 30))
def test_a_name_stays_in_its_attribute(name: str, index: int) -> None:
    raw = name.encode("utf-8", "surrogateescape") if not any("\ud800" <= c <= "\udfff" for c in name) else b""
    if raw:
        assert take_apart(netlink.link_set_netns(index, name)[0], LINK)[2][3] == raw + b"\0"


# --- linux.netDevices -------------------------------------------------------------------------------------------------


def reply(index: int, address: str, prefix: int, *, scope: int = 0, flags: int = 0x80) -> bytes:
    """One message of the kernel's dump."""
    parsed = ipaddress.ip_address(address)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    body = struct.pack(ADDRESS, family, prefix, flags & 0xFF, scope, index) + netlink.attribute(1, parsed.packed)
    if parsed.version == 4:
        body += netlink.attribute(2, parsed.packed) + netlink.attribute(3, b"eth0\0")
    body += netlink.attribute(8, struct.pack("=I", flags))
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body


def test_a_device_takes_its_permanent_global_addresses_along() -> None:
    dump = (
        reply(7, "10.0.0.1", 24)
        + reply(8, "10.0.0.2", 24)
        + reply(7, "fe80::1", 64, scope=253)
        + reply(7, "2001:db8::1", 64, flags=0x280)
        + reply(7, "2001:db8::2", 64, flags=0x100)
        + reply(7, "10.0.1.1", 16)
        + struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)
    )
    devices = {"eth0": NetDevice(name="ctr0")}
    (plan,) = netlink.plan_net_devices(devices, indexes={"eth0": 7, "lo": 1}, address_dump=dump)
    assert (plan.name, plan.new_name, plan.pointer) == ("eth0", "ctr0", "/linux/netDevices/eth0")
    assert [message for message, _ in plan.outside] == [netlink.link_down(7), netlink.link_set_netns(7, "ctr0")]
    *addresses, up = [message for message, _ in plan.inside]
    assert up == netlink.link_up(7)
    found = [take_apart(message, ADDRESS) for message, _ in addresses]
    assert [(str(ipaddress.ip_address(given_[1])), fields[1], given_[8]) for _, fields, given_ in found] == [
        ("10.0.0.1", 24, struct.pack("=I", 0)),
        ("2001:db8::1", 64, struct.pack("=I", 0x200)),
        ("10.0.1.1", 16, struct.pack("=I", 0)),
    ]


def test_a_device_without_a_new_name_keeps_its_own() -> None:
    (plan,) = netlink.plan_net_devices({"eth0": NetDevice()}, indexes={"eth0": 7})
    assert plan.outside[1][0] == netlink.link_set_netns(7, "eth0")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\0b", "sixteen_letters_", "\u00e9" * 8])
def test_names_that_the_kernel_refuses(name: str) -> None:
    assert not netlink.is_device_name(name)
    with pytest.raises(ConfigError) as caught:
        netlink.plan_net_devices({name: NetDevice()}, indexes={name: 7})
    assert caught.value.faults


def test_faults_name_their_place() -> None:
    devices = {name: NetDevice(name=new) for name, new in (("eth0", "a b"), ("eth1", "a%s"), ("eth2", "%d%d"))}
    devices = {"none": NetDevice(), **devices}
    with pytest.raises(ConfigError) as caught:
        netlink.plan_net_devices(devices, indexes={"eth0": 7, "eth1": 8, "eth2": 9}, has_netns=False)
    assert [pointer for pointer, _ in caught.value.faults] == [
        "/linux/netDevices",
        "/linux/netDevices/none",
        "/linux/netDevices/eth0/name",
        "/linux/netDevices/eth1/name",
        "/linux/netDevices/eth2/name",
    ]


def test_a_template_is_a_name() -> None:
    (plan,) = netlink.plan_net_devices({"eth0": NetDevice(name="eth%d")}, indexes={"eth0": 7})
    assert plan.new_name == "eth%d"


def test_no_devices_need_nothing() -> None:
    assert netlink.plan_net_devices({}, indexes={}, has_netns=False) == ()


@given(st.binary(max_size=200))
def test_any_dump_is_survived(dump: bytes) -> None:
    for cut in (dump, reply(7, "10.0.0.1", 24)[: len(dump)], reply(7, "10.0.0.1", 24) + dump):
        assert len(list(netlink.parse_addresses(cut))) <= len(cut) // 16


# --- before the kernel ------------------------------------------------------------------------------------------------

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


def unshare() -> int:
    """A new network namespace for this process; a descriptor of it."""
    if libc.unshare(CLONE_NEWNET):
        raise PermissionError(ctypes.get_errno(), "unshare")
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def ask(request: bytes, patch: int | None = None, fd: int = 0) -> bytes:
    """Sends one request and gives back the replies; raises what an error says."""
    if patch is not None:
        request = request[:patch] + struct.pack("=i", fd) + request[patch + 4 :]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.sendall(request)
        replies = b""
        while True:
            part = link.recv(1 << 16)
            length, type_ = struct.unpack_from("=IH", part)
            if type_ == 2:
                error = -struct.unpack_from("=i", part, 16)[0]
                if error:
                    raise OSError(error, os.strerror(error))
                return replies
            replies += part
            if type_ == 3:
                return replies


def in_namespaces(check: Callable[[int, int], None]) -> None:
    """Runs check(here, there) in a child, in a new network namespace and with a second one at hand."""
    pid = os.fork()
    if pid == 0:
        try:
            here, there = unshare(), unshare()
            libc.setns(here, CLONE_NEWNET)
            check(here, there)
            os._exit(0)
        except PermissionError:
            os._exit(77)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 77:
        pytest.skip("a network namespace needs root")
    assert code == 0


def make_veth(name: str, peer: str, index: int) -> None:
    info = netlink.attribute(1, b"veth\0")
    other = struct.pack(LINK, 0, 0, index + 1, 0, 0) + netlink.attribute(3, peer.encode() + b"\0")
    info += netlink.attribute(2, netlink.attribute(1, other))
    body = struct.pack(LINK, 0, 0, index, 0, 0) + netlink.attribute(3, name.encode() + b"\0")
    ask(netlink.message(16, 0x600, body + netlink.attribute(18, info)))


def is_up(name: str) -> bool:
    with socket.socket() as any_socket:
        import fcntl

        got = fcntl.ioctl(any_socket, 0x8913, struct.pack("16sH14x", name.encode(), 0))  # SIOCGIFFLAGS
    return bool(struct.unpack_from("16xH", got)[0] & 1)


def addresses_of(index: int) -> set[tuple[str, int, bytes | None]]:
    found = [address for address in netlink.parse_addresses(ask(netlink.DUMP_ADDRESSES)) if address.index == index]
    return {
        (str(ipaddress.ip_address(one.attributes[1])), one.prefix_length, one.attributes.get(4))
        for one in found
        if one.scope == 0
    }


def test_the_kernel_brings_the_loopback_up() -> None:
    def check(_here: int, _there: int) -> None:
        assert not is_up("lo")
        ask(*netlink.link_up("lo"))
        assert is_up("lo")
        ask(*netlink.link_down("lo"))
        assert not is_up("lo")

    in_namespaces(check)


@pytest.mark.parametrize(("new_name", "seen"), [("moved0", "moved0"), (None, "veth0"), ("eth%d", "eth0")])
def test_the_kernel_moves_a_device_with_its_addresses(new_name: str | None, seen: str) -> None:
    def check(_here: int, there: int) -> None:
        make_veth("veth0", "veth1", 41)
        broadcast = bytes([10, 9, 8, 255])
        v4 = netlink.Address(2, 24, 0, 41, 0x80, {1: bytes([10, 9, 8, 7]), 2: bytes([10, 9, 8, 7]), 4: broadcast})
        peer = netlink.Address(2, 32, 0, 41, 0x80, {1: bytes([10, 1, 1, 2]), 2: bytes([10, 1, 1, 1])})
        ask(*netlink.address_add(v4))
        ask(*netlink.address_add(peer))
        expected = {("10.9.8.7", 24, broadcast), ("10.1.1.2", 32, None)}
        if os.path.exists("/proc/self/net/if_inet6"):
            v6 = ipaddress.ip_address("2001:db8::7").packed
            ask(*netlink.address_add(netlink.Address(10, 64, 0, 41, 0x82, {1: v6})))
            expected.add(("2001:db8::7", 64, None))
        ask(*netlink.link_up("veth0"))
        had = addresses_of(41)
        assert had == expected
        indexes = {name: index for index, name in socket.if_nameindex()}
        dump = ask(netlink.DUMP_ADDRESSES)
        (plan,) = netlink.plan_net_devices({"veth0": NetDevice(name=new_name)}, indexes=indexes, address_dump=dump)
        for (message, patch), _ in plan.outside:
            ask(message, patch, there)
        assert "veth0" not in dict(map(reversed, socket.if_nameindex()))  # type: ignore[arg-type]
        libc.setns(there, CLONE_NEWNET)
        for (message, patch), _ in plan.inside:
            ask(message, patch)
        assert (41, seen) in socket.if_nameindex()
        assert is_up(seen)
        assert addresses_of(41) == had

    in_namespaces(check)


def test_the_kernel_refuses_a_taken_name_or_index() -> None:
    def check(here: int, there: int) -> None:
        libc.setns(there, CLONE_NEWNET)
        make_veth("taken", "other", 41)
        libc.setns(here, CLONE_NEWNET)
        make_veth("veth0", "veth1", 41)
        make_veth("veth2", "veth3", 51)
        for index, name, errno in ((41, "free", 16), (51, "taken", 17)):
            try:
                ask(*netlink.link_set_netns(index, name), there)
            except OSError as error:
                assert error.errno == errno, (index, name)
            else:
                raise AssertionError("moved over another device")

    in_namespaces(check)
