"""What pods and containers use: counters of cgroups, of networks, and of what containers have written."""

from .cgroup import Pressure, Reading, count_open_files, read_cgroup
from .counters import Counters
from .network import Interface, read_networks
from .written import Written, walk

__all__ = [
    "Counters",
    "Interface",
    "Pressure",
    "Reading",
    "Written",
    "count_open_files",
    "read_cgroup",
    "read_networks",
    "walk",
]
