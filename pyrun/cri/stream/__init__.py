"""Exec, Attach and PortForward: the CRI answers with a URL that holds for one use, and the server behind it carries the
bytes between the client and a program's descriptors, or a socket that was made in the pod's network namespace."""
