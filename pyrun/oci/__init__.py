"""config.json of the OCI runtime spec 1.3 (Linux): read, checked, and made into immutable values."""
