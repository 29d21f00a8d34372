"""Trains one trial, knows nothing of sweeps."""
