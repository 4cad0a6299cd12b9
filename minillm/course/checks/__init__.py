"""The exercises' checks, one module a chapter. Only the worker, which has torch, imports them."""
