"""What talks to strangers does it in a process without privileges: how such a process is made, and how it asks the one
that has them."""
