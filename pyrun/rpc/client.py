"""A gRPC client for commands: a few calls over a unix socket, each with a deadline."""

from __future__ import annotations

import asyncio
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from ..cri_api import Rpc
from ..errors import PyrunError, Unavailable
from .status import CODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def call_all(path: str, calls: Sequence[tuple[Rpc, Any]], patience_s: float) -> list[Any]:
    """The responses to unary calls, in order. Unavailable where nobody serves the socket."""
    return asyncio.run(_call_all(path, calls, patience_s))


async def _call_all(path: str, calls: Sequence[tuple[Rpc, Any]], patience_s: float) -> list[Any]:
    channel = Channel(path=path)
    try:
        return [await _call(channel, rpc, request, patience_s) for rpc, request in calls]
    except (OSError, StreamTerminatedError) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise Unavailable(f"{path}: {told.lower()}", hint="does `pyrun cri` run, and is --listen the same?") from None
    except TimeoutError:
        raise Unavailable(f"{path}: no answer in {patience_s:.0f} s", hint="what does the daemon's log say?") from None
    finally:
        channel.close()


async def _call(channel: Channel, rpc: Rpc, request: Any, patience_s: float) -> Any:
    method: Any = UnaryUnaryMethod(channel, rpc.path, rpc.request, rpc.response)
    try:
        return await method(request, timeout=patience_s)
    except GRPCError as error:
        kind = next((kind for kind, status in CODES.items() if status is error.status), PyrunError)
        raise kind(f"{rpc.name}: {error.message or error.status.name}") from None
