"""linux.netDevices: devices of the host, with their addresses, in the container's network namespace.

The parent has the privileges for both sides, so it sends everything: the move from where it is, the rest from a child
of it that has joined the container's namespace. As a failed create must leave things as they were, the undo lane
moves them back: with the namespace the kernel would destroy virtual devices (network_namespaces(7)).
"""

from __future__ import annotations

from ...facts import Facts
from ...oci.model import Spec
from ..model.plan import Builder
from ..model.steps import NEXT, PARENT, PID_PREFIX, UNDO, Netlink, Openat2
from .namespaces import namespaces
from .netlink import NetDevicePlan, link_down, link_set_netns, link_up, plan_net_devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.steps import Step
    from .netlink import Message

IFF_UP = 1
NONE = 0xFFFF  # no slot


def plan_devices_of_host(b: Builder, spec: Spec, facts: Facts, proc: int) -> None:
    """Parent, when the init is there. proc: the slot of the host's /proc. ConfigError with every fault."""
    devices = spec.linux.net_devices if spec.linux else {}
    if not devices:
        return
    plans = plan_net_devices(
        devices,
        indexes={name: index for name, (index, _) in facts.net_devices.items()},
        address_dump=facts.net_addresses,
        has_netns="network" in namespaces(spec),
    )
    outside, inside = b.slot("host-netns"), b.slot("container-netns")
    at = "/linux/netDevices"
    b.add(
        PARENT,
        Openat2(dir=proc, path="self/ns/net", flags=0, out=outside, at=at, why="the way back, should create fail"),
        Openat2(dir=proc, path="ns/net", flags=0, pid=PID_PREFIX, out=inside, at=at, why="where the devices go"),
    )
    for plan in plans:
        _plan_move(b, plan, facts.net_devices[plan.name], outside, inside)


def _plan_move(b: Builder, plan: NetDevicePlan, before: tuple[int, int], outside: int, inside: int) -> None:
    index, flags = before
    down, move = (_step(msg, why, plan, target=inside) for msg, why in plan.outside)
    b.add(PARENT, down, move)
    b.add(PARENT, *(_step(msg, why, plan, ns=inside) for msg, why in plan.inside))
    if flags & IFF_UP:
        b.add(UNDO, _step(link_up(index), "", plan, guard=down))
    b.add(
        UNDO,
        _step(link_down(index), "", plan, ns=inside, guard=move),
        _step(link_set_netns(index, plan.name), "the host's again", plan, ns=inside, target=outside, guard=move),
        *(_step(msg, "", plan, guard=move) for msg, _ in plan.inside[:-1]),
    )
    if flags & IFF_UP:
        b.add(UNDO, _step(link_up(index), "", plan, guard=move))


def _step(
    message: Message, why: str, plan: NetDevicePlan, *, target: int = NONE, ns: int = NONE, guard: Step | None = None
) -> Netlink:
    """target: the namespace whose descriptor goes into the message; ns: the one that it is sent in."""
    msg, patch = message
    step = Netlink(msg=msg, patch=NEXT if patch is None else patch, fd=target, ns=ns, at=plan.pointer, why=why)
    if guard is not None:
        step.args["guard"] = guard
    return step
