"""Who runs a pod's containers: pyrun itself, or another OCI runtime that the configuration names (runtime handlers)."""

from .features import Features
from .handler import Handler
from .own import Own
from .peer import Peer, handler_root, probe

__all__ = ["Features", "Handler", "Own", "Peer", "handler_root", "probe"]
