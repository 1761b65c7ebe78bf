"""A client of registries (OCI distribution-spec): where to ask, as whom, and how to get bytes that may be wrong."""
