"""Chapter 00: the parts of a machine that inference uses, and a map of the course."""

from tools.drawings.canvas import Canvas


def machine() -> Canvas:
    """Memory, bandwidth and cores, and what one step moves for 1 and for 10 requests."""
    canvas = Canvas(
        740,
        350,
        "A machine: memory holds weights and KV caches, bandwidth carries them to the cores at every step",
    )
    canvas.box(24, 24, 226, 138, round_=10)
    canvas.text(137, 42, "memory", bold=True, anchor="middle")
    canvas.box(40, 58, 194, 44, ("weights", "24 MB"), bold=True)
    canvas.box(40, 108, 194, 42, ("KV caches", "0.6 MB for each request"), colour="kv", bold=True)
    canvas.arrow((254, 88), (486, 88))
    canvas.text(370, 66, "bandwidth", bold=True, anchor="middle")
    canvas.text(370, 108, "30 GB per second", size=12, anchor="middle")
    canvas.text(370, 126, "every step reads all weights", size=12, anchor="middle")
    canvas.box(490, 24, 226, 138, round_=10)
    canvas.text(603, 42, "cores", bold=True, anchor="middle")
    for x, y in ((506, 58), (606, 58)):
        canvas.box(x, y, 94, 44, "core")
    canvas.text(603, 120, "100 billion operations", size=12, anchor="middle")
    canvas.text(603, 138, "per second", size=12, anchor="middle")
    for y, title, cache, said in (
        (198, "one step, 1 request", 0.02, "0.82 ms: 1 token"),
        (264, "one step, 10 requests", 0.20, "1.00 ms: 10 tokens"),
    ):
        canvas.text(24, y, title, bold=True)
        canvas.box(24, y + 14, 0.8 * MS, 30, "read the weights: 0.80 ms", round_=2, size=12)
        canvas.box(24 + 0.8 * MS, y + 14, cache * MS, 30, colour="kv", round_=2)
        canvas.text(24 + (0.8 + cache) * MS + 12, y + 29, said, bold=True)
    canvas.key(24, 330, "kv", "read the KV caches: 0.02 ms for each request")
    return canvas


MS = 520  # pixels

MAP = (
    ("compute less", ("03 KV cache", "09 Prefix caching")),
    ("read fewer bytes", ("05 FlashAttention", "06 Eight bits", "07 Four bits")),
    ("more tokens per step", ("04 Paged attention", "08 Continuous batching", "10 Speculation")),
    ("less overhead", ("11 Fusion and graphs",)),
    ("more hardware", ("12 Many GPUs", "13 Serving")),
)
TO_COME = ("12", "14", "15")


def course() -> Canvas:
    """The chapters, ordered by what they do to the time of a token."""
    canvas = Canvas(
        760,
        362,
        "A map of the course: two chapters find where the time goes, eleven win it back in five ways",
    )
    canvas.text(24, 28, "Where does the time go?", bold=True)
    for x, name in ((236, "00 Your machine"), (408, "01 Two phases"), (580, "02 The memory wall")):
        canvas.box(x, 14, 156, 30, name, size=12)
    canvas.line(24, 62, 736, 62)
    canvas.text(24, 84, "What wins it back?", bold=True)
    for column, (way, chapters) in enumerate(MAP):
        x = 20 + column * 145
        canvas.text(x + 69, 112, way, size=11.5, bold=True, anchor="middle")
        for row, name in enumerate(chapters):
            _chapter(canvas, x, 126 + row * 41, 138, name)
        canvas.arrow((x + 69, 124 + len(chapters) * 41), (x + 69, 276))
    canvas.box(20, 278, 718, 30, "time and memory of one token", bold=True)
    for x, name in ((20, "14 Putting it together"), (222, "15 Beyond")):
        _chapter(canvas, x, 318, 190, name)
    canvas.box(432, 325, 24, 20, dashed=True)
    canvas.text(464, 335, "to come", size=12, ink="faint")
    return canvas


def _chapter(canvas: Canvas, x: float, y: float, width: float, name: str) -> None:
    later = name[:2] in TO_COME
    canvas.box(x, y, width, 34, name, size=10.5, dashed=later)


DRAWINGS = {"00_course": course, "00_machine": machine}
