"""The two harnesses themselves: what a case returns and raises comes back, and the compiler's report can tell."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has no build for this system")

from tests.kernels import cases_vector
from tests.kernels.interpreter import Worker
from tests.kernels.offline import Compiled


@pytest.mark.parametrize("n", [1, 7, 8, 9])
def test_a_kernel_runs_without_a_gpu(interpreted: Callable[..., Any], n: int) -> None:
    assert interpreted(cases_vector.add, n=n) == 1.0


def test_an_exception_comes_back_as_it_is_and_the_process_goes_on(interpreted: Callable[..., Any]) -> None:
    process = interpreted(cases_vector.where)
    with pytest.raises(ValueError, match="seven") as caught:
        interpreted(cases_vector.fail, "seven")
    assert "in fail" in caught.value.__notes__[0]  # the other side's traceback
    with pytest.raises(RuntimeError, match="can be sent"):
        interpreted(cases_vector.unpicklable)
    assert interpreted(cases_vector.where) == process


def test_a_process_that_ends_or_hangs_is_said_to_have() -> None:
    with Worker({}) as worker, pytest.raises(RuntimeError, match="die: its process ended with status 3"):
        worker.call(cases_vector.die)
    with Worker({}, timeout=0.2) as worker, pytest.raises(RuntimeError, match="killed after"):
        worker.call(cases_vector.hang)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
def test_the_compiler_tells_a_good_launch_from_one_that_spills(
    compiled: Callable[..., list[Compiled]], architecture: int
) -> None:
    (good,) = compiled(cases_vector.add, {"n": 64, "device": "meta"}, architecture)
    assert (good.kernel, good.spills, good.stack, good.shared) == ("add_one", 0, 0, 0)
    assert good.instructions["LDG"] == 1 and good.tensor_core_instructions == 0
    assert good.registers < 32 and good.blocks_per_sm == 16 and good.occupancy == 1.0
    (bad,) = compiled(cases_vector.launch_spilling, {}, architecture)
    assert bad.spills > 0 and bad.stack > 0 and bad.tensor_core_instructions > 0
    assert (bad.instructions["HGMMA"] > 0) == (architecture == 90)
    assert bad.registers == 255 and bad.blocks_per_sm == 2


def test_a_call_that_launches_nothing_is_refused(compiled: Callable[..., list[Compiled]]) -> None:
    with pytest.raises(RuntimeError, match="where launched no kernel"):
        compiled(cases_vector.where, {}, 80)
