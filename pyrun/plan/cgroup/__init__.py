"""The container's cgroup: limits, devices, systemd's units, resctrl."""
