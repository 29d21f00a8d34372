"""Optuna: the record of all trials, edited sweeps, samplers."""
