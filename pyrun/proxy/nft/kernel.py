"""Kernel mode, carried out: Rules become elements of nf_tables' maps, changed by batches over raw netlink.

What is in the kernel is known from the rules applied last, so a change costs what it changes. At start what an earlier
daemon left is read back and made the same. A batch is one system call and one transaction, and one of them puts the new
rules in force: who is killed leaves the old rules or the new ones. But a packet may be under way through them just
then, and each look into a map is of the moment: one that has found the old chain for its service, then no endpoint in
that chain's map, would be refused. So what verdicts lead to is there in a transaction before theirs, and goes in one
after it. The kernel's generation number tells whether somebody else changed nf_tables since; then the tables are looked
at before anything is sent, and made anew where they are not those that were left.
"""

from __future__ import annotations

import errno

from ...errors import PyrunError, Unavailable, reason
from ..rules import Change, Rules, difference
from . import messages as m
from .conntrack import end_stale_flows
from .elements import NAMES, frontend_key
from .layout import (
    ALLOCATED,
    DISPATCH,
    FAMILIES,
    KEEPING,
    KEPT,
    OWN,
    SERVICES,
    TABLE,
    VERSION,
    WALLS_VERSION,
    add_base,
    add_ranges,
    has_map,
)
from .probe import missing
from .state import Delta, Held, State, leftovers, pieces, reconcile, widths_of
from .transactions import Transactions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..rules import Key
    from .state import Targets

ATTEMPTS = 5
_ERESTART = 85
_LEADING = {SERVICES, KEEPING, OWN, ALLOCATED}  # maps that all packets are looked for in; verdicts lead to the others


class Applied:
    """What one apply() did: elements put and taken away, flows of UDP ended, and whether the kernel was read first."""

    __slots__ = ("ended", "gone", "put", "read")

    def __init__(self, put: int, gone: int, ended: int, read: bool) -> None:
        self.put = put
        self.gone = gone
        self.ended = ended
        self.read = read

    def __repr__(self) -> str:
        return f"Applied(put={self.put}, gone={self.gone}, ended={self.ended}, read={self.read})"


class _Sent:
    """Transactions that are being put together: `batch` puts the rules in force; `before` has what its verdicts lead
    to, `after` takes away what those led to that it replaces. at_once: all three are one, as nothing is in force yet.
    tables: those that are there with it, by the width of an address; put, gone: how many elements; targets, keeping: as
    a Delta's."""

    __slots__ = ("after", "batch", "before", "gone", "keeping", "put", "rules", "tables", "targets")

    def __init__(self, rules: Rules, tables: Iterable[int], *, at_once: bool) -> None:
        self.batch = m.Batch()
        self.before = self.batch if at_once else m.Batch()
        self.after = self.batch if at_once else m.Batch()
        self.rules = rules
        self.tables = set(tables)
        self.put = self.gone = 0
        self.targets: Targets = {}
        self.keeping: set[Key] = set()


class KernelRules:
    """The tables in the network namespace of the thread that makes this. Not for two threads at once.

    everything: every frontend is carried out here (the nftables mode); else those marked `kernel`, and of the others
    what is dropped or refused: the data plane can't be silent, and where it has no socket another program's may answer.
    Where none is marked no connection is tracked for it.
    """

    def __init__(self, *, everything: bool = True) -> None:
        self._everything = everything
        self._kernel = Transactions()
        self._forget()

    def _forget(self) -> None:
        self._rules: Rules | None = None
        self._state = State(everything=self._everything)
        self._tables: dict[int, bytes] = {}  # by the width of an address: the table's handle
        self._foreign: set[int] = set()  # families with a table of another form
        self._walls = False
        self._generation = 0

    def lacks(self, node: Iterable[bytes], *, walls: bool = False) -> str:
        """What this kernel does not have for the families of these addresses, with the way out; "" for nothing. walls:
        it is only to refuse and drop. PyrunError where it can't be asked."""
        try:
            found = missing(self._kernel, sorted({len(address) for address in node}), walls=walls)
        except OSError as e:
            raise PyrunError(f"nf_tables: {reason(e)}", hint="it takes CAP_NET_ADMIN") from None
        named = ", ".join(f"{one.what} ({one.option}, module {one.module})" for one in found)
        return f"this kernel's nf_tables does not have {named}" if found else ""

    # --- the one way in ---

    def apply(self, rules: Rules, change: Change | None = None) -> Applied:
        """Makes the kernel's rules these. change: what they are against those applied last, where that is known.

        PyrunError where the kernel refuses, with its words; what was in force stays so, and the next call reads first
        what there is.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._apply(rules, change)
            except OSError as e:
                self._forget()
                if attempt < ATTEMPTS - 1 and e.errno in (_ERESTART, errno.ENOENT, errno.EEXIST, errno.EBUSY):
                    continue
                kind = Unavailable if e.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT) else PyrunError
                hint = "kernel mode needs nf_tables with NAT, maps, numgen and reject, and CAP_NET_ADMIN"
                raise kind(f"nf_tables, table {TABLE}: {reason(e)}", hint=hint) from None
        raise AssertionError("not reached")

    def _apply(self, rules: Rules, change: Change | None) -> Applied:
        generation = self._kernel.generation()
        if self._rules is not None and generation != self._generation and self._handles() != self._tables:
            self._forget()
        walls = not self._everything and not any(frontend.kernel for frontend in rules.frontends)
        if self._rules is not None and (walls != self._walls or rules.own != self._rules.own):
            self._forget()
        self._walls = walls
        if self._rules is None:
            self._state = State(everything=self._everything, own=rules.own)
        held = None
        changes: Iterable[Change]
        if self._rules is None:
            held = self._read()
            changes = pieces(rules)
        else:
            changes = (change if change is not None else difference(self._rules, rules),)
        sent = self._begin(rules)
        for one in changes:
            delta = self._state.plan(one)
            if held is not None:
                reconcile(delta, held)
            self._add(sent, delta)
            self._state.take(delta)  # where it is refused, all is forgotten
        if held is not None:
            self._add(sent, leftovers(held))
        for batch in dict.fromkeys((sent.before, sent.batch, sent.after)):
            if len(batch):
                self._kernel.commit(batch, generation)
                generation = generation % 0xFFFFFFFF + 1  # as the kernel counts
        self._rules = rules
        self._generation = self._kernel.generation()
        if sent.tables != self._tables.keys() or self._foreign:
            self._tables, self._foreign = self._handles(), set()
        self._forget_clients(sent)
        ended = end_stale_flows(sent.targets)
        return Applied(sent.put, sent.gone, ended, held is not None)

    def _begin(self, rules: Rules) -> _Sent:
        sent = _Sent(rules, self._tables, at_once=not self._tables or bool(self._foreign))
        for width in sorted(self._foreign):
            m.delete_table(sent.batch, FAMILIES[width].number, TABLE)
        before = (self._rules.ranges, self._rules.own) if self._rules is not None else None
        for width in self._tables if before != (rules.ranges, rules.own) else ():
            m.flush_chain(sent.batch, FAMILIES[width].number, TABLE, DISPATCH)
            add_ranges(sent.batch, FAMILIES[width], rules)
        return sent

    def _add(self, sent: _Sent, delta: Delta) -> None:
        for width in sorted(widths_of(delta, sent.rules) - sent.tables):
            add_base(sent.before, FAMILIES[width], sent.rules, walls=self._walls)
            sent.tables.add(width)
        for width, chain in delta.chains_new:
            chain.add(sent.before, FAMILIES[width])
        for place in dict.fromkeys((*delta.gone, *delta.put)):
            self._add_elements(sent, place, delta.gone.get(place, []), delta.put.get(place, []))
        for width, one in delta.chains_gone:
            m.delete_chain(sent.after, FAMILIES[width].number, TABLE, one)
            if has_map(one):
                m.delete_set(sent.after, FAMILIES[width].number, TABLE, one)
        sent.put += sum(map(len, delta.put.values()))
        sent.gone += sum(map(len, delta.gone.values()))
        sent.targets |= delta.targets
        sent.keeping |= delta.keeping

    @staticmethod
    def _add_elements(sent: _Sent, place: tuple[int, str], gone: list[bytes], put: list[tuple[bytes, bytes]]) -> None:
        width, name = place
        family = FAMILIES[width].number
        # One that is in both changes, and is never gone: whoever finds its chain now finds the one or the other.
        led = name not in _LEADING
        new, had = {key for key, _ in put}, set(gone)
        steps = (
            (sent.before, m.NEWSETELEM, [one for one in put if led and one[0] not in had]),
            (sent.batch, m.DELSETELEM, [(key,) for key in gone if not led or key in new]),
            (sent.batch, m.NEWSETELEM, [one for one in put if not led or one[0] in had]),
            (sent.after, m.DELSETELEM, [(key,) for key in gone if led and key not in new]),
        )
        for batch, kind, some in steps:
            m.add_elements(batch, kind, family, TABLE, name, (m.element(*one) for one in some))

    def _forget_clients(self, sent: _Sent) -> None:
        """Those that are kept for an endpoint that is gone. The rules that put them there are no more, so what is left
        after the commit is all of them."""
        targets = {frontend_key(*key): value for key, value in sent.targets.items() if key in sent.keeping}
        for width in {len(key) - 8 for key in targets} & self._tables.keys():
            batch = m.Batch()
            stale = []
            for key, data in self._kernel.elements(FAMILIES[width], KEPT).items():
                mine = targets.get(key[width:])
                target = data[4 : 4 + width], int.from_bytes(data[4 + width : 6 + width], "big")
                if mine is not None and target not in mine:
                    stale.append(m.element(key))
            m.add_elements(batch, m.DELSETELEM, FAMILIES[width].number, TABLE, KEPT, stale)
            if len(batch):
                self._kernel.commit(batch, 0)

    # --- what is there ---

    def _handles(self) -> dict[int, bytes]:
        return {width: handle for width, (handle, _) in self._kernel.tables().items()}

    def _read(self) -> Held | None:
        """What an earlier daemon left; None for nothing. A table of another form is taken away by the transaction that
        makes the new one."""
        version = WALLS_VERSION if self._walls else VERSION
        tables = self._kernel.tables()
        self._foreign = {width for width, (_, have) in tables.items() if have != version}
        self._tables = {width: handle for width, (handle, _) in tables.items() if width not in self._foreign}
        if not self._tables:
            return None
        held = Held()
        for width in self._tables:
            chains = self._kernel.chains(FAMILIES[width])
            held.chains |= {(width, name) for name in chains}
            held.elements |= self._elements(width, chains)
        return held

    def _elements(self, width: int, chains: Iterable[str]) -> dict[tuple[int, str], dict[bytes, bytes]]:
        names = (*NAMES, *filter(has_map, chains))
        return {(width, name): self._kernel.elements(FAMILIES[width], name) for name in names}

    def elements(self) -> dict[tuple[int, str], dict[bytes, bytes]]:
        """What the kernel has: (width of an address, map) → key → data."""
        found: dict[tuple[int, str], dict[bytes, bytes]] = {}
        for width in self._kernel.tables():
            found |= self._elements(width, self._kernel.chains(FAMILIES[width]))
        return found

    # --- the end ---

    def close(self, *, remove: bool = True) -> None:
        """With remove, the tables go; else they work on without a daemon."""
        try:
            if remove:
                batch = m.Batch()
                for width in self._kernel.tables():
                    m.delete_table(batch, FAMILIES[width].number, TABLE)
                if len(batch):
                    self._kernel.commit(batch, 0)
        except OSError as e:
            raise PyrunError(f"nf_tables, table {TABLE} can't be removed: {reason(e)}") from None
        finally:
            self._kernel.close()
