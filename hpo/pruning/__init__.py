"""Which trial stops now."""
