"""Images as files: OCI layouts and docker's archives, read and written."""
