"""rtnetlink messages as bytes: the loopback comes up, and ``linux.netDevices`` move into the container's namespace.

Every length is checked before it is written: an attribute's is 16 bits wide, and in runc one that did not fit wrapped,
and its content passed for attributes of its own (CVE-2021-43784). A descriptor that is known only at run time is 0
here; the message comes with the offset at which the executor puts its number.
A device keeps its index in the new namespace (IFLA_NEW_IFINDEX), so the messages that follow the move are planned too.
"""

from __future__ import annotations

from struct import Struct

from pyrun.errors import ConfigError, PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Literal

    from pyrun.oci.model import NetDevice

    Message = tuple[bytes, int | None]  # and the offset of four bytes for a descriptor's number

RTM_NEWLINK, RTM_NEWADDR, RTM_GETADDR = 16, 20, 22
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_DUMP, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x300, 0x400
IFLA_IFNAME, IFLA_NET_NS_FD, IFLA_NEW_IFINDEX = 3, 28, 49
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_RT_PRIORITY = 1, 2, 4, 8, 9
IFF_UP = 1
IFA_F_PERMANENT = 0x80
# NODAD, OPTIMISTIC, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN: what was asked for. The kernel sets the
# other flags, which tell how the address fares.
IFA_F_ASKED = 0x02 | 0x04 | 0x10 | 0x100 | 0x200 | 0x400
RT_SCOPE_UNIVERSE = 0

_header = Struct("=IHHII")  # length, type, flags, sequence, port; the kernel's byte order is ours
_ifinfomsg = Struct("=BxHiII")  # family, type, index, flags, change
_ifaddrmsg = Struct("=BBBBI")  # family, prefix length, flags, scope, index
_rtattr = Struct("=HH")  # length, kind
_u32 = Struct("=I").pack

# The request whose replies, one after the other, plan_net_devices takes as ``address_dump``.
DUMP_ADDRESSES = _header.pack(24, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + _ifaddrmsg.pack(0, 0, 0, 0, 0)


class Address:
    """An address of a device: the fields of struct ifaddrmsg, all of its flags, and its attributes."""

    __slots__ = ("family", "prefix_length", "scope", "index", "flags", "attributes")

    def __init__(
        self, family: int, prefix_length: int, scope: int, index: int, flags: int, attributes: dict[int, bytes]
    ) -> None:
        self.family = family
        self.prefix_length = prefix_length
        self.scope = scope
        self.index = index
        self.flags = flags
        self.attributes = attributes


class NetDevicePlan:
    """One device's move. ``outside`` is sent from the runtime's namespace, with the container's in the patched place;
    ``inside`` from within the container's. Each is (message, what it does)."""

    __slots__ = ("name", "new_name", "pointer", "outside", "inside")

    def __init__(
        self,
        name: str,
        new_name: str,
        pointer: str,
        outside: tuple[tuple[Message, str], ...],
        inside: tuple[tuple[Message, str], ...],
    ) -> None:
        self.name = name
        self.new_name = new_name
        self.pointer = pointer
        self.outside = outside
        self.inside = inside


# --- messages ---------------------------------------------------------------------------------------------------------


def attribute(kind: int, payload: bytes) -> bytes:
    """One struct rtattr, padded. Raises PyrunError where the payload does not fit its 16 bits of length."""
    length = _rtattr.size + len(payload)
    if length > 0xFFFF:
        raise PyrunError(f"netlink attribute {kind} of {length} bytes is longer than 65535")
    return _rtattr.pack(length, kind) + payload + bytes(-length % 4)


def message(type_: int, flags: int, body: bytes) -> bytes:
    """A request to be acknowledged. Raises PyrunError where the body does not fit what a socket takes at once."""
    length = _header.size + len(body)
    if length > 0x10000:
        raise PyrunError(f"netlink message of {length} bytes is longer than 65536")
    return _header.pack(length, type_, flags | NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body


def link_up(device: int | str) -> Message:
    """Brings a device up, named by its index or its name."""
    return _link_flags(device, IFF_UP), None


def link_down(device: int | str) -> Message:
    return _link_flags(device, 0), None


def link_set_netns(index: int, name: str | None = None) -> Message:
    """Moves a device into the namespace of the patched descriptor, in one step with its renaming.

    It keeps its index: EBUSY where another device has it there. The name may hold one %d, which the kernel fills in.
    """
    start = _ifinfomsg.pack(0, 0, index, 0, 0) + (_name(name) if name is not None else b"")
    start += attribute(IFLA_NEW_IFINDEX, _u32(index))
    body = start + attribute(IFLA_NET_NS_FD, bytes(4))
    return message(RTM_NEWLINK, 0, body), _header.size + len(start) + _rtattr.size


def address_add(address: Address, index: int | None = None) -> Message:
    """Gives a device (index; default: its own) an address with the prefix, peer, broadcast, metric and flags it had."""
    flags = address.flags & IFA_F_ASKED
    index = address.index if index is None else index
    body = _ifaddrmsg.pack(address.family, address.prefix_length, flags & 0xFF, address.scope, index)
    for kind in (IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY):
        if kind in address.attributes:
            body += attribute(kind, address.attributes[kind])
    return message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body + attribute(IFA_FLAGS, _u32(flags))), None


def _link_flags(device: int | str, flags: int) -> bytes:
    index = device if isinstance(device, int) else 0
    name = _name(device) if isinstance(device, str) else b""
    return message(RTM_NEWLINK, 0, _ifinfomsg.pack(0, 0, index, flags, IFF_UP) + name)


def _name(name: str) -> bytes:
    return attribute(IFLA_IFNAME, name.encode("utf-8", "surrogateescape") + b"\0")


# --- the reply --------------------------------------------------------------------------------------------------------


def parse_addresses(dump: bytes) -> Iterator[Address]:
    """The addresses in the kernel's replies to DUMP_ADDRESSES. Stops at the first that is cut off."""
    at = 0
    while at + _header.size <= len(dump):
        length, type_, *_ = _header.unpack_from(dump, at)
        if length < _header.size or at + length > len(dump):
            return
        fields = at + _header.size
        if type_ == RTM_NEWADDR and length >= _header.size + _ifaddrmsg.size:
            family, prefix_length, flags, scope, index = _ifaddrmsg.unpack_from(dump, fields)
            attributes = _parse_attributes(dump[fields + _ifaddrmsg.size : at + length])
            if len(attributes.get(IFA_FLAGS, b"")) == 4:
                flags = int.from_bytes(attributes[IFA_FLAGS], _BYTE_ORDER)
            yield Address(family, prefix_length, scope, index, flags, attributes)
        at += (length + 3) & ~3


_BYTE_ORDER: Literal["little", "big"] = "little" if _u32(1)[0] else "big"


def _parse_attributes(data: bytes) -> dict[int, bytes]:
    attributes: dict[int, bytes] = {}
    at = 0
    while at + _rtattr.size <= len(data):
        length, kind = _rtattr.unpack_from(data, at)
        if length < _rtattr.size:
            break
        attributes[kind] = data[at + _rtattr.size : at + length]
        at += (length + 3) & ~3
    return attributes


# --- linux.netDevices -------------------------------------------------------------------------------------------------


def plan_net_devices(
    devices: dict[str, NetDevice],
    *,
    indexes: dict[str, int],
    address_dump: bytes = b"",
    has_netns: bool = True,
    base: str = "/linux/netDevices",
) -> tuple[NetDevicePlan, ...]:
    """The moves of ``devices`` in order. indexes: of the devices in the runtime's namespace, by name. address_dump: see
    DUMP_ADDRESSES. has_netns: the container has a network namespace of its own. Raises ConfigError with every fault.

    As config-linux.md "Network Devices" has it: permanent addresses of global scope go along, and the device comes up.
    """
    faults: list[tuple[str, str]] = []
    if devices and not has_netns:
        faults.append((base, "moving devices needs a network namespace"))
    addresses = list(parse_addresses(address_dump)) if devices else []
    plans = [
        _plan_device(name, device.name or name, indexes.get(name), addresses, base, faults)
        for name, device in devices.items()
    ]
    if faults:
        raise ConfigError(faults)
    return tuple(plans)


def is_device_name(name: str) -> bool:
    """What the kernel takes (dev_valid_name): up to 15 bytes, not a path's part, without a slash, colon or space."""
    raw = name.encode("utf-8", "surrogateescape")
    return 0 < len(raw) < 16 and raw not in (b".", b"..") and not any(byte in b"/:\0 \t\n\v\f\r\xa0" for byte in raw)


def _plan_device(
    name: str,
    new_name: str,
    index: int | None,
    addresses: Iterable[Address],
    base: str,
    faults: list[tuple[str, str]],
) -> NetDevicePlan:
    pointer = f"{base}/{name.replace('~', '~0').replace('/', '~1')}"
    if not is_device_name(name):
        faults.append((pointer, f"{name!r} can't be the name of a network device"))
    elif index is None:
        faults.append((pointer, f"there is no network device {name}"))
    template = new_name.replace("%d", "", 1)
    if not is_device_name(new_name) or "%" in template:
        faults.append((f"{pointer}/name", f"{new_name!r} can't be the name of a network device"))
    if faults or index is None:
        return NetDevicePlan(name, new_name, pointer, (), ())
    kept = [
        (address_add(address), f"gives {new_name} an address that it had")
        for address in addresses
        if address.index == index and address.flags & IFA_F_PERMANENT and address.scope == RT_SCOPE_UNIVERSE
    ]
    outside = (
        # So that nobody on the host uses it while it changes hands.
        (link_down(index), f"takes {name} down"),
        (link_set_netns(index, new_name), f"moves {name} into the container as {new_name}"),
    )
    return NetDevicePlan(name, new_name, pointer, outside, (*kept, (link_up(index), f"brings {new_name} up")))
