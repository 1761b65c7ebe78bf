"""What a node that has joined a cluster keeps of it, in one directory, root's alone.

`kubeconfig` is the last that is written and the first that goes: without it the node has not joined, and a join that
was killed is begun again by the same command. `client.pem` has certificate and key in one file, which a renewal
replaces as a whole; `ca.pem` are the cluster's authorities; `client.next` is a key and a request that waits for its
certificate.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from ...errors import PyrunError, reason
from ...kube.certificates import Pair, Subject, read_pair, write_private
from ...kube.kubeconfig import Cluster, load_kubeconfig

GROUP, PREFIX = "system:nodes", "system:node:"


@dataclass(frozen=True, slots=True)
class Credentials:
    """directory: as directory_of() has it."""

    directory: str

    @property
    def kubeconfig(self) -> str:
        return f"{self.directory}/kubeconfig"

    @property
    def client(self) -> str:
        return f"{self.directory}/client.pem"

    @property
    def authorities(self) -> str:
        return f"{self.directory}/ca.pem"

    @property
    def next(self) -> str:
        return f"{self.directory}/client.next"

    def there(self) -> bool:
        return os.path.exists(self.kubeconfig)

    def cluster(self) -> Cluster:
        """PyrunError where it can't be read."""
        return load_kubeconfig(self.kubeconfig)

    def node(self) -> str:
        """Our name there. PyrunError where the certificate is none, or no node's."""
        found = read_pair(self.client)
        if found is None or not found.subject.name.startswith(PREFIX):
            raise PyrunError(f"{self.client}: no node's certificate and key", hint="pyrun node join makes it anew")
        return found.subject.name.removeprefix(PREFIX)

    def keep(self, server: str, authorities: bytes, client: Pair) -> None:
        """All of it, at once for whoever looks for the kubeconfig."""
        try:
            os.unlink(self.kubeconfig)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise PyrunError(f"{self.kubeconfig}: {reason(error)}") from None
        write_private(self.authorities, authorities)
        write_private(self.client, client.certificate + client.key)
        user = client.subject.name
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": {"server": server, "certificate-authority": "ca.pem"}}],
            "users": [{"name": user, "user": {"client-certificate": "client.pem", "client-key": "client.pem"}}],
            "contexts": [{"name": "node", "context": {"cluster": "cluster", "user": user}}],
            "current-context": "node",
        }
        write_private(self.kubeconfig, json.dumps(config, indent=2).encode() + b"\n")


def directory_of(root: str) -> str:
    """root: of `pyrun node run`."""
    return f"{root}/node/credentials"


def node_subject(name: str) -> Subject:
    """https://kubernetes.io/docs/reference/access-authn-authz/node/"""
    return Subject(PREFIX + name, (GROUP,))
