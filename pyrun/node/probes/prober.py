"""The face: a probe of a container, or a hook of its lifecycle, asked once."""

from __future__ import annotations

import asyncio
import shlex
import ssl
from collections.abc import Awaitable, Callable

from ...errors import DeadlineExceeded, PyrunError
from ...kube.objects.containers import ExecAction, HTTPGetAction, LifecycleHandler, Probe
from ..expansion import expand
from .grpc import ask_grpc
from .http import HttpError, ask_http, get
from .result import HOOK_AGENT, MAX_OUTPUT, PROBE_AGENT, ProberError, Result, Target, port_of, text_of
from .steady import Asked, Steady, Told, Watch
from .tcp import DialError, ask_tcp
from .url import Url, url_of

# (container id, argv, seconds, 0: none) → (exit code, stdout, stderr); DeadlineExceeded when it has been killed.
Exec = Callable[[str, tuple[str, ...], float], Awaitable[tuple[int, bytes, bytes]]]

TRIES = 3  # where the prober itself fails (kubelet: maxProbeRetries)
EXEC_SPARE_S = 5.0  # beyond a command's own time: until it is killed and we have heard of it


class Prober:
    """For all pods of a node. exec_: how a command is run in a container. steady: who asks on, if anybody."""

    def __init__(self, exec_: Exec, steady: Steady | None = None) -> None:
        self._exec, self._steady = exec_, steady
        self._context = _unverified()

    async def run(self, probe: Probe, target: Target) -> Result:
        """Takes no longer than the probe's timeoutSeconds (a command: and until it has been killed)."""
        result = Result(None)
        for _ in range(TRIES):
            try:
                result = await self._once(probe, target, float(probe.timeoutSeconds or 1))
            except ProberError as error:
                result = Result(None, str(error))
            if result.good is not None:
                break
        return result

    def watch(self, asked: Asked, period: float, first: float, told: Told) -> Watch | None:
        """As Steady's."""
        return self._steady.watch(asked, period, first, told) if self._steady is not None else None

    def start(self) -> None:
        if self._steady is not None:
            self._steady.start()

    def close(self) -> None:
        if self._steady is not None:
            self._steady.close()

    async def hook(self, handler: LifecycleHandler, target: Target, timeout: float | None = None) -> str:
        """Carries out a postStart or preStop: its error, or nothing. timeout: seconds.

        Any answer to httpGet will do, whatever its status, as in a kubelet."""
        try:
            async with asyncio.timeout(timeout):
                return await self._hook(handler, target, timeout)
        except TimeoutError:
            return f"it did not end within {timeout:g} s"
        except (ProberError, DialError, HttpError) as error:
            return str(error)

    # --- probes -------------------------------------------------------------------------------------------------------

    async def _once(self, probe: Probe, target: Target, timeout: float) -> Result:
        if probe.exec is not None:
            return await self._command(probe.exec, target, timeout)
        try:
            async with asyncio.timeout(timeout):
                return await self._asked(probe, target)
        except TimeoutError:
            return Result(False, f"{_what(probe, target)}: context deadline exceeded ({timeout:g} s)")

    async def _asked(self, probe: Probe, target: Target) -> Result:
        if (http := probe.httpGet) is not None:
            url = url_of(http, target.address, port_of(http.port, target.container))
            return await ask_http(url, http.httpHeaders, PROBE_AGENT, self._context)
        if (tcp := probe.tcpSocket) is not None:
            return await ask_tcp(tcp.host or target.address, port_of(tcp.port, target.container))
        if (grpc := probe.grpc) is not None:
            context = self._context_h2() if grpc.mode == "TLS" else None
            return await ask_grpc(target.address, grpc.port, grpc.service or "", PROBE_AGENT, context)
        raise ProberError("the probe has no handler")

    def _context_h2(self) -> ssl.SSLContext:
        context = _unverified()
        context.set_alpn_protocols(["h2"])
        return context

    async def _command(self, action: ExecAction, target: Target, timeout: float) -> Result:
        static = {v.name: v.value or "" for v in target.container.env or () if v.valueFrom is None}
        argv = tuple(expand(word, static) for word in action.command or ())
        code, output = await self._exec_once(target, argv, timeout)
        return Result(code == 0, output)

    async def _exec_once(self, target: Target, argv: tuple[str, ...], timeout: float) -> tuple[int, str]:
        """(exit code, its output); -1 for one that took too long. ProberError."""
        try:
            async with asyncio.timeout(timeout + EXEC_SPARE_S if timeout else None):
                code, out, err = await self._exec(target.id, argv, timeout)
        except (DeadlineExceeded, TimeoutError):
            return -1, f"command timed out: {shlex.join(argv)!r} timed out after {timeout:g}s"[:MAX_OUTPUT]
        except PyrunError as error:
            raise ProberError(error.text) from None
        return code, text_of(out + err)

    # --- hooks --------------------------------------------------------------------------------------------------------

    async def _hook(self, handler: LifecycleHandler, target: Target, timeout: float | None) -> str:
        if handler.exec is not None:
            argv = tuple(handler.exec.command or ())
            code, output = await self._exec_once(target, argv, timeout or 0.0)
            return "" if code == 0 else f"{shlex.join(argv)!r} exited with {code}: {output}".rstrip(": \n")
        if (http := handler.httpGet) is not None:
            await self._get(http, url_of(http, target.address, port_of(http.port, target.container)))
            return ""
        if handler.sleep is not None:
            await asyncio.sleep(handler.sleep.seconds)
            return ""
        raise ProberError("the hook has no handler that does something")

    async def _get(self, http: HTTPGetAction, url: Url) -> None:
        """HTTPS of a server without TLS becomes HTTP, and then nothing secret is sent, as in a kubelet
        (pkg/kubelet/lifecycle/handlers.go)."""
        try:
            await get(url, http.httpHeaders, HOOK_AGENT, self._context)
        except DialError as error:
            if not error.plain:
                raise
            headers = [h for h in http.httpHeaders or () if h.name.lower() != "authorization"]
            await get(url._replace(scheme="http"), headers, HOOK_AGENT, self._context)


def _what(probe: Probe, target: Target) -> str:
    if (http := probe.httpGet) is not None:
        return f'Get "{url_of(http, target.address, port_of(http.port, target.container))}"'
    if (tcp := probe.tcpSocket) is not None:
        return f"dial tcp {tcp.host or target.address}:{port_of(tcp.port, target.container)}"
    return "timeout: health rpc did not complete"


def _unverified() -> ssl.SSLContext:
    """As the kubelet's: a pod's certificate is its own affair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
