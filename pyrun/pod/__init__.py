"""Pods: sandboxes and their network, supervisors, and the containers in them, as the CRI and the node see them."""
