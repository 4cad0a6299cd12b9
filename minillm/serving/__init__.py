"""An OpenAI-compatible server over the engine: requests arrive by HTTP, and tokens leave as they are generated."""
