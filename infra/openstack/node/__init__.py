"""Code that runs on the nodes of an OpenStack cluster. What is needed at boot uses the standard library alone."""
