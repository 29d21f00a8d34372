"""A released model: texts in; labels, scores or answers out; `release.py` describes the folder."""
