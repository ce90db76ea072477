"""The command line: one verb a file, and the console, the only place that prints."""
