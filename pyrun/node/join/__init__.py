"""How a node comes to its credentials in a cluster, and keeps them."""
