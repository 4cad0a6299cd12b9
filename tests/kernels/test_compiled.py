"""Every launch that the package ships, compiled for GPUs that are not here.

No spills, tensor cores, wide loads, and for those that say so loops that prefetch.
"""

from collections.abc import Callable

import pytest

pytest.importorskip("triton", reason="triton has no build for this system")

from tests.kernels.offline import Compiled, Launch, launches


@pytest.mark.parametrize(
    ("launch", "architecture"),
    [
        pytest.param(
            launch,
            architecture,
            id=f"{launch.name}-sm_{architecture}",
            marks=[pytest.mark.slow] if launch.slow else [],
        )
        for launch in launches()
        for architecture in launch.architectures
    ],
)
def test_a_shipped_launch(compiled: Callable[..., list[Compiled]], launch: Launch, architecture: int) -> None:
    for kernel in compiled(launch.function, launch.kwargs, architecture):
        assert (kernel.spills, kernel.stack) == (0, 0), f"{kernel} spills registers"
        assert kernel.blocks_per_sm >= 1, f"{kernel} asks for more than a multiprocessor has"
        assert kernel.instructions["LDG"] <= launch.max_loads, f"{kernel} loads by small pieces"
        if launch.dots and kernel.kernel not in launch.without_dots:
            assert kernel.tensor_core_instructions > 0, f"{kernel} does not use the tensor cores"
            assert kernel.prefetches or not launch.prefetch, (
                f"{kernel} waits for the tile that it has just asked for"
            )
            assert kernel.blocks_per_sm >= launch.least_blocks, f"{kernel} leaves latency bare"
