"""A node of a cluster: what the agent has of an API server, and what it tells it. The face is membership.py."""
