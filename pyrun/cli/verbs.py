"""Every verb by its name, in the order in which they are told."""

from __future__ import annotations

from pyrun.cli.table import COMPLETION, HELP, RUNTIME
from pyrun.cli.table_cri import CRI_VERBS
from pyrun.cli.table_dns import DNS
from pyrun.cli.table_image import IMAGE_VERBS
from pyrun.cli.table_node import NODE
from pyrun.cli.table_proxy import PROXY

LAST = (COMPLETION, HELP)
VERBS = {
    verb.name: verb
    for verb in (
        *(verb for verb in RUNTIME.values() if verb not in LAST),
        *CRI_VERBS,
        *IMAGE_VERBS,
        *PROXY,
        *DNS,
        *NODE,
        *LAST,
    )
}
