"""Write every drawing to notebooks/figures/."""

from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "notebooks" / "figures"


def drawings() -> dict[str, str]:
    """Return the SVG of each drawing in the modules chNN.py next to this one, by its file name."""
    modules = [
        import_module(f"tools.drawings.{file.stem}") for file in sorted(Path(__file__).parent.glob("ch*.py"))
    ]
    return {f"{name}.svg": draw().svg() for module in modules for name, draw in module.DRAWINGS.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, svg in drawings().items():
        (FOLDER / file).write_text(svg, encoding="utf-8")
