"""Images: references, registries, the store, and layers that become directories."""
