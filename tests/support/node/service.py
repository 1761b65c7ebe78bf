"""Services of manifests."""

from __future__ import annotations

from typing import Any


def service(name: str, **spec: Any) -> dict[str, Any]:
    """Port 80 of it leads to port 8080 of pods with the label app=NAME."""
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    spec = {"selector": {"app": name}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
