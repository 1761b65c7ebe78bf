"""The RPCs of ImageService."""
