"""Chapter 04: block tables with words, copy-on-write after a fork, and addresses with memory under some of them."""

from tools.drawings.canvas import Canvas

A = ("Once", "upon", "a", "time", "there", "was")
B = ("The", "queen", "had", "lost", "her", "ring")
SIZE, NUM_BLOCKS = 4, 6
TABLE_A, TABLE_B = (5, 3), (4, 2)


def block_table() -> Canvas:
    """Two texts of six tokens, their block tables, and the pool in which their blocks are."""
    canvas = Canvas(
        716,
        366,
        "Two texts in blocks of 4: each entry of a block table names the block that holds four tokens",
    )
    top, high, left = 52, 46, 290
    canvas.text(left - 60, 26, "the pool: 6 blocks of 4 slots", bold=True)
    for block in range(NUM_BLOCKS):
        y = top + block * high
        canvas.text(left - 60, y + 20, f"block {block}", size=12)
        owner = next(
            (
                (words, table.index(block), colour)
                for words, table, colour in ((A, TABLE_A, "request_a"), (B, TABLE_B, "request_b"))
                if block in table
            ),
            None,
        )
        for place in range(SIZE):
            word = ""
            if owner:
                words, entry, colour = owner
                index = entry * SIZE + place
                word = words[index] if index < len(words) else ""
            canvas.box(
                left + place * 50,
                y,
                48,
                40,
                (word, f"{block * SIZE + place}"),
                colour=colour if word else "waste" if owner else "",
                size=11,
                bold=bool(word),
            )
    for x, name, words, table, colour, towards in (
        (20, "A", A, TABLE_A, "request_a", 1),
        (556, "B", B, TABLE_B, "request_b", -1),
    ):
        canvas.text(x, 72, f"block table of {name}: {list(table)}", bold=True, size=12)
        for entry, block in enumerate(table):
            y = 96 + entry * 84
            part = " ".join(words[entry * SIZE : (entry + 1) * SIZE])
            canvas.box(
                x, y, 140, 50, (f"entry {entry}: block {block}", part), colour=colour, bold=True, size=12
            )
            start, end = (x + 142, left - 64) if towards == 1 else (x - 2, left + 4 * 50 + 2)
            canvas.arrow((start, y + 25), (end, top + block * high + 20))
    canvas.text(
        358,
        346,
        "Position 5 of A: entry 5 // 4 = 1 names block 3; its place is 5 % 4 = 1. Slot 3 · 4 + 1 = 13.",
        size=12.5,
        anchor="middle",
    )
    return canvas


def fork() -> Canvas:
    """A prompt of ten tokens after the fork, and after each of the two samples has written a token."""
    canvas = Canvas(
        752, 442, "A fork shares all blocks; the first write into the shared last block copies that block"
    )
    shared = (("block 7", "Once upon a time"), ("block 6", "there was a little"))
    _tables(
        canvas,
        22,
        "1. After the fork: the child has a copy of the table, and every block two references.",
        (),
    )
    for i, (name, words) in enumerate((*shared, ("block 5", "girl who"))):
        canvas.box(
            150 + i * 140, 102, 128, 56, (name, words, "2 references"), colour="kv", bold=True, size=11.5
        )
    _tables(
        canvas,
        236,
        "2. Both wrote one more token: the child copied block 5 to block 4 before its write.",
        (4,),
    )
    for i, (name, words) in enumerate(shared):
        canvas.box(
            150 + i * 140, 316, 128, 56, (name, words, "2 references"), colour="kv", bold=True, size=11.5
        )
    own = "1 reference"
    canvas.box(
        430, 316, 128, 56, ("block 5", "girl who lived", own), colour="request_a", bold=True, size=11.5
    )
    canvas.box(608, 316, 128, 56, ("block 4", "girl who was", own), colour="request_b", bold=True, size=11.5)
    canvas.arrow((560, 344), (606, 344), dashed=True)
    canvas.text(583, 332, "copy", size=11, anchor="middle")
    return canvas


def _tables(canvas: Canvas, top: float, title: str, copied: tuple[int, ...]) -> None:
    """Draw a parent's block table above three blocks and its child's below; `copied` replaces the child's last."""
    canvas.text(20, top, title, bold=True, size=12.5)
    for name, y, colour, tip, table in (
        ("parent", top + 24, "request_a", (50, 78), (7, 6, 5)),
        ("child", top + 166, "request_b", (164, 138), (7, 6, *(copied or (5,)))),
    ):
        canvas.text(20, y + 12, f"table of the {name}", size=12)
        for i, block in enumerate(table):
            x = 672 if block in copied else 214 + i * 140
            canvas.box(x - 22, y, 44, 24, str(block), colour=colour, bold=True, size=12)
            canvas.arrow((x, top + tip[0]), (x, top + tip[1]))


def virtual() -> Canvas:
    """Two rows of addresses, and the pages of memory under those that are written."""
    canvas = Canvas(
        740, 240, "Each request has a row of addresses; only the pages that are written have memory"
    )
    physical = {"A": (0, 2, 3), "B": (6, 4)}
    canvas.text(20, 24, "addresses: one row of 6 pages per request", bold=True)
    canvas.text(20, 220, "Addresses without memory cost nothing.", size=12, ink="faint")
    canvas.text(158, 176, "memory: 8 pages", bold=True, anchor="end")
    holders = {page: (name, i) for name, pages in physical.items() for i, page in enumerate(pages)}
    for page in range(8):
        name, i = holders.get(page, ("", 0))
        colour = f"request_{name.lower()}" if name else ""
        canvas.box(172 + page * 54, 156, 50, 38, f"{name}{i}" if name else "free", colour=colour, size=12)
    for name, left in (("A", 20), ("B", 400)):
        canvas.text(left, 52, f"request {name}", size=12)
        for i in range(6):
            mapped = i < len(physical[name])
            x, colour = left + i * 54, f"request_{name.lower()}" if mapped else ""
            canvas.box(
                x, 66, 50, 34, f"{name}{i}" if mapped else "", colour=colour, size=12, dashed=not mapped
            )
            if mapped:
                canvas.arrow((x + 25, 102), (172 + physical[name][i] * 54 + 25, 154))
    canvas.text(716, 128, "the processor's page table", size=12, ink="faint", anchor="end")
    return canvas


DRAWINGS = {"04_block_table": block_table, "04_fork": fork, "04_virtual": virtual}
