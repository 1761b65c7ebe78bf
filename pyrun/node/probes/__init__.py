"""Probes and hooks, carried out: what a container's handler says, asked from the node by the pod's address.

When they run, and what their results come to, is the planner's (node/plan/probes.py). A peer is a stranger: all that it
may send, and all the time that it may take, is bounded.
"""

from .prober import Exec, Prober
from .result import Result, Target, Took
from .spread import spread
from .steady import Steady, Watch, asked_of

__all__ = ["Exec", "Prober", "Result", "Steady", "Target", "Took", "Watch", "asked_of", "spread"]
