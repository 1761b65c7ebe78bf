"""HTTP as a node's servers speak it: HTTP/1.1 by h11, WebSocket by wsproto, SPDY/3.1 by code of ours (no library has
it).

A leaf: it knows the protocols by which kubectl and the kubelet carry commands and ports, and nothing of containers.
What reads from a peer is bounded in size, number and time, because a peer may be anybody who can reach the port."""
