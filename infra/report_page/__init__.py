"""The report: one HTML page that tells a run from its record, without a network and without a script to read it."""
