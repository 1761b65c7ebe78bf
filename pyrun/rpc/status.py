"""Which gRPC status an error of ours is (grpc.io, Status codes). A kubelet decides by NotFound and Unimplemented."""

from __future__ import annotations

import asyncio

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ..errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PyrunError,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)

CODES: dict[type[PyrunError], Status] = {
    NotFound: Status.NOT_FOUND,
    AlreadyExists: Status.ALREADY_EXISTS,
    InvalidArgument: Status.INVALID_ARGUMENT,
    FailedPrecondition: Status.FAILED_PRECONDITION,
    Unavailable: Status.UNAVAILABLE,
    DeadlineExceeded: Status.DEADLINE_EXCEEDED,
    ResourceExhausted: Status.RESOURCE_EXHAUSTED,
    Aborted: Status.ABORTED,
    Unimplemented: Status.UNIMPLEMENTED,
}
LONGEST = 4096  # of a status message: it travels in a header


def status_of(error: Exception) -> GRPCError:
    """What a client is told of it. Who has not foreseen it says INTERNAL, and should write it to the log."""
    if isinstance(error, GRPCError):
        return error
    if isinstance(error, PyrunError):
        code = next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), Status.UNKNOWN)
        return GRPCError(code, "; ".join(line.strip() for line in error.lines())[:LONGEST])
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return GRPCError(Status.DEADLINE_EXCEEDED, str(error)[:LONGEST] or "it took too long")
    return GRPCError(Status.INTERNAL, f"{type(error).__name__}: {error}"[:LONGEST])
