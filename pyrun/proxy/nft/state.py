"""What is in the kernel as far as we know, and what a change of the rules makes of it: puts, deletes, chains. Pure.

Elements are not kept: they are computed again from the frontend that they were made of.
"""

from __future__ import annotations

from collections import Counter

from ..rules import UDP, Change, Rules
from .elements import Elements, elements_of
from .layout import ALLOCATED, OWN, BySource, Forward, Keep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..rules import EndpointSet, Frontend, Key

    Chain = Forward | BySource | Keep
    Place = tuple[int, str]  # the width of an address, the map
    Targets = dict[Key, set[tuple[bytes, int]]]


class Held:
    """What was read back from the kernel: elements, and names of chains by the width of an address."""

    __slots__ = ("chains", "elements")

    def __init__(self) -> None:
        self.elements: dict[Place, dict[bytes, bytes]] = {}
        self.chains: set[tuple[int, str]] = set()


class Delta:
    """What has to be sent. An element that changes is in both, and deletes are sent first.

    put: data by key; gone: keys. chains_new before all, chains_gone after all. targets: frontends of UDP or with
    affinity of which flows or clients may be stale, and where they may lead; keeping: those that had or have affinity.
    """

    __slots__ = ("_after", "_chains", "_own", "_sets", "chains_gone", "chains_new", "gone", "keeping", "put", "targets")

    def __init__(self) -> None:
        self.put: dict[Place, list[tuple[bytes, bytes]]] = {}
        self.gone: dict[Place, list[bytes]] = {}
        self.chains_new: list[tuple[int, Chain]] = []
        self.chains_gone: list[tuple[int, str]] = []
        self.targets: Targets = {}
        self.keeping: set[Key] = set()
        self._after: dict[Key, Frontend | None] = {}
        self._sets: dict[str, EndpointSet | None] = {}
        self._own: Counter[bytes] = Counter()
        self._chains: Counter[tuple[int, Chain]] = Counter()

    def __bool__(self) -> bool:
        return bool(self.put or self.gone or self.chains_new or self.chains_gone)


class State:
    """everything: see KernelRules. own: as of Rules."""

    def __init__(self, *, everything: bool, own: Iterable[bytes] = ()) -> None:
        self._everything = everything
        self._own_addresses = frozenset(own)
        self._frontends: dict[Key, Frontend] = {}
        self._sets: dict[str, EndpointSet] = {}
        self._using: dict[str, tuple[Key, ...]] = {}
        self._own: Counter[bytes] = Counter()
        self._chains: Counter[tuple[int, Chain]] = Counter()

    def plan(self, change: Change) -> Delta:
        """Changes nothing here."""
        made = Delta()
        made._sets = dict.fromkeys(change.sets_gone) | {one.key: one for one in change.sets_put}
        made._after = dict.fromkeys(change.frontends_gone) | {one.key: one for one in change.frontends_put}
        for name in made._sets:
            for key in self._using.get(name, ()):
                made._after.setdefault(key, self._frontends[key])
        new_sets = _Both(made._sets, self._sets)
        for key, after in made._after.items():
            before = self._frontends.get(key)
            old = self._elements(before, self._sets)
            new = self._elements(after, new_sets)
            self._compare(made, len(key[1]), old, new)
            keeps = any(one is not None and one.affinity for one in (before, after))
            if keeps:
                made.keeping.add(key)
            if keeps or key[0] == UDP:
                self._note_targets(made, key, before, after, new_sets)
        self._settle(made)
        for address in change.allocated_put:
            made.put.setdefault((len(address), ALLOCATED), []).append((address, b""))
        for address in change.allocated_gone:
            made.gone.setdefault((len(address), ALLOCATED), []).append(address)
        return made

    def _elements(self, frontend: Frontend | None, sets: Mapping[str, EndpointSet]) -> Elements:
        if frontend is None:
            return Elements()
        return elements_of(frontend, sets, forward=self._everything or frontend.kernel, own=self._own_addresses)

    def _compare(self, made: Delta, width: int, old: Elements, new: Elements) -> None:
        before, after = old.found, new.found
        for at, data in after.items():
            was = before.get(at)
            name, key = at
            if name == OWN:
                if was is None:
                    made._own[key] += 1
            elif was != data:
                made.put.setdefault((width, name), []).append((key, data))
                if was is not None:
                    made.gone.setdefault((width, name), []).append(key)
        for name, key in before.keys() - after.keys() if before else ():
            if name == OWN:
                made._own[key] -= 1
            else:
                made.gone.setdefault((width, name), []).append(key)
        for chain in new.chains:
            made._chains[width, chain] += 1
        for chain in old.chains:
            made._chains[width, chain] -= 1

    def _note_targets(
        self,
        made: Delta,
        key: Key,
        before: Frontend | None,
        after: Frontend | None,
        sets: Mapping[str, EndpointSet],
    ) -> None:
        old, new = self._targets(before, self._sets), self._targets(after, sets)
        if not old or not old <= new:
            made.targets[key] = new

    def _targets(self, frontend: Frontend | None, sets: Mapping[str, EndpointSet]) -> set[tuple[bytes, int]]:
        if frontend is None or not (self._everything or frontend.kernel):
            return set()
        names = {choice.endpoints for choice in frontend.choices if choice.endpoints is not None}
        return {(one.address, one.port) for name in names for one in sets[name].endpoints}

    def _settle(self, made: Delta) -> None:
        """Of what is counted, what comes and goes."""
        for key, number in made._own.items():
            before = self._own[key]
            place = len(key), OWN
            if not before and number > 0:
                made.put.setdefault(place, []).append((key + key, b""))
            elif before and before + number == 0:
                made.gone.setdefault(place, []).append(key + key)
        for chain, number in made._chains.items():
            before = self._chains[chain]
            if not before and number > 0:
                made.chains_new.append(chain)
            elif before and before + number == 0:
                made.chains_gone.append((chain[0], chain[1].name))

    def take(self, made: Delta) -> None:
        """The change is in the kernel."""
        for name, one in made._sets.items():
            if one is None:
                self._sets.pop(name, None)
            else:
                self._sets[name] = one
        for key, after in made._after.items():
            before = self._frontends.pop(key, None)
            for name in _sets_of(before):
                users = tuple([user for user in self._using.get(name, ()) if user != key])
                if users:
                    self._using[name] = users
                else:
                    self._using.pop(name, None)
            if after is not None:
                self._frontends[key] = after
                for name in _sets_of(after):
                    self._using[name] = (*self._using.get(name, ()), key)
        for counted, changes in ((self._own, made._own), (self._chains, made._chains)):
            _add(counted, changes)  # type: ignore[arg-type]


def _add(counted: Counter[object], changes: Counter[object]) -> None:
    for key, number in changes.items():
        counted[key] += number
        if not counted[key]:
            del counted[key]


class _Both(dict[str, "EndpointSet"]):
    """The changed sets before those that were."""

    def __init__(self, changed: Mapping[str, EndpointSet | None], others: Mapping[str, EndpointSet]) -> None:
        super().__init__({key: one for key, one in changed.items() if one is not None})
        self._others = others

    def __missing__(self, key: str) -> EndpointSet:
        return self._others[key]


def _sets_of(frontend: Frontend | None) -> set[str]:
    return {c.endpoints for c in frontend.choices if c.endpoints is not None} if frontend is not None else set()


AT_ONCE = 256  # frontends


def pieces(rules: Rules) -> Iterator[Change]:
    """All that makes the rules of nothing, as several changes: what is sent is not there as objects all at once."""
    yield Change(sets_put=rules.sets, allocated_put=rules.allocated)
    for at in range(0, len(rules.frontends), AT_ONCE):
        yield Change(frontends_put=rules.frontends[at : at + AT_ONCE])


def reconcile(made: Delta, held: Held) -> None:
    """Leaves out of a change from nothing, or a piece of it, what the kernel has, and takes that from what was held."""
    for place in made.put.keys() & held.elements.keys():
        elements = held.elements[place]
        missing = []
        for key, data in made.put.pop(place):
            had = elements.pop(key, None)
            if had == data:
                continue
            if had is not None:
                made.gone.setdefault(place, []).append(key)
            missing.append((key, data))
        if missing:
            made.put[place] = missing
    wanted = {(width, chain.name) for width, chain in made.chains_new}
    made.chains_new = [(width, chain) for width, chain in made.chains_new if (width, chain.name) not in held.chains]
    held.chains -= wanted


def leftovers(held: Held) -> Delta:
    """Takes away what of the kernel's no piece wanted."""
    made = Delta()
    made.gone = {place: list(elements) for place, elements in held.elements.items() if elements}
    made.chains_gone = sorted(held.chains)
    return made


def widths_of(made: Delta, rules: Rules) -> set[int]:
    """The families, by the width of an address, that need a table."""
    return {*(width for width, _ in made.put), *(len(address) for address, _ in rules.ranges)}
