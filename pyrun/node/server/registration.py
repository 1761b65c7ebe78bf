"""This node's object and its Lease, kept: a thread of its own, so that nothing else of the agent waits for it.

The Lease is renewed each 10 s, and says that we live; the Node's status is written when something of it has changed,
or after 5 minutes, as by a kubelet. What somebody deletes meanwhile is made again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ...errors import AlreadyExists, NotFound, PyrunError
from ...kube.client import Client, Conflict, path
from .node_object import Machine, node_object, node_status, same

RENEW_S, LEASE_S, STATUS_S = 10.0, 40, 300.0
FIRST_S = 1.0  # before the first try again
LEASES = "kube-node-lease"


class Registration:
    """machine: what is found of it now. labels: of the Node when it is made. told: a line for the log."""

    def __init__(
        self, client: Client, machine: Callable[[], Machine], labels: dict[str, str], told: Callable[[str], None]
    ) -> None:
        self._client, self._machine, self._labels, self._told = client, machine, labels, told
        self.error: str | None = None
        self.uid = ""  # of the Node
        self._since: dict[str, tuple[str, str]] = {}  # of each condition, as last written
        self._lease: dict[str, Any] | None = None
        self._written: dict[str, Any] | None = None
        self._when = 0.0
        self._stop = threading.Event()
        self._again = threading.Event()
        self._asked = False  # that somebody waits for what begins now
        self._is_told = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self, patience_s: float) -> None:
        """Something of the machine has changed: it is written now, or the time is over."""
        self._is_told.clear()
        self._asked = True
        self._again.set()
        self._is_told.wait(patience_s)

    def stop(self, patience_s: float = 10.0) -> None:
        self._stop.set()
        self._again.set()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _run(self) -> None:
        delay = FIRST_S
        while not self._stop.is_set():
            begun = time.monotonic()
            self._again.clear()
            if self._stop.is_set():  # between both
                return
            asked, self._asked = self._asked, False
            try:
                self._once()
            except (PyrunError, OSError) as error:
                self._failed(str(error))
                self._asked = self._asked or asked
                self._again.wait(delay * random.uniform(0.5, 1.5))
                delay = min(delay * 2, RENEW_S)
                continue
            if self.error is not None:
                self._told("the API server has this node's state again")
            self.error, delay = None, FIRST_S
            if asked:
                self._is_told.set()
            self._again.wait(max(0.0, begun + RENEW_S - time.monotonic()))

    def _failed(self, text: str) -> None:
        if self.error != text:
            self._told(f"this node can't be kept in the API server: {text}")
        self.error = text

    def _once(self) -> None:
        machine = self._machine()
        if not self.uid:
            self._register(machine)
        self._renew(machine.name)
        try:
            self._write(machine)
        except NotFound:
            self.uid, self._written = "", None
            raise

    def _register(self, machine: Machine) -> None:
        """Makes the Node, or takes the one that is there."""
        made = node_object(machine, self._labels, time.time())
        where = path("v1", "nodes")
        try:
            found = self._client.create(where, made)
        except AlreadyExists:
            found = self._client.get(path("v1", "nodes", name=machine.name))
            wanted = made["metadata"]["labels"]
            there = found["metadata"].get("labels") or {}
            if any(there.get(key) != value for key, value in wanted.items()):
                self._client.patch(path("v1", "nodes", name=machine.name), {"metadata": {"labels": wanted}})
        self.uid = found["metadata"]["uid"]
        self._written = None
        self._since = {
            c["type"]: (c["status"], c.get("lastTransitionTime") or "")
            for c in (found.get("status") or {}).get("conditions") or ()
        }

    def _write(self, machine: Machine) -> None:
        now = time.time()
        status = node_status(machine, self._since, now)
        if self._written is not None and same(status, self._written) and now - self._when < STATUS_S:
            return
        patch = {**status, "addresses": [{"$patch": "replace"}, *status["addresses"]]}  # by type it would be merged
        where = path("v1", "nodes", name=machine.name, sub="status")
        self._client.patch(where, {"status": patch}, "strategic")
        self._written, self._when = status, now
        self._since = {c["type"]: (c["status"], c["lastTransitionTime"]) for c in status["conditions"]}

    def _renew(self, name: str) -> None:
        where = path("coordination.k8s.io/v1", "leases", LEASES, name)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if self._lease is None:
            try:
                self._lease = self._client.get(where)
            except NotFound:
                owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self.uid}
                made = {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": name, "namespace": LEASES, "ownerReferences": [owner]},
                    "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_S, "renewTime": now},
                }
                self._lease = self._client.create(path("coordination.k8s.io/v1", "leases", LEASES), made)
                return
        spec = {**self._lease["spec"], "holderIdentity": name, "leaseDurationSeconds": LEASE_S, "renewTime": now}
        try:
            self._lease = self._client.update(where, {**self._lease, "spec": spec})
        except (NotFound, Conflict):
            self._lease = None
            raise
