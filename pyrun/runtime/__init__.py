"""Containers that exist: their store, and the commands that act on them. Imports plan and executor; is imported by
cli."""
