"""The corpus of tinytales: grammar-made stories and the prose that ships with Python."""
