"""The kubelet's HTTP API: a process without privileges has the port, TLS, HTTP and who may what; it asks the agent,
over a socket that both were born with, for what is told, and for descriptors of commands and ports."""
