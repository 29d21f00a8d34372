"""Rows, splits, tokens; formats of files."""
