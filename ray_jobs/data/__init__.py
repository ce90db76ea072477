"""Data on its way to a job: patience with stores, caches of nodes and sites, manifests, checks before it is copied."""
