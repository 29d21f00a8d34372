"""Benchmarks: `make bench` prints the table. No timed assertion: machines differ, ratios and bounds are for readers."""
