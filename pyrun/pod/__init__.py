"""Pods: sandboxes with their network, their supervisors, and the containers in them."""
