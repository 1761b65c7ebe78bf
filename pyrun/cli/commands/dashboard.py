"""`pyrun dashboard`: serves the dashboard until a signal ends it."""

from __future__ import annotations

import os
import sys

from pyrun.cli.commands.cri import STATE, missing_package
from pyrun.cli.commands.metrics import parse_place
from pyrun.errors import InvalidArgument
from pyrun.logs.tree import POD_LOGS, Logs, default_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

ADDRESS, OWN_STATE, USER = "127.0.0.1:9339", "/run/pyrun-dashboard", "nobody"
PROXY_STATE = "/run/pyrun-proxy"
STORE = "/var/lib/pyrun-metrics"


def run(g: Globals, o: Options) -> int:
    try:
        from pyrun.dashboard.start import Wanted, serve
        from pyrun.listen import parse_address
    except ModuleNotFoundError as error:
        raise missing_package(error)
    host, port = parse_place(o.address or ADDRESS)
    if bool(o.tls_cert) != bool(o.tls_key):
        raise InvalidArgument("--tls-cert and --tls-key: one without the other", hint="give both, or none")
    if not o.tls_cert and not (host == "::1" or host.startswith("127.")):
        raise InvalidArgument(
            f"--address {host}: without TLS it is served on loopback alone",
            hint="--tls-cert and --tls-key, or a tunnel: ssh -L 9339:127.0.0.1:9339 NODE",
        )
    root = os.path.abspath(o.dir or POD_LOGS)
    wanted = Wanted(
        cri=parse_address(o.listen, STATE),
        proxy=o.proxy_state or PROXY_STATE,
        logs=Logs(root, os.path.abspath(o.log_store) if o.log_store else default_store(root)),
        state=o.state or OWN_STATE,
        store=o.store or STORE,
        name=o.node_name or os.uname().nodename,
        host=host,
        port=port,
        names=o.host,
        user=o.user or USER,
        tls=(o.tls_cert, o.tls_key) if o.tls_cert else None,
    )
    return serve(wanted, _say)


def _say(url: str, token: str) -> None:
    sys.stderr.write(f"pyrun: dashboard: {url} (the token is in {token})\n")
