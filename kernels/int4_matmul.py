"""W4A16: the product of activations in 16 bits and a weight in 4 bits.

`packed_matmul.py` has the loop; this file takes the numbers out of their words. A word has eight 4-bit numbers:

    bits   31-28  27-24  23-20  19-16  15-12  11-8   7-4    3-0
    number   7      6      5      4      3      2      1      0

Shifting the word right by 4 p and keeping bits 3-0 and 19-16 leaves numbers p and p + 4 in the two halves. A float16
between 1024 and 2048 has steps of one. So setting the bits of 1024 (0x6400) in a half makes its number q the float16
number 1024 + q, and one subtraction for both halves gives q - 8. For bfloat16 the same is true of 128 (0x4300).

These are three instructions for two weights: a shift, `(word & mask) | magic`, which is one LOP3, and a HADD2.

The torch definition is `minillm.ops.int4_matmul`.
"""

import triton
import triton.language as tl
from torch import Tensor

from minillm.kernels.packed_matmul import Format, halves, multiply
from minillm.packed import ZERO_OF_INT4, QuantizedWeight


@triton.jit
def _decode(words, magic, dtype: tl.constexpr):
    """Return the numbers of words [N, W] minus 8, in the order of their pairs: [N, 8 W]."""
    MAGIC: tl.constexpr = 1024.0 if dtype == tl.float16 else 128.0
    MASK: tl.constexpr = 0x000F000F
    even = tl.join((words & MASK) | magic, ((words >> 8) & MASK) | magic)  # pairs 0 and 2
    odd = tl.join(((words >> 4) & MASK) | magic, ((words >> 12) & MASK) | magic)  # pairs 1 and 3
    pairs = tl.join(even, odd).reshape(words.shape[0], 4 * words.shape[1])
    return halves(pairs, dtype) - (MAGIC + 8)


INT4 = Format(_decode, per_word=8, centre=ZERO_OF_INT4, magic=(0x64006400, 0x43004300))


def int4_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b [T, out] for x [T, in] and a weight of 4-bit integers [out, in].

    The rules of `packed_matmul.multiply` apply. Raises ValueError for other inputs.
    """
    if weight.bits != 4:
        raise ValueError(
            f"the weight has numbers of {weight.numbers.dtype}: int4_matmul needs 4 bits (uint8)"
        )
    return multiply(x, weight, bias, INT4)
