"""The face of the pods' network: which of the two there is, and for each pod the one that it was given.

Where a directory of CNI configurations has one, the pods to come are that one's; else they are the built-in network's.
The choice is looked at anew for each pod and each question whether the network is ready, as a person may install a
plug-in while we run. A pod is removed by the network that added it.
"""

from __future__ import annotations

import json
import logging
import os

from ...errors import Unavailable
from ...facts import read_text
from .builtin import Builtin
from .cni import Cni
from .leases import parse_ranges
from .model import NetResult, PodNet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CONFIGURATIONS = "/etc/cni/net.d"
PLUGINS = ("/opt/cni/bin", "/usr/lib/cni")
log = logging.getLogger(__name__)


class Network:
    """Thread-safe; blocking. root: ROOT/network, where all that must survive a restart lies.

    conf_dir, bin_dirs: of CNI; "" for none, ever. ranges: of the built-in network, where nobody has set others. mtu: 0:
    that of the uplink. forwarding: False: the node's sysctls are not touched. warn: told what changes on the node."""

    def __init__(
        self,
        root: str,
        *,
        conf_dir: str = CONFIGURATIONS,
        bin_dirs: tuple[str, ...] = PLUGINS,
        ranges: tuple[str, ...] = (),
        mtu: int = 0,
        forwarding: bool = True,
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        os.makedirs(root, 0o700, exist_ok=True)
        os.chmod(root, 0o700)
        self._root = root
        kept = self._kept_ranges()
        self.builtin = Builtin(root, warn, ranges=kept or ranges, mtu=mtu, forwarding=forwarding)
        self.cni = Cni(f"{root}/cni", conf_dir, bin_dirs, warn) if conf_dir else None

    def ready(self) -> tuple[bool, str, str]:
        """(ready, reason, message) for Status' NetworkReady."""
        if self.cni is not None and self.cni.is_configured():
            return self.cni.ready()
        return self.builtin.ready()

    def kind(self) -> str:
        """What pods to come get: "cni NAME", or "built-in RANGES"."""
        if self.cni is not None and self.cni.is_configured():
            return f"cni {self.cni.name()}"
        return "built-in " + " ".join(str(network) for network in self.builtin.leases.ranges)

    def add(self, pod: PodNet) -> NetResult:
        """Gives a pod its network. PyrunError with nothing left; who was killed meanwhile calls remove()."""
        if not pod.netns:
            raise Unavailable(f"pod {pod.id[:13]} has no network namespace")
        if self.cni is not None and self.cni.is_configured():
            return self.cni.add(pod)
        return self.builtin.add(pod)

    def remove(self, pod: PodNet) -> None:
        """Takes it away again; what is gone already is no error, nor a network namespace that is."""
        if self.cni is not None and self.cni.has(pod.id):
            self.cni.remove(pod)
        else:
            self.builtin.remove(pod.id)

    def check(self, pod: PodNet) -> None:
        """PyrunError where the pod's network is not as it was made."""
        if self.cni is not None and self.cni.has(pod.id):
            self.cni.check(pod)
        else:
            self.builtin.check(pod.id)

    def gc(self, live: Iterable[str]) -> None:
        """Removes what belongs to no pod of these: after a restart, and after a reboot with none."""
        keep = set(live)
        self.builtin.gc(keep)
        if self.cni is not None:
            self.cni.gc(keep)

    def settle(self) -> bool:
        """Waits for what is still being taken away; for tests and the daemon's end."""
        return self.builtin.settle()

    def set_pod_cidr(self, cidrs: Iterable[str]) -> None:
        """The ranges of pods to come (UpdateRuntimeConfig), kept over restarts. InvalidArgument."""
        texts = tuple(text for cidr in cidrs for text in cidr.split(",") if text)
        if not texts:
            return
        parse_ranges(texts)
        new = f"{self._root}/.ranges"
        with open(new, "w") as file:
            json.dump(texts, file)
        os.rename(new, f"{self._root}/ranges")
        if self.cni is not None and self.cni.is_configured():
            return  # a template of CNI's is the plug-ins' own
        self.builtin.set_ranges(texts)

    def _kept_ranges(self) -> tuple[str, ...]:
        try:
            return tuple(str(text) for text in json.loads(read_text(f"{self._root}/ranges") or "[]"))
        except ValueError:
            return ()
