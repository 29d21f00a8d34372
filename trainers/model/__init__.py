"""The base model, adapters, methods."""
