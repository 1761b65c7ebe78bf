"""PURE: `plan_pod(desired, observed, node, now) → Decision`: what is to be done for a pod now, when to look again, and
what its status is. Times are seconds since 1970; nothing here reads a clock or the host."""
