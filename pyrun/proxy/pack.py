"""Services and slices as bytes: the planner keeps all of them, and looks at few at a time. Pure.

A slice of ten endpoints takes 4 kB as objects, and some 600 bytes so. What is packed stays in this process.
"""

from __future__ import annotations

import marshal

from .model import EndpointSlice, Ingress, Service, ServicePort, SliceEndpoint, SlicePort


def pack_service(one: Service) -> bytes:
    fields = {name: getattr(one, name) for name in Service.__slots__}
    fields["ports"] = tuple(map(tuple, one.ports))
    fields["ingress"] = tuple(map(tuple, one.ingress))
    return marshal.dumps(tuple(fields.values()))


def unpack_service(packed: bytes) -> Service:
    fields = dict(zip(Service.__slots__, marshal.loads(packed), strict=True))
    fields["ports"] = tuple(map(ServicePort._make, fields["ports"]))
    fields["ingress"] = tuple(map(Ingress._make, fields["ingress"]))
    return Service(**fields)


def pack_slice(one: EndpointSlice) -> bytes:
    fields = {name: getattr(one, name) for name in EndpointSlice.__slots__}
    fields["ports"] = tuple(map(tuple, one.ports))
    fields["endpoints"] = tuple(map(tuple, one.endpoints))
    return marshal.dumps(tuple(fields.values()))


def unpack_slice(packed: bytes) -> EndpointSlice:
    fields = dict(zip(EndpointSlice.__slots__, marshal.loads(packed), strict=True))
    fields["ports"] = tuple(map(SlicePort._make, fields["ports"]))
    fields["endpoints"] = tuple(map(SliceEndpoint._make, fields["endpoints"]))
    return EndpointSlice(**fields)
