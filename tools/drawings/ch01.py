"""Chapter 01: the loop of steps, a decoder block, attention on four tokens, rotating pairs, a draw."""

import math
from collections.abc import Sequence

from tools.drawings.canvas import Canvas

WORDS = ("the", "fox", "ran", "it")
QUERIES = ((0, 0, 0, 1), (0, 0, 1, 0), (2, 0, 1, 0), (3, 1, 0, 0))
KEYS = ((0, 0, 2, 0), (2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 0, 2))
VALUES = ((0, 2, 0, 0), (4, 0, 1, 0), (0, 0, 2, 4), (0, 1, 0, 0))


def loop() -> Canvas:
    """The loop around the model, and the tokens that its first steps compute."""
    canvas = Canvas(
        780, 316, "The loop: ids go into the model, logits come out, the sampler chooses, the text grows"
    )
    canvas.box(20, 40, 104, 44, ("text", "Once upon a"), bold=True, size=12)
    canvas.box(160, 40, 100, 44, ("tokenizer", "text to ids"), bold=True, size=12)
    canvas.box(338, 40, 100, 44, ("model", "L blocks"), bold=True, size=12)
    canvas.box(540, 40, 104, 44, ("sampler", "chooses one"), bold=True, size=12)
    canvas.box(690, 40, 70, 44, "time", colour="decode", bold=True)
    for start, end in ((126, 158), (262, 336), (440, 538), (646, 688)):
        canvas.arrow((start, 62), (end, 62))
    canvas.text(298, 48, "ids [T]", size=11.5, anchor="middle", ink="faint")
    canvas.text(488, 48, "logits [T, vocab]", size=11, anchor="middle", ink="faint")
    canvas.text(488, 76, "last row", size=11, anchor="middle", ink="faint")
    canvas.arrow((725, 86), (725, 112), (72, 112), (72, 87))
    canvas.text(400, 102, "append the new token, and do it again", size=12, anchor="middle", ink="faint")
    rows = (
        ("step 1: prefill", (), ("Once", "upon", "a"), "prefill", "time"),
        ("step 2: decode", ("Once", "upon", "a"), ("time",), "decode", ","),
        ("step 3: decode", ("Once", "upon", "a", "time"), (",",), "decode", "there"),
    )
    for row, (name, kept, computed, kind, new) in enumerate(rows):
        y = 140 + row * 42
        canvas.text(20, y + 15, name, size=12.5, bold=True)
        for column, word in enumerate((*kept, *computed)):
            colour = "kv" if column < len(kept) else kind
            canvas.box(160 + column * 68, y, 64, 30, word, colour=colour, size=12)
        canvas.arrow((160 + 5 * 68 + 4, y + 15), (540, y + 15))
        canvas.text(548, y + 15, new, size=13, bold=True)
    canvas.key(160, 284, "prefill", "computed, many at once")
    canvas.key(340, 284, "decode", "computed, one token")
    canvas.key(500, 284, "kv", "kept from earlier steps")
    return canvas


def block() -> Canvas:
    """The residual stream on the left, and the two parts of a block that add to it."""
    canvas = Canvas(
        780,
        490,
        "A decoder block: attention and MLP each read the residual stream and add their result to it",
    )
    canvas.box(24, 18, 116, 38, ("embedding", "of ids [T]"), bold=True, size=12)
    canvas.arrow((82, 58), (82, 422))
    canvas.text(96, 72, "x [T, hidden]: the residual stream", size=12, ink="faint")
    for start, end in (
        ((14, 90), (766, 90)),
        ((766, 90), (766, 400)),
        ((766, 400), (14, 400)),
        ((14, 400), (14, 90)),
    ):
        canvas.line(*start, *end, dashed=True)
    canvas.text(752, 110, "one block of L", size=12.5, bold=True, anchor="end")
    _part(
        canvas,
        top=112,
        title="attention: each token reads from itself and from earlier tokens",
        boxes=(
            (116, 52, ("norm",), ""),
            (190, 104, ("Wq  Wk  Wv", "three products"), ""),
            (386, 76, ("RoPE", "on q and k"), ""),
            (482, 116, ("attention", "softmax(q·k) · v"), ""),
            (690, 60, ("W_o",), ""),
        ),
        notes=((340, "q [T, H, D]", "k, v [T, H_kv, D]"), (644, "[T, H, D]", "")),
    )
    _part(
        canvas,
        top=256,
        title="MLP: each token by itself",
        boxes=(
            (116, 52, ("norm",), ""),
            (190, 104, ("W_gate  W_up", "two products"), ""),
            (386, 126, ("SwiGLU", "silu(gate) × up"), ""),
            (690, 60, ("W_down",), ""),
        ),
        notes=((340, "gate, up", "[T, M] each"), (600, "[T, M]", "")),
    )
    canvas.box(24, 424, 116, 44, ("norm", "after the last block"), bold=True, size=11)
    canvas.box(214, 424, 120, 44, ("W_head", "[hidden, vocab]"), bold=True, size=12)
    canvas.arrow((142, 446), (212, 446))
    canvas.arrow((336, 446), (392, 446))
    canvas.text(400, 446, "logits [T, vocab]", size=13, bold=True)
    return canvas


def _part(
    canvas: Canvas,
    *,
    top: float,
    title: str,
    boxes: Sequence[tuple[float, float, Sequence[str], str]],
    notes: Sequence[tuple[float, str, str]],
) -> None:
    """One half of a block: from the stream to the right through the boxes, and back to a plus on the stream.

    A box is (x, width, lines, colour). A note is (x, the words above the arrow, the words below it).
    """
    y = top + 46
    canvas.text(116, top + 4, title, size=12.5, bold=True)
    before = 82.0
    for x, width, lines, colour in boxes:
        canvas.arrow((before, y), (x - 2, y))
        canvas.box(x, y - 22, width, 44, lines, size=11.5, bold=True, colour=colour)
        before = x + width + 2
    for x, above, below in notes:
        canvas.text(x, y - 11, above, size=10.5, anchor="middle", ink="faint")
        canvas.text(x, y + 13, below, size=10.5, anchor="middle", ink="faint")
    last, width = boxes[-1][0], boxes[-1][1]
    canvas.arrow((last + width / 2, y + 24), (last + width / 2, y + 66), (96, y + 66))
    canvas.box(70, y + 54, 24, 24, "+", round_=12, size=16, bold=True)
    canvas.text(400, y + 55, "[T, hidden], added to the stream", size=11, anchor="middle", ink="faint")


def attention() -> Canvas:
    """Q, K and V of four tokens with four numbers each, the scores, the weights and the outputs."""
    scores = [
        [sum(a * b for a, b in zip(q, k, strict=True)) / 2 for k in KEYS[: t + 1]]
        for t, q in enumerate(QUERIES)
    ]
    weights = [[math.exp(s) / sum(map(math.exp, row)) for s in row] for row in scores]
    outputs = [
        [sum(w * v[d] for w, v in zip(row, VALUES, strict=False)) for d in range(4)] for row in weights
    ]
    canvas = Canvas(
        800, 258, "Attention of four tokens: scores q·k / 2, a softmax gives weights, weights times values"
    )
    for t, word in enumerate(WORDS):
        canvas.text(40, 71 + t * 34, word, bold=True, anchor="end")
    _matrix(canvas, 48, 20, "Q", QUERIES, "")
    _matrix(canvas, 144, 20, "K", KEYS, "kv")
    _matrix(canvas, 262, 32, "scores", scores, "")
    _matrix(canvas, 428, 36, "weights", weights, "")
    _matrix(canvas, 590, 20, "V", VALUES, "kv")
    _matrix(canvas, 690, 25, "output", outputs, "")
    for x, words in (
        (136, ("·",)),
        (243, ("q·k", "÷ √4")),
        (409, ("soft-", "max")),
        (581, ("·",)),
        (680, ("=",)),
    ):
        for number, line in enumerate(words):
            canvas.text(x, 115 + number * 15, line, size=11.5, anchor="middle", ink="faint")
    for left, cell in ((262, 32), (428, 36)):
        for column, word in enumerate(WORDS):
            canvas.text(left + cell / 2 + column * cell, 201, word, size=11, anchor="middle", ink="faint")
    canvas.key(48, 234, "waste", "masked: no token sees a later one")
    canvas.key(300, 234, "kv", "kept in the KV cache")
    canvas.text(482, 234, "the sum of each row of weights is 1", size=11.5, ink="faint")
    return canvas


def _matrix(
    canvas: Canvas, left: float, cell: float, title: str, rows: Sequence[Sequence[float]], colour: str
) -> None:
    """Four rows of four cells; a missing cell is grey."""
    canvas.text(left + 2 * cell, 34, title, size=12.5, bold=True, anchor="middle")
    digits = {"weights": ".2f", "output": ".1f"}.get(title, "g")
    for t, row in enumerate(rows):
        for column in range(4):
            x, y = left + column * cell, 54 + t * 34
            if column < len(row):
                canvas.box(x, y, cell - 2, 30, f"{row[column]:{digits}}", colour=colour, size=11, round_=3)
            else:
                canvas.box(x, y, cell - 2, 30, colour="waste", round_=3)


def rope() -> Canvas:
    """Three pairs as clock hands at six positions."""
    positions = (0, 1, 2, 10, 50, 100)
    canvas = Canvas(
        740, 330, "Rotating pairs: at each position, each pair of numbers has rotated like a clock hand"
    )
    canvas.text(130, 26, "position", size=12, ink="faint", anchor="end")
    for column, position in enumerate(positions):
        canvas.text(190 + column * 94, 26, str(position), bold=True, anchor="middle")
    for row, (name, speed) in enumerate((("pair 0", 1.0), ("pair 1", 0.1), ("pair 2", 0.01))):
        y = 82 + row * 92
        canvas.text(20, y - 10, name, bold=True)
        canvas.text(20, y + 8, f"{math.degrees(speed):.3g}° per token", size=12, ink="faint")
        for column, position in enumerate(positions):
            x, angle = 190.0 + column * 94, speed * position
            canvas.box(x - 34, y - 34, 68, 68, round_=34)
            canvas.line(x, y, x + 30, y, dashed=True)
            canvas.arrow((x, y), (round(x + 30 * math.cos(angle), 2), round(y - 30 * math.sin(angle), 2)))
    return canvas


def draw() -> Canvas:
    """Four probabilities end to end on a line, with a temperature and with top-p, and where u points."""
    words, logits = ("small", "little", "big", "young"), (3.0, 2.0, 1.0, 0.0)
    canvas = Canvas(
        760, 268, "Sampling: probabilities end to end on a line from 0 to 1, and u points at one token"
    )

    def shares(temperature: float, number: int) -> list[float]:
        powers = [math.exp(logit / temperature) for logit in logits[:number]]
        return [power / sum(powers) for power in powers]

    rows = (("temperature 1", shares(1, 4)), ("temperature 0.5", shares(0.5, 4)), ("top-p 0.9", shares(1, 3)))
    left, width = 150, 590
    for row, (name, probs) in enumerate(rows):
        y, x = 30 + row * 66, float(left)
        canvas.text(20, y + 17, name, size=12.5, bold=True)
        for word, p in zip(words, probs, strict=False):
            label = (word, f"{p:.2f}") if p > 0.05 else ""
            canvas.box(x, y, max(p * width - 2, 1), 36, label, colour="decode", size=11, round_=3)
            x += p * width
    canvas.text(left, 14, "0", size=11, anchor="middle", ink="faint")
    canvas.text(left + width, 14, "1", size=11, anchor="middle", ink="faint")
    at = left + 0.7 * width
    canvas.arrow((at, 232), (at, 20), dashed=True)
    canvas.text(at, 246, "u = 0.7: little, small, little", anchor="middle", bold=True)
    return canvas


DRAWINGS = {
    "01_loop": loop,
    "01_block": block,
    "01_attention": attention,
    "01_rope": rope,
    "01_draw": draw,
}
