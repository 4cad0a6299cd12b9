"""The live pictures: each a function from a trace or from numbers to a figure. One file a chapter's picture."""
