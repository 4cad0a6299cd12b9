"""Weights in fewer bits: how they are rounded, chosen, stored, and multiplied (chapters 6 and 7)."""
