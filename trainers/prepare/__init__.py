"""Data and model before anything is trained."""
