"""The CRI server: what a kubelet, crictl or critest asks of a node's container runtime."""
