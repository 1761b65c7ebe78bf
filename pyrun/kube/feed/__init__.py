"""Where objects come from, for the proxy, the DNS and the node alike: files, an API server, this node's runtime."""
