"""The pods' network: the built-in one, or the plug-ins of /etc/cni/net.d where there is a configuration."""

from .model import NetResult, PodNet, PortMapping
from .network import Network

__all__ = ["NetResult", "Network", "PodNet", "PortMapping"]
