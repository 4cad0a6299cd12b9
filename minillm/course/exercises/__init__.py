"""The exercises in words, one module a chapter: names, points, hints. They are read without importing torch."""
