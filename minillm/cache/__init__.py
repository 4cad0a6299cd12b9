"""Chapters 3, 4 and 9: where the keys and values of past tokens are kept."""
