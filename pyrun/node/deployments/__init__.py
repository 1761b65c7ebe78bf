"""Deployments of files on a node without an API server: replicas of a pod, replaced as its strategy says."""
