"""Chapter 05: the levels of memory, online softmax on a number line, tiles, a kernel's programs, split-K."""

from math import log

from tools.drawings.canvas import Canvas

LEVELS = (
    ("registers", "27 MiB", "fastest", 250.0),
    ("shared memory and L1", "20 MiB", "19 TB/s", 250.0),
    ("L2 cache", "40 MiB", "7 TB/s", 390.0),
    ("GPU memory (HBM)", "80 GiB", "2 TB/s", 540.0),
)


def memory_levels() -> Canvas:
    """The memories of an A100, from the fastest to the largest."""
    canvas = Canvas(
        740,
        262,
        "The memories of an A100: registers and shared memory are small and fast, HBM large and slow",
    )
    for x, text in ((24 + 270, "level"), (600, "size"), (668, "rate")):
        canvas.text(x, 22, text, size=12, ink="faint", anchor="middle" if x < 400 else "start")
    for row, (name, size, rate, width) in enumerate(LEVELS):
        y = 38 + row * 46
        chip = row < 2
        canvas.box(294 - width / 2, y, width, 36, name, colour="kv" if chip else "", bold=True)
        canvas.text(600, y + 18, size)
        canvas.text(668, y + 18, rate)
    canvas.key(24, 238, "kv", "inside a multiprocessor (of all 108 together): here a tile is computed")
    return canvas


def number_line() -> Canvas:
    """Six scores on a number line, in two pieces: after the second one, all weights are relative to its maximum."""
    canvas = Canvas(
        740, 412, "Online softmax on six scores: the second piece raises m, and the old weights are halved"
    )
    first = ((0.0, "1/4", 0.25), (log(4), "1", 1.0), (log(2), "1/2", 0.5))
    second = ((log(8), "1", 1.0), (0.0, "1/8", 0.125), (log(2), "1/4", 0.25))
    faded = ((0.0, "1/8", 0.125), (log(4), "1/2", 0.5), (log(2), "1/4", 0.25))
    rows = (
        (172, "piece 1: m = 1.39, l = 1/4 + 1 + 1/2 = 1.75", log(4), [(first, "prefill")]),
        (
            372,
            "piece 2: m = 2.08, l = 1.75 · 1/2 + 1 + 1/8 + 1/4 = 2.25",
            log(8),
            [(faded, "waste"), (second, "prefill")],
        ),
    )
    for floor, title, top, groups in rows:
        canvas.text(24, floor - 146, title, bold=True)
        canvas.arrow((60, floor), (600, floor))
        canvas.text(608, floor, "score", size=12, ink="faint")
        for name, value in (("0", 0.0), ("0.69", log(2)), ("1.39", log(4)), ("2.08", log(8))):
            canvas.line(_x(value), floor - 4, _x(value), floor + 4)
            canvas.text(_x(value), floor + 16, name, size=12, anchor="middle")
        canvas.line(_x(top), floor - 122, _x(top), floor, dashed=True)
        canvas.text(_x(top), floor - 128, "m", bold=True, anchor="middle")
        for group, colour in groups:
            shift = 0 if len(groups) == 1 else -17 if colour == "waste" else 17
            for value, text, weight in group:
                alone = value in (log(4), log(8))
                x = _x(value) + (0 if alone else shift)
                canvas.box(x - 14, floor - 90 * weight, 28, 90 * weight, colour=colour, round_=2)
                canvas.text(
                    x + (30 if alone else 0),
                    floor - 90 * weight - (-8 if alone else 10),
                    text,
                    size=12,
                    anchor="middle",
                )
    canvas.key(622, 320, "waste", "piece 1, × 1/2")
    canvas.key(622, 342, "prefill", "piece 2")
    return canvas


def _x(score: float) -> float:
    return 96 + score * 218


def tiles() -> Canvas:
    """One tile of queries stays on the chip; tiles of keys and values pass by; no score leaves the chip."""
    canvas = Canvas(
        740,
        330,
        "A tile of queries stays on the chip while tiles of keys and values pass by; no score leaves it",
    )
    canvas.text(96, 24, "slow memory", bold=True, anchor="middle")
    canvas.text(430, 24, "on the chip", bold=True, anchor="middle")
    canvas.text(652, 24, "slow memory", bold=True, anchor="middle")
    for column, name in enumerate("QKV"):
        x = 24 + column * 52
        canvas.text(x + 21, 48, name, bold=True, anchor="middle")
        for row in range(4):
            now = row == (3 if name == "Q" else 1)
            colour = ("decode" if name == "Q" else "kv") if now else ""
            canvas.box(x, 62 + row * 46, 42, 42, f"{row}", colour=colour, size=12)
    canvas.box(230, 40, 370, 234, round_=10, dashed=True)
    canvas.box(252, 142, 74, 42, "Q tile 3", colour="decode", size=12)
    canvas.box(364, 62, 74, 42, "K tile 1", colour="kv", size=12)
    canvas.box(500, 62, 74, 42, "V tile 1", colour="kv", size=12)
    canvas.box(364, 142, 74, 42, "scores", colour="prefill", size=12)
    canvas.box(490, 138, 92, 50, ("m, l, acc", "of each row"), colour="prefill", size=12)
    canvas.arrow((328, 163), (360, 163))
    canvas.arrow((401, 106), (401, 138))
    canvas.arrow((440, 163), (486, 163))
    canvas.arrow((537, 106), (537, 134))
    canvas.arrow((171, 129), (206, 129), (206, 83), (360, 83))
    canvas.arrow((206, 83), (206, 51), (537, 51), (537, 60))
    canvas.arrow((45, 248), (45, 262), (289, 262), (289, 188))
    canvas.box(632, 62, 42, 42, "0", size=12)
    canvas.box(632, 108, 42, 42, "1", size=12)
    canvas.box(632, 154, 42, 42, "2", size=12)
    canvas.box(632, 200, 42, 42, "3", colour="decode", size=12)
    canvas.text(653, 48, "out", bold=True, anchor="middle")
    canvas.arrow((537, 190), (537, 222), (628, 222))
    canvas.text(416, 214, "K, V: next tile 2, then 3", size=12, ink="faint", anchor="middle")
    canvas.text(416, 234, "Q: stays", size=12, ink="faint", anchor="middle")
    canvas.text(
        24,
        296,
        "Each arrow into or out of the dashed box is traffic. Scores are used up inside: a new tile of",
        size=12,
        ink="faint",
    )
    canvas.text(
        24,
        314,
        "scores takes the place of the old one. out is written once, after the last tile of keys.",
        size=12,
        ink="faint",
    )
    return canvas


def vector_add() -> Canvas:
    """Ten entries, three programs of four: the mask of the last one is false twice."""
    canvas = Canvas(
        740, 226, "Three programs add vectors of ten entries, four each: two entries of the last do not exist"
    )
    canvas.text(24, 74, "at", bold=True)
    canvas.text(24, 112, "mask", bold=True)
    canvas.text(24, 166, "x, y, out", bold=True)
    for at in range(12):
        x = 116 + at * 49
        inside = at < 10
        canvas.box(x, 58, 44, 32, f"{at}", colour="kv" if inside else "waste", size=13)
        canvas.text(x + 22, 112, "true" if inside else "false", size=12, anchor="middle")
        canvas.box(x, 148, 44, 36, f"[{at}]" if inside else "?", size=12, dashed=not inside)
        if inside:
            canvas.arrow((x + 22, 122), (x + 22, 145))
    for program in range(3):
        x = 116 + program * 196
        canvas.text(
            x + 96,
            24,
            f"program {program}: from {program} · 4 on",
            bold=True,
            anchor="middle",
            size=12,
        )
        canvas.line(x, 42, x + 191, 42)
    canvas.text(
        24,
        206,
        "Arrows are loads and stores. The memory at ? belongs to something else, so it must not be touched.",
        size=12,
        ink="faint",
    )
    return canvas


def split_k() -> Canvas:
    """One query: four programs take a stretch of keys each, and a second kernel joins their results."""
    canvas = Canvas(
        740,
        190,
        "Split-K: four programs take a stretch of the keys each, and a second kernel joins their results",
    )
    canvas.box(24, 70, 70, 40, "1 query", colour="decode", bold=True)
    for part in range(4):
        y = 26 + part * 36
        canvas.arrow((96, 90), (146, y + 14))
        canvas.box(150, y, 150, 28, f"keys {part * 12}–{part * 12 + 11}", colour="kv", size=12)
        canvas.arrow((302, y + 14), (326, y + 14))
        canvas.box(330, y, 130, 28, f"out {part}, lse {part}", colour="prefill", size=12)
        canvas.arrow((462, y + 14), (518, 90))
    canvas.box(522, 62, 84, 56, ("join", "(2nd kernel)"), bold=True, size=12)
    canvas.arrow((608, 90), (640, 90))
    canvas.box(644, 70, 72, 40, "out", colour="decode", bold=True)
    canvas.text(225, 176, "4 programs at the same time", size=12, ink="faint", anchor="middle")
    return canvas


DRAWINGS = {
    "05_memory_levels": memory_levels,
    "05_number_line": number_line,
    "05_tiles": tiles,
    "05_vector_add": vector_add,
    "05_split_k": split_k,
}
