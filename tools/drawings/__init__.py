"""The course's drawings: one module per chapter, each function one SVG. `python -m tools.drawings` writes them."""
