"""Training jobs that run on the cluster, and what they share; nothing here imports the client side of dhctl."""
