"""Write every drawing to notebooks/figures/."""

from pathlib import Path

from tools.drawings import ch03, ch08

FOLDER = Path(__file__).parents[2] / "notebooks" / "figures"
CHAPTERS = (ch03, ch08)


def drawings() -> dict[str, str]:
    """Return the SVG of each drawing by its file name."""
    return {f"{name}.svg": draw().svg() for chapter in CHAPTERS for name, draw in chapter.DRAWINGS.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, svg in drawings().items():
        (FOLDER / file).write_text(svg, encoding="utf-8")
