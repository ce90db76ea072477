"""Code that runs in the pods of a Kubernetes cluster."""
