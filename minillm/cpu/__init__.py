"""Fast paths for CPUs, behind the same operations as the kernels for GPUs."""
