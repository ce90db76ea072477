"""The local target: head and workers as supervised process trees on this machine."""
