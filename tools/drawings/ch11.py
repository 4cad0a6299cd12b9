"""Chapter 11: the queue between CPU and GPU, a chain of kernels against a fused one, padding to a graph's size."""

from tools.drawings.canvas import Canvas

LAUNCH = 5  # µs of the CPU for each launch
NUM_KERNELS = 4
MICROSECOND = 15.5  # pixels
LEFT = 70


def _lanes(
    canvas: Canvas, top: float, title: str, launches: list[int], kernels: list[tuple[int, int]]
) -> None:
    """Draw the launches that the CPU makes, by their starts, and the kernels that the GPU runs, by start and end."""

    def at(microseconds: float) -> float:
        return LEFT + microseconds * MICROSECOND

    canvas.text(16, top, title, bold=True)
    canvas.text(16, top + 31, "CPU", size=12, ink="faint")
    canvas.text(16, top + 69, "GPU", size=12, ink="faint")
    for number, start in enumerate(launches, 1):
        name = f"launch {number}" if len(launches) > 1 else "1 launch"
        canvas.box(at(start), top + 18, LAUNCH * MICROSECOND - 2, 26, name, size=11)
    free = LAUNCH
    for number, (start, end) in enumerate(kernels, 1):
        if start > free:
            canvas.box(
                at(free), top + 56, (start - free) * MICROSECOND - 2, 26, "idle", colour="waste", size=11
            )
        width = (end - start) * MICROSECOND - 2
        name = f"kernel {number}" if width > 60 else f"K{number}"
        canvas.box(at(start), top + 56, width, 26, name, colour="decode", size=11)
        free = end
    for start, (begin, _) in zip(launches, kernels, strict=False):
        canvas.arrow((at(start + LAUNCH) - 2, top + 44), (at(begin) + 2, top + 55))
    canvas.text(at(free) + 8, top + 69, f"{free} µs", size=15, bold=True)


def launch_queue() -> Canvas:
    """Four kernels: short ones that wait for their launches, long ones that hide them, and a graph of short ones."""
    canvas = Canvas(
        716, 374, "Four kernels: launched one by one the GPU idles between short ones; a graph has no gaps"
    )
    starts = [LAUNCH * number for number in range(NUM_KERNELS)]
    short = [(start + LAUNCH, start + LAUNCH + 2) for start in starts]
    long = [(LAUNCH + 8 * number, LAUNCH + 8 * (number + 1)) for number in range(NUM_KERNELS)]
    replayed = [(LAUNCH + 2 * number, LAUNCH + 2 * (number + 1)) for number in range(NUM_KERNELS)]
    _lanes(canvas, 22, "kernels of 2 µs, launched one by one: the GPU waits for the CPU", starts, short)
    _lanes(canvas, 134, "kernels of 8 µs, launched one by one: launches wait in the queue", starts, long)
    _lanes(canvas, 246, "kernels of 2 µs in a graph: one launch for all of them", [0], replayed)
    for tick in range(0, 41, 5):
        x = LEFT + tick * MICROSECOND
        canvas.line(x, 340, x, 345)
        canvas.text(x, 356, str(tick) if tick < 40 else "40 µs", size=11, ink="faint", anchor="middle")
    canvas.line(LEFT, 340, LEFT + 40 * MICROSECOND, 340)
    return canvas


CHAIN = (
    ("sigmoid", (("gate", "read"), ("s", "write"))),
    ("multiply", (("gate", "read"), ("s", "read"), ("t", "write"))),
    ("multiply", (("t", "read"), ("up", "read"), ("y", "write"))),
)
FUSED = ("all three", (("gate", "read"), ("up", "read"), ("y", "write")))


def fusion() -> Canvas:
    """SwiGLU on four numbers: three kernels and one, with each trip of a tensor between the GPU and its memory."""
    canvas = Canvas(
        740, 252, "SwiGLU as three kernels: 8 trips to memory, 128 bytes. As one kernel: 3 trips, 48 bytes"
    )
    canvas.text(22, 24, "three kernels", bold=True)
    canvas.text(560, 24, "one fused kernel", bold=True)
    x = 22.0
    for name, trips in (*CHAIN, FUSED):
        if name == "all three":
            canvas.line(538, 18, 538, 234, dashed=True)
            x = 560
        width = 52.0 * len(trips)
        canvas.box(x, 40, width, 40, (name, "in registers"), colour="decode", size=12, bold=True)
        for number, (tensor, way) in enumerate(trips):
            middle = x + 52 * number + 26
            ends = ((middle, 142), (middle, 84)) if way == "read" else ((middle, 82), (middle, 140))
            canvas.arrow(*ends)
            canvas.text(middle - 4, 112, way, size=10.5, ink="faint", anchor="end")
            middle_value = tensor in ("s", "t")
            canvas.box(middle - 23, 144, 46, 30, tensor, colour="waste" if middle_value else "", size=12)
        canvas.text(x + width / 2, 192, f"{len(trips)} × 16 bytes", size=12, anchor="middle")
        x += width + 18
    canvas.text(22, 222, "8 trips, 128 bytes", size=15, bold=True)
    canvas.text(560, 222, "3 trips, 48 bytes", size=15, bold=True)
    canvas.text(196, 214, "lower boxes: tensors in memory, 4 numbers of 4 bytes", size=12, ink="faint")
    canvas.text(196, 232, "grey: a result that only the next kernels read", size=12, ink="faint")
    return canvas


ROWS = (  # the buffers: token, slot, length, block table
    ("A", 17, 8, 9, "[0]"),
    ("B", 5, 83, 20, "[2, 5]"),
    ("C", 40, 48, 33, "[1, 4, 3]"),
    ("padding", 0, -1, 0, "[6, 7, 8]"),
    ("stale", 93, 70, 7, "[4]"),
    ("stale", 12, 19, 20, "[9, 1]"),
    ("stale", 7, 33, 2, "[2]"),
    ("stale", 66, 50, 19, "[5, 3]"),
)
ROW = 30  # pixels
COLUMNS = (("token", 58), ("slot", 58), ("length", 58), ("block table", 104))


def padding() -> Canvas:
    """Three requests in the buffers of a graph of four rows: one row is padding, and the others are not in it."""
    canvas = Canvas(
        716, 338, "Three requests run as a graph of 4 rows: row 3 is padding with slot -1 and length 0"
    )
    canvas.text(22, 24, "a step of 3", bold=True)
    canvas.text(160, 24, "the buffers: they never move", bold=True)
    canvas.text(530, 24, "recorded graphs", bold=True)
    x = 214.0
    for name, width in COLUMNS:
        canvas.text(x + width / 2, 50, name, size=12, ink="faint", anchor="middle")
        x += width + 2
    for row, (owner, *values) in enumerate(ROWS):
        y = 64 + row * ROW
        live, padded = len(owner) == 1, owner == "padding"
        canvas.text(160, y + 13.5, f"row {row}", size=12)
        if live:
            canvas.box(22, y, 84, 27, f"request {owner}", colour="decode", size=12)
            canvas.arrow((108, y + 13.5), (156, y + 13.5))
        x = 214
        for column, (value, (_, width)) in enumerate(zip(values, COLUMNS, strict=True)):
            colour = "decode" if live else "waste" if padded and column < 3 else ""
            canvas.box(
                x, y, width, 27, str(value).replace("-", "−"), colour=colour, size=12, dashed=not colour
            )
            x += width + 2
    for x, size, used in ((530.0, 1, False), (570, 2, False), (610, 4, True), (650, 8, False)):
        bottom = 64 + size * ROW - 3
        canvas.box(x, 64, 32, bottom - 64, str(size), colour="accepted" if used else "", size=14, bold=used)
    canvas.text(22, 322, "grey: padding. dashed: left by an earlier step, not read", size=12, ink="faint")
    return canvas


DRAWINGS = {"11_launch_queue": launch_queue, "11_fusion": fusion, "11_padding": padding}
