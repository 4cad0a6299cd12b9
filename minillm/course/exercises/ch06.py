"""Chapter 06, eight bits: its exercises in words."""

from minillm.course.exercise import Exercise

QUANTISE_ROWS = Exercise(
    "06.1",
    "Quantise a matrix row by row",
    function="quantise_rows",
    points=5,
    minutes=10,
    difficulty=2,
    uses=(),
    hints=(
        "Each row has a scale of its own. Which number decides how wide the steps of a row must be?",
        "The steps are max |w| / 127.5 wide, so that 127.5 steps reach the largest weight. A weight / scale is "
        "rounded to the nearest integer. int8 holds -128 to 127, and 128 would become -128. A row of zeros has "
        "the scale 0, and 0 / 0 is NaN.",
        "scale = weight.abs().amax(1) / 127.5; steps = weight / scale.where(scale > 0, 1.0)[:, None]; return "
        "steps.round().clamp(-128, 127).to(torch.int8), scale",
    ),
)

W8A8_LINEAR = Exercise(
    "06.2",
    "A product of 8-bit numbers",
    function="w8a8_linear",
    points=7,
    minutes=15,
    difficulty=3,
    uses=(),
    hints=(
        "Quantise x as you quantised the rows of a weight: a token is a row. What is then the sum of q_x · q_w, "
        "and what is left to multiply?",
        "s_x[t] is the same for all columns of token t, and s_w[o] for all columns of row o. So both can be "
        "multiplied after the sum. A product of two numbers can be 16,384, so a sum needs more than 16 bits. "
        "int32 and float64 hold it exactly. bfloat16 does not.",
        "s_x = x.abs().amax(1) / 127.5; q_x = (x / s_x.where(s_x > 0, 1.0)[:, None]).round().clamp(-128, 127); "
        "return (q_x.int() @ q_w.int().T).float() * s_x[:, None] * s_w",
    ),
)

SMOOTH_SCALES = Exercise(
    "06.3",
    "The scales of SmoothQuant",
    function="smooth_scales",
    points=5,
    minutes=10,
    difficulty=2,
    uses=(),
    hints=(
        "A channel is a column of x and a column of the weight. Which axis do the two maxima run along?",
        "s = max|x|^alpha / max|w|^(1 - alpha), for each channel. With alpha = 0.5 the maxima of both sides "
        "become equal. A channel in which x or w is zero everywhere has nothing to move, and the formula gives "
        "0 or an infinity there.",
        "x_max, w_max = x.abs().amax(0), weight.abs().amax(0); s = x_max**alpha / w_max ** (1 - alpha); return "
        "s.masked_fill((x_max == 0) | (w_max == 0), 1.0)",
    ),
)
