"""Pulumi programs, one folder a target, and the table that finds a target by its name."""
