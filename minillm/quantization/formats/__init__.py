"""Checkpoints that store quantised weights: one file per format, each a scheme that loads its projections."""
