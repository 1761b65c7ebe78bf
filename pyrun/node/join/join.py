"""Joins a cluster by a bootstrap token, as a kubelet does: who the cluster is, a certificate, and files that say so.

https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import AlreadyExists, DeadlineExceeded, PyrunError, Unavailable
from ...kube.client import Client, Forbidden, path
from ...kube.discovery import UnknownToken, WrongAuthority, discover_authorities, parse_token
from ...kube.kubeconfig import Cluster
from ...kube.signing import CLIENT, Refused, SigningRequest
from ...listen import only_one, private_directory
from .credentials import Credentials, directory_of, node_subject
from .pending import Pending

WRONG_AUTHORITY, UNKNOWN_TOKEN, REFUSED, UNREACHABLE, TOO_LATE = 3, 4, 5, 6, 7  # exit statuses
CODES = (
    (WrongAuthority, WRONG_AUTHORITY),
    (UnknownToken, UNKNOWN_TOKEN),
    (Refused, REFUSED),
    (Unavailable, UNREACHABLE),
    (DeadlineExceeded, TOO_LATE),
)
WHO = path("authentication.k8s.io/v1", "selfsubjectreviews")


@dataclass(frozen=True, slots=True)
class Wanted:
    """root: of `pyrun node run`. name: the node's. authorities: PEM; without, they are looked for by their hashes.
    patience_s: for who approves."""

    root: str
    name: str
    server: str
    token: str
    authorities: bytes | None
    hashes: tuple[str, ...]
    patience_s: float


def join(wanted: Wanted, told: Callable[[str], None]) -> None:
    """Until the credentials are there, and good. PyrunError, with the code of what went wrong; then nothing has changed
    but that a key may wait for the next try."""
    try:
        _join(wanted, told)
    except PyrunError as error:
        error.code = next((code for kind, code in CODES if isinstance(error, kind)), error.code)
        raise


def _join(wanted: Wanted, told: Callable[[str], None]) -> None:
    id, _ = parse_token(wanted.token)
    root = os.path.abspath(wanted.root)
    for directory in (root, f"{root}/node", directory_of(root)):
        private_directory(directory)
    credentials = Credentials(directory_of(root))
    if _is_joined(credentials, wanted):
        told(f"this node is {wanted.name} of {wanted.server} already")
        return
    with only_one(credentials.directory, "pyrun node", "--root"):
        authorities = wanted.authorities or discover_authorities(wanted.server, wanted.token, wanted.hashes)
        cluster = Cluster(wanted.server, ca=authorities, token=wanted.token)
        client = Client(cluster)
        pending = Pending(credentials.next, node_subject(wanted.name))
        try:
            request = SigningRequest(client, CLIENT, pending.request, lambda line: None)
            pair = pending.pair(request.certificate(wanted.patience_s, lambda name: told(waiting(name))))
        except Forbidden as error:
            raise UnknownToken(
                f"token {id} is not good for that: {error.text}",
                hint="it may have expired (kubeadm token create prints a new one), or its group may not ask: "
                "ClusterRole system:node-bootstrapper",
            ) from None
        except Refused:
            pending.forget()  # the next try asks for another
            raise
        finally:
            client.close()
        _check(Cluster(wanted.server, ca=authorities, certificate=pair.certificate, key=pair.key), wanted.name)
        credentials.keep(wanted.server, authorities, pair)
        pending.forget()
    told(f"this node is {wanted.name} of {wanted.server}: `pyrun node run` takes it from {credentials.kubeconfig}")


def waiting(name: str) -> str:
    return f"{name} waits to be approved: kubectl certificate approve {name}"


def _is_joined(credentials: Credentials, wanted: Wanted) -> bool:
    """As it is wanted. AlreadyExists where it is another cluster's, or another name's, and still good, as far as we can
    know: one that does not answer now may answer later, and only these credentials are known there."""
    if not credentials.there():
        return False
    why = ""
    try:
        cluster, name = credentials.cluster(), credentials.node()
        _check(cluster, name)
    except (Unavailable, DeadlineExceeded) as error:
        if cluster.server == wanted.server:
            raise
        why = f", which does not answer: {error}"
    except PyrunError:  # damaged, or expired: it is made anew
        return False
    if (cluster.server, name) == (wanted.server, wanted.name):
        return True
    raise AlreadyExists(
        f"this node is {name} of {cluster.server}{why}", hint=f"rm -r {credentials.directory} leaves that cluster"
    )


def _check(cluster: Cluster, name: str) -> None:
    """The API server knows us as this node. PyrunError."""
    client = Client(cluster)
    try:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        user = (client.create(WHO, review).get("status") or {}).get("userInfo") or {}
    finally:
        client.close()
    if user.get("username") != node_subject(name).name:
        raise PyrunError(f"the API server takes us for {user.get('username')!r}, not {node_subject(name).name!r}")
