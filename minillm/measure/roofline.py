"""The roofline: the least time that a step can take on a machine, and which of the two roofs limits it.

A step must do its operations and must move its bytes. If both overlap perfectly, it takes as long as the longer of
the two. It is a bound, not a forecast: good kernels reach 60-90 % of it, and launch overhead, which dominates small
models, is not in it. Source: Williams, Waterman, Patterson, CACM 52(4), 2009.
"""

from dataclasses import dataclass
from typing import Literal

from minillm.measure.costs import Cost
from minillm.measure.machine import Machine


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds that the operations take at the machine's peak, and seconds that the bytes take."""

    compute_s: float
    memory_s: float

    @property
    def seconds(self) -> float:
        """Return the bound: the longer of the two."""
        return max(self.compute_s, self.memory_s)

    @property
    def bound(self) -> Literal["compute", "memory"]:
        """Return which of the two it is."""
        return "compute" if self.compute_s >= self.memory_s else "memory"


def time_at(cost: Cost, machine: Machine, dtype: str) -> StepTime:
    """Return the least time for `cost` on `machine`, multiplying in `dtype`, a torch name.

    The format in which weights are *stored* is already in the cost's bytes: int4 weights that are multiplied in
    bfloat16 are `bytes_per_weight=0.5` there and "bfloat16" here. The read bandwidth is used for all bytes, because
    nearly all of them are read. Raises ValueError if the machine has no rate for `dtype`.
    """
    return StepTime(compute_s=cost.flops / machine.rate(dtype), memory_s=cost.bytes / machine.read_bandwidth)


def ridge(machine: Machine, dtype: str) -> float:
    """Return the FLOP per byte where the two roofs meet. Below it a step waits for memory, above it for arithmetic."""
    return machine.rate(dtype) / machine.read_bandwidth
