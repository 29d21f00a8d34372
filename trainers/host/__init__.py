"""Holds the base model, forks a child for every request, answers it."""
