"""Adapters to the running kernel: one kind of IO per module, no policy."""
