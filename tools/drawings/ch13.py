"""Chapter 13: the way of one request, SSE on the wire, a slow reader, two ways to choose a replica."""

from tools.drawings.canvas import Canvas


def way() -> Canvas:
    """A request from a client through the event loop, the thread pool and the engine's thread, and back."""
    canvas = Canvas(
        760,
        380,
        "Clients send requests to one event loop; a pool tokenizes them; the engine's thread computes; tokens go back",
    )
    canvas.text(76, 26, "clients", bold=True, anchor="middle")
    for i, name in enumerate(("client A", "client B", "client C (slow)")):
        canvas.box(16, 112 + i * 76, 120, 40, name, size=12)
    canvas.box(196, 44, 256, 316, round_=10)
    canvas.text(324, 26, "event loop: one thread", bold=True, anchor="middle")
    canvas.box(514, 44, 228, 74, ("thread pool", "chat template, tokenizer"), size=12, bold=True)
    canvas.box(514, 148, 228, 212, round_=10)
    canvas.text(628, 166, "engine: one thread", bold=True, anchor="middle")
    canvas.box(214, 62, 220, 40, "read the HTTP request", size=12)
    canvas.box(214, 142, 220, 40, "wait for the mailbox", size=12, dashed=True)
    for i, (colour, words) in enumerate(
        (("request_a", "mail of A"), ("request_b", "of B"), ("bonus", "of C"))
    ):
        canvas.box(214 + i * 75, 222, 70, 34, words, colour=colour, size=11)
    canvas.text(324, 270, "one mailbox per request", size=11.5, ink="faint", anchor="middle")
    canvas.box(214, 298, 220, 40, "write events to the sockets", size=12)
    canvas.box(530, 184, 196, 34, "inbox: add, abort", size=12)
    canvas.box(
        530, 240, 196, 46, ("step", "a token for A, B and C at once"), colour="decode", size=12, bold=True
    )
    canvas.box(530, 310, 196, 34, "listeners: new text", size=12)
    canvas.arrow((136, 132), (166, 132), (166, 82), (213, 82))
    canvas.text(150, 70, "1", bold=True)
    canvas.arrow((434, 74), (513, 74))
    canvas.text(470, 60, "2", bold=True)
    canvas.arrow((513, 92), (470, 92), (470, 152), (435, 152), dashed=True)
    canvas.arrow((434, 168), (490, 168), (490, 201), (529, 201))
    canvas.text(476, 184, "3", bold=True)
    canvas.arrow((628, 218), (628, 239))
    canvas.text(638, 229, "4", bold=True)
    canvas.arrow((628, 286), (628, 309))
    canvas.arrow((529, 327), (482, 327), (482, 239), (435, 239))
    canvas.text(490, 316, "5", bold=True)
    canvas.arrow((324, 278), (324, 297))
    canvas.arrow((213, 318), (166, 318), (166, 284), (137, 284))
    canvas.arrow((166, 284), (166, 208), (137, 208))
    canvas.arrow((166, 208), (166, 146), (137, 146))
    canvas.text(150, 334, "6", bold=True)
    return canvas


FIRST, SECOND, LAST = 'data: {"text":" cat"}', 'data: {"text":" sat"}', "data: [DONE]"
CELL = 7.3  # pixels per character of size 12


def sse() -> Canvas:
    """The bytes of a stream, the three chunks in which they arrive, and the events that a reader returns."""
    canvas = Canvas(
        760,
        330,
        "Three events as bytes; they arrive in three chunks, and a chunk ends in the middle of an event",
    )
    canvas.text(20, 24, "the server writes", bold=True)
    canvas.box(20, 40, 716, 50, round_=6)
    canvas.text(32, 56, "HTTP/1.1 200 OK", size=12, code=True)
    canvas.text(32, 75, "content-type: text/event-stream", size=12, code=True)
    canvas.text(330, 66, "then no length: the body goes on until its last event", size=12, ink="faint")
    x, edges = 20.0, []
    for text, colour in ((FIRST, "request_a"), (SECOND, "request_b"), (LAST, "bonus")):
        for piece, tint in ((text, colour), ("\\n\\n", "waste")):
            width = CELL * len(piece) + 8
            canvas.box(x, 108, width, 32, colour=tint, round_=2)
            canvas.text(x + 4, 124, piece, size=12, ink="dark", code=True)
            x += width
        edges.append(x)
    canvas.text(20, 158, "An empty line ends an event: two line breaks.", size=12, ink="faint")
    canvas.text(20, 192, "the client reads", bold=True)
    cut, second = edges[0] + 4 + CELL * 13, edges[1] + 4 + CELL * 6
    for number, (left, right) in enumerate(((20.0, cut), (cut, second), (second, x)), start=1):
        canvas.line(left + 2, 210, right - 2, 210, width=3)
        canvas.text((left + right) / 2, 226, f"chunk {number}", size=12, anchor="middle", bold=True)
    for at in (cut, second):
        canvas.line(at, 104, at, 218, dashed=True)
    for left, got, kept in (
        (20.0, " cat", 'data: {"text"'),
        (cut - 20, " sat", "data: "),
        (second - 20, "[DONE]", "nothing"),
    ):
        canvas.arrow((left + 70, 238), (left + 70, 256))
        canvas.box(left + 6, 258, 128, 26, f"event: {got!r}", size=12, colour="accepted")
        canvas.text(left + 6, 304, f"kept: {kept}", size=12)
    return canvas


def slow_reader() -> Canvas:
    """The engine makes five tokens while a client reads one: a queue of events, or one merged piece of text."""
    canvas = Canvas(
        760,
        256,
        "A slow client: a queue of events grows with every token; in a mailbox, they become one event",
    )
    words = (" a", " young", " girl", " called", " Vera")
    for y, title, said in (
        (24, "a queue of events", "5 events wait, and each token adds one"),
        (140, "a mailbox that merges", "1 event waits, whatever the client does"),
    ):
        canvas.text(20, y, title, bold=True)
        canvas.box(20, y + 22, 104, 46, ("engine", "20 tokens per s"), colour="decode", size=12, bold=True)
        canvas.arrow((124, y + 45), (158, y + 45))
        canvas.arrow((604, y + 45), (636, y + 45))
        canvas.box(638, y + 22, 104, 46, ("slow client", "4 reads per s"), size=12, bold=True)
        canvas.text(382, y + 88, said, size=12, anchor="middle", ink="faint")
    for i, word in enumerate(words):
        canvas.box(160 + i * 89, 46, 84, 46, ("data:", word), colour="request_a", size=12)
    canvas.box(160, 162, 440, 46, ("data:", "".join(words)), colour="request_a", size=12)
    return canvas


def routing() -> Canvas:
    """Two replicas with their work and what they have cached of a prompt, and the two policies' choices."""
    canvas = Canvas(
        760,
        270,
        "Replica A has less work, replica B has 300 of the prompt's 320 tokens cached: the policies choose differently",
    )
    scale = 0.56
    canvas.text(20, 26, "a new prompt of 320 tokens", bold=True)
    for y, name, work, cached, rule in (
        (58, "replica A", 200, 0, "200 unfinished + 320 to compute = 520"),
        (150, "replica B", 260, 300, "260 unfinished + 20 to compute = 280"),
    ):
        canvas.text(20, y + 15, name, bold=True)
        canvas.box(110, y, work * scale, 30, f"{work} unfinished", round_=2, size=12)
        canvas.box(110 + work * scale, y, (320 - cached) * scale, 30, colour="prefill", round_=2)
        if cached:
            left = 110 + (work + 320 - cached) * scale
            canvas.box(left, y, cached * scale, 30, "300 cached", colour="kv", round_=2, size=12)
        else:
            canvas.text(
                110 + (work + 160) * scale, y + 15, "320 to compute", size=12, ink="dark", anchor="middle"
            )
        canvas.text(110, y + 48, rule, size=12, ink="faint")
    canvas.box(590, 54, 150, 40, ("least loaded", "200 < 260: A"), size=12, bold=True)
    canvas.box(590, 146, 150, 40, ("prefix-aware", "280 < 520: B"), size=12, bold=True)
    canvas.key(110, 242, "prefill", "prompt tokens to compute")
    canvas.key(310, 242, "kv", "in the cache: no work")
    return canvas


DRAWINGS = {
    "13_way": way,
    "13_sse": sse,
    "13_slow_reader": slow_reader,
    "13_routing": routing,
}
