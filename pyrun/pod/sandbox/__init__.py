"""A pod's sandbox: the namespaces that its containers share, pinned, and what belongs to the pod as a whole."""

from .sandbox import Sandbox, complete_sandbox, end_sandbox, load_sandbox, make_sandbox, make_scope, prepare_state

__all__ = ["Sandbox", "complete_sandbox", "end_sandbox", "load_sandbox", "make_sandbox", "make_scope", "prepare_state"]
