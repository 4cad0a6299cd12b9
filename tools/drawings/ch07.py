"""Chapter 07: an int4 word, GPTQ's errors on their way to the right, AWQ's scale on both sides of a product."""

from tools.drawings.canvas import Canvas

WEIGHTS = (0.75, -0.30, 0.12, -0.52, 0.33, 0.06, 0.01, -0.60)
NUMBERS = (15, 5, 9, 3, 11, 9, 8, 2)  # round(w / 0.1) + 8, at most 15
CELL = 76


def int4_word() -> Canvas:
    """Eight numbers of 4 bits in a word of 32, and how number 2 is taken out again."""
    canvas = Canvas(
        730,
        316,
        "Eight 4-bit numbers in a 32-bit word: the first one is in the lowest bits, at the right end",
    )
    canvas.text(20, 24, "eight weights of a group with the scale 0.1, the first one at the right", bold=True)
    for place, (weight, number) in enumerate(zip(WEIGHTS, NUMBERS, strict=True)):
        x = 100 + (7 - place) * CELL
        now = place == 2
        canvas.text(x + CELL / 2, 50, f"weight {place}", size=11, ink="faint", anchor="middle")
        canvas.box(x + 4, 62, CELL - 8, 26, f"{weight:.2f}".replace("-", "−"), size=12)
        canvas.box(x + 4, 102, CELL - 8, 26, str(number), colour="prefill" if now else "", bold=True)
        canvas.arrow((x + CELL / 2, 88), (x + CELL / 2, 101))
        canvas.box(
            x, 142, CELL, 34, f"{number:04b}", colour="prefill" if now else "kv", round_=0, bold=True, size=15
        )
        canvas.text(
            x + CELL / 2, 190, f"{4 * place + 3}–{4 * place}", size=10.5, ink="faint", anchor="middle"
        )
    for y, label in ((75, "weight"), (115, "number q"), (159, "32 bits"), (190, "their places")):
        canvas.text(20, y, label, size=11.5)
    for byte in range(4):
        x = 100 + (3 - byte) * 2 * CELL
        value = NUMBERS[2 * byte] | NUMBERS[2 * byte + 1] << 4
        canvas.line(x + 6, 206, x + 2 * CELL - 6, 206, width=1.6)
        canvas.text(x + CELL, 220, f"byte {byte}: 0x{value:02X}", size=12, anchor="middle", code=True)
    word = sum(number << 4 * place for place, number in enumerate(NUMBERS))
    canvas.text(20, 252, "Number 2 comes out by a shift and a mask:", size=12.5)
    canvas.text(300, 252, f"(0x{word:08X} >> 8) & 15 = 9", size=12.5, code=True)
    canvas.text(20, 280, "Its weight is", size=12.5)
    canvas.text(300, 280, "(9 − 8) · 0.1 = 0.1", size=12.5, code=True)
    canvas.text(480, 280, "(it was 0.12: an error of 0.02)", size=12.5, ink="faint")
    return canvas


def error_rolls() -> Canvas:
    """GPTQ in the middle of a matrix."""
    canvas = Canvas(
        790,
        262,
        "GPTQ: the columns at the left are fixed, and the columns at the right make up for each error",
    )
    size, left, top, now = 42, 24, 62, 3
    canvas.text(left, 24, "a weight matrix [out, in], column by column", bold=True)
    fixed = ((3, -1, 0), (-4, 2, 1), (1, 5, -2), (0, -3, 6))
    for row in range(4):
        for column in range(8):
            x, y = left + column * size, top + row * size * 0.8
            if column < now:
                canvas.box(
                    x, y, size - 3, size * 0.8 - 3, str(fixed[row][column]), colour="accepted", size=12
                )
            else:
                colour = "prefill" if column == now else "kv"
                text = "round" if column == now else "±"
                canvas.box(x, y, size - 3, size * 0.8 - 3, text, colour=colour, size=11)
    y = top - 14
    for column in range(4, 8):
        x = left + column * size + size / 2
        canvas.arrow((left + now * size + size / 2, y), (x, y), (x, top - 2))
    canvas.text(left + now * size + size / 2, 214, "j", bold=True, anchor="middle", size=14)
    canvas.key(24, 240, "accepted", "numbers of the grid: they stay")
    canvas.key(236, 240, "prefill", "rounded now")
    canvas.key(350, 240, "kv", "still floats: they change")
    x = 372.0
    canvas.text(x, 62, "1. Round column j to the grid.", size=12.5)
    canvas.text(x, 88, "2. Each row has an error: what rounding took away.", size=12.5)
    canvas.text(x, 114, "3. Each later column k changes, so that the outputs", size=12.5)
    canvas.text(x + 15, 132, "change as little as possible. How much it changes per", size=12.5)
    canvas.text(x + 15, 150, "error depends on how alike inputs j and k are.", size=12.5)
    canvas.text(x, 176, "4. Go on with column j + 1, as it is now.", size=12.5)
    canvas.text(x, 206, "Rows do not meet: each one rolls its own errors.", size=12.5, ink="faint")
    return canvas


def scaled_channel() -> Canvas:
    """AWQ: the same product with a column times f and its input divided by f."""
    canvas = Canvas(
        740,
        276,
        "AWQ: a column with large inputs is multiplied by f before rounding, and its input is divided by f",
    )
    heights, salient = (12, 18, 9, 86, 15, 11), 3
    for left, title, factor in ((24.0, "rounded as it is", 1.0), (392.0, "AWQ: scaled, then rounded", 2.5)):
        canvas.text(left, 24, title, bold=True)
        scaled = factor > 1
        for column, height in enumerate(heights):
            x = left + 88 + column * 38
            tall = height / (factor if column == salient else 1)
            canvas.box(x, 132 - tall, 32, tall, colour="prefill" if column == salient else "waste", round_=2)
            for row in range(3):
                y = 146 + row * 28
                here = column == salient
                canvas.box(
                    x, y, 32, 24, "× f" if here and scaled else "", colour="prefill" if here else "", size=11
                )
        canvas.text(left, 100, "inputs |x|", size=12)
        if scaled:
            canvas.text(left + 88 + salient * 38 + 40, 92, "÷ f", bold=True)
        canvas.text(left, 172, "weights", size=12)
        canvas.text(left, 190, "[out, in]", size=11, ink="faint")
        says = (
            ("The error of the orange column", "is multiplied by a large input.")
            if not scaled
            else ("Same products before rounding. The orange", "column's rounding error counts 1/f as much.")
        )
        for line, text in enumerate(says):
            canvas.text(left, 246 + 17 * line - 4, text, size=12, ink="faint")
    canvas.arrow((338, 160), (376, 160))
    return canvas


DRAWINGS = {"07_int4_word": int4_word, "07_error_rolls": error_rolls, "07_scaled_channel": scaled_channel}
