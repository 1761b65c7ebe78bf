"""A container of the CRI as an OCI config.json: the translation is pure; what it needs of the host and of the image is
read before, by collect_node() and look_up_user()."""

from .container import Draft, draft_container, plan_container
from .layers import plan_root
from .logs import log_path, log_rate, open_log
from .node import Node, Settings, collect_node
from .signals import signal_enum, stop_signal
from .sources import make_sources, make_writable, relabel_sources
from .users import User, look_up_user

__all__ = [
    "Draft",
    "Node",
    "Settings",
    "User",
    "collect_node",
    "draft_container",
    "log_path",
    "log_rate",
    "look_up_user",
    "make_sources",
    "make_writable",
    "open_log",
    "plan_container",
    "plan_root",
    "relabel_sources",
    "signal_enum",
    "stop_signal",
]
