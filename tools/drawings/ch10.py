"""Chapter 10: draft and verify, the accept rule on three tokens, one random number for both texts, an EAGLE-3 head."""

from collections.abc import Sequence

from tools.drawings.canvas import Canvas

WORDS = ("little", "cat", "called", "Tom", "who")  # the newest token and four drafts
OWN = ("cat", "called", "Tim", "the", "lived")  # the model's tokens, one after each of them
P, Q = (0.5, 0.3, 0.2), (0.2, 0.7, 0.1)


def draft_and_verify() -> Canvas:
    """Four small steps of the draft model, one step of the model, and the tokens that come out."""
    canvas = Canvas(
        760,
        372,
        "The draft model writes four tokens one after the other; the model checks them in one step with five tokens",
    )
    left, gap, width = 164, 118, 92
    canvas.text(20, 48, "draft model:", bold=True)
    canvas.text(20, 66, "4 small steps", size=12, ink="faint")
    canvas.text(20, 142, "model:", bold=True)
    canvas.text(20, 160, "1 step, 5 tokens", size=12, ink="faint")
    canvas.text(20, 216, "its next token", size=12)
    canvas.text(20, 232, "after each of them", size=12)
    canvas.text(20, 288, "comes out", bold=True)
    canvas.box(left - 8, 122, 4 * gap + width + 16, 54, round_=8)
    for i, (word, own) in enumerate(zip(WORDS, OWN, strict=True)):
        x = left + i * gap
        canvas.box(x, 40, width, 32, word, colour="" if not i else "request_b", bold=True)
        if i:
            canvas.arrow((x - gap + width, 56), (x - 1, 56))
        canvas.arrow((x + width / 2, 72), (x + width / 2, 121))
        canvas.box(x + 6, 134, width - 12, 30, "row " + str(i + 1), colour="decode", size=12)
        canvas.arrow((x + width / 2, 176), (x + width / 2, 205))
        used = i < 3
        canvas.box(x, 206, width, 32, own, dashed=not used, bold=used)
    canvas.text(left + width / 2, 24, "newest token", size=11, ink="faint", anchor="middle")
    canvas.text(left + 2.5 * gap + width / 2, 24, "four drafts", size=11, ink="faint", anchor="middle")
    for i, (colour, said) in enumerate((("accepted", "accepted"), ("accepted", "accepted"), ("decode", ""))):
        x = left + i * gap
        canvas.arrow((x + width / 2, 238), (x + width / 2, 271))
        canvas.box(x, 272, width, 32, OWN[i], colour=colour, bold=True)
        canvas.text(x + width / 2, 318, said or "corrected:", size=12, anchor="middle")
    canvas.text(left + 2 * gap + width / 2, 334, "the draft was Tom", size=12, anchor="middle")
    canvas.text(left + 3 * gap - 8, 280, "Rows 4 and 5 follow a wrong token,", size=12, ink="faint")
    canvas.text(left + 3 * gap - 8, 298, "so they are not used.", size=12, ink="faint")
    canvas.text(20, 356, "If all four are right, row 5 gives a fifth token: the bonus token.", size=12.5)
    return canvas


def accept_rule() -> Canvas:
    """The three tokens of the example: p, q, what is accepted, and what the residual adds."""
    canvas = Canvas(
        760,
        286,
        "Bars of three tokens: p, q, the accepted part min(p, q), and the residual that fills it up to p",
    )
    kept = [min(a, b) for a, b in zip(P, Q, strict=True)]
    panels: tuple[tuple[str, str, list[tuple[Sequence[float], str]]], ...] = (
        ("model: p", "", [(P, "decode")]),
        ("draft model: q", "", [(Q, "request_b")]),
        ("drafts", "accepted with min(1, p/q)", [(kept, "accepted"), (_rest(Q), "rejected")]),
        ("what comes out", "accepted + residual = p", [(kept, "accepted"), (_rest(P), "decode")]),
    )
    for number, (title, under, stack) in enumerate(panels):
        left, floor, high = 20 + number * 186, 214, 190
        canvas.text(left, 22, title, bold=True)
        canvas.line(left, floor, left + 164, floor)
        for token, name in enumerate("abc"):
            x, y = left + 8 + token * 53, float(floor)
            for values, colour in stack:
                height = values[token] * high
                if height < 1:
                    continue
                y -= height
                canvas.box(x, y, 44, height, f"{values[token]:.1f}", colour=colour, size=12, round_=1)
            canvas.text(x + 22, floor + 14, name, bold=True, anchor="middle")
        canvas.text(left, 40, under, size=11.5, ink="faint")
    canvas.key(206, 262, "accepted", "accepted drafts: 0.6")
    canvas.key(372, 262, "rejected", "rejected drafts: 0.4")
    canvas.key(538, 262, "decode", "drawn from the residual: 0.4")
    return canvas


def _rest(values: Sequence[float]) -> list[float]:
    return [v - min(a, b) for v, a, b in zip(values, P, Q, strict=True)]


CUTS: tuple[tuple[str, float, tuple[tuple[str, float], ...], str], ...] = (
    ("1", 0.31, (("cat", 0.45), ("dog", 0.25), ("boy", 0.2), ("…", 0.1)), "cat"),
    ("2", 0.62, (("who", 0.3), ("called", 0.5), ("and", 0.2)), "called"),
    ("3", 0.80, (("Sam", 0.2), ("Tom", 0.4), ("Tim", 0.3), ("…", 0.1)), "Tom"),
)


def same_number() -> Canvas:
    """One number per position decides the token, with and without a draft."""
    canvas = Canvas(
        760,
        300,
        "For each position, a random number falls on one token of the model; a draft is kept if it is that token",
    )
    left, width = 118, 430
    canvas.text(left, 22, "the model's probabilities, end to end from 0 to 1", bold=True)
    canvas.text(20, 22, "position", size=12, ink="faint")
    for row, (position, u, tokens, draft) in enumerate(CUTS):
        y, start = 58 + row * 74, 0.0
        canvas.text(44, y + 15, position, bold=True, anchor="middle", size=14)
        came = ""
        for name, share in tokens:
            hit = start <= u < start + share
            came = name if hit else came
            colour = "request_b" if name == draft else ""
            canvas.box(
                left + start * width, y, share * width, 30, name, colour=colour, bold=hit, round_=1, size=12
            )
            start += share
        x = left + u * width
        canvas.arrow((x, y + 52), (x, y + 31))
        canvas.text(x + 8, y + 46, f"u = {u:.2f}", size=12)
        right = came == draft
        said = f"{came}: draft accepted" if right else f"{came}: corrected"
        canvas.box(572, y, 168, 30, said, colour="accepted" if right else "decode", size=12, bold=True)
    canvas.key(118, 282, "request_b", "the draft")
    canvas.text(230, 282, "Without drafts, the same numbers give the same tokens: cat, called, Tim.", size=12)
    return canvas


def eagle_head() -> Canvas:
    """The model with its features, and the head that writes one draft after the other."""
    canvas = Canvas(
        760,
        356,
        "EAGLE-3: features of three layers of the model go through one matrix into a head of one decoder layer",
    )
    canvas.text(24, 24, "model: one step", bold=True)
    for i in range(6):
        y = 238 - i * 34
        canvas.box(24, y, 150, 26, f"layer {i + 1}", colour="decode" if i in (0, 2, 4) else "", size=12)
        if i in (0, 2, 4):
            canvas.arrow((174, y + 13), (236, y + 13))
            canvas.box(238, y, 96, 26, "feature [h]", colour="kv", size=11.5)
    canvas.text(24, 288, "Three layers also give away their", size=12, ink="faint")
    canvas.text(24, 304, "hidden state: they are computed anyway.", size=12, ink="faint")
    canvas.line(348, 98, 348, 256, width=1.6)
    canvas.text(358, 92, "joined [3h]", size=11.5, ink="faint")
    canvas.arrow((348, 176), (378, 176))
    canvas.box(380, 156, 88, 40, ("fc", "[3h] → [h]"), size=12, bold=True)
    canvas.arrow((468, 176), (498, 176))
    canvas.text(500, 24, "EAGLE-3 head: one step per draft", bold=True)
    canvas.box(500, 146, 128, 60, ("one decoder", "layer"), colour="request_b", bold=True)
    canvas.box(500, 226, 128, 30, "embedding [h]", size=12)
    canvas.arrow((564, 226), (564, 207))
    canvas.text(500, 272, "of the newest token,", size=11.5, ink="faint")
    canvas.text(500, 287, "then of each draft", size=11.5, ink="faint")
    canvas.arrow((564, 146), (564, 110))
    canvas.box(500, 68, 128, 40, ("draft 1, 2, …", "of its vocabulary"), colour="request_b", size=11.5)
    canvas.arrow((628, 88), (716, 88), (716, 241), (629, 241), dashed=True)
    canvas.arrow((628, 176), (690, 176), (690, 212), (484, 212), (484, 178), dashed=True)
    canvas.text(500, 316, "Dashed: draft 2 has draft 1 and the", size=11.5, ink="faint")
    canvas.text(500, 331, "layer's own output as its inputs.", size=11.5, ink="faint")
    return canvas


DRAWINGS = {
    "10_draft_and_verify": draft_and_verify,
    "10_accept": accept_rule,
    "10_same_number": same_number,
    "10_eagle": eagle_head,
}
