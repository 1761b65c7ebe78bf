"""Which pods go when the node runs short, pure but for signals.py and usage.py: thresholds, conditions, ranks."""
