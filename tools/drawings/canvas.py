"""A small SVG canvas in the course's colours.

A drawing is a card of its own: light with dark ink, or dark if the viewer prefers that. So it is readable on a page of
either colour, also when the page and the system do not agree.
"""

from collections.abc import Sequence
from html import escape

from minillm.viz.style import ACCEPTED, BONUS, DECODE, KV, PREFILL, REJECTED, WASTE

COLOURS = {
    "prefill": PREFILL,
    "decode": DECODE,
    "kv": KV,
    "waste": WASTE,
    "accepted": ACCEPTED,
    "rejected": REJECTED,
    "bonus": BONUS,
    "request_a": "#44AA99",  # two of the player's colours, for drawings that tell requests apart
    "request_b": "#DDCC77",
}
STYLE = """
  .card { fill: #ffffff; stroke: #d0d0d0; } .ink { fill: #222222; } .faint { fill: #666666; }
  .line { stroke: #444444; fill: none; } .box { fill: #f4f4f4; stroke: #888888; } .tip { fill: #444444; }
  text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
  .code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; } .b { font-weight: 600; } .white { fill: #ffffff; }
  .dark { fill: #111111; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #1e1e1e; stroke: #444444; } .ink { fill: #e6e6e6; } .faint { fill: #a8a8a8; }
    .line { stroke: #bbbbbb; } .box { fill: #2b2b2b; stroke: #777777; } .tip { fill: #bbbbbb; }
  }
"""


class Canvas:
    """A drawing of `width` × `height` pixels. `title` is read out by screen readers."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str | Sequence[str] = "",
        *,
        colour: str = "",
        size: float = 13,
        bold: bool = False,
        round_: float = 5,
        dashed: bool = False,
    ) -> None:
        """Draw a box with lines of text in its middle. `colour` is a meaning: "prefill", "decode", …"""
        look = f'fill="{COLOURS[colour]}"' if colour else 'class="box"'
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round_:g}" {look}{dash}/>'
        )
        lines = [text] if isinstance(text, str) else list(text)
        ink = {"decode": "white", "": "ink"}.get(colour, "dark")
        for number, line in enumerate(lines):
            middle = y + height / 2 + (number - (len(lines) - 1) / 2) * size * 1.25
            self.text(
                x + width / 2, middle, line, size=size, ink=ink, bold=bold and number == 0, anchor="middle"
            )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 13,
        ink: str = "ink",
        bold: bool = False,
        anchor: str = "start",
        code: bool = False,
    ) -> None:
        """Write a line; `y` is the middle of its letters."""
        classes = ink + (" b" if bold else "") + (" code" if code else "")
        self._parts.append(
            f'<text x="{x:g}" y="{y + size * 0.35:g}" font-size="{size:g}" text-anchor="{anchor}" class="{classes}">'
            f"{escape(text)}</text>"
        )

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        """Draw a line through the points that ends in an arrowhead."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(f'<path d="{path}" class="line" stroke-width="1.6" marker-end="url(#tip)"{dash}/>')

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, width: float = 1, dashed: bool = False
    ) -> None:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self._parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="line" stroke-width="{width:g}"{dash}/>'
        )

    def key(self, x: float, y: float, colour: str, text: str) -> None:
        """Say what a colour means: a small box of it at `x`, and the text. `y` is the middle of both."""
        self.box(x, y - 8, 16, 16, colour=colour, round_=3)
        self.text(x + 22, y, text, size=11.5)

    def svg(self) -> str:
        body = "\n".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" height="{self.height:g}" '
            f'viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{escape(self.title)}">\n'
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style>\n"
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" class="tip"/></marker></defs>\n'
            f'<rect x="0.5" y="0.5" width="{self.width - 1:g}" height="{self.height - 1:g}" rx="10" class="card"/>\n'
            f"{body}\n</svg>\n"
        )
