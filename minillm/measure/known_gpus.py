"""Figures of GPUs from their data sheets: dense matmul rates, memory bandwidth, memory.

Data sheets begin with rates "with sparsity". These are twice the dense rates, and only weights pruned 2:4 reach them.
Every rate here is dense. float32 is the ordinary (CUDA-core) rate, not TF32.
"""

from minillm.measure.machine import Machine

_TERA = 1e12
# "80 GB" of GPU memory on a data sheet is 80 GiB: nvidia-smi reports 81,920 MiB on an A100 and 143,771 MiB
# (140.4 GiB) on a "141 GB" H200. Bandwidths, however, are decimal.
_GIB = 2**30


def _gpu(name: str, bandwidth: float, memory_gib: int, rates: dict[str, float], source: str) -> Machine:
    """Return a Machine with figures of a data sheet: one `bandwidth` for all traffic in TB/s, `rates` in TFLOP/s."""
    return Machine(
        name=name,
        device="cuda",
        read_bandwidth=bandwidth * _TERA,
        copy_bandwidth=bandwidth * _TERA,
        matmul_rate={dtype: rate * _TERA for dtype, rate in rates.items()},
        memory_bytes=memory_gib * _GIB,
        measured=False,
        source=source,
    )


# H100 and H200 have the same GH100 die at the same clocks; they differ only in memory.
_HOPPER_RATES = {
    "float32": 66.9,
    "bfloat16": 989.4,
    "float16": 989.4,
    "float8_e4m3fn": 1978.9,
    "int8": 1978.9,
}

KNOWN_GPUS = {
    "A100": _gpu(
        "NVIDIA A100 80GB SXM",
        2.039,
        80,
        {"float32": 19.5, "bfloat16": 312, "float16": 312, "int8": 624},
        "NVIDIA A100 Tensor Core GPU Datasheet (1758950): A100 80GB SXM column, without sparsity",
    ),
    "H100": _gpu(
        "NVIDIA H100 SXM",
        3.35,
        80,
        _HOPPER_RATES,
        "rates: NVIDIA H100 Tensor Core GPU Architecture (whitepaper), H100 SXM5 column, dense; "
        "bandwidth and memory: NVIDIA H100 Tensor Core GPU Datasheet",
    ),
    "H200": _gpu(
        "NVIDIA H200 SXM",
        4.8,
        141,
        _HOPPER_RATES,
        "bandwidth and memory: NVIDIA H200 Tensor Core GPU Datasheet, H200 SXM column; "
        "rates: as H100 SXM (the sheet prints them rounded, with sparsity: 1,979 / 3,958)",
    ),
    # Announced with 192 GB at 8 TB/s. The shipped part has a 7,680-bit bus (as its driver reports), hence 180 and 7.7.
    "B200": _gpu(
        "NVIDIA B200 (HGX)",
        7.7,
        180,
        {"float32": 75, "bfloat16": 2250, "float16": 2250, "float8_e4m3fn": 4500, "int8": 4500},
        "NVIDIA Blackwell Datasheet, HGX B200 column, per GPU; rates halved from those with sparsity",
    ),
    # GeForce cards halve the 16-bit and 8-bit float rates when accumulating in float32, as inference does.
    "RTX 4090": _gpu(
        "NVIDIA GeForce RTX 4090",
        1.008,
        24,
        {"float32": 82.6, "bfloat16": 165.2, "float16": 165.2, "float8_e4m3fn": 330.3, "int8": 660.6},
        "NVIDIA Ada GPU Architecture (whitepaper), appendix A, RTX 4090 column: with FP32 accumulate, dense",
    ),
}
