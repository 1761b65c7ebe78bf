"""Services and their EndpointSlices to Rules. PURE.

`plan_proxy` plans all at once; `Planner` keeps the rules while objects change, and plans one that changes by itself.
"""

from __future__ import annotations

from ..kube.addresses import port_text
from .explain import Explained, explain_service
from .model import EndpointSlice, Name, Node, Options, Service
from .pack import pack_service, pack_slice, unpack_service, unpack_slice
from .rules import PROTOCOLS, Change, EndpointSet, Frontend, HealthCheck, Key, Refusal, Rules
from .service_plan import NOTHING, ServiceRules, Surroundings, plan_service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Claim = tuple[tuple[int, Name], Frontend]  # what decides between two, and what is wanted


def plan_proxy(
    services: Iterable[Service], slices: Iterable[EndpointSlice], node: Node, options: Options | None = None
) -> Rules:
    """The rules of all of them. Where two Services want one address and port, cluster IPs win over load balancers,
    these over external IPs and these over node ports, then the first by namespace and name; the other is refused."""
    planner = Planner(node, options or Options())
    planner.update(services={one.id: one for one in services}, slices={one.id: one for one in slices})
    return planner.rules()


class Planner:
    """Holds Services, slices and what each Service adds to the rules. Not for several threads at once."""

    def __init__(self, node: Node, options: Options) -> None:
        self._there = Surroundings.of(node, options)
        self._services: dict[Name, bytes] = {}  # packed
        self._slices: dict[Name, tuple[Name, bytes]] = {}  # the Service of each, and the slice packed
        self._slices_of: dict[Name, tuple[Name, ...]] = {}  # of each Service
        self._touched: dict[Name, None] = {}  # Services to plan, in order
        self._plans: dict[Name, ServiceRules] = {}
        self._claims: dict[Key, list[Claim]] = {}  # sorted: the first one has it
        self._frontends: dict[Key, Frontend] = {}  # the first claim of each
        self._contested: set[Key] = set()
        self._notable: dict[Name, ServiceRules] = {}  # those with refusals or a health check: few
        self._sets: dict[str, EndpointSet] = {}
        self._allocated: dict[bytes, int] = {}  # and how many Services have it

    def update(
        self,
        *,
        services: Mapping[Name, Service | None] | None = None,
        slices: Mapping[Name, EndpointSlice | None] | None = None,
    ) -> Change:
        """Takes what is new, changed, or gone (None), and says what that changes of frontends and sets."""
        for name, service in (services or {}).items():
            self.take_service(name, service)
        for name, one in (slices or {}).items():
            self.take_slice(name, one)
        return self.replan()

    def take_service(self, name: Name, service: Service | None) -> None:
        """For the next replan()."""
        if service is None:
            self._services.pop(name, None)
        else:
            self._services[name] = pack_service(service)
        self._touched[name] = None

    def take_slice(self, name: Name, one: EndpointSlice | None) -> None:
        """For the next replan()."""
        before, _ = self._slices.pop(name, (None, b""))
        now = one.service_id if one is not None else None
        if before is not None and before != now:
            left = tuple([other for other in self._slices_of[before] if other != name])
            if left:
                self._slices_of[before] = left
            else:
                del self._slices_of[before]
            self._touched[before] = None
        if one is not None and now is not None:
            self._slices[name] = now, pack_slice(one)
            if before != now:
                self._slices_of[now] = (*self._slices_of.get(now, ()), name)
            self._touched[now] = None

    def replan(self) -> Change:
        """What all that was taken since the last call changes of frontends and sets."""
        touched, self._touched = self._touched, {}
        return self._replan(touched)

    def explain(self, name: Name) -> tuple[Explained, list[EndpointSlice]] | None:
        """What one Service gets, and its slices; None where there is none of this name. From any thread."""
        packed = self._services.get(name)
        if packed is None:
            return None
        found = [self._slices.get(one) for one in self._slices_of.get(name, ())]
        slices = [unpack_slice(one[1]) for one in found if one is not None]
        return explain_service(unpack_service(packed), slices, self._there), slices

    def surroundings(self, node: Node, options: Options) -> Change:
        """The node has another address or label, or an administrator has decided anew: all is planned again."""
        self._there = Surroundings.of(node, options)
        return self._replan(self._services)

    def rules(self) -> Rules:
        """All of it, as it is now."""
        ordered = [self._notable[name] for name in sorted(self._notable)]
        refused = [refusal for plan in ordered for refusal in plan.refused]
        health: dict[int, HealthCheck] = {}
        for check in [plan.health for plan in ordered if plan.health is not None]:
            if health.setdefault(check.port, check) is not check:
                refused.append(self._health_taken(check, health[check.port]))
        return Rules(
            frontends=tuple(self._frontends.values()),
            sets=tuple(self._sets.values()),
            ranges=self._there.node.service_cidrs,
            own=self._there.options.own,
            allocated=tuple(self._allocated),
            health=tuple(health.values()),
            refused=(*refused, *[self._taken(*pair) for key in sorted(self._contested) for pair in self._losers(key)]),
        )

    def _replan(self, names: Iterable[Name]) -> Change:
        """Plans these Services, and works out the change by comparing what had been said of them."""
        before: dict[Key, Frontend | None] = {}
        sets_before: dict[str, EndpointSet | None] = {}
        allocated_before: dict[bytes, bool] = {}
        for name in list(names):
            packed = self._services.get(name)
            old = self._plans.get(name, NOTHING)
            new = NOTHING
            if packed is not None:
                slices = [unpack_slice(self._slices[one][1]) for one in self._slices_of.get(name, ())]
                new = plan_service(unpack_service(packed), slices, self._there)
            self._keep(name, None if packed is None else new)
            if old.frontends != new.frontends:
                self._claim(name, old, new, before)
            if old.allocated != new.allocated:
                self._allocate(old, new, allocated_before)
            if old.sets != new.sets:
                for one in old.sets:
                    sets_before.setdefault(one.key, self._sets.pop(one.key, None))
                for one in new.sets:
                    sets_before.setdefault(one.key, None)
                    self._sets[one.key] = one
        now = {key: self._frontends.get(key) for key in before}
        return Change(
            frontends_put=tuple([one for key, one in now.items() if one is not None and one != before[key]]),
            frontends_gone=tuple([key for key, one in now.items() if one is None and before[key] is not None]),
            sets_put=tuple(
                [self._sets[key] for key, one in sets_before.items() if key in self._sets and self._sets[key] != one]
            ),
            sets_gone=tuple([key for key, one in sets_before.items() if key not in self._sets and one is not None]),
            allocated_put=tuple([one for one, was in allocated_before.items() if one in self._allocated and not was]),
            allocated_gone=tuple([one for one, was in allocated_before.items() if one not in self._allocated and was]),
        )

    def _allocate(self, old: ServiceRules, new: ServiceRules, before: dict[bytes, bool]) -> None:
        for address in (*old.allocated, *new.allocated):
            before.setdefault(address, address in self._allocated)
        for address in new.allocated:
            self._allocated[address] = self._allocated.get(address, 0) + 1
        for address in old.allocated:
            self._allocated[address] -= 1
            if not self._allocated[address]:
                del self._allocated[address]

    def _keep(self, name: Name, plan: ServiceRules | None) -> None:
        if plan is None:
            self._plans.pop(name, None)
        else:
            self._plans[name] = plan
        if plan is not None and (plan.refused or plan.health is not None):
            self._notable[name] = plan
        else:
            self._notable.pop(name, None)

    def _claim(self, name: Name, old: ServiceRules, new: ServiceRules, before: dict[Key, Frontend | None]) -> None:
        for _, frontend in old.frontends:
            key = frontend.key
            claims = self._claims.get(key, [])
            before.setdefault(key, self._frontends.get(key))
            left = [claim for claim in claims if claim[0][1] != name]
            if left:
                self._claims[key] = left
                self._frontends[key] = left[0][1]
            else:
                self._claims.pop(key, None)
                self._frontends.pop(key, None)
            if len(left) < 2:
                self._contested.discard(key)
        for rank, frontend in new.frontends:
            key = frontend.key
            claims = self._claims.setdefault(key, [])
            before.setdefault(key, self._frontends.get(key))
            if name in [claim[0][1] for claim in claims]:
                continue  # one Service that names an address twice
            claims.append(((rank, name), frontend))
            if len(claims) > 1:
                claims.sort(key=lambda claim: claim[0])
                self._contested.add(key)
            self._frontends[key] = claims[0][1]

    def _losers(self, key: Key) -> list[tuple[Frontend, Frontend]]:
        winner, *others = [frontend for _, frontend in self._claims[key]]
        return [(loser, winner) for loser in others]

    def _taken(self, loser: Frontend, winner: Frontend) -> Refusal:
        subject = f"{port_text(loser.address, loser.port)}/{PROTOCOLS[loser.protocol]}"
        why = f"taken by {winner.name}, {winner.origin}"
        return Refusal(subject, why, loser.origin, "AddressTaken", loser.owner)

    def _health_taken(self, loser: HealthCheck, winner: HealthCheck) -> Refusal:
        owner = loser.namespace, loser.name
        place = f"{unpack_service(self._services[owner]).origin} /spec/healthCheckNodePort"
        why = f"taken by {winner.namespace}/{winner.name}"
        return Refusal(f"port {loser.port}", why, place, "HealthCheckPortTaken", owner)
