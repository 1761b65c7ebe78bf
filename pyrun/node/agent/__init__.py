"""What carries the planner's actions out: a pod's actor, all actors of a node, where pods come from, who asks."""
