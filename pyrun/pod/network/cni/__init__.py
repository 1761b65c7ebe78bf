"""CNI 1.1: the plug-ins of a configuration are executed, unchanged."""

from .cni import Cni

__all__ = ["Cni"]
