"""Who is who and who may what, by the API server; without one, client certificates of system:masters alone may. Or
everybody, where that was asked for."""

from __future__ import annotations

from typing import Any

from ..kube.client import Client, path

MASTERS = "system:masters"
TOKENS = path("authentication.k8s.io/v1", "tokenreviews")
RIGHTS = path("authorization.k8s.io/v1", "subjectaccessreviews")


class Alone:
    """Of a node without an API server."""

    def token(self, token: str) -> dict[str, Any] | None:
        return {}

    def may(self, user: dict[str, Any], right: dict[str, Any]) -> bool:
        return MASTERS in user["groups"]


class AlwaysAllow:
    """Whoever was let in may do anything."""

    def __init__(self, who: Alone | ByServer) -> None:
        self._who = who

    def token(self, token: str) -> dict[str, Any] | None:
        return self._who.token(token)

    def may(self, user: dict[str, Any], right: dict[str, Any]) -> bool:
        return True


class ByServer:
    """node: our name there."""

    def __init__(self, client: Client, node: str) -> None:
        self._client, self._node = client, node

    def token(self, token: str) -> dict[str, Any] | None:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        status = self._client.create(TOKENS, review).get("status") or {}
        user = status.get("user") or {}
        return user if status.get("authenticated") is True and user.get("username") else None

    def may(self, user: dict[str, Any], right: dict[str, Any]) -> bool:
        attributes = {
            "verb": right["verb"],
            "version": "v1",
            "resource": "nodes",
            "subresource": right["subresource"],
            "name": self._node,
        }
        spec = {"user": user["name"], "groups": user["groups"], "resourceAttributes": attributes}
        spec |= {key: user[key] for key in ("uid", "extra") if user.get(key)}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        status = self._client.create(RIGHTS, review).get("status") or {}
        return status.get("allowed") is True and not status.get("denied")
