"""Make the README's moving picture: the player on a real run of the engine.

    python -m tools.moving_picture benchmarks/results/player.gif

Six stories share a cache that is too small for them. Chromium draws the player, one frame after every second step.
"""

import argparse
import io
import json
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from minillm import LLM, SamplingParams
from minillm.player.page import module
from minillm.viz.player import record

WIDTH, HEIGHT = 880, 560
MAX_BYTES = 1_000_000
COLOURS = 48
PROMPTS = (
    "Once upon a time",
    "Hello, my name is Anna, and I",
    "The old lighthouse keeper",
    "It was raining when the bus stopped",
    "Once upon a time there was a dragon",
    "Why do birds sing?",
)
ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking")
PAGE = """<!doctype html><meta charset="utf-8"><style>body { margin: 12px; background: #fff; }</style>
<div id="place"></div><script type="module">%s
window.player = mount(document.getElementById("place"), %s, %s);</script>"""


def recording() -> dict[str, object]:
    """Return the recording of one run."""
    engine = {"max_num_seqs": 4, "max_num_batched_tokens": 24, "block_size": 8, "num_gpu_blocks_override": 24}
    params = [
        SamplingParams(temperature=0.7, seed=3, max_tokens=36 + 6 * i, ignore_eos=True) for i in range(6)
    ]
    with LLM("tinytales", trace=True, max_model_len=208, **engine) as llm:
        llm.generate(list(PROMPTS), params)
        found = record(llm)
        found.extend()
        return found.whole()


def frames(piece: dict[str, object], every: int = 2) -> list[Image.Image]:
    """Return the player's pictures after every `every` steps, and the last one."""
    options = {"panels": ["tape", "memory", "text"], "position": 0}
    html = PAGE % (module(), json.dumps(piece).replace("</", "<\\/"), json.dumps(options))
    pictures = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_content(html)
        page.wait_for_function("window.player !== undefined")
        steps = page.evaluate("window.player.run.steps.length")
        for step in [*range(1, steps, every), steps]:
            page.evaluate("step => { window.player.seek(step); }", step)
            page.wait_for_timeout(60)
            pictures.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        browser.close()
    return pictures


def save(pictures: list[Image.Image], path: Path) -> None:
    """Write an endless GIF; the last picture stays for two seconds. Raises ValueError if it is too large."""
    # One palette for all pictures: a pixel that stays the same costs almost nothing.
    palette = pictures[len(pictures) // 2].quantize(COLOURS, dither=Image.Dither.NONE)
    small = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    times = [100] * (len(small) - 1) + [2000]
    small[0].save(path, save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, and {MAX_BYTES:,} are allowed. Leave out more steps.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    save(frames(recording()), parser.parse_args().path)


if __name__ == "__main__":
    main()
