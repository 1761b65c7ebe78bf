"""What the container's process is: identity, capabilities, seccomp, hooks around it."""
