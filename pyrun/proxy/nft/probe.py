"""What the rules need of nf_tables and a kernel may lack: tried before anything is in force, and named.

Each need is a rule in a table that the same transaction takes away again, so nothing of it is ever in force.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from . import messages as m
from .layout import BASE_CHAINS, FAMILIES, KEPT, SERVICES, shapes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .layout import Family
    from .transactions import Transactions

PROBE = "pyrun_probe"
_AT = 8  # the first register
_ANYWHERE = ""


class Need(NamedTuple):
    """what: as nftables calls it; option, module: the kernel's; chain: a base chain, or any; rule: its expressions."""

    what: str
    option: str
    module: str
    chain: str
    rule: tuple[bytes, ...]


def needs(f: Family, *, walls: bool) -> list[Need]:
    """walls: of refusing and dropping alone, as the user-space mode has it."""
    core = "CONFIG_NF_TABLES", "nf_tables", _ANYWHERE
    version = "4" if f.width == 4 else "6"
    reject = f"CONFIG_NFT_REJECT_IPV{version}", f"nft_reject_ipv{version}", _ANYWHERE
    found = [
        Need("tables", f"CONFIG_NF_TABLES_IPV{version}", "nf_tables", _ANYWHERE, ()),
        Need("payload", *core, (m.payload(_AT, 1, f.destination, f.width),)),
        Need("meta", *core, (m.meta(_AT, 16), m.compare(_AT, b"\x06"))),
        Need("bitwise", *core, (m.bitwise(_AT, b"\1\0\0\0", bytes(4)),)),
        Need("maps", *core, (m.lookup(SERVICES, _AT, 0),)),
        Need("reject", *reject, (m.reject(f.number, reset=False),)),
        Need("numgen", "CONFIG_NFT_NUMGEN", "nft_numgen", _ANYWHERE, (m.take_turns(_AT, 2, 0),)),
    ]
    if walls:
        return found
    nat = "CONFIG_NFT_NAT", "nft_nat"
    return [
        *found,
        Need("dynset", *core, (m.dynset(KEPT, _AT, _AT, 1000),)),
        Need("ct", "CONFIG_NFT_CT", "nft_ct", _ANYWHERE, (m.conntrack(_AT, 2),)),
        Need("chains of type nat", "CONFIG_NFT_NAT", "nft_chain_nat", "arriving", ()),
        Need("dnat", *nat, "arriving", (m.load(_AT, bytes(4)), m.dnat_port(f.number, _AT))),
        Need("masquerade", "CONFIG_NFT_MASQ", "nft_masq", "leaving", (m.masquerade(),)),
    ]


def missing(kernel: Transactions, widths: Iterable[int], *, walls: bool) -> list[Need]:
    """Those of these families that the kernel does not have. OSError where it is not to be asked."""
    found: dict[str, Need] = {}
    for width in widths:
        wanted = needs(FAMILIES[width], walls=walls)
        if _takes(kernel, FAMILIES[width], wanted):
            continue
        lacking = [one for one in wanted if not _takes(kernel, FAMILIES[width], [one])]
        found |= {one.what + one.module: one for one in lacking}
    return list(found.values())


def _takes(kernel: Transactions, f: Family, wanted: list[Need]) -> bool:
    batch = m.Batch()
    m.new_table(batch, f.number, PROBE, b"")
    for name, shape in shapes(f).items():
        if any(one.what in ("maps", "dynset") for one in wanted):
            m.new_set(batch, f.number, PROBE, name, shape)
    for at, one in enumerate(wanted):
        m.new_chain(batch, f.number, PROBE, f"probe{at}", BASE_CHAINS[one.chain] if one.chain else None)
        if one.rule:
            # Its registers have values first: a kernel refuses to read from one that has none.
            m.new_rule(batch, f.number, PROBE, f"probe{at}", (*_filled(f), *one.rule))
    m.delete_table(batch, f.number, PROBE)
    try:
        kernel.commit(batch, 0)
    except OSError as e:
        if e.errno in (errno.EPERM, errno.EACCES, errno.ETIMEDOUT):
            raise
        return False
    return True


def _filled(f: Family) -> tuple[bytes, ...]:
    width = 2 * f.width + 8
    return tuple([m.load(_AT + at, bytes(4)) for at in range(width // 4)])
