"""Faster definitions of some operations for CPUs, as kernels/ has them for GPUs. `ops.ops_for` chooses among them."""
