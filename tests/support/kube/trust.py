"""What pods of a cluster trust, gone through on a node of pyrun."""

from __future__ import annotations

from tests.support.kube.cluster import Cluster
from tests.support.kube.signer import Signer
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
