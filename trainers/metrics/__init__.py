"""Metrics from per-row results."""
