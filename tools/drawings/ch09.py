"""Chapter 09: the chain of block names, the last block of a known prompt, two radix trees, the order of eviction."""

from collections.abc import Sequence

from tools.drawings.canvas import Canvas

WORD = {"The": 5, "cat": 6, "sat": 2, "on": 8, "the": 4, "mat": 9, "bed": 3, "A": 7}
TEXTS = {
    "text 1": "The cat sat on the mat",
    "text 2": "The cat sat on the bed",
    "text 3": "A cat sat on the mat",
}
ROOT = 1


def toy_hash(parent: int, tokens: Sequence[int]) -> int:
    """Return the name that the chapter computes by hand."""
    return (10 * parent + 3 * tokens[0] + tokens[1]) % 97


def hash_chain() -> Canvas:
    """Three texts in blocks of two tokens, each block with its tokens and its name."""
    canvas = Canvas(
        740,
        342,
        "Three texts as chains of blocks: text 2 shares the names of two blocks with text 1, text 3 none",
    )
    known: set[int] = set()
    for row, (title, text) in enumerate(TEXTS.items()):
        y, words, name = 20 + row * 106, text.split(), ROOT
        canvas.text(20, y + 24, title, bold=True)
        canvas.box(90, y, 60, 48, ("root", str(ROOT)), size=12)
        for block in range(3):
            x, pair = 204 + block * 172, words[2 * block : 2 * block + 2]
            name = toy_hash(name, [WORD[word] for word in pair])
            colour = "kv" if name in known else "prefill"
            canvas.arrow((x - 50 if block == 0 else x - 40, y + 24), (x - 4, y + 24))
            canvas.box(
                x, y, 128, 48, (" ".join(pair), f"tokens {WORD[pair[0]]}, {WORD[pair[1]]}"), colour=colour
            )
            canvas.text(x + 64, y + 64, f"name {name}", size=14, bold=True, anchor="middle")
            known.add(name)
    canvas.key(204, 323, "prefill", "computed: the name is new")
    canvas.key(420, 323, "kv", "from the cache: the name is known")
    return canvas


def last_token() -> Canvas:
    """A prompt whose three blocks are all known: the last one is computed again."""
    canvas = Canvas(
        740,
        196,
        "A prompt of three known blocks: two come from the cache, the third is computed for its logits",
    )
    words = TEXTS["text 1"].split()
    for i, word in enumerate(words):
        x = 24 + i * 88 + (i // 2) * 10
        canvas.box(x, 44, 84, 36, word, colour="kv" if i < 4 else "prefill", size=14)
    for block in range(3):
        canvas.text(24 + block * 186 + 86, 26, f"block {block + 1}", size=12, anchor="middle", ink="faint")
    canvas.text(24 + 178, 104, "keys and values from the cache: 4 tokens", size=12.5, anchor="middle")
    canvas.text(396 + 86, 104, "computed: 2 tokens", size=12.5, anchor="middle")
    canvas.arrow((576, 62), (602, 62))
    canvas.box(606, 40, 118, 44, ("logits of the", "next token"), size=12.5)
    canvas.text(
        24,
        142,
        "The cache has no logits. Only a computed token has them, so at least the last token",
        size=12.5,
    )
    canvas.text(24, 162, "is computed. Blocks are taken whole, so all of block 3 is computed.", size=12.5)
    return canvas


def _tree(
    canvas: Canvas, y: float, title: str, nodes: Sequence[tuple[float, float, float, str, str]]
) -> None:
    canvas.text(20, y, title, bold=True)
    for x, top, width, text, tokens in nodes:
        canvas.box(x, y + top, width, 42, (text, tokens), colour="kv", size=12, bold=True)


def radix_tree() -> Canvas:
    """The same two conversations as blocks of four tokens, and with an edge cut at any token."""
    canvas = Canvas(
        740,
        336,
        "Two conversations with one system prompt, as a tree of blocks of 4 tokens and as a radix tree",
    )
    _tree(
        canvas,
        22,
        "blocks of 4 tokens: both share 8 tokens",
        (
            (20, 52, 150, "You are a kind", "4 tokens"),
            (190, 52, 150, "teller of many tales", "4 tokens"),
            (390, 18, 150, "Tell me of foxes", "4 tokens"),
            (560, 18, 160, "who live in woods", "4 tokens"),
            (390, 86, 150, "Tell me of boats", "4 tokens"),
            (560, 86, 160, "that sail at night", "4 tokens"),
        ),
    )
    canvas.arrow((170, 95), (188, 95))
    canvas.arrow((340, 95), (365, 95), (365, 61), (388, 61))
    canvas.arrow((340, 95), (365, 95), (365, 129), (388, 129))
    canvas.arrow((540, 61), (558, 61))
    canvas.arrow((540, 129), (558, 129))
    canvas.line(20, 168, 720, 168, dashed=True)
    _tree(
        canvas,
        192,
        "radix tree, cut at any token: both share 11 tokens",
        (
            (20, 52, 400, "You are a kind teller of many tales Tell me of", "edge of 11 tokens"),
            (470, 18, 250, "foxes who live in woods", "edge of 5 tokens"),
            (470, 86, 250, "boats that sail at night", "edge of 5 tokens"),
        ),
    )
    canvas.arrow((420, 265), (445, 265), (445, 231), (468, 231))
    canvas.arrow((420, 265), (445, 265), (445, 299), (468, 299))
    return canvas


def eviction() -> Canvas:
    """The free queue after two conversations have finished, the system prompt last."""
    canvas = Canvas(
        740,
        316,
        "The order of eviction: unused blocks, then the leaves of the older request, the system prompt last",
    )
    canvas.text(20, 22, "two finished conversations share block 0", bold=True)
    blocks = (
        (20, 74, "0", "You tell short tales", 6),
        (200, 40, "1", "Tell me of foxes", 3),
        (400, 40, "2", "who live in woods", 2),
        (200, 108, "3", "Tell me of boats", 5),
        (400, 108, "4", "that sail at night", 4),
    )
    for x, y, block, words, _ in blocks:
        canvas.box(
            x, y, 160 if x > 20 else 140, 44, (words, f"block {block}"), colour="kv", size=12, bold=True
        )
    canvas.text(576, 62, "A: finished first", size=12, ink="faint")
    canvas.text(576, 130, "B: finished second", size=12, ink="faint")
    canvas.arrow((160, 96), (180, 96), (180, 62), (198, 62))
    canvas.arrow((160, 96), (180, 96), (180, 130), (198, 130))
    canvas.arrow((360, 62), (398, 62))
    canvas.arrow((360, 130), (398, 130))
    canvas.text(20, 192, "the queue of free blocks", bold=True)
    queue = [("5", "no prefix")] + [
        (block, " ".join(words.split()[-2:]))
        for _, _, block, words, place in sorted(blocks, key=lambda b: b[4])
    ]
    for i, (block, words) in enumerate(queue):
        colour = "" if i == 0 else "kv"
        canvas.box(20 + i * 117, 212, 108, 44, (f"block {block}", words), colour=colour, size=12, bold=True)
        canvas.text(20 + i * 117 + 54, 270, str(i + 1), size=12, anchor="middle", ink="faint")
    canvas.text(20, 296, "given to another request first", size=12)
    canvas.text(720, 296, "kept longest", size=12, anchor="end")
    canvas.arrow((210, 296), (630, 296))
    return canvas


DRAWINGS = {
    "09_hash_chain": hash_chain,
    "09_last_token": last_token,
    "09_radix_tree": radix_tree,
    "09_eviction": eviction,
}
