"""Chapter 07, four bits: its exercises in words."""

from minillm.course.exercise import Exercise

WORDS = Exercise(
    "07.1",
    "Pack and unpack",
    function="Words",
    points=6,
    minutes=15,
    difficulty=3,
    uses=(),
    hints=(
        "Number j of a row is in word j // 8, at place j % 8. Shift it to the left by 4 bits per place, and combine "
        "the eight numbers of a word with | or +.",
        "int32 has a sign: if the last number of a word is above 7, the word is negative, and >> fills up with ones. "
        "So keep the four lowest bits after the shift: & 15. A row whose length is not a multiple of 8 has a last "
        "word that is not full.",
        "words = torch.zeros(out, ceil(in / 8), dtype=torch.int32); for each j: words[:, j // 8] |= numbers[:, "
        "j].int() << 4 * (j % 8). Back: (words[:, j // 8] >> 4 * (j % 8)) & 15. Weights: (q - 8) * the scale of group "
        "j // (in / groups).",
    ),
)

GPTQ = Exercise(
    "07.2",
    "GPTQ, column by column",
    function="gptq",
    points=7,
    minutes=20,
    difficulty=4,
    uses=(),
    hints=(
        "Make a copy of the weight. Loop over its columns from left to right: round the column as it is now, then "
        "change all later columns of the copy.",
        "U is upper triangular with U^T U = the inverse of the damped H: torch.linalg.cholesky(inverse, upper=True). "
        "Set up H first: 1 on the diagonal where it was 0 (and 0 in these columns of the weight), then add damping "
        "times the mean of the diagonal to the diagonal.",
        "for j: s = scale[:, j // size]; value = (w[:, j] / s).round().clamp(-half, half - 1) * s, with half = 2 ** "
        "(bits - 1); error = (w[:, j] - value) / U[j, j]; w[:, j + 1:] -= torch.outer(error, U[j, j + 1:]); w[:, j] = "
        "value.",
    ),
)

AWQ_SCALES = Exercise(
    "07.3",
    "AWQ's search for scales",
    function="awq_scales",
    points=6,
    minutes=15,
    difficulty=3,
    uses=("minillm.quantization.absmax",),
    hints=(
        "Write a loop over 20 values of alpha. In each round, compute the scales s, the weights that result, and how "
        "far the outputs are from x W^T. Keep the s of the smallest error.",
        "With s, the matrix becomes fake_quantise(W * s) / s. It must be divided again, or the inputs would have to "
        "be. A channel whose inputs are always 0 has s = 0 and would be divided by 0: at least 1e-4.",
        "mean = x.abs().mean(0); for r in range(20): s = (mean ** (r / 20)).clamp(min=1e-4); s = s / (s.max() * "
        "s.min()).sqrt(); w = fake_quantise(weight * s, bits, group_size) / s; loss = (x @ w.T - x @ "
        "weight.T).square().mean().",
    ),
)

INT8_CACHE = Exercise(
    "07.4",
    "An int8 cache with a fork",
    function="Int8Cache",
    points=6,
    minutes=20,
    difficulty=3,
    uses=(),
    hints=(
        "You need four tensors: the numbers of keys and of values in int8, and for both a float32 scale for each token "
        "and head.",
        "The scale of a vector is its largest |x| / 127. Round x / scale before you make int8 of it. A vector of zeros "
        "has the scale 0: do not divide by it. copy_block must copy all four tensors.",
        "write: scale = x.abs().amax(-1) / 127; q = (x / scale.where(scale > 0, 1.0)[..., None]).round(); "
        "numbers.flatten(0, 1)[slots] = q.to(torch.int8), and the same for scale. read: (numbers[table].float() * "
        "scales[table][..., None]).flatten(0, 1)[:seq_len].",
    ),
)
