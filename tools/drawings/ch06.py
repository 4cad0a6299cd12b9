"""Chapter 06: a grid by hand, who shares a scale, a product of integers, SmoothQuant's exchange."""

from tools.drawings.canvas import Canvas

ROW = (1.5, -1.06, -0.46, 0.04, 0.44, 0.88)
X, W = "request_a", "request_b"  # the colours of activations and weights


def grid() -> Canvas:
    """Six weights on a grid of 16 numbers, and the same row with an outlier."""
    canvas = Canvas(
        730,
        284,
        "Six weights rounded to a grid of 16 numbers; with a weight of 6 the steps are four times as wide",
    )
    for top, outlier in ((20, 1.5), (154, 6.0)):
        scale = outlier / 7.5
        row = (outlier, *ROW[1:])
        canvas.text(
            20, top + 4, f"largest weight {outlier:g}: scale {outlier:g} / 7.5 = {scale:.1f}", bold=True
        )
        left, unit = 110.0, 74.0
        middle = left + 1.75 * unit
        canvas.text(20, top + 46, "weights", size=12, ink="faint")
        canvas.text(20, top + 76, "grid", size=12, ink="faint")
        canvas.text(20, top + 102, "numbers", size=12, ink="faint")
        canvas.line(left - 10, top + 76, 712, top + 76)
        for number in range(-8, 8):
            x = middle + number * scale * unit
            if left - 10 <= x <= 712:
                canvas.line(x, top + 68, x, top + 84, width=1.6)
                if outlier > 2 or number % 2:
                    canvas.text(x, top + 102, str(number).replace("-", "−"), size=11, anchor="middle")
        for weight in row:
            x = middle + weight * unit
            nearest = max(-8, min(7, round(weight / scale)))
            rounded = middle + nearest * scale * unit
            canvas.box(x - 4, top + 42, 8, 8, colour=W, round_=4)
            canvas.arrow((x, top + 52), (rounded, top + 67))
            canvas.text(x, top + 31, f"{weight:g}".replace("-", "−"), size=10.5, anchor="middle")
    return canvas


def scales() -> Canvas:
    """The same matrix with one scale, one per row, one per group of four columns."""
    canvas = Canvas(
        700, 216, "A matrix of 4 rows and 8 columns with 1 scale, with 4 scales, and with 8 scales"
    )
    ways = (
        ("per tensor: 1 scale", "the whole matrix shares it", lambda row, column: 0),
        ("per row: 4 scales", "the weights of an output share one", lambda row, column: row),
        ("groups of 4: 8 scales", "4 neighbours share one", lambda row, column: 2 * row + column // 4),
    )
    for number, (title, what, scale_of) in enumerate(ways):
        left = 24 + number * 226
        canvas.text(left, 22, title, bold=True)
        canvas.text(left, 42, what, size=11.5, ink="faint")
        for row in range(4):
            for column in range(8):
                gap = 6 * (column // 4) if number == 2 else 0
                scale = scale_of(row, column)
                colour = (X, W)[(row + column // 4) % 2 if number == 2 else scale % 2]
                x, y = left + column * 24 + gap, 58 + row * 30
                canvas.box(x, y, 22, 25, f"s{scale + 1}", colour=colour, round_=2, size=10)
    canvas.text(24, 196, "8 columns: the inputs. 4 rows: the outputs.", size=11.5, ink="faint")
    canvas.text(476, 196, "s1 is the first scale", size=11.5, ink="faint")
    return canvas


def product() -> Canvas:
    """W8A8 on a 2 x 2: floats to integers, the exact sums, and the scales at the end."""
    canvas = Canvas(
        730, 272, "x and W become integers with scales; integers are multiplied and summed; scales come last"
    )
    canvas.text(24, 22, "1. floats", bold=True)
    canvas.text(214, 22, "2. 8-bit numbers and scales", bold=True)
    canvas.text(446, 22, "3. sums in int32", bold=True)
    canvas.text(596, 22, "4. times scales", bold=True)
    _matrix(canvas, 56, 44, (("1.275", "−0.5"), ("0.255", "0.1")))
    _matrix(canvas, 56, 164, (("0.51", "0.2"), ("−0.1", "0.255")))
    canvas.text(24, 74, "x", bold=True)
    canvas.text(24, 194, "W", bold=True)
    _matrix(canvas, 214, 44, (("127", "−50"), ("127", "50")), X)
    _matrix(canvas, 214, 164, (("127", "50"), ("−50", "127")), W)
    for y, text in ((57, "× 0.01"), (89, "× 0.002"), (177, "× 0.004"), (209, "× 0.002")):
        canvas.text(328, y, text, size=12)
    canvas.text(24, 122, "a row is a token", size=10.5, ink="faint")
    canvas.text(24, 242, "a row is an output", size=10.5, ink="faint")
    canvas.arrow((166, 74), (208, 74))
    canvas.arrow((166, 194), (208, 194))
    _matrix(canvas, 446, 104, (("13,629", "−12,700"), ("18,629", "0")), width=60)
    canvas.arrow((392, 78), (440, 118))
    canvas.arrow((392, 190), (440, 150))
    _matrix(canvas, 608, 104, (("0.545", "−0.254"), ("0.149", "0")), width=50)
    canvas.arrow((572, 134), (602, 134))
    canvas.text(446, 186, "127 · 127 + (−50) · 50 = 13,629", size=11, ink="faint")
    canvas.text(446, 206, "13,629 · 0.01 · 0.004 = 0.545", size=11, ink="faint")
    canvas.text(446, 226, "in floats: 0.550, −0.255, 0.150, 0", size=11, ink="faint")
    return canvas


def _matrix(
    canvas: Canvas, x: float, y: float, rows: tuple[tuple[str, str], ...], colour: str = "", width: float = 50
) -> None:
    for i, row in enumerate(rows):
        for j, text in enumerate(row):
            canvas.box(x + j * (width + 3), y + i * 32, width, 28, text, colour=colour, size=12)


def smooth() -> Canvas:
    """Two channels before and after SmoothQuant: the outlier of x becomes a factor of W."""
    canvas = Canvas(
        720, 232, "SmoothQuant divides a channel of x by s and multiplies the same column of W by s"
    )
    bars = {
        "before": ((16, 1), (1, 1)),
        "after": ((4, 1), (4, 1)),
    }
    for number, (title, (x_max, w_max)) in enumerate(bars.items()):
        left = 24 + number * 400
        canvas.text(left, 22, title, bold=True)
        for which, maxima, start, colour in (("x", x_max, left, X), ("W", w_max, left + 160, W)):
            canvas.text(start, 46, f"largest |{which}|", size=11.5, ink="faint")
            for channel, value in enumerate(maxima):
                height = 6.5 * value
                place = start + channel * 62
                canvas.box(place, 176 - height, 44, height, colour=colour, round_=2)
                canvas.text(place + 22, 166 - height, str(value), size=12, anchor="middle")
                canvas.text(place + 22, 192, f"channel {channel}", size=10, ink="faint", anchor="middle")
            canvas.line(start - 4, 176, start + 112, 176)
    canvas.arrow((312, 110), (412, 110))
    canvas.text(362, 78, "s = 4, 1", size=13, anchor="middle", bold=True)
    canvas.text(362, 96, "x ÷ s, W · s", size=11.5, anchor="middle")
    canvas.text(
        24,
        216,
        "The product x Wᵀ does not change: each of its terms is divided and multiplied by the same s.",
        size=11.5,
    )
    return canvas


DRAWINGS = {"06_grid": grid, "06_scales": scales, "06_product": product, "06_smooth": smooth}
