"""Images: what they are called, where they come from, and how they lie on the disk."""
