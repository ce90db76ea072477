"""The OpenStack target: servers and networks made by Pulumi, looked for by mark in the raw APIs."""
