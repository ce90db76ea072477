"""The Kubernetes target: its Pulumi program and its implementation of the Target seam."""
