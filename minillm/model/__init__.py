"""Chapter 1: the decoder, its checkpoint, its tokenizer, and the families it can be."""
