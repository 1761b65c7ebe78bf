"""OTLP's logs over HTTP, in protobuf (opentelemetry.io/docs/specs/otlp, opentelemetry-proto's logs.proto). Pure.

The messages are few and only written, so they are written here: a field is its number and wire type, and its value.
"""

from __future__ import annotations

import struct

from ...protowire import delimited
from .record import Record, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KIND = "application/x-protobuf"
NAME = "pyrun"
# The names of OpenTelemetry's semantic conventions.
ATTRIBUTES = {
    "namespace": "k8s.namespace.name",
    "pod": "k8s.pod.name",
    "pod_uid": "k8s.pod.uid",
    "container": "k8s.container.name",
    "node": "k8s.node.name",
    "stream": "log.iostream",
}


def _attribute(field: int, key: str, value: str) -> bytes:
    """A KeyValue with a string."""
    return delimited(field, delimited(1, key.encode()) + delimited(2, delimited(1, value.encode())))


def encode(records: Sequence[Record]) -> bytes:
    """ExportLogsServiceRequest: a ResourceLogs for each container and stream."""
    resources: dict[tuple[tuple[str, str], ...], list[bytes]] = {}
    for one in records:
        time = struct.pack("<BQ", 1 << 3 | 1, one.line.time) + struct.pack("<BQ", 11 << 3 | 1, one.line.time)
        resources.setdefault(one.labels, []).append(delimited(2, time + delimited(5, delimited(1, one.text.encode()))))
    scope = delimited(1, delimited(1, NAME.encode()))
    found = []
    for labels, logs in resources.items():
        resource = b"".join(_attribute(1, ATTRIBUTES[key], value) for key, value in labels)
        found.append(delimited(1, delimited(1, resource) + delimited(2, scope + b"".join(logs))))
    return b"".join(found)


def check(status: int, body: bytes, sent: int) -> None:
    """ExportLogsServiceResponse: field 1, the part that was refused; of that field 1, how many, and 2, why."""
    if not body.startswith(b"\x0a") or len(body) < 4 or body[2] != 0x08:
        return
    refused, shift = 0, 0
    for byte in body[3:13]:
        refused |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    if refused:
        raise Refused("some lines were refused", min(refused, sent))
