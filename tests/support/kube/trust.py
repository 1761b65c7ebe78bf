"""What pods of a cluster trust, and how they get certificates, gone through on a node of pyrun."""

from __future__ import annotations

from functools import partial
from typing import Any

from pyrun.kube.certificates import parse_pair
from pyrun.kube.client import path
from tests.support.kube.cluster import Cluster
from tests.support.kube.signer import V1, Signer
from tests.support.node.agent import SLEEP, sh


def show_trust_bundles(cluster: Cluster) -> None:
    """By name and by signer: a pod waits for them, and its files are what they are now, for its user alone."""
    signer, other = Signer("trust.test/a"), Signer("trust.test/b")
    sources = [
        {"clusterTrustBundle": {"path": "one", "name": "trust.test:a:one"}},
        {
            "clusterTrustBundle": {
                "path": "all",
                "signerName": signer.name,
                "labelSelector": {"matchLabels": {"a": "b"}},
            }
        },
        {"clusterTrustBundle": {"path": "none", "name": "trust.test:a:none", "optional": True}},
    ]
    mounts = [{"name": "trust", "mountPath": "/trust"}]
    volumes = [{"name": "trust", "projected": {"sources": sources}}]
    user = {"runAsUser": 1000}
    cluster.apply(cluster.pod("p", sh("c", SLEEP, volumeMounts=mounts), volumes=volumes, securityContext=user))
    cluster.wait(lambda: 'clustertrustbundle "trust.test:a:one" not found' in cluster.kubectl("describe", "pod", "p"))
    try:
        cluster.apply(signer.bundle("one"), signer.bundle("two", other.pem, a="b"), other.bundle("three", a="b"))
        there = cluster.wait_ready("p")
        exec = cluster.agent.exec
        assert exec(there, "cat", "/trust/one") == signer.pem and exec(there, "cat", "/trust/none") == ""
        found = exec(there, "cat", "/trust/all")
        assert found in (signer.pem + other.pem, other.pem + signer.pem)
        assert exec(there, "stat", "-Lc", "%u %a", "/trust/one", "/trust/none").split() == ["1000", "600"] * 2
        cluster.apply(signer.bundle("two", a="b"))
        cluster.wait(lambda: exec(there, "cat", "/trust/all") == signer.pem)
        cluster.kubectl("delete", "clustertrustbundle", "trust.test:a:two")
        cluster.wait(lambda: "matched zero ClusterTrustBundles" in cluster.kubectl("describe", "pod", "p"))
        assert exec(there, "cat", "/trust/all") == signer.pem
    finally:
        cluster.kubectl("delete", "clustertrustbundles", "--all")


def show_certificates(cluster: Cluster) -> None:
    """A pod waits until who signs has decided; a request is as a kubelet's, and a refusal is for ever."""
    signer = Signer("pods.test/a")
    asked = path(V1, "podcertificaterequests", cluster.namespace)

    def pod(name: str, *sources: dict[str, Any]) -> dict[str, Any]:
        own = [{"podCertificate": {"signerName": signer.name, **source}} for source in sources]
        mounts = [{"name": "own", "mountPath": "/own"}]
        volumes = [{"name": "own", "projected": {"sources": own}}]
        c = sh("c", SLEEP, volumeMounts=mounts)
        return cluster.pod(name, c, volumes=volumes, securityContext={"fsGroup": 2000})

    def requests(name: str, many: int = 1) -> Any:
        """All that nobody has decided, when there are so many."""
        there = cluster.plane.admin.list(asked)[0]
        found = [one for one in there if one["spec"]["podName"] == name and not one.get("status")]
        return found if len(found) == many else None

    def decide(request: dict[str, Any], status: dict[str, Any]) -> None:
        cluster.plane.admin.update(f"{asked}/{request['metadata']['name']}/status", {**request, "status": status})

    def told(name: str, text: str) -> bool:
        return text in cluster.kubectl("describe", "pod", name)

    kinds = ("ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072")
    more = {"maxExpirationSeconds": 7200, "userAnnotations": {"pods.test/role": "web"}}
    paths = {"credentialBundlePath": "both", "keyPath": "key", "certificateChainPath": "chain"}
    sources = [
        {"keyType": kind, **{field: f"{kind}/{file}" for field, file in paths.items()}, **more} for kind in kinds
    ]
    cluster.apply(pod("p", *sources), *(pod(name, {"keyType": "ED25519", "keyPath": "k"}) for name in ("q", "r")))
    cluster.wait(lambda: told("p", "credential bundle is not issued yet"))
    first, *_ = cluster.wait(lambda: requests("p", len(kinds)))
    removed = first["metadata"]["name"]
    cluster.plane.admin.delete(f"{asked}/{removed}")  # by somebody: it is asked for again

    def others() -> Any:
        found = requests("p", len(kinds))
        return found if found and removed not in [one["metadata"]["name"] for one in found] else None

    again = cluster.wait(others)
    for request in again:
        decide(request, signer.issued(request))
    there = cluster.wait_ready("p")
    for spec in (request["spec"] for request in again):
        assert spec["podUID"] == there["metadata"]["uid"] and spec["serviceAccountName"] == "default"
        assert spec["unverifiedUserAnnotations"] == more["userAnnotations"] and spec["maxExpirationSeconds"] == 7200
    for kind in kinds:
        key, chain, both = (
            cluster.agent.exec(there, "cat", f"/own/{kind}/{file}") for file in ("key", "chain", "both")
        )
        assert both == key + chain and chain.endswith(signer.pem)
        assert parse_pair(chain.encode(), key.encode()).subject.name == "p"
    assert cluster.agent.exec(there, "stat", "-Lc", "%g %a", f"/own/{kinds[0]}/key").split() == ["2000", "640"]
    for name, type in (("q", "Denied"), ("r", "Failed")):
        (request,) = cluster.wait(partial(requests, name))
        decide(request, signer.refused(type))
        why = f'PodCertificateRequest was permanently {type.lower()}: reason="Strange" message="who is \\"this\\"?"'
        cluster.wait(partial(told, name, why))
        assert cluster.get("pod", name)["status"]["phase"] == "Pending" and not requests(name)
