"""The container's root: its mounts, devices, masked paths."""
