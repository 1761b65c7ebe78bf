"""gRPC over a unix socket: grpclib, with our errors as status codes and what a daemon needs besides."""
