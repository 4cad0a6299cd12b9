"""Tools of single chapters: each runs in a process of its own, where Triton interprets or torch.compile compiles."""
