"""Chapter 03: what a cache saves, what it keeps, the position of a cached step, and shared KV heads."""

from math import cos, pi, sin

from tools.drawings.canvas import Canvas

WORDS = ("Once", "upon", "a", "time", "there", "was")


def recomputed() -> Canvas:
    """Three steps of one text, without and with a cache: the tokens that each step computes."""
    canvas = Canvas(
        740, 268, "Three steps without a cache compute 4 + 5 + 6 tokens; with a cache they compute 4 + 1 + 1"
    )
    for left, title, cached in (
        (20, "no cache: 15 tokens computed", False),
        (390, "KV cache: 6 tokens", True),
    ):
        canvas.text(left, 24, title, bold=True)
        for row, step in enumerate((4, 5, 6)):
            y = 64 + row * 52
            canvas.text(left, y - 9, f"step {row + 1}", size=11, ink="faint")
            for column in range(step):
                kept = cached and column < step - 1 and row > 0
                colour = "kv" if kept else "decode" if cached and row > 0 else "prefill"
                canvas.box(left + column * 55, y, 52, 28, WORDS[column], colour=colour, size=12)
    canvas.key(20, 240, "prefill", "computed: many tokens in one step (prefill)")
    canvas.key(320, 240, "decode", "computed: one token (decode)")
    canvas.key(535, 240, "kv", "kept: K and V are only read")
    return canvas


def rows() -> Canvas:
    """The cache of one request: a row for each token, K and V in each layer."""
    canvas = Canvas(
        770,
        316,
        "The cache of one request: in each layer a tensor K and a tensor V with one row for each token",
    )
    tops = [62 + 24 * row for row in range(8)]
    names = ("Once", "upon", "a", "time", "there", "", "", "")
    for row, (y, name) in enumerate(zip(tops, names, strict=True)):
        canvas.text(72, y + 10, name, size=12, anchor="end")
        canvas.text(92, y + 10, str(row), size=11, ink="faint", anchor="middle")
    canvas.text(72, 44, "token", size=11, ink="faint", anchor="end")
    canvas.text(92, 44, "row", size=11, ink="faint", anchor="middle")
    for number, left in enumerate((112, 280, 490)):
        layer = ("layer 0", "layer 1", "layer 5")[number]
        canvas.text(left + 70, 20, layer, bold=True, anchor="middle")
        for side, tensor in enumerate("KV"):
            x = left + side * 72
            canvas.text(x + 33, 44, tensor, size=12, anchor="middle")
            for row, y in enumerate(tops):
                colour = "kv" if row < 4 else "decode" if row == 4 else "waste"
                canvas.box(x, y, 66, 21, colour=colour, size=11, round_=3)
    canvas.text(456, 150, "…", size=22, anchor="middle")
    canvas.arrow((664, tops[4] + 10), (638, tops[4] + 10))
    canvas.text(668, tops[4] + 3, "this step", size=11.5)
    canvas.text(668, tops[4] + 18, "writes row 4", size=11.5)
    canvas.key(112, 274, "kv", "written by earlier steps, read now")
    canvas.key(344, 274, "decode", "written by this step")
    canvas.key(500, 274, "waste", "reserved, not used yet")
    canvas.text(112, 299, "One row of K is H_kv · D numbers, and so is one row of V.", size=11.5, ink="faint")
    return canvas


def rope_position() -> Canvas:
    """A decode step's token is token 0 of the step and token 10 of the text."""
    canvas = Canvas(
        740,
        330,
        "A decode step: its one token is token 0 of the step, but token 10 of the text, and RoPE uses 10",
    )
    words = ("Once", "upon", "a", "time", "there", "was", "a", "little", "girl", "who", "lived")
    canvas.text(20, 24, "RoPE rotates a pair of numbers by 30° × the position in the text", bold=True)
    canvas.text(58, 58, "position", size=11, ink="faint", anchor="end")
    for position, word in enumerate(words):
        x = 70 + position * 60
        last = position == 10
        canvas.text(x + 26, 58, str(position), size=12, anchor="middle", bold=last)
        canvas.box(x, 70, 54, 28, word, colour="decode" if last else "kv", size=12)
        _dial(canvas, x + 27, 128, 30 * position)
        canvas.text(x + 27, 162, f"{30 * position}°", size=11, ink="faint", anchor="middle")
    canvas.text(
        370,
        188,
        "keys in the cache were rotated when they were written",
        size=11.5,
        ink="faint",
        anchor="middle",
    )
    for left, title, angle, verdict in (
        (70, "right: position 10 of the text", 300, "300° − 270° = 30°: one token after “who”"),
        (400, "wrong: position 0 of the step", 0, "0° − 270° = −270°: nine tokens before “who”"),
    ):
        canvas.text(left, 222, title, bold=True)
        canvas.box(left, 242, 54, 28, "who", colour="kv", size=12)
        _dial(canvas, left + 80, 256, 270)
        canvas.text(left + 106, 256, "270°", size=11, ink="faint")
        canvas.box(left + 152, 242, 54, 28, "lived", colour="decode", size=12)
        _dial(canvas, left + 232, 256, angle)
        canvas.text(left + 258, 256, f"{angle}°", size=11, ink="faint")
        canvas.text(left, 296, verdict, size=12)
    return canvas


def _dial(canvas: Canvas, x: float, y: float, degrees: float) -> None:
    """Draw a clock face whose hand is turned anticlockwise from the right."""
    radius, angle = 19, degrees * pi / 180
    canvas.box(x - radius, y - radius, 2 * radius, 2 * radius, round_=radius)
    canvas.arrow((x, y), (x + (radius - 3) * cos(angle), y - (radius - 3) * sin(angle)))


def shared_heads() -> Canvas:
    """Eight query heads with eight, four and one KV heads."""
    canvas = Canvas(
        740, 190, "Eight query heads: MHA keeps eight KV heads, GQA four that two query heads share, MQA one"
    )
    for panel, (title, kv_heads, note) in enumerate(
        (
            ("MHA: 8 KV heads", 8, "8 keys and 8 values per token"),
            ("GQA: 4 KV heads", 4, "half of MHA (tinytales)"),
            ("MQA: 1 KV head", 1, "an eighth of MHA"),
        )
    ):
        left = 20 + panel * 242
        canvas.text(left, 24, title, bold=True)
        width, group = 26, 8 // kv_heads
        for head in range(8):
            canvas.box(left + head * 27, 46, width - 1, 28, f"q{head}", colour="decode", size=10.5)
        for head in range(kv_heads):
            middle = left + (head + 0.5) * group * 27 - 1
            for member in range(group):
                canvas.line(left + (head * group + member) * 27 + 12.5, 76, middle, 106)
            canvas.box(middle - 12.5, 108, 25, 28, str(head), colour="kv", size=11)
        canvas.text(left, 162, note, size=12, ink="faint")
    return canvas


DRAWINGS = {
    "03_recomputed": recomputed,
    "03_rows": rows,
    "03_rope_position": rope_position,
    "03_shared_heads": shared_heads,
}
