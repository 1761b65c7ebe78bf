"""The RPCs of RuntimeService."""
