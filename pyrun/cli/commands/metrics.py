"""`pyrun metrics`: serves the metrics of a node's pods until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from pyrun.cli.commands.cri import STATE, missing_package
from pyrun.errors import InvalidArgument, PyrunError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

ADDRESS = "127.0.0.1:9338"
PERIOD_S, DAYS, ROLLED_DAYS, BYTES, LEAST_BYTES = 10.0, 7, 400, 512 << 20, 1 << 20


def run(g: Globals, o: Options) -> int:
    try:
        from pyrun.ending import run as run_daemon
        from pyrun.listen import parse_address
        from pyrun.metrics.exporter import Kept, serve
        from pyrun.metrics.store import Keep
    except ModuleNotFoundError as error:
        raise missing_package(error)
    host, port = parse_place(o.address or ADDRESS)
    cri = parse_address(o.listen, STATE)
    if not o.store and (o.every or o.keep or o.keep_rolled is not None or o.keep_bytes or o.remote_write):
        raise InvalidArgument(
            "--every, --keep, --keep-rolled, --keep-bytes, --remote-write: nothing is kept",
            hint="--store DIR says where to",
        )
    period, seconds, size = o.every or PERIOD_S, int(o.keep or DAYS * 86400), o.keep_bytes or BYTES
    rolled = ROLLED_DAYS * 86400 if o.keep_rolled is None else int(o.keep_rolled)
    if not 1 <= period <= 60:
        raise InvalidArgument(f"--every {period:.0f}s: it is read each 1 to 60 seconds")
    if seconds < 3600 or size < LEAST_BYTES:
        raise InvalidArgument(
            "--keep, --keep-bytes: an hour and 1M are the least", hint="without --store nothing is kept"
        )
    if o.remote_write and not o.remote_write.startswith(("http://", "https://")):
        raise InvalidArgument(f"--remote-write {o.remote_write}: no URL", hint="http://HOST:9090/api/v1/write")
    kept = Kept(os.path.abspath(o.store), Keep(seconds, size, rolled), period, o.remote_write) if o.store else None

    async def main() -> None:
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await serve(cri, o.node_name or os.uname().nodename, host, port, ended, _say, kept)

    try:
        run_daemon(main(), g.warn)
    except OSError as error:
        raise PyrunError(f"{host}:{port}: {reason(error)}", hint="--address HOST:PORT has another") from None
    return 0


def _say(address: tuple[str, int]) -> None:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    sys.stderr.write(
        f"pyrun: metrics: http://{host}:{address[1]}/metrics/cadvisor, /metrics/resource, /stats/summary\n"
    )


def parse_place(text: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 address in brackets."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or (":" in host and not text.startswith("[")) or not port.isdecimal() or int(port) > 65535:
        message = f"--address: {text!r} is no address with a port"
        raise InvalidArgument(message, hint="such as 127.0.0.1:9338 or [::1]:9338; port 0 takes a free one")
    return host, int(port)
