"""A cluster's authorities from the cluster itself: its ConfigMap kube-public/cluster-info, as kubeadm has it.

It is read from a server that nobody vouches for yet, so nothing secret is sent. Two things make it good: it is signed
by the token (a JWS without its content, HS256), and only authorities whose public key has a given hash are taken.

https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#configmap-signing
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import Any

from ..errors import InvalidArgument, NotFound, PyrunError
from . import manifest
from .certificates import key_hashes
from .client import Client, Forbidden, path
from .kubeconfig import Cluster, parse_kubeconfig

TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
HASH = re.compile(r"sha256:[0-9a-f]{64}")
WHERE = path("v1", "configmaps", "kube-public", "cluster-info")


class WrongAuthority(PyrunError):
    """The cluster's is not the one that was named."""


class UnknownToken(PyrunError):
    """It is not the cluster's, or it has expired."""


def parse_token(text: str) -> tuple[str, str]:
    """(id, secret). InvalidArgument, which never has the secret in it."""
    found = TOKEN.fullmatch(text)
    if found is None:
        raise InvalidArgument(
            "--token: must be ID.SECRET, of 6 and 16 small letters and digits", hint="kubeadm token create prints one"
        )
    return found[1], found[2]


def discover_authorities(server: str, token: str, hashes: tuple[str, ...]) -> bytes:
    """Those of the hashes (`sha256:HEX`), in PEM. WrongAuthority, UnknownToken; Unavailable where nobody answers."""
    id, secret = parse_token(token)
    client = Client(Cluster(server, verify=False))
    try:
        found = client.get(WHERE)
    except (NotFound, Forbidden) as error:
        hint = "--ca-file names the cluster's authority in place of --ca-hash; kubeadm makes that ConfigMap"
        raise PyrunError(f"the cluster does not tell its authority: {error.text}", hint=hint) from None
    finally:
        client.close()
    data = found.get("data") or {}
    config = data.get("kubeconfig")
    if not isinstance(config, str) or not is_signed(config, data.get(f"jws-kubeconfig-{id}"), id, secret):
        raise UnknownToken(
            f"token {id}: cluster-info is not signed by it: it is not this cluster's, or it has expired",
            hint="kubeadm token create prints a new one",
        )
    return _pinned(_authorities(config), hashes)


def is_signed(config: str, signature: Any, id: str, secret: str) -> bool:
    """signature: HEADER..SIGNATURE of a JWS, in base64 of URLs."""
    if not isinstance(signature, str) or signature.count(".") != 2:
        return False
    head, content, sum = signature.split(".")
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        given = base64.urlsafe_b64decode(sum + "=" * (-len(sum) % 4))
    except ValueError:
        return False
    if content or not isinstance(header, dict) or header.get("alg") != "HS256" or header.get("kid") != id:
        return False
    signed = f"{head}.{base64.urlsafe_b64encode(config.encode()).decode().rstrip('=')}"
    return hmac.compare_digest(given, hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))


def _authorities(config: str) -> bytes:
    documents = manifest.load(config.encode(), "cluster-info")
    value = documents[0].value if documents else {}
    clusters = value.get("clusters") or [{}]
    context = {"name": "it", "context": {"cluster": clusters[0].get("name", "")}}
    found = parse_kubeconfig({**value, "contexts": [context], "current-context": "it"}, "cluster-info").ca
    if found is None:
        raise PyrunError("cluster-info has no authority", hint="--ca-file names it")
    return found


def _pinned(authorities: bytes, hashes: tuple[str, ...]) -> bytes:
    try:
        found = key_hashes(authorities)
    except ValueError as error:
        raise PyrunError(f"cluster-info: the authority is no certificate: {error}") from None
    taken = [pem for hash, pem in found.items() if hash in hashes]
    if not taken:
        raise WrongAuthority(
            f"the cluster's authority is {', '.join(found)}, and not the one that --ca-hash names",
            hint="either the hash is another cluster's, or somebody is in between: look at the hash again",
        )
    return b"".join(taken)
