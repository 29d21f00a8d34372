"""Keeps trials running on the machine's slots."""
