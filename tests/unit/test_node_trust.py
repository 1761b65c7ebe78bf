"""Trust bundles of projected volumes: which are meant, what is shown, whose the file is (pure)."""

from __future__ import annotations

import ssl
from typing import Any

import msgspec
import pytest

from pyrun.kube.objects.certificates import ClusterTrustBundle
from pyrun.kube.objects.pods import Pod
from pyrun.node.supported import unsupported
from pyrun.node.volumes import Objects, VolumeError, plan_volumes
from pyrun.node.volumes.contents import File
from pyrun.node.volumes.plan import Filled
from pyrun.node.volumes.trust import Trust


def pem(*anchors: bytes) -> str:
    return "".join(ssl.DER_cert_to_PEM_cert(one) for one in anchors)


def bundle(text: str, signer: str | None = None, **labels: str) -> ClusterTrustBundle:
    value = {"metadata": {"labels": labels}, "spec": {"trustBundle": text, "signerName": signer}}
    return msgspec.convert(value, ClusterTrustBundle)


LONG = bytes(range(256))
BUNDLES = {
    "a": bundle(f"what it is\n{pem(b'one')}between\n{pem(LONG, b'one')}"),
    "x.y:z:live": bundle(pem(b"two", b"three"), "x.y/z", alive="true"),
    "x.y:z:more": bundle(pem(b"three", b"four"), "x.y/z", alive="true", old=""),
    "x.y:z:dead": bundle(pem(b"five"), "x.y/z", alive="false"),
    "x.y:w:live": bundle(pem(b"six"), "x.y/w", alive="true"),
}


def pod_of(source: dict[str, Any], **spec: Any) -> Pod:
    projected = {"sources": [{"clusterTrustBundle": {"path": "p", **source}}]}
    volumes = [{"name": "v", "projected": projected}]
    spec = {"containers": [{"name": "c"}, {"name": "d"}], "volumes": volumes, **spec}
    return msgspec.convert({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}, Pod)


TRUST = Trust(BUNDLES)


def shown(source: dict[str, Any], trust: Trust | None = TRUST, **spec: Any) -> File:
    (found,) = plan_volumes(pod_of(source, **spec), "u1", Objects(trust=trust))
    assert isinstance(found, Filled)
    return found.payload["p"]


def anchors(data: bytes) -> set[bytes]:
    blocks = data.decode().split("-----END CERTIFICATE-----\n")
    found = [ssl.PEM_cert_to_DER_cert(f"{one}-----END CERTIFICATE-----\n") for one in blocks if one]
    assert len(found) == len(set(found)), "an anchor is there twice"
    assert "".join(blocks[:1]).startswith("-----BEGIN CERTIFICATE-----\n") or not data
    return set(found)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ({"name": "a"}, {b"one", LONG}),
        ({"name": "none", "optional": True}, set()),
        ({"signerName": "x.y/z", "labelSelector": {}}, {b"two", b"three", b"four", b"five"}),
        ({"signerName": "x.y/z", "labelSelector": {"matchLabels": {"alive": "true"}}}, {b"two", b"three", b"four"}),
        ({"signerName": "x.y/z", "optional": True}, set()),  # no selector: nothing
        ({"signerName": "x.y/w", "labelSelector": {"matchLabels": {"alive": "no"}}, "optional": True}, set()),
        *(
            ({"signerName": "x.y/z", "labelSelector": {"matchExpressions": [one]}}, found)
            for one, found in (
                ({"key": "old", "operator": "Exists"}, {b"three", b"four"}),
                ({"key": "old", "operator": "DoesNotExist"}, {b"two", b"three", b"five"}),
                ({"key": "alive", "operator": "In", "values": ["false", "?"]}, {b"five"}),
                ({"key": "alive", "operator": "NotIn", "values": ["true"]}, {b"five"}),
                ({"key": "old", "operator": "NotIn", "values": ["x"]}, {b"two", b"three", b"four", b"five"}),
            )
        ),
    ],
)
def test_a_source_shows_each_anchor_once(source: dict[str, Any], found: set[bytes]) -> None:
    assert anchors(shown(source).data) == found


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"name": "none"}, '"v": clustertrustbundle "none" not found'),
        ({"signerName": "x.y/z"}, "combination of signerName and labelSelector matched zero ClusterTrustBundles"),
        ({"signerName": "x", "labelSelector": {}, "optional": False}, "matched zero"),
    ],
)
def test_what_is_not_there_is_waited_for(source: dict[str, Any], told: str) -> None:
    with pytest.raises(VolumeError, match=told):
        shown(source)


def test_the_order_is_the_agents_own_and_stays() -> None:
    many = {"m": bundle(pem(*(bytes([n]) for n in range(100))))}
    one, again, other = (shown({"name": "m"}, Trust(many, order)).data for order in (b"1", b"1", b"2"))
    assert one == again != other and anchors(one) == anchors(other)


@pytest.mark.parametrize(
    ("spec", "file"),
    [
        ({}, (0o644, None)),
        ({"securityContext": {"runAsUser": 7}}, (0o600, 7)),
        ({"securityContext": {"fsGroup": 8}}, (0o600, None)),
        ({"containers": [{"name": "c", "securityContext": {"runAsUser": 9}}, {"name": "d"}]}, (0o644, None)),
        ({"initContainers": [{"name": "i", "securityContext": {"runAsUser": 9}}]}, (0o644, None)),
    ],
)
def test_a_file_is_theirs_who_read_it(spec: dict[str, Any], file: tuple[int, int | None]) -> None:
    assert shown({"name": "a"}, **spec)[1:] == file


def test_where_there_is_no_api_server_it_is_refused_by_name() -> None:
    pod = pod_of({"name": "a"})
    (fault,) = unsupported(pod)
    assert fault.pointer == "/spec/volumes/0/projected/sources/0/clusterTrustBundle"
    assert fault.text == "is not supported: there is no API server to give out bundles"
    assert not list(unsupported(pod, served=True))
    with pytest.raises(VolumeError, match="no API server"):
        shown({"name": "a"}, None)


def test_a_file_of_another_user_is_refused_by_name() -> None:
    """A field of a feature gate."""
    (fault,) = unsupported(pod_of({"name": "a", "user": 0}), served=True)
    assert fault.pointer == "/spec/volumes/0/projected/sources/0/clusterTrustBundle/user"
