"""Objects whose values are of any type: none ends the plan or takes another's names away, and what is told is bounded.
`python -m tests.bench.dns_broken` does it with a million."""

from __future__ import annotations

import random

import pytest

from pyrun.dns import directory, objects
from pyrun.dns.directory import all_faults, gather
from pyrun.dns.objects import Fault, Faults, Origin
from pyrun.dns.plan import plan_dns
from pyrun.kube.feed.store import Told, key_of
from tests.bench.dns_broken import check, right
from tests.support.dns import pod, service
from tests.support.properties import SEED


def test_no_object_is_in_anothers_way() -> None:
    assert check(random.Random(SEED), 1000) > 150, SEED


@pytest.mark.parametrize("labels", [[], [1], 7, "x"], ids=str)
def test_a_broken_pod_leaves_others_to_its_service(labels: object) -> None:
    """Slices are made of the pods that are right, whichever the Service; the one that is not is none of theirs."""
    bad = pod("bad", "10.1.0.99")
    bad["metadata"]["labels"] = labels
    found = gather({key_of(value): Told(value, "test") for value in [bad, *right()]})
    assert [[one.address for one in part.endpoints] for part in found.slices if part.service == "own"] == [
        [bytes([10, 1, 0, 7])]
    ]


def test_as_many_faults_as_are_named_and_the_number_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (objects, directory):
        monkeypatch.setattr(module, "FAULTS_MOST", 5)
    values = [service(f"s{number}", clusterIP="none of ours") for number in range(20)]
    values += [service(f"t{number}", clusterIPs=7) for number in range(20)]
    values += [service(f"u{number}", type="ExternalName", externalName="a..b") for number in range(20)]
    found = gather({key_of(value): Told(value, "test") for value in values})
    table = plan_dns(found.services, found.slices)
    lines = all_faults(found, table.refused, table.refused_more)
    assert len(lines) == 16 and lines[-1] == "45 faults more are not named"
    faults = Faults()
    for _ in range(7):
        faults.append(Fault(Origin("x").at(""), "y"))
    assert (len(faults), faults.more) == (5, 2)
