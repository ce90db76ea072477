"""What runs on the nodes of a cluster, on OpenStack and Kubernetes alike."""
