"""Chapter 02: weights that are read once and used for several tokens, the two limits of a step, its bytes."""

from math import log2

from minillm.measure.costs import decode_cost
from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.known_models import KNOWN_MODELS
from minillm.measure.roofline import time_at
from tools.drawings.canvas import Canvas

PEAK, BANDWIDTH = 32, 8  # of the machine in the examples: FLOP per ns, bytes per ns
LLAMA = KNOWN_MODELS["llama_3_8b"]


def one_token() -> Canvas:
    """One decode step of Llama 3 8B on an H100: how long the memory and the processor work."""
    cost = decode_cost(LLAMA, 1023)
    step = time_at(cost, KNOWN_GPUS["H100"], "bfloat16")
    canvas = Canvas(
        740, 178, "One token of Llama 3 8B on an H100: memory is busy for 4.52 ms, the processor for 0.016 ms"
    )
    canvas.text(20, 24, "One token of Llama 3 8B on an H100, at best", bold=True)
    left, width = 110, 600
    canvas.text(left - 12, 63, "memory", anchor="end")
    moved = f"moves {cost.bytes / 1e9:.1f} GB: {step.memory_s * 1e3:.2f} ms"
    canvas.box(left, 46, width, 34, moved, colour="kv", round_=2)
    canvas.text(left - 12, 109, "processor", anchor="end")
    busy = width * step.compute_s / step.memory_s
    canvas.box(left, 92, width, 34, "waits for memory", dashed=True, round_=2)
    canvas.box(left, 92, busy, 34, colour="decode", round_=0)
    canvas.arrow((left + 30, 152), (left + 3, 129))
    computed = f"computes {cost.flops / 1e9:.1f} billion FLOP: {step.compute_s * 1e3:.3f} ms"
    canvas.text(left + 36, 155, computed, size=12)
    return canvas


def reuse() -> Canvas:
    """A matrix with one token and with eight: one weight, the inputs that it meets, the sums that it enters."""
    canvas = Canvas(
        770,
        250,
        "A matrix of 16 weights times one token uses each weight once; times eight tokens, each weight eight times",
    )
    for left, tokens, title, below in (
        (20, 1, "one token: matrix × vector", ("16 weights read, each used once", "32 FLOP for 32 bytes")),
        (
            310,
            8,
            "eight tokens: matrix × matrix",
            ("the same 16 weights read, each used 8 times", "256 FLOP for 32 bytes"),
        ),
    ):
        canvas.text(left, 24, title, bold=True)
        width = 18 * tokens
        _grid(canvas, left, 4, {(1, 2): "prefill"}, "W", size=24)
        canvas.text(left + 112, 105, "×", size=16, anchor="middle")
        x = left + 128
        _grid(
            canvas,
            x,
            tokens,
            dict.fromkeys(((2, t) for t in range(tokens)), "decode"),
            "x" if tokens == 1 else "X",
        )
        canvas.text(x + width + 16, 105, "=", size=16, anchor="middle")
        y = x + width + 32
        _grid(
            canvas,
            y,
            tokens,
            dict.fromkeys(((1, t) for t in range(tokens)), "request_a"),
            "y" if tokens == 1 else "Y",
        )
        canvas.text(left, 186, below[0], size=12)
        canvas.text(left, 206, below[1], size=12, bold=True)
    for x, colour, text in (
        (20, "prefill", "one of the weights"),
        (190, "decode", "the inputs that this weight is multiplied by"),
        (490, "request_a", "the sums that the products are added to"),
    ):
        canvas.box(x, 224, 14, 14, colour=colour, round_=3)
        canvas.text(x + 20, 231, text, size=11.5)
    return canvas


def _grid(
    canvas: Canvas,
    left: float,
    columns: int,
    marked: dict[tuple[int, int], str],
    name: str,
    *,
    size: float = 18,
) -> None:
    """Draw four rows of cells, those in `marked` (row, column) in colour, and the matrix's name above."""
    canvas.text(left + columns * size / 2, 46, name, anchor="middle", size=12, ink="faint")
    for row in range(4):
        for column in range(columns):
            colour = marked.get((row, column), "")
            canvas.box(left + column * size, 58 + row * 24, size - 2, 22, colour=colour, round_=2)


def overlap() -> Canvas:
    """The matrix with 1, 4 and 8 tokens on the small machine: reading and computing overlap."""
    canvas = Canvas(
        740,
        272,
        "Reading takes 4 ns; computing takes 1, 4 and 8 ns for 1, 4 and 8 tokens; a step takes the longer",
    )
    left, scale = 150, 50
    canvas.text(left, 20, "time (ns)", size=11, ink="faint")
    for ns in range(9):
        canvas.text(left + ns * scale, 38, str(ns), size=11, ink="faint", anchor="middle")
        canvas.line(left + ns * scale, 48, left + ns * scale, 258, width=0.5, dashed=True)
    for row, (tokens, verdict) in enumerate(((1, "memory-bound"), (4, "at the ridge"), (8, "compute-bound"))):
        y = 58 + row * 70
        read, compute = 32 / BANDWIDTH, 32 * tokens / PEAK
        canvas.text(20, y + 24, f"{tokens} token{'s' * (tokens > 1)}", bold=True)
        canvas.text(left - 8, y + 11, "read", size=11, anchor="end")
        canvas.box(left, y, read * scale, 22, "32 bytes", colour="kv", size=11.5, round_=2)
        canvas.text(left - 8, y + 37, "compute", size=11, anchor="end")
        flops = f"{32 * tokens} FLOP" if tokens > 1 else ""
        canvas.box(left, y + 26, compute * scale, 22, flops, colour="decode", size=11.5, round_=2)
        if not flops:
            canvas.text(left + compute * scale + 8, y + 37, "32 FLOP", size=11.5)
        canvas.text(left + 8 * scale + 26, y + 15, f"step: {max(read, compute):g} ns", bold=True)
        canvas.text(left + 8 * scale + 26, y + 34, verdict, size=12)
    return canvas


def roofline() -> Canvas:
    """The roofline of the small machine, with the matrix for 1, 2, 4 and 8 tokens on it."""
    canvas = Canvas(
        740,
        330,
        "A roofline: the rate grows with the intensity up to the ridge at 4 FLOP per byte, then stays at 32",
    )
    left, right, bottom, top = 90, 700, 270, 40

    def place(intensity: float, rate: float) -> tuple[float, float]:
        across, up = (
            log2(intensity / 0.5) / 6,
            log2(rate / 4) / 4,
        )  # 0.5 to 32 FLOP per byte, 4 to 64 FLOP per ns
        return left + across * (right - left), bottom - up * (bottom - top)

    ridge = PEAK / BANDWIDTH
    canvas.line(left, bottom, right, bottom)
    canvas.line(left, bottom, left, top)
    for intensity in (1, 2, 4, 8, 16):
        canvas.text(place(intensity, 4)[0], bottom + 16, f"{intensity}", size=11.5, anchor="middle")
    for rate in (8, 16, 32):
        canvas.text(left - 10, place(1, rate)[1], f"{rate}", size=11.5, anchor="end")
    canvas.text(
        (left + right) / 2, bottom + 40, "arithmetic intensity (FLOP per byte)", size=12, anchor="middle"
    )
    canvas.text(20, 22, "rate (FLOP per ns)", size=12)
    canvas.line(*place(0.5, 4), *place(ridge, PEAK), width=2)
    canvas.line(*place(ridge, PEAK), *place(32, PEAK), width=2)
    canvas.line(*place(ridge, 4), *place(ridge, PEAK), dashed=True)
    for tokens in (1, 2, 4, 8):
        x, y = place(tokens, min(PEAK, tokens * BANDWIDTH))
        canvas.box(x - 6, y - 6, 12, 12, colour="decode", round_=6)
        canvas.text(x + 12, y + 17, f"{tokens} token{'s' * (tokens > 1)}", size=12)
    x, y = place(1.6, 20)
    canvas.text(x, y - 12, "sloped roof:", size=12, anchor="end")
    canvas.text(x, y + 4, "intensity · 8 bytes per ns", size=12, anchor="end")
    canvas.text(right, place(1, PEAK)[1] - 16, "flat roof: peak rate, 32 FLOP per ns", size=12, anchor="end")
    canvas.text(place(ridge, 4)[0] - 10, bottom - 18, "memory-bound", size=12, ink="faint", anchor="end")
    canvas.text(place(ridge, 4)[0] + 10, bottom - 18, "compute-bound", size=12, ink="faint")
    canvas.text(place(ridge, 4)[0] - 4, place(1, PEAK)[1] - 18, "ridge: 32 / 8 = 4", bold=True, anchor="end")
    return canvas


def step_bytes() -> Canvas:
    """The bytes of decode steps of Llama 3 8B: weights by their kind, and the KV cache of each request."""
    canvas = Canvas(
        770,
        282,
        "The bytes of decode steps of Llama 3 8B: 15 GB of weights in each, and a KV cache per request",
    )
    canvas.text(20, 24, "Bytes of one decode step of Llama 3 8B in BF16 (GB)", bold=True)
    left, scale = 142, 17.3
    h, layers = LLAMA.hidden_size, LLAMA.num_hidden_layers
    mlp = 2 * layers * 3 * h * LLAMA.intermediate_size / 1e9
    attention = 2 * layers * h * 2 * (LLAMA.q_size + LLAMA.kv_size) / 1e9
    head = 2 * h * LLAMA.vocab_size / 1e9
    for row, (batch, context) in enumerate(((1, 1024), (16, 1024), (16, 8192))):
        y = 70 + row * 56
        kv = decode_cost(LLAMA, context - 1, batch).kv_read_bytes / 1e9
        canvas.text(20, y + 9, f"{batch} request{'s' * (batch > 1)}", bold=True)
        canvas.text(20, y + 27, f"{context:,} tokens each", size=12, ink="faint")
        x = float(left)
        for name, size, anchor, at in (
            ("MLP", mlp, "middle", 0.5),
            ("attention", attention, "end", 0.8),
            ("output", head, "start", 0),
        ):
            canvas.box(x, y, size * scale - 1, 36, f"{size:.1f}", size=10.5, round_=2)
            if row == 0:
                canvas.text(x + at * size * scale, y - 12, name, size=10.5, ink="faint", anchor=anchor)
            x += size * scale
        each = kv / batch * scale
        for _ in range(batch):
            canvas.box(x, y, max(each - 0.5, 0.8), 36, colour="kv", round_=0)
            x += each
        canvas.text(x + 8, y + 18, f"KV {kv:.1f}", size=12)
    canvas.box(20, 246, 14, 14, round_=3)
    canvas.text(40, 253, "weights: read once per step", size=11.5)
    canvas.box(280, 246, 14, 14, colour="kv", round_=3)
    canvas.text(300, 253, "KV cache: each request reads its own", size=11.5)
    return canvas


DRAWINGS = {
    "02_one_token": one_token,
    "02_reuse": reuse,
    "02_overlap": overlap,
    "02_roofline": roofline,
    "02_step_bytes": step_bytes,
}
