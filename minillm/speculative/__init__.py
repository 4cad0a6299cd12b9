"""Chapter 10: speculative decoding. Each file has one way to propose drafts, which the engine verifies."""
