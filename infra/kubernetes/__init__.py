"""The Kubernetes target: objects applied by Pulumi, looked for by label through the raw API."""
