"""One YAML file to one `SweepConfig`."""
