"""Data stores by name, who may use their data where, and the verbs of a data manager."""
