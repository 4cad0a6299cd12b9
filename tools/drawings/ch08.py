"""Chapter 08: the two ways to batch, the engine's loop, a ragged batch."""

from tools.drawings.canvas import Canvas

LENGTHS = {"A": 2, "B": 6, "C": 3, "D": 1, "E": 4, "F": 2}
CELL = 30


def by_hand() -> Canvas:
    """Six requests, two places."""
    canvas = Canvas(
        620, 222, "Six requests in two places: static batching takes 13 steps, continuous batching 10"
    )
    static = [[("A", 0), ("C", 6), ("E", 9)], [("B", 0), ("D", 6), ("F", 9)]]
    continuous = [[("A", 0), ("C", 2), ("D", 5), ("E", 6)], [("B", 0), ("F", 6)]]
    for top, title, places, ends in (
        (18, "static: a batch ends with its longest request", static, (6, 9, 13)),
        (122, "continuous: a free place is filled in the next step", continuous, ()),
    ):
        canvas.text(20, top + 8, title, bold=True)
        for row, requests in enumerate(places):
            y = top + 24 + row * 32
            canvas.text(20, y + 13, f"place {row + 1}", size=12, ink="faint")
            for name, start in requests:
                length = LENGTHS[name]
                canvas.box(80 + start * CELL, y, length * CELL - 2, 27, name, colour="decode", bold=True)
                stop = next((end for end in ends if end > start), start + length)
                if stop > start + length:
                    canvas.box(
                        80 + (start + length) * CELL,
                        y,
                        (stop - start - length) * CELL - 2,
                        27,
                        "padding" if stop - start - length > 2 else "",
                        colour="waste",
                        size=11,
                    )
        steps = max(start + LENGTHS[name] for requests in places for name, start in requests)
        canvas.text(80 + 13 * CELL + 14, top + 54, f"{max(steps, *ends, 0)} steps", size=15, bold=True)
    return canvas


def engine_loop() -> Canvas:
    """One step of the engine: the queue, the scheduler, the model, and back."""
    canvas = Canvas(
        740, 290, "The engine's loop: requests wait, the scheduler fills a step, the model computes it"
    )
    canvas.text(84, 84, "waiting", bold=True, anchor="middle")
    for row, name in enumerate(("request 7", "request 8", "request 9")):
        canvas.box(24, 100 + row * 32, 120, 26, name)
    canvas.box(206, 24, 90, 44, ("budget", "tokens per step"), size=11)
    canvas.box(306, 24, 90, 44, ("memory", "free blocks"), size=11)
    canvas.arrow((251, 70), (251, 106))
    canvas.arrow((351, 70), (351, 106))
    canvas.box(
        206, 108, 190, 76, ("scheduler", "which request computes", "how many tokens?"), bold=True, size=13
    )
    canvas.arrow((146, 132), (204, 132))
    canvas.arrow((204, 172), (176, 172), (176, 216), (84, 216), (84, 194), dashed=True)
    canvas.text(24, 234, "preempted: back to the queue", size=11.5, ink="faint")
    canvas.text(510, 84, "one step", bold=True, anchor="middle")
    canvas.box(450, 100, 120, 26, "prompt: 5 tokens", colour="prefill", size=12)
    canvas.box(450, 130, 120, 26, "decode: 1 token", colour="decode", size=12)
    canvas.box(450, 160, 120, 26, "chunk: 3 tokens", colour="prefill", size=12)
    canvas.arrow((398, 146), (446, 146))
    canvas.box(624, 108, 92, 76, ("model", "and sampler"), bold=True, size=13)
    canvas.arrow((572, 146), (620, 146))
    canvas.arrow((670, 186), (670, 240), (301, 240), (301, 187))
    canvas.text(486, 226, "unfinished requests stay for the next step", size=12, anchor="middle", ink="faint")
    canvas.arrow((696, 186), (696, 264), (592, 264))
    leave = "finished requests leave, and their blocks are free"
    canvas.text(584, 264, leave, size=12, anchor="end", ink="faint")
    return canvas


def ragged_batch() -> Canvas:
    """A rectangle with padding, and the same tokens end to end."""
    canvas = Canvas(
        700, 206, "Three requests in one step: a rectangle of 15 cells with 6 of padding, or 9 tokens flat"
    )
    rows = (("A", 0, 5, "prefill"), ("B", 9, 1, "decode"), ("C", 6, 3, "prefill"))
    canvas.text(24, 22, "rectangle: 15 cells, 6 padded", bold=True)
    for row, (name, first, number, kind) in enumerate(rows):
        y = 38 + row * 32
        canvas.text(24, y + 13, name, bold=True)
        for column in range(5):
            x = 46 + column * 36
            if column < number:
                canvas.box(x, y, 33, 27, f"{name}{first + column}", colour=kind, size=11.5)
            else:
                canvas.box(x, y, 33, 27, "pad", colour="waste", size=10)
    canvas.text(290, 22, "end to end: 9 tokens", bold=True)
    x = 290.0
    for name, first, number, kind in rows:
        for column in range(number):
            canvas.box(x, 38, 33, 27, f"{name}{first + column}", colour=kind, size=11.5)
            x += 36
    canvas.text(300, 84, "query_start", code=True, size=12)
    for number, at in ((0, 0), (5, 5), (6, 6), (9, 9)):
        canvas.line(290 + at * 36 - 1.5, 68, 290 + at * 36 - 1.5, 104, dashed=True)
        canvas.text(290 + at * 36 - 1.5, 114, str(number), size=12, anchor="middle")
    canvas.text(290, 146, "Each token knows its request (query_start), its position in", size=12, ink="faint")
    canvas.text(290, 164, "the text (positions), and where its key and value go", size=12, ink="faint")
    canvas.text(290, 182, "(slot_mapping). Nothing is padded.", size=12, ink="faint")
    return canvas


DRAWINGS = {"08_by_hand": by_hand, "08_engine_loop": engine_loop, "08_ragged_batch": ragged_batch}
