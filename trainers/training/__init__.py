"""One trial from its first step to its last."""
