"""A champion becomes a measured, registered model."""
