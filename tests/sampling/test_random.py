import numpy as np
import pytest
from scipy import stats

from minillm.sampling.random import Stream, derive_seed, philox, sample_seed, uniform

ONES = 0xFFFFFFFF

# The vectors that come with the authors' library, Random123 (kat_vectors, philox4x32 with 10 rounds).
KNOWN_ANSWERS = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([ONES] * 4, [ONES] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def columns(vectors):
    return np.array(vectors, dtype=np.uint64).T


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, answer):
    assert philox(columns([counter]), columns([key]))[:, 0].tolist() == answer


def test_philox_gives_the_same_for_many_rows_at_once():
    counters, keys, answers = (columns(part) for part in zip(*KNOWN_ANSWERS, strict=True))
    assert philox(counters, keys).tolist() == answers.tolist()


def test_a_number_is_the_top_53_bits_of_the_first_two_words():
    high, low = 0xE169C58D, 0x6627E8D5
    assert uniform([0], [0], Stream.SAMPLE)[0] == ((high << 32 | low) >> 11) / 2**53


def test_all_64_bits_of_seed_and_position_count():
    numbers = {
        float(uniform([seed], [position], Stream.SAMPLE)[0])
        for seed in (1, 1 + 2**32, 1 + 2**63)
        for position in (1, 1 + 2**32, 1 + 2**62)
    }
    assert len(numbers) == 9


def test_a_row_does_not_depend_on_its_company():
    seeds, positions = np.arange(64, dtype=np.uint64), np.arange(64)[::-1]
    together = uniform(seeds, positions, Stream.DRAFT)
    alone = [uniform([int(s)], [int(p)], Stream.DRAFT)[0] for s, p in zip(seeds, positions, strict=True)]
    assert together.tolist() == alone


@pytest.mark.parametrize("stream", Stream)
def test_numbers_are_uniform(stream):
    """Kolmogorov-Smirnov over 50,000 consecutive positions: a bias of 1% of the line would have p < 1e-4."""
    numbers = uniform(np.full(50_000, 12345, dtype=np.uint64), np.arange(50_000), stream)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 0.001
    assert stats.kstest(numbers * 0.99, "uniform").pvalue < 0.001


def correlation(a, b):
    return abs(np.corrcoef(a, b)[0, 1])


def test_streams_seeds_and_positions_are_independent():
    """Between 20,000 pairs of independent numbers a correlation of 0.035 lies five standard deviations out."""
    positions, seed = np.arange(20_000), np.full(20_000, 7, dtype=np.uint64)
    series = [uniform(seed, positions, stream) for stream in Stream]
    series.append(uniform(seed + np.uint64(1), positions, Stream.SAMPLE))
    series.append(uniform(seed, positions + 1, Stream.SAMPLE))
    series.append(uniform(np.arange(20_000, dtype=np.uint64), np.full(20_000, 3), Stream.SAMPLE))
    pairs = [(a, b) for a in range(len(series)) for b in range(a)]
    assert max(correlation(series[a], series[b]) for a, b in pairs) < 0.035


def test_derived_seeds_are_all_different_and_evenly_spread():
    seeds = [derive_seed(llm_seed, arrival) for llm_seed in range(20) for arrival in range(100)]
    assert len(set(seeds)) == 2000
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert stats.kstest(np.array(seeds) / 2**64, "uniform").pvalue > 0.001
    # Each of the 64 bits is set in half of them, within five standard deviations.
    bits = (np.array(seeds, dtype=np.uint64)[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / 2000**0.5


def test_a_derived_seed_is_no_number_of_its_own_stream():
    assert all(
        derive_seed(0, i) >> 11 != int(uniform([0], [i], stream)[0] * 2**53)
        for i in range(9)
        for stream in Stream
    )


def test_the_samples_of_a_request_have_consecutive_seeds_and_wrap():
    assert [sample_seed(5, i) for i in range(3)] == [5, 6, 7]
    assert sample_seed(2**64 - 1, 1) == 0


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        uniform([1, 2], [1], Stream.SAMPLE)
    with pytest.raises(OverflowError):
        uniform([-1], [1], Stream.SAMPLE)
