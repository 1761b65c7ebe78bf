"""The service proxy and the cluster's DNS in the node's own process: Services of the manifests, pods of the agent."""
