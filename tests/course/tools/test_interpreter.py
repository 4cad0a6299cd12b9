"""A kernel in the interpreting process: its result, the bytes that it asks for, and what goes wrong there."""

import pytest
import torch

pytest.importorskip("triton", reason="triton has no build for this system")

from minillm import ops
from minillm.course.tools.interpreter import interpreted, watching

FLASH = "minillm.kernels.flash_attention:flash_attention"


def heads(num_tokens: int, num_heads: int) -> torch.Tensor:
    return torch.randn(1, num_tokens, num_heads, 32, generator=torch.Generator().manual_seed(num_heads))


@pytest.mark.slow
def test_the_result_and_the_bytes_of_a_kernel() -> None:
    num_tokens, num_heads = 40, 4
    q, k, v = heads(num_tokens, 4), heads(num_tokens, 2), heads(num_tokens, 2)
    run = interpreted(FLASH, q, k, v)
    torch.testing.assert_close(run.result, ops.flash_attention(q, k, v))
    row = 32 * 4  # bytes
    # Tiles of 16 rows in float32, the last of 8: queries once, keys and values up to the diagonal.
    keys = 16 + 32 + 40
    assert run.bytes_read == num_heads * (num_tokens + 2 * keys) * row
    assert run.bytes_written == num_heads * num_tokens * (row + 4)  # and a float32 of lse


@pytest.mark.slow
def test_an_error_comes_back_with_its_traceback() -> None:
    q = heads(8, 2)
    with pytest.raises(TypeError, match="must have one dtype") as caught:
        interpreted(FLASH, q.double(), q, q)
    assert "flash_attention.py" in caught.value.__notes__[0]


def test_a_process_that_ends_says_so() -> None:
    with pytest.raises(RuntimeError, match="status 7"):
        interpreted("os:_exit", 7)


def test_a_process_that_never_answers_is_stopped() -> None:
    from subprocess import TimeoutExpired

    with pytest.raises(TimeoutExpired):
        interpreted("time:sleep", 60, timeout=0.5)


def test_only_an_interpreting_process_can_be_watched() -> None:
    with pytest.raises(RuntimeError, match="needs TRITON_INTERPRET=1"), watching(lambda *_: None):
        pass
