"""Demo models and data."""
