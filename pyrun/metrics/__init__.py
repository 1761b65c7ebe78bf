"""Metrics of a node's pods for those who collect them: Prometheus' text, and the kubelet's summary for metrics-server.

What is said comes from the CRI of whatever runtime the node has; names and labels are cAdvisor's and the kubelet's. The
CRI's own metrics are whole seconds, so where its statistics know the same in nanoseconds, they are taken.
"""
