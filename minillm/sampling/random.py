"""Random numbers without a state: Philox4x32-10, a function of (seed, position, stream).

With a stateful generator, the numbers of a request depend on the other requests in the batch. A counter-based generator
gives token `position` of a sample its own number. The batch, the chunks of the prompt and preemption do not change it.
Philox is ten rounds of multiply and exclusive-or over four 32-bit words: a block cipher without its security, which
keeps the mixing and the speed.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), section 3.3.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
# Each round adds these to the key: the golden ratio and sqrt(3) - 1, as 32-bit fractions.
_WEYL = np.array([[0x9E3779B9], [0xBB67AE85]], dtype=np.uint64)
_SCHEDULE = np.arange(_ROUNDS, dtype=np.uint64)[:, None, None] * _WEYL  # [10, 2, 1]

# The last word of the counter separates numbers drawn from a seed from seeds derived from one.
_DRAWS, _SEEDS = 0, 1


class Stream(IntEnum):
    """The purposes of random numbers. Each has an independent number at every position."""

    SAMPLE = 0
    DRAFT = 1
    ACCEPT = 2
    RESIDUAL = 3
    BONUS = 4


def philox(counter: NDArray[np.uint64], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix `counter` [4, R] under `key` [2, R] and return [4, R]. All are 32-bit words stored in uint64."""
    keys = (key + _SCHEDULE) & _LOW  # [10, 2, R]
    even, odd = counter[0::2], counter[1::2]  # words 0 and 2, words 1 and 3: [2, R]
    for round_key in keys:
        product = even * _MULTIPLIERS
        # The halves change places: the high word of one product meets the odd word and the key of the other.
        even = (product >> _HALF)[::-1] ^ odd ^ round_key
        odd = (product & _LOW)[::-1]
    return np.stack((even, odd), axis=1).reshape(4, -1)


def _philox64(
    seeds: Sequence[int] | NDArray[np.uint64],
    indices: Sequence[int] | NDArray[np.int64],
    stream: int,
    purpose: int,
) -> NDArray[np.uint64]:
    """Return 64 random bits [R] from 64-bit `seeds` [R] (the key) and 64-bit `indices` [R] (half of the counter)."""
    key, index = np.asarray(seeds, dtype=np.uint64), np.asarray(indices, dtype=np.uint64)
    if key.shape != index.shape or key.ndim != 1:
        raise ValueError(
            f"seeds {key.shape} and positions {index.shape} must be two flat lists of one length"
        )
    counter = np.empty((4, len(key)), dtype=np.uint64)
    counter[0], counter[1], counter[2], counter[3] = index & _LOW, index >> _HALF, stream, purpose
    low, high, _, _ = philox(counter, np.stack((key & _LOW, key >> _HALF)))
    return np.asarray(low | high << _HALF, dtype=np.uint64)


def uniform(
    seeds: Sequence[int] | NDArray[np.uint64], positions: Sequence[int] | NDArray[np.int64], stream: Stream
) -> NDArray[np.float64]:
    """Return one number in [0, 1) for each row: float64 [R], a multiple of 2**-53.

    `seeds` [R] are unsigned 64-bit, `positions` [R] are absolute positions of the tokens to draw. Raises
    `ValueError` if their lengths differ and `OverflowError` if one is negative or over 64 bits.
    """
    # A float64 holds 53 bits. More would sometimes round up to 1.0.
    return np.ldexp((_philox64(seeds, positions, stream, _DRAWS) >> np.uint64(11)).astype(np.float64), -53)


def derive_seed(llm_seed: int, arrival_index: int) -> int:
    """Return the 64-bit seed of a request without one, from the engine's seed and the number of earlier requests."""
    return int(_philox64([llm_seed % 2**64], [arrival_index], 0, _SEEDS)[0])


def sample_seed(seed: int, i: int) -> int:
    """Return the seed of sample `i` of a request's `n`: seed + i, modulo 2**64."""
    return (seed + i) % 2**64
