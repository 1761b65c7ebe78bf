"""pyrun: a single-node worker in one package, from the OCI runtime up.

The layers, each importing only what stands before it:
errors < oci, facts < plan < executor < runtime < cli.

Python decides and C does: a pure planner turns config.json and the host's facts into a Plan, a list of steps
named after Linux primitives, and a small executor in C carries them out (see ARCHITECTURE.md).
"""

__version__ = "0.1.0"
SPEC_VERSION = "1.3.0"
