"""What becomes of packets, by tables: tests/unit/flows. And that what changes in one object changes only its flows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrun.cli.main import main
from pyrun.kube.addresses import address_text, parse_address
from pyrun.proxy.explain import explain_service
from pyrun.proxy.model import EndpointSlice, Name, Objects, Options, Service, SliceEndpoint
from pyrun.proxy.pack import pack_service, pack_slice, unpack_service, unpack_slice
from pyrun.proxy.plan import Planner, plan_proxy
from pyrun.proxy.rules import Change, Rules, difference
from pyrun.proxy.select import Candidate, select
from pyrun.proxy.service_plan import Surroundings
from pyrun.proxy.standing import service_row
from pyrun.proxy.trace import trace
from tests.support.flows import WHO, Scenario, packet, right_of, scenarios, to_json, words_of

SCENARIOS = scenarios()
SELECTION = Path(__file__).parent / "samples" / "endpoint_selection.jsonl"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[one.name for one in SCENARIOS])
def test_flows(scenario: Scenario) -> None:
    files, node, options = scenario.read()
    rules = plan_proxy(files.objects.services.values(), files.objects.slices.values(), node, options)
    wrong = [
        f"{' -> '.join(flow)}: {found}, and not {right_of(right)}"
        for flow, right in scenario.flows.items()
        if (found := words_of(trace(rules, *packet(flow)))) != right_of(right)
    ]
    assert not wrong


def test_there_are_many_flows() -> None:
    assert sum(len(one.flows) for one in SCENARIOS) >= 300


@pytest.mark.parametrize("name", ["policies", "load_balancer", "dual_stack"])
def test_the_command_says_the_same(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    scenario = next(one for one in SCENARIOS if one.name == name)
    for flow, right in list(scenario.flows.items())[::5]:
        words = ["--from", WHO.get(flow[0], flow[0]), "--to", flow[1], "--format", "json"]
        assert main(["proxy", "trace", "--objects", str(scenario.path), *scenario.options, *words]) == 0
        assert to_json(json.loads(capfd.readouterr().out)) == right_of(right), flow


@pytest.mark.parametrize("line", SELECTION.read_text().splitlines())
def test_endpoint_selection_of_kubernetes(line: str) -> None:
    """The cases of kube-proxy's TestCategorizeEndpoints."""
    case = json.loads(line)
    candidates = [
        Candidate(
            parse_address(one["Endpoint"].rpartition(":")[0]),
            int(one["Endpoint"].rpartition(":")[2]),
            one["Ready"],
            one["Serving"],
            one["Terminating"],
            one["Local"],
            tuple(one["ZoneHints"]),
            tuple(one["NodeHints"]),
        )
        for one in case["endpoints"]
    ]
    found = select(
        candidates,
        uses_cluster=case["usesCluster"],
        uses_local=case["usesLocal"],
        node=case["node"],
        zone=(case["labels"] or {}).get("topology.kubernetes.io/zone", ""),
        prefer_same_node=case["preferSameNode"],
    )

    def texts(chosen: tuple[Candidate, ...]) -> set[str]:
        return {f"{address_text(one.address)}:{one.port}" for one in chosen}

    assert texts(found.cluster) == set(case["cluster"])
    assert texts(found.local) == set(case["local"])
    if case["usesCluster"] and case["usesLocal"]:
        assert texts(found.cluster) | texts(found.local) == set(case["all"])
    assert found.some == bool(case["cluster"] or case["local"] or case["onlyRemote"])


# --- changes ---------------------------------------------------------------------------------------------------------


def applied(rules: Rules, change: Change) -> tuple[dict[object, object], dict[str, object], set[bytes]]:
    """Frontends, sets and allocated addresses after a change, as one who holds them makes it."""
    frontends: dict[object, object] = {one.key: one for one in rules.frontends}
    sets: dict[str, object] = {one.key: one for one in rules.sets}
    allocated = set(rules.allocated) - set(change.allocated_gone) | set(change.allocated_put)
    for key in change.frontends_gone:
        del frontends[key]
    for name in change.sets_gone:
        del sets[name]
    frontends.update({one.key: one for one in change.frontends_put})
    sets.update({one.key: one for one in change.sets_put})
    return frontends, sets, allocated


def held(rules: Rules) -> tuple[dict[object, object], dict[str, object], set[bytes]]:
    return applied(rules, Change())


def everything() -> Objects:
    """The objects of all scenarios; where two have a name or an address in common, that is a test as well."""
    found = Objects()
    for scenario in SCENARIOS:
        files, _, _ = scenario.read()
        for one in files.objects.services.values():
            found.services.setdefault(one.id, one)
        for slice in files.objects.slices.values():
            found.slices.setdefault(slice.id, slice)
    return found


ALL = everything()
NODE = SCENARIOS[0].read()[1]


def mutate_service(draw: st.DrawFn, service: Service) -> Service | None:
    """One field of it is another, or it is gone."""
    address = bytes([172, 30, 200, draw(st.integers(0, 255))])
    changes: list[dict[str, object] | None] = [
        None,
        {"internal_local": not service.internal_local},
        {"external_local": not service.external_local},
        {"affinity": draw(st.integers(0, 86400))},
        {"cluster_ips": (address,)},
        {"source_ranges": ((address, 32),)},
        {"headless": not service.headless},
        {"ports": service.ports[:-1]},
        {"ports": tuple([one._replace(port=one.port + 1) for one in service.ports])},
        {"ports": tuple([one._replace(name=one.name + "x") for one in service.ports])},
    ]
    chosen = draw(st.sampled_from(changes))
    return None if chosen is None else dataclasses.replace(service, **chosen)  # type: ignore[arg-type]


def mutate_slice(draw: st.DrawFn, one: EndpointSlice) -> EndpointSlice | None:
    added = SliceEndpoint(bytes([10, 77, 0, draw(st.integers(1, 9))]), node=draw(st.sampled_from(["n1", "n2", ""])))
    flips = [
        one.endpoints[:-1],
        one.endpoints + ((added,) if one.family == 4 else ()),
        tuple([e._replace(ready=not e.ready) for e in one.endpoints]),
        tuple([e._replace(terminating=not e.terminating, ready=False) for e in one.endpoints]),
        tuple([e._replace(node="n1") for e in one.endpoints]),
        tuple([e._replace(zone_hints=("zone-a",)) for e in one.endpoints]),
        one.endpoints[::-1],
    ]
    chosen = draw(st.sampled_from([None, *range(len(flips)), "ports"]))
    if chosen is None:
        return None
    return (
        dataclasses.replace(one, ports=()) if chosen == "ports" else dataclasses.replace(one, endpoints=flips[chosen])
    )


Mutation = tuple[dict[Name, Service | None], dict[Name, EndpointSlice | None], Name]


@st.composite
def mutations(draw: st.DrawFn) -> Mutation:
    """Services and slices that are other than in ALL, and the Service to which these belong."""
    if draw(st.booleans()):
        service = ALL.services[draw(st.sampled_from(sorted(ALL.services)))]
        return {service.id: mutate_service(draw, service)}, {}, service.id
    one = ALL.slices[draw(st.sampled_from(sorted(ALL.slices)))]
    return {}, {one.id: mutate_slice(draw, one)}, one.service_id


@settings(deadline=None)
@given(st.lists(mutations(), min_size=1, max_size=4))
def test_one_change_at_a_time_is_as_all_at_once(steps: list[Mutation]) -> None:
    """What a Planner says after changes is what plan_proxy says of the result, and its changes lead from one to the
    other. Frontends, sets and verdicts that change are of the Service that did, or of one that shares an address."""
    planner = Planner(NODE, Options())
    planner.update(services=dict(ALL.services), slices=dict(ALL.slices))
    services: dict[Name, Service | None] = dict(ALL.services)
    slices: dict[Name, EndpointSlice | None] = dict(ALL.slices)
    for new_services, new_slices, touched in steps:
        before = planner.rules()
        change = planner.update(services=new_services, slices=new_slices)
        after = planner.rules()
        assert applied(before, change) == held(after)
        assert held(after) == applied(before, difference(before, after))
        services |= new_services
        slices |= new_slices
        left = [one for one in services.values() if one is not None]
        whole = plan_proxy(left, [one for one in slices.values() if one is not None], NODE)
        assert held(after) == held(whole)
        assert set(after.refused) == set(whole.refused)
        mine = "/".join(touched)
        rivals = {one.key for one in before.frontends if one.name.partition(":")[0] == mine}
        for frontend in change.frontends_put:
            assert frontend.name.partition(":")[0] == mine or frontend.key in rivals
        for key in (*[one.key for one in change.sets_put], *change.sets_gone):
            assert key.partition(":")[0] == mine


def test_one_service_is_explained_by_what_there_is_now() -> None:
    """As by `pyrun proxy explain`: each endpoint with its pod and what it gets; of what is gone nothing."""
    planner = Planner(NODE, Options())
    planner.update(services=dict(ALL.services), slices=dict(ALL.slices))
    rows = {name: service_row(*found) for name in ALL.services if (found := planner.explain(name)) is not None}
    assert rows.keys() == ALL.services.keys()
    for name, row in rows.items():
        slices = [one for one in ALL.slices.values() if one.service_id == name]
        made = explain_service(ALL.services[name], slices, Surroundings.of(NODE, Options()))
        assert row["service"] == "/".join(name) and row["selector"] == dict(ALL.services[name].selector)
        assert [tuple(one["policies"]) for one in row["endpoints"]] == [fate.policies for fate in made.fates]
        pods = {"/".join(one.pod) for each in slices for one in each.endpoints if one.pod is not None}
        assert {one["pod"] for one in row["endpoints"]} <= pods | {""}
    assert any(one["policies"] and one["ready"] for row in rows.values() for one in row["endpoints"])
    first = next(iter(ALL.services))
    planner.update(services={first: None})
    assert planner.explain(first) is None


def test_no_change_is_no_change() -> None:
    planner = Planner(NODE, Options())
    assert planner.update(services=dict(ALL.services), slices=dict(ALL.slices))
    assert not planner.update(services=dict(ALL.services), slices=dict(ALL.slices))
    assert not planner.surroundings(NODE, Options())


def test_another_zone_moves_only_what_has_hints() -> None:
    planner = Planner(NODE, Options())
    planner.update(services=dict(ALL.services), slices=dict(ALL.slices))
    change = planner.surroundings(dataclasses.replace(NODE, zone="zone-a"), Options())
    assert {one.key.partition("/")[0][0] for one in change.sets_put} == {"h"}
    assert not change.sets_gone and not change.frontends_gone
    assert all(one.name.startswith("h") for one in change.frontends_put)


def test_what_the_planner_keeps_is_what_it_was_told() -> None:
    for service in ALL.services.values():
        assert unpack_service(pack_service(service)) == service
    for one in ALL.slices.values():
        assert unpack_slice(pack_slice(one)) == one
