"""Which point comes next, what is recorded where, which trial won."""
