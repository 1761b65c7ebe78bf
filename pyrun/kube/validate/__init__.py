"""PURE: the rules that Kubernetes 1.37 has beyond its types (pkg/apis/core/validation), all faults at once.

`validate_object()` is the face. Rules look at an object after its defaults (`kube/defaults.py`), as the API
server's do. What is valid and not in this node is `pyrun/node/supported.py`'s.
"""
