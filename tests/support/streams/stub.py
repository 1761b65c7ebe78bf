"""As much of a CRI server as crictl needs to exec, attach and forward ports: its answers are URLs of a streaming
server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpclib.const
import grpclib.server

from pyrun import cri_api as v1
from pyrun.cri.stream.server import Streams
from pyrun.http.remotecommand import Wanted


def wanted(request: Any) -> Wanted:
    return Wanted(request.stdin, request.stdout, request.stderr, request.tty)


class Stub:
    """tty: what ContainerStatus's verbose answer says of the container, which `crictl attach` asks."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def version(self, request: Any) -> Any:
        return v1.VersionResponse(version="0.1.0", runtime_name="stub", runtime_version="1", runtime_api_version="v1")

    def exec(self, request: Any) -> Any:
        return v1.ExecResponse(url=self._streams.exec(request.container_id, tuple(request.cmd), wanted(request)))

    def attach(self, request: Any) -> Any:
        return v1.AttachResponse(url=self._streams.attach(request.container_id, wanted(request)))

    def port_forward(self, request: Any) -> Any:
        return v1.PortForwardResponse(url=self._streams.port_forward(request.pod_sandbox_id))

    def container_status(self, request: Any) -> Any:
        return v1.ContainerStatusResponse(
            status=v1.ContainerStatus(id=request.container_id, state=v1.CONTAINER_RUNNING)
        )

    def image_fs_info(self, request: Any) -> Any:
        return v1.ImageFsInfoResponse()

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        calls = {
            "Version": self.version,
            "Exec": self.exec,
            "Attach": self.attach,
            "PortForward": self.port_forward,
            "ContainerStatus": self.container_status,
        }
        found = {
            f"/runtime.v1.RuntimeService/{name}": _handler("RuntimeService", name, call) for name, call in calls.items()
        }
        found["/runtime.v1.ImageService/ImageFsInfo"] = _handler("ImageService", "ImageFsInfo", self.image_fs_info)
        return found


def _handler(service: str, name: str, call: Any) -> grpclib.const.Handler:
    async def serve(stream: Any) -> None:
        await stream.send_message(call(await stream.recv_message()))

    rpc = v1.SERVICES[service][name]
    return grpclib.const.Handler(serve, grpclib.const.Cardinality.UNARY_UNARY, rpc.request, rpc.response)


@contextlib.asynccontextmanager
async def serving(streams: Streams, path: str) -> AsyncIterator[None]:
    server = grpclib.server.Server([Stub(streams)])
    await server.start(path=path)
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()
