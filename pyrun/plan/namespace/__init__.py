"""Namespaces, joined and new, and what is set in them: id maps, host names, network interfaces."""
