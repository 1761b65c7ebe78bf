"""Rows of the table of pods: trust bundles and certificates of projected volumes."""

from __future__ import annotations

from typing import Any

from tests.support.kube.pod_row import row, volume

BUNDLE, CERTIFICATE = (f"/spec/volumes/0/projected/sources/0/{one}" for one in ("clusterTrustBundle", "podCertificate"))


def bundle(title: str, fault: str = "", /, *, ours: bool = False, **fields: Any) -> None:
    source = {"clusterTrustBundle": {"path": "a", **fields}}
    row(title, fault and BUNDLE + fault.removeprefix("."), ours=ours, spec=volume(projected={"sources": [source]}))


def certificate(title: str, fault: str = "", /, *, ours: bool = False, **fields: Any) -> None:
    source = {"podCertificate": {"signerName": "a.b/c", "keyType": "ED25519", "keyPath": "k", **fields}}
    row(title, fault and CERTIFICATE + fault.removeprefix("."), ours=ours, spec=volume(projected={"sources": [source]}))


bundle("bundle of nothing", ".")
bundle("bundle", name="a.b")
bundle("bundle of a signer's name", name="a.b:c:d.e")
bundle("bundle of a strange signer's name", name="A:b")
bundle("bundle of no signer's name", "/name", name=":b")
bundle("bundle without a name", "/name", name="")
bundle("bundle of a name that is none", "/name", name="a_b")
bundle("bundle of a signer", signerName="a.b/c", labelSelector={}, optional=True)
bundle("bundle of a signer with labels", signerName="a.b/c", labelSelector={"matchLabels": {"x": "y"}})
bundle("bundle of two kinds", "/signerName", signerName="a.b/c", name="a")
bundle("bundle of labels alone", "/labelSelector", name="a", labelSelector={})
bundle(
    "bundle of labels that are none",
    "/labelSelector/matchLabels/x",
    signerName="a.b/c",
    labelSelector={"matchLabels": {"x": "-"}},
)
bundle("bundle without a path", "/path", name="a", path="")
bundle("bundle outside", "/path", name="a", path="../a")
bundle("bundle of nobody", "/user", name="a", user=-1, ours=True)  # a gate that is off takes the field away before
for signer in (
    "",
    "a",
    "a/b",
    "a.b",
    "a.b/c/d",
    "A.b/c",
    "a.b/C",
    "a.b/",
    "a..b/c",
    f"{'a.' * 127}b/c",
    f"{'a' * 64}.b/c",
):
    certificate(f"certificate by {signer}", "/signerName", signerName=signer)
certificate("certificate by a long signer", signerName=f"a.b/{'c' * 200}.{'d' * 200}")
certificate(
    "certificate by a signer that is too long", "/signerName", signerName=f"a.b/{'c' * 200}.{'d' * 200}.{'e' * 200}"
)
certificate("certificate", credentialBundlePath="b", certificateChainPath="d/c", maxExpirationSeconds=3600)
certificate("certificate of no file", ".", keyPath="")
certificate("certificate outside", "/keyPath", keyPath="/k")
certificate("certificate of one file", "/certificateChainPath", certificateChainPath="k")
certificate("certificate's key", "/keyType", keyType="RSA2048")
for seconds in (3599, 91 * 86400 + 1):
    certificate(f"certificate for {seconds} s", "/maxExpirationSeconds", maxExpirationSeconds=seconds)
certificate("certificate for the longest time", maxExpirationSeconds=91 * 86400)
certificate("certificate of Kubernetes", signerName="x.kubernetes.io/y", maxExpirationSeconds=86400)
certificate(
    "long certificate of Kubernetes", "/maxExpirationSeconds", signerName="kubernetes.io/y", maxExpirationSeconds=86401
)
certificate("certificate's annotations", userAnnotations={"a/B": "c", "A.b/c": ""})
for key in ("a", "a/b/c", "a_/b", "a/-"):
    certificate(f"certificate's annotation {key}", "/userAnnotations", userAnnotations={key: ""})
certificate("certificate's large annotations", "/userAnnotations", userAnnotations={"a/b": "c" * (256 << 10)})
row(
    "file and bundle at one path",
    "/spec/volumes/0/projected/sources/1/clusterTrustBundle/path",
    spec=volume(
        projected={
            "sources": [
                {"configMap": {"name": "c", "items": [{"key": "k", "path": "a"}]}},
                {"clusterTrustBundle": {"name": "a", "path": "a"}},
            ]
        }
    ),
)
