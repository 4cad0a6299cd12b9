"""Describe a machine by the three numbers that a roofline needs: bytes per second, FLOP per second, bytes.

Source of the model: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model",
CACM 52(4), 2009. The figures are either measured (`probe`) or printed by the maker (`known_gpus`); `source`
says which, because a maker's peak and a measured rate differ by 10-40 % and must not be compared unawares.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_SCATTER = 1.5  # highest over lowest value of a figure; above it, something else was using the machine


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One processor with its memory. Rates in bytes/s and FLOP/s (a multiply-add is 2 FLOP), sizes in bytes.

    `matmul_rate` is keyed by torch's dtype names ("float32", "bfloat16", "float8_e4m3fn", "int8", ...) and
    holds only what the machine can do. `copy_bandwidth` counts the bytes read and the bytes written.
    `spread` gives (lowest, highest) seen for each measured figure, keyed "read", "copy" or the dtype; it is
    empty for a data sheet.

    Raises ValueError when a figure is not a positive, finite number.
    """

    name: str
    device: str
    read_bandwidth: float
    copy_bandwidth: float
    matmul_rate: Mapping[str, float]
    memory_bytes: int
    measured: bool
    source: str
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        figures = {"read_bandwidth": self.read_bandwidth, "copy_bandwidth": self.copy_bandwidth}
        figures |= {"memory_bytes": self.memory_bytes, **self.matmul_rate}
        for name, value in figures.items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}={value} of {self.name}: must be a positive number")

    def rate(self, dtype: str) -> float:
        """Return the matmul rate for `dtype` in FLOP/s. Raises ValueError with the known dtypes if there is none."""
        if dtype not in self.matmul_rate:
            raise ValueError(
                f"{self.name} has no matmul rate for {dtype!r}; it has {', '.join(self.matmul_rate)}"
            )
        return self.matmul_rate[dtype]

    @property
    def doubtful(self) -> list[str]:
        """Return the figures, as named in `spread`, whose values scatter by more than a factor of 1.5."""
        return [name for name, (low, high) in self.spread.items() if high > MOST_SCATTER * low]
