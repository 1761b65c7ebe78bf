"""The node agent: pods from files, kept as they should be. `plan/` decides, and is pure; the rest carries out."""
